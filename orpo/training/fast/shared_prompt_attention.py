"""Attention for rows in which the replies to a prompt share their stem, and several prompts share a row.

A token sees what the model's own mask lets it see, judged by positions within its own group, except that a branch never
sees another one that stands before it:

               keys   stem    first   second
    queries stem      causal
            first      all    causal
            second     all            causal

transformers asks an attention implementation for two functions by name: one makes the mask, one attends. Ours are
registered as `shared_prompt_sdpa`, `shared_prompt_eager` and `shared_prompt_flex`; the model's code stays untouched.
Outside `sharing_prompts(...)` they do exactly what `sdpa`, `eager` and `flex_attention` do, so generating with the
model goes on working. The first two attend group by group; FlexAttention takes the row whole, with a block mask.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Final

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.flex_attention import flex_attention_forward
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS

from orpo.training.fast.packing import Segments

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask

MaskFunction = Callable[
    [Tensor, Tensor, Tensor, Tensor], Tensor
]  # (batch, head, query position, key position) -> may it see?

IMPLEMENTATIONS: Final = {
    "sdpa": "shared_prompt_sdpa",
    "eager": "shared_prompt_eager",
    "flex_attention": "shared_prompt_flex",
}
"""The attention that a model has, and the name of ours that builds on it."""

_Attention = Callable[..., tuple[Tensor, Tensor | None]]

_FUSED: Final[dict[str, _Attention]] = {"sdpa": sdpa_attention_forward, "flex_attention": flex_attention_forward}

_segments_of_this_pass: ContextVar[Sequence[Segments] | None] = ContextVar("segments_of_this_pass", default=None)


@contextmanager
def sharing_prompts(segments: Sequence[Segments]) -> Iterator[None]:
    """Within this, the model's next forward pass takes its row as groups that are laid out like this."""
    token = _segments_of_this_pass.set(segments)
    try:
        yield
    finally:
        _segments_of_this_pass.reset(token)


@dataclass(eq=False)
class SharedPromptMask:
    """What a model hands from its mask function to its attention function in place of a [T, T] mask.

    `mask_function` is the model's own rule (causal, sliding window, chunked), so each kind of layer keeps its own.
    """

    segments: Sequence[Segments]
    mask_function: MaskFunction
    device: torch.device

    @cached_property
    def pieces(self) -> list[int]:
        """Lengths by which to cut a row: of each group the stem with the first branch, then every other branch."""
        return [length for one in self.segments for length in (one.stem + one.branches[0], *one.branches[1:])]

    @cached_property
    def group_masks(self) -> list[tuple[Tensor | None, list[Tensor | None]]]:
        """Boolean masks of each group: (stem + first branch over itself), None where plainly causal, and the others.

        The mask of another branch is (branch, stem + branch); None where there is nothing to attend for.
        """
        masks = []
        for one in self.segments:
            own = one.stem + one.branches[0]
            own_mask = None if self._is_plainly_causal(own) else self.mask_over(0, own)
            others = [self.mask_over(one.stem, one.stem + length) if length else None for length in one.branches[1:]]
            masks.append((own_mask, others))
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
        return self.mask_function(zero, zero, queries, keys).expand(length - first_query, length)[None, None]

    @cached_property
    def blocks(self) -> "BlockMask":
        """The row's BlockMask for FlexAttention: blocks without a visible pair are never computed."""
        from torch.nn.attention.flex_attention import create_block_mask

        sees, total = token_rule(self.segments, self.mask_function, self.device), sum(self.pieces)
        return create_block_mask(sees, None, None, total, total, device=self.device)


