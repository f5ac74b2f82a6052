"""How much memory a training step takes, before it is taken: counted on a small forward pass, not guessed from shapes.

A forward pass over a few dozen tokens is run with hooks that see every tensor kept for the backward pass. What is kept
grows in proportion to the tokens (attention works group by group), so two passes of different length give the rate for
whatever model, adapter and dtype are at hand. The rest follows from sizes: gradients and Adam's two moments of the
trained weights, and the head's chunk of logits.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil
import torch
from torch import Tensor, nn

from orpo.chat_model.head import causal_model_of, head_of
from orpo.chat_model.log_probs import CHUNK_BYTES
from orpo.command.ranks import local_process_count
from orpo.training.fast.packed_forward import sample_groups
from orpo.training.fast.packing import Layout, pack_replies

MEGABYTE: Final = 2**20

_CGROUP: Final = Path("/sys/fs/cgroup")
_SHORT, _LONG = 1, 4  # groups in a row
_SHARE_TO_USE: Final = 0.85
_TRAINED_COPIES: Final = 3  # gradient, and Adam's two moments
_CHUNK_COPIES: Final = 2  # logits (all else happens in their memory), and their copy in fp32 or the model's dtype
_TRAINED_HEAD_COPIES: Final = 4  # of a head whose chunks are computed again: logits, log p, their gradients
_BACKWARD_SHARE: Final = 0.15  # gradients on their way through a layer, over what is kept


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes of a training step, by what takes them."""

    weights: int
    trained: int
    per_token: int
    tokens: int
    head: int

    @property
    def over_the_model(self) -> int:
        """The peak over the loaded model."""
        return self.trained + self.head + self.per_token * self.tokens

    @property
    def total(self) -> int:
        """The peak with the model."""
        return self.weights + self.over_the_model

    def as_rows(self) -> list[tuple[str, str]]:
        """Return what takes how much, for the user."""
        parts = {
            "model": self.weights,
            "gradients and optimiser of the adapter": self.trained,
            f"activations of a row of {self.tokens} tokens": self.per_token * self.tokens,
            "logits": self.head,
            "peak": self.total,
        }
        return [(name, f"{size / MEGABYTE:,.0f} MB") for name, size in parts.items()]


def estimate_memory(model: nn.Module, tokens: int, layout: Layout, *, checkpointing: bool = False) -> MemoryEstimate:
    """Estimate the peak of a step with rows of this many tokens, for a PEFT model on its device."""
    kept = kept_bytes_per_token(model, layout)
    causal_model = causal_model_of(model)
    config = causal_model.config.get_text_config()
    copies = _CHUNK_COPIES if head_of(causal_model).is_frozen_linear else _TRAINED_HEAD_COPIES
    if checkpointing:  # a layer's inputs stay, and one layer at a time is computed again
        inputs = config.hidden_size * _widest(model).itemsize
        kept = inputs * config.num_hidden_layers + kept // config.num_hidden_layers
    trained = sum(weight.numel() * weight.itemsize for weight in model.parameters() if weight.requires_grad)
    return MemoryEstimate(
        weights=sum(weight.numel() * weight.itemsize for weight in model.parameters()),
        trained=_TRAINED_COPIES * trained,
        per_token=round(kept * (1 + _BACKWARD_SHARE)),
        tokens=tokens,
        head=copies * min(CHUNK_BYTES, 4 * tokens * config.vocab_size),
    )


def kept_bytes_per_token(model: nn.Module, layout: Layout) -> int:
    """Return how many bytes each token of a row keeps until its backward pass."""
    short, long = (_kept_by_row(model, layout, groups) for groups in (_SHORT, _LONG))
    return max(round((long[0] - short[0]) / (long[1] - short[1])), 1)


def _kept_by_row(model: nn.Module, layout: Layout, count: int) -> tuple[int, int]:
    """Return (bytes kept by a row's forward pass, its tokens)."""
    weights = {weight.untyped_storage().data_ptr() for weight in [*model.parameters(), *model.buffers()]}
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    vocabulary = causal_model_of(model).config.get_text_config().vocab_size
    packed = pack_replies(sample_groups(count, vocabulary), layout=layout, nll_on_prompt=True)
    was_training = model.training
    model.train()
    try:
        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            output = model(packed=packed.to(_widest(model).device))  # alive, so that no storage is used twice
        del output
    finally:
        model.train(was_training)
    return sum(kept.values()), packed.input_ids.shape[1]


def _widest(model: nn.Module) -> Tensor:
    return max(model.parameters(), key=lambda weight: weight.numel())


def largest_token_budget(model: nn.Module, layout: Layout, *, at_most: int, checkpointing: bool = False) -> int:
    """Return the largest token budget, up to a limit, with which a step fits into the free memory of the device."""
    free = free_memory(_widest(model).device)
    estimate = estimate_memory(model, at_most, layout, checkpointing=checkpointing)
    room = _SHARE_TO_USE * free - estimate.trained - estimate.head
    return max(min(at_most, int(room / estimate.per_token)), 1)


def free_memory(device: torch.device) -> int:
    """Return the bytes still free on a device for this process."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    free = int(psutil.virtual_memory().available)
    return min(free, _free_in_container(free)) // local_process_count()


def _free_in_container(otherwise: int) -> int:
    """Return what a container may still take (cgroup v2), beyond which the kernel ends the process."""
    try:
        limit, used = (int((_CGROUP / name).read_text()) for name in ("memory.max", "memory.current"))
    except (OSError, ValueError):  # no container, or one without a limit ("max")
        return otherwise
    return max(limit - used, 0)
