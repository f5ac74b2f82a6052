"""Attention for rows in which chosen and rejected share a prompt, and several pairs share a row.

A token sees what the model's own mask lets it see, judged by positions within its own pair, except that a rejected
completion never sees the chosen one that stands before it:

               keys   prompt  chosen  rejected
    queries prompt    causal
            chosen     all    causal
            rejected   all             causal

transformers asks an attention implementation for two functions by name: one makes the mask, one attends. Ours are
registered as `shared_prompt_sdpa`, `shared_prompt_eager` and `shared_prompt_flex`; the model's code stays untouched.
Outside `sharing_prompts(...)` they do exactly what `sdpa`, `eager` and `flex_attention` do, so generating with the
model goes on working. The first two attend pair by pair; FlexAttention takes the row whole, with a block mask.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cached_property, partial
from typing import Any, Final

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.flex_attention import flex_attention_forward
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS

from orpo.training.fast.packing import Segments

MaskFunction = Callable[[Any, Any, Any, Any], Any]  # (batch, head, query position, key position) -> may it see?

IMPLEMENTATIONS: Final = {
    "sdpa": "shared_prompt_sdpa",
    "eager": "shared_prompt_eager",
    "flex_attention": "shared_prompt_flex",
}
"""The attention that a model has, and the name of ours that builds on it."""

_FUSED: Final[dict[str, Any]] = {"sdpa": sdpa_attention_forward, "flex_attention": flex_attention_forward}

_segments_of_this_pass: ContextVar[Sequence[Segments] | None] = ContextVar("segments_of_this_pass", default=None)


@contextmanager
def sharing_prompts(segments: Sequence[Segments]) -> Iterator[None]:
    """Within this, the model's next forward pass takes its row as pairs that are laid out like this."""
    token = _segments_of_this_pass.set(segments)
    try:
        yield
    finally:
        _segments_of_this_pass.reset(token)


class SharedPromptMask:
    """What a model hands from its mask function to its attention function in place of a [T, T] mask.

    `mask_function` is the model's own rule (causal, sliding window, chunked), so each kind of layer keeps its own.
    """

    def __init__(self, segments: Sequence[Segments], mask_function: MaskFunction, device: torch.device) -> None:
        """Keep the layout of the row and the model's own rule."""
        self.segments = segments
        self.mask_function = mask_function
        self.device = device

    @cached_property
    def pieces(self) -> list[int]:
        """Lengths by which to cut a row: prompt + chosen, then rejected, of each pair."""
        return [length for pair in self.segments for length in (pair.prompt + pair.chosen, pair.rejected)]

    @cached_property
    def pair_masks(self) -> list[tuple[Tensor | None, Tensor | None]]:
        """Boolean masks of each pair: (prompt + chosen over itself), None where plainly causal, and rejected over all.

        The latter is (rejected, prompt + rejected); None where there is nothing to attend for.
        """
        masks = []
        for pair in self.segments:
            own = pair.prompt + pair.chosen
            own_mask = None if self._is_plainly_causal(own) else self.mask_over(0, own)
            rejected_mask = self.mask_over(pair.prompt, pair.prompt + pair.rejected) if pair.rejected else None
            masks.append((own_mask, rejected_mask))
        return masks

    def _is_plainly_causal(self, length: int) -> bool:
        """Whether the last token still sees the first: then no window or chunk cuts anything off."""
        last = torch.tensor(length - 1, device=self.device)
        zero = torch.zeros_like(last)
        return bool(self.mask_function(zero, zero, last, zero))

    def mask_over(self, first_query: int, length: int) -> Tensor:
        """Return the model's own mask for queries from `first_query` on, over keys 0 to `length`."""
        queries = torch.arange(first_query, length, device=self.device)[:, None]
        keys = torch.arange(length, device=self.device)[None, :]
        zero = torch.zeros((), dtype=torch.long, device=self.device)
        seen: Tensor = self.mask_function(zero, zero, queries, keys)
        return seen.expand(length - first_query, length)[None, None]

    def dense(self) -> Tensor:
        """Return the whole row's (T, T) boolean mask; for tests."""
        sees = token_rule(self.segments, self.mask_function, self.device)
        index = torch.arange(sum(self.pieces), device=self.device)
        zero = torch.zeros((), dtype=torch.long, device=self.device)
        dense: Tensor = sees(zero, zero, index[:, None], index[None, :])
        return dense

    @cached_property
    def blocks(self) -> Any:
        """The row's BlockMask for FlexAttention: blocks in which nobody sees anybody are never computed."""
        from torch.nn.attention.flex_attention import create_block_mask

        sees, total = token_rule(self.segments, self.mask_function, self.device), sum(self.pieces)
        return create_block_mask(sees, None, None, total, total, device=self.device)