def token_rule(segments: Sequence[Segments], mask_function: MaskFunction, device: torch.device) -> MaskFunction:
    """Return (batch, head, query index, key index) -> may it see, over the whole row: a FlexAttention `mask_mod`."""
    runs = [
        (owner, part, offset, length)
        for owner, one in enumerate(segments)
        for part, offset, length in [(0, 0, one.stem), *((i + 1, one.stem, n) for i, n in enumerate(one.branches))]
    ]
    lengths = torch.tensor([length for *_, length in runs])
    owners = torch.tensor([owner for owner, *_ in runs]).repeat_interleave(lengths).to(device)
    parts = torch.tensor([part for _, part, *_ in runs]).repeat_interleave(lengths).to(device)  # 0 is the stem
    positions = torch.cat([torch.arange(length) + offset for *_, offset, length in runs]).to(device)

    def sees(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        together = (owners[query] == owners[key]) & ((parts[key] == 0) | (parts[key] == parts[query]))
        return together & mask_function(batch, head, positions[query], positions[key])

    return sees


def _make_mask(
    plain_name: str, *, mask_function: MaskFunction, device: torch.device | str = "cpu", **kwargs: object
) -> object:
    segments = _segments_of_this_pass.get()
    if segments is None:
        return ALL_MASK_ATTENTION_FUNCTIONS[plain_name](mask_function=mask_function, device=device, **kwargs)
    return SharedPromptMask(segments, mask_function, torch.device(device))


def _attend(
    plain_name: str,
    module: nn.Module,
    query: Tensor,  # (1, heads, T, head size)
    key: Tensor,
    value: Tensor,
    attention_mask: "Tensor | BlockMask | SharedPromptMask | None",
    **kwargs: object,
) -> tuple[Tensor, Tensor | None]:
    """Attend with the model's own attention, so that no work goes into what a mask would hide."""
    attend = _FUSED.get(plain_name) or _eager_attention_of(module)
    if not isinstance(attention_mask, SharedPromptMask):
        return attend(module, query, key, value, attention_mask, **kwargs)
    if plain_name == "flex_attention":
        return attend(module, query, key, value, attention_mask.blocks, **kwargs)
    return _attend_by_group(attend, plain_name, module, (query, key, value), attention_mask, **kwargs), None


def _attend_by_group(
    attend: _Attention,
    plain_name: str,
    module: nn.Module,
    states: tuple[Tensor, Tensor, Tensor],
    mask: SharedPromptMask,
    **kwargs: object,
) -> Tensor:
    """Attend for the stem with the first branch, then for each other branch over the stem and itself."""
    as_mask = partial(_as_bias, dtype=states[0].dtype) if plain_name == "eager" else _as_is
    queries, keys, values = (iter(tensor.split_with_sizes(mask.pieces, dim=2)) for tensor in states)
    outputs: list[Tensor] = []
    for one, (own_mask, other_masks) in zip(mask.segments, mask.group_masks, strict=True):
        own_keys, own_values = next(keys), next(values)
        if plain_name == "eager" and own_mask is None:
            own_mask = mask.mask_over(0, own_keys.shape[2])
        outputs.append(attend(module, next(queries), own_keys, own_values, as_mask(own_mask), **kwargs)[0])
        for other_mask in other_masks:
            query, key, value = next(queries), next(keys), next(values)
            if query.shape[2]:
                seen_keys = torch.cat([own_keys[:, :, : one.stem], key], dim=2)
                seen_values = torch.cat([own_values[:, :, : one.stem], value], dim=2)
                outputs.append(attend(module, query, seen_keys, seen_values, as_mask(other_mask), **kwargs)[0])
    return torch.cat(outputs, dim=1)


def _as_is(mask: Tensor | None) -> Tensor | None:
    return mask


def _as_bias(mask: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    if mask is None:
        return None
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill_(~mask, torch.finfo(dtype).min)


def _eager_attention_of(module: nn.Module) -> _Attention:
    """Return the attention in plain tensor operations that stands beside the layer's class (it knows soft caps)."""
    found: _Attention = vars(sys.modules[type(module).__module__])["eager_attention_forward"]
    return found


for _plain, _ours in IMPLEMENTATIONS.items():
    AttentionInterface.register(_ours, partial(_attend, _plain))
    AttentionMaskInterface.register(_ours, partial(_make_mask, _plain))
