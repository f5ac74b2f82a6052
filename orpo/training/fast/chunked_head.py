"""Log-probabilities of given tokens from hidden states, without ever holding [tokens, vocabulary] logits.

The head runs over a few hundred hidden states at a time. For a frozen linear head the gradient of log p(target | h)
with respect to h is known as soon as the softmax is,

    d log p / d h = W[target] - softmax(W h) W            (times 1 - (z / c)^2 inside, for logits c tanh(z / c))

so it is computed in the forward pass, chunk by chunk, in the memory of the chunk's own logits, and the backward pass
only multiplies it by the incoming gradient: no logits are kept and nothing is computed twice. A head that is trained
itself (LoRA on it, a tied head whose embedding is trained, `modules_to_save`) needs the incoming gradient first; its
chunks are checkpointed, so they are computed a second time in the backward pass, with the same small memory.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

CHUNK_BYTES: Final = 64 * 2**20
"""fp32 logits held at a time: small enough to stay near the caches, large enough for fast products."""

SMALLEST_CHUNK: Final = 32


@dataclass(frozen=True)
class Head:
    """What turns hidden states into logits: a module, then a scale and a soft cap where the model has them."""

    module: nn.Module
    softcap: float | None = None
    scale: float = 1.0

    @property
    def is_frozen_linear(self) -> bool:
        """Whether the gradient can be computed in the forward pass: a plain linear layer that is not trained."""
        module = self.module
        return (
            isinstance(module, nn.Linear)  # FSDP derives a class of its own from it
            and type(module).forward is nn.Linear.forward
            and not any(parameter.requires_grad for parameter in module.parameters())
            and module.weight.is_floating_point()
            and not hasattr(module.weight, "ds_id")  # a ZeRO-3 shard is only whole inside the module's own forward
        )


def chunk_rows(vocabulary: int, chunk_bytes: int = CHUNK_BYTES) -> int:
    """Return how many hidden states to take at a time."""
    return max(SMALLEST_CHUNK, chunk_bytes // (4 * vocabulary))


def token_log_probs(hidden: Tensor, targets: Tensor, head: Head, *, rows: int | None = None) -> Tensor:
    """Return the (N,) fp32 log-probabilities of targets (N,) given hidden states (N, D)."""
    if not head.is_frozen_linear:
        return _checkpointed_log_probs(hidden, targets, head, rows)
    weight, bias = head.module.weight, head.module.bias
    assert isinstance(weight, Tensor) and (bias is None or isinstance(bias, Tensor))
    rows = rows or chunk_rows(weight.shape[0])
    log_probs: Tensor = _FrozenHeadLogProbs.apply(hidden, targets, weight, bias, head.softcap, head.scale, rows)
    return log_probs


def plain_log_probs(hidden: Tensor, targets: Tensor, head: Head) -> Tensor:
    """Do the same in one piece, the obvious way: the twin that the chunked ways are tested against."""
    log_p = torch.log_softmax(_cap(head.module(hidden).float() * head.scale, head.softcap), dim=-1)
    return log_p.gather(1, targets[:, None]).squeeze(1)


def _cap(logits: Tensor, softcap: float | None) -> Tensor:
    return logits if softcap is None else softcap * torch.tanh(logits / softcap)


def _checkpointed_log_probs(hidden: Tensor, targets: Tensor, head: Head, rows: int | None) -> Tensor:
    rows = rows or chunk_rows(_vocabulary(head.module))
    run: Callable[..., Tensor] = plain_log_probs
    parts = [
        checkpoint(run, hidden_chunk, targets_chunk, head, use_reentrant=False)
        for hidden_chunk, targets_chunk in _chunks(hidden, targets, rows)
    ]
    return torch.cat(parts) if parts else hidden.new_zeros(0, dtype=torch.float32)


def _chunks(hidden: Tensor, targets: Tensor, rows: int) -> Iterator[tuple[Tensor, Tensor]]:
    for start in range(0, len(hidden), rows):
        yield hidden[start : start + rows], targets[start : start + rows]


def _vocabulary(module: nn.Module) -> int:
    size = getattr(module, "out_features", None)
    return size if isinstance(size, int) else 2**17


class _FrozenHeadLogProbs(torch.autograd.Function):
    """log p(target | h) for a frozen linear head; saves its gradient with respect to h, (N, D), and nothing else."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,  # (N, D)
        targets: Tensor,  # (N,)
        weight: Tensor,  # (V, D)
        bias: Tensor | None,  # (V,)
        softcap: float | None,
        scale: float,
        rows: int,
    ) -> Tensor:
        log_probs = hidden.new_empty(len(hidden), dtype=torch.float32)
        slope = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        for start in range(0, len(hidden), rows):
            part = slice(start, start + rows)
            log_probs[part], part_slope = _score_chunk(
                hidden[part], targets[part], weight, bias, softcap, scale, wants_slope=slope is not None
            )
            if slope is not None and part_slope is not None:
                slope[part] = part_slope
        if slope is not None:
            ctx.save_for_backward(slope)
        return log_probs

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (slope,) = ctx.saved_tensors
        return (gradients[0][:, None] * slope).to(slope.dtype), None, None, None, None, None, None


def _score_chunk(
    hidden: Tensor,  # (rows, D)
    targets: Tensor,  # (rows,)
    weight: Tensor,  # (V, D)
    bias: Tensor | None,  # (V,)
    softcap: float | None,
    scale: float,
    *,
    wants_slope: bool,
) -> tuple[Tensor, Tensor | None]:
    """Return log p of the targets and its slope over the hidden states, in the logits' memory (a cap takes a copy)."""
    logits = nn.functional.linear(hidden, weight, bias).float()  # (rows, V)
    if scale != 1.0:
        logits.mul_(scale)
    chosen = targets[:, None]
    bend = None  # d capped / d logit = 1 - (z / c)^2
    if softcap is not None:
        logits.div_(softcap).tanh_()
        bend = 1 - logits.square() if wants_slope else None
        logits.mul_(softcap)
    log_p = torch.log_softmax(logits, dim=-1, out=logits)
    log_probs = log_p.gather(1, chosen).squeeze(1)
    if not wants_slope:
        return log_probs, None
    p = log_p.exp_()
    of_target = weight[targets]
    if bend is not None:
        p.mul_(bend)
        of_target = of_target * bend.gather(1, chosen).to(weight.dtype)
    slope = torch.addmm(of_target, p.to(weight.dtype), weight, alpha=-1.0)
    return log_probs, slope.mul_(scale)
