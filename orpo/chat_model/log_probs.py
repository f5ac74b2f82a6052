"""Log-probabilities of given tokens, without ever holding [tokens, vocabulary] logits: for training and for measuring.

The head runs over a few hundred hidden states at a time. For a frozen linear head the gradient of log p(target | h)
with respect to h is known as soon as the softmax is,

    d log p / d h = W[target] - softmax(W h) W            (times 1 - (z / c)^2 inside, for logits c tanh(z / c))

so it is computed in the forward pass, chunk by chunk, in the memory of the chunk's own logits, and the backward pass
only multiplies it by the incoming gradient: no logits are kept and nothing is computed twice. A head that is trained
itself (LoRA on it, a tied head whose embedding is trained, `modules_to_save`) needs the incoming gradient first; its
chunks are checkpointed, so they are computed a second time in the backward pass, with the same small memory.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from orpo.chat_model.generation import answering
from orpo.chat_model.head import Head, bend, causal_model_of, head_of

CHUNK_BYTES: Final = 64 * 2**20
"""fp32 logits held at a time: small enough to stay near the caches, large enough for fast products.

Under 32 MiB glibc would take them from its heap instead of fresh pages, and leave holes in it: with half as much the
checkpointed way held 2.7 GB for 2,000 tokens at a vocabulary of 151,936, instead of 0.25.
"""

SMALLEST_CHUNK: Final = 32

_known_heads: "WeakKeyDictionary[nn.Module, bool]" = WeakKeyDictionary()


def completion_log_probs(
    model: nn.Module,
    prompt_ids: Sequence[Sequence[int]],
    completion_ids: Sequence[Sequence[int]],
    *,
    batch_size: int = 8,
) -> list[tuple[float, int]]:
    """Return (sum of log p(token | what came before), tokens) for each completion, in the order given.

    Every prompt has at least one id; an empty completion gives (0.0, 0). Dropout and gradients are off.
    """
    if len(prompt_ids) != len(completion_ids):
        raise ValueError(f"{len(prompt_ids)} prompts and {len(completion_ids)} completions")
    if any(len(prompt) == 0 for prompt in prompt_ids):
        raise ValueError("a prompt without tokens: the first token of a completion needs one before it")
    results = [(0.0, 0)] * len(prompt_ids)
    filled = [row for row in range(len(prompt_ids)) if len(completion_ids[row])]
    order = sorted(filled, key=lambda row: len(prompt_ids[row]) + len(completion_ids[row]))
    with answering(model), torch.no_grad():
        for start in range(0, len(order), max(1, batch_size)):
            rows = order[start : start + max(1, batch_size)]
            sums = _batch_sums(model, [prompt_ids[row] for row in rows], [completion_ids[row] for row in rows])
            for row, total in zip(rows, sums, strict=True):
                results[row] = (total, len(completion_ids[row]))
    return results


def _batch_sums(model: nn.Module, prompts: list[Sequence[int]], completions: list[Sequence[int]]) -> list[float]:
    device = next(model.parameters()).device
    rows = [[*prompt, *completion] for prompt, completion in zip(prompts, completions, strict=True)]
    longest = max(map(len, rows))
    # Right padding: a causal model does not look ahead, so what follows the completion changes nothing.
    input_ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows], device=device)  # [B, T]
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows], device=device)
    # Position t predicts token t + 1, so the states wanted start one before the completion.
    wanted = [
        (index, position)
        for index, (prompt, row) in enumerate(zip(prompts, rows, strict=True))
        for position in range(len(prompt) - 1, len(row) - 1)
    ]
    index, position = torch.tensor(wanted, device=device).T
    token_log_probs = _log_probs_at(model, input_ids, mask, index, position)
    sums = torch.zeros(len(rows), dtype=torch.float64).index_add_(0, index.cpu(), token_log_probs.double().cpu())
    return [float(value) for value in sums]


def _log_probs_at(model: nn.Module, input_ids: Tensor, mask: Tensor, index: Tensor, position: Tensor) -> Tensor:
    """Return log p [N] of the tokens after the N places (index, position)."""
    targets = input_ids[index, position + 1]
    causal = causal_model_of(model)
    if not _is_head_known(causal):
        # A model that does something of its own to its logits: take them from itself, a row at a time.
        logits = [_row_logits(causal, input_ids, mask, index, position, row) for row in range(input_ids.shape[0])]
        return torch.cat([_pick(part, targets[index == row]) for row, part in enumerate(logits)])
    hidden = causal.base_model(input_ids=input_ids, attention_mask=mask, use_cache=False).last_hidden_state
    return token_log_probs(hidden[index, position], targets, head_of(causal))


def _row_logits(
    model: PreTrainedModel, input_ids: Tensor, mask: Tensor, index: Tensor, position: Tensor, row: int
) -> Tensor:
    output = model(input_ids=input_ids[row : row + 1], attention_mask=mask[row : row + 1], use_cache=False)
    logits: Tensor = output.logits[0, position[index == row]]
    return logits


def _pick(logits: Tensor, targets: Tensor) -> Tensor:
    """Return log softmax at the targets, in float32: logits [N, V], targets [N] -> [N]."""
    return logits.float().log_softmax(dim=1).gather(1, targets[:, None])[:, 0]


def _is_head_known(model: PreTrainedModel) -> bool:
    """Tell whether `head_of` gives the model's own logits: tried out on a few tokens, once for each model."""
    if model not in _known_heads:
        tokens = torch.arange(4, device=next(model.parameters()).device)[None]
        if model.get_output_embeddings() is None or model.base_model is model:  # type: ignore[no-untyped-call]
            _known_heads[model] = False
        else:
            hidden = model.base_model(input_ids=tokens, use_cache=False).last_hidden_state
            ours, own = head_of(model).logits(hidden).float(), model(input_ids=tokens, use_cache=False).logits.float()
            _known_heads[model] = ours.shape == own.shape and torch.allclose(ours, own, rtol=1e-2, atol=1e-2)
    return _known_heads[model]


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
    log_p = torch.log_softmax(bend(head.module(hidden).float() * head.scale, head.softcap), dim=-1)
    return log_p.gather(1, targets[:, None]).squeeze(1)


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
    if not isinstance(size, int):  # what PEFT puts around a layer of `modules_to_save` has a weight only
        weight = getattr(module, "weight", None)
        size = weight.shape[0] if isinstance(weight, Tensor) and weight.dim() == 2 else 2**18
    return size


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
        bend = logits.square().neg_().add_(1) if wants_slope else None
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