def token_rule(segments: Sequence[Segments], mask_function: MaskFunction, device: torch.device) -> MaskFunction:
    """Return (batch, head, query index, key index) -> may it see, over the whole row: a FlexAttention `mask_mod`."""
    counts = torch.tensor([[pair.prompt, pair.chosen, pair.rejected] for pair in segments]).flatten()
    parts = torch.arange(3).repeat(len(segments)).repeat_interleave(counts).to(device)  # 0 prompt 1 chosen 2 rejected
    owners = torch.arange(len(segments)).repeat_interleave(counts.view(-1, 3).sum(1)).to(device)
    positions = torch.cat([torch.arange(length) + offset for pair in segments for length, offset in _runs(pair)]).to(
        device
    )

    def sees(batch: Any, head: Any, query: Any, key: Any) -> Any:
        together = (owners[query] == owners[key]) & ((parts[key] == 0) | (parts[key] == parts[query]))
        return together & mask_function(batch, head, positions[query], positions[key])

    return sees


def _runs(pair: Segments) -> list[tuple[int, int]]:
    return [(pair.prompt, 0), (pair.chosen, pair.prompt), (pair.rejected, pair.prompt)]


def _make_mask(plain_name: str, *args: Any, **kwargs: Any) -> Any:
    segments = _segments_of_this_pass.get()
    if segments is None:
        return ALL_MASK_ATTENTION_FUNCTIONS[plain_name](*args, **kwargs)
    return SharedPromptMask(segments, kwargs["mask_function"], torch.device(kwargs.get("device", "cpu")))


def _attend(
    plain_name: str,
    module: nn.Module,
    query: Tensor,  # (1, heads, T, head size)
    key: Tensor,
    value: Tensor,
    attention_mask: Any,
    **kwargs: Any,
) -> tuple[Tensor, Tensor | None]:
    """Attend with the model's own attention, so that no work goes into what a mask would hide."""
    attend = _FUSED.get(plain_name) or _eager_attention_of(module)
    if not isinstance(attention_mask, SharedPromptMask):
        plain: tuple[Tensor, Tensor | None] = attend(module, query, key, value, attention_mask, **kwargs)
        return plain
    if plain_name == "flex_attention":
        whole: tuple[Tensor, Tensor | None] = attend(module, query, key, value, attention_mask.blocks, **kwargs)
        return whole
    as_mask = partial(_as_bias, dtype=query.dtype) if plain_name == "eager" else _as_is
    pieces = attention_mask.pieces
    queries, keys, values = (tensor.split_with_sizes(pieces, dim=2) for tensor in (query, key, value))
    outputs: list[Tensor] = []
    for number, (pair, (own_mask, rejected_mask)) in enumerate(
        zip(attention_mask.segments, attention_mask.pair_masks, strict=True)
    ):
        own, rejected = 2 * number, 2 * number + 1
        if plain_name == "eager" and own_mask is None:
            own_mask = attention_mask.mask_over(0, pieces[own])
        output, _ = attend(module, queries[own], keys[own], values[own], as_mask(own_mask), **kwargs)
        outputs.append(output)
        if pair.rejected:
            seen_keys, seen_values = (
                torch.cat([tensors[own][:, :, : pair.prompt], tensors[rejected]], dim=2) for tensors in (keys, values)
            )
            output, _ = attend(module, queries[rejected], seen_keys, seen_values, as_mask(rejected_mask), **kwargs)
            outputs.append(output)
    return torch.cat(outputs, dim=1), None


def _as_is(mask: Tensor | None) -> Tensor | None:
    return mask


def _as_bias(mask: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    if mask is None:
        return None
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill_(~mask, torch.finfo(dtype).min)


def _eager_attention_of(module: nn.Module) -> Callable[..., tuple[Tensor, Tensor | None]]:
    """Return the attention in plain tensor operations that stands beside the layer's class (it knows soft caps)."""
    found: Callable[..., tuple[Tensor, Tensor | None]] = vars(sys.modules[type(module).__module__])[
        "eager_attention_forward"
    ]
    return found


for _plain, _ours in IMPLEMENTATIONS.items():
    AttentionInterface.register(_ours, partial(_attend, _plain))
    AttentionMaskInterface.register(_ours, partial(_make_mask, _plain))
