"""Keys and values of many replies at once, each in a slot of its own, and the attention over them.

A slot belongs to one reply until it ends and then to the next, so replies of any length keep all slots busy. What all
prompts begin with is kept once, and every slot attends to it. Positions count from a prompt's own start: nothing is
padded on the left.

transformers asks for an attention implementation by name and for a cache by two methods; ours are `orpo_slots` and
`SlotCache`, so the models' own code computes everything else.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn.functional import pad, scaled_dot_product_attention
from transformers import AttentionInterface

IMPLEMENTATION: Final = "orpo_slots"

_GROWTH: Final = 64  # tokens that a cache grows by: copying it costs one step in so many
_UNSEEN: Final = -1e30  # finite, so that a slot that sees none of the shared beginning does not turn to NaN

_current: "ContextVar[SlotCache]" = ContextVar("slot cache of this pass")


class SlotCache:
    """The keys and values of each layer: [slots, heads, tokens, size], and of the shared beginning: [1, heads, ...]."""

    def __init__(self, slots: int, device: torch.device) -> None:
        """Make a cache of empty slots; memory is taken as it is needed."""
        self.lengths = torch.zeros(slots, dtype=torch.long, device=device)
        self.shared_length = 0
        self._keys: dict[int, Tensor] = {}
        self._values: dict[int, Tensor] = {}
        self._shared: dict[int, tuple[Tensor, Tensor]] = {}
        self._filling: list[int] | None = None  # slots whose prompts are read in this pass; None: a token for each slot
        self._capacity = 0
        self._masks: dict[tuple[str, int], Tensor] = {}

    @contextmanager
    def filling(self, slots: list[int], longest: int) -> Iterator[None]:
        """In this block the model reads prompts [len(slots), longest] into these slots; without any, what all share."""
        self._grow(longest if slots else 0)
        self._filling = slots
        self._masks.clear()
        with _used(self):
            yield

    @contextmanager
    def stepping(self) -> Iterator[None]:
        """In this block the model reads one token more for each slot."""
        self._grow(int(self.lengths.max()) + 1)
        self._filling = None
        self._masks.clear()
        with _used(self):
            yield

    def keep(self, slots: list[int]) -> None:
        """Drop all slots but these, which are numbered anew in the order given."""
        index = torch.tensor(slots, device=self.lengths.device)
        self.lengths = self.lengths[index]
        width = min(self._capacity, -(-(int(self.lengths.max()) + 1) // _GROWTH) * _GROWTH)
        for layer in self._keys:
            self._keys[layer] = self._keys[layer][index, :, :width].contiguous()
            self._values[layer] = self._values[layer][index, :, :width].contiguous()
        self._capacity = width

    def update(self, keys: Tensor, values: Tensor, layer_idx: int, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Keep a layer's new keys and values, and return those to attend to besides the shared beginning."""
        if self._filling is None:
            rows = torch.arange(len(self.lengths), device=keys.device)
            self._keys[layer_idx][rows, :, self.lengths] = keys[:, :, 0]
            self._values[layer_idx][rows, :, self.lengths] = values[:, :, 0]
            return self._keys[layer_idx], self._values[layer_idx]
        if not self._filling:
            self._shared[layer_idx] = keys, values
            return keys, values
        if layer_idx not in self._keys:
            shape = (len(self.lengths), keys.shape[1], self._capacity, keys.shape[3])
            self._keys[layer_idx] = keys.new_zeros(shape)  # zeros: memory that was never written could hold NaN
            self._values[layer_idx] = values.new_zeros((*shape[:3], values.shape[3]))
        self._keys[layer_idx][self._filling, :, : keys.shape[2]] = keys
        self._values[layer_idx][self._filling, :, : keys.shape[2]] = values
        return keys, values

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Return how many tokens came before; models ask although positions are given."""
        return self.shared_length

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float, cap: float | None, window: int | None
    ) -> Tensor:
        """Return the attention's result [B, heads, T, size] for queries of the same shape."""
        if self._filling is not None:
            if self.shared_length and self._filling:
                count = len(key)
                shared_key, shared_value = self._shared[layer]
                key = torch.cat([shared_key.expand(count, -1, -1, -1), key], dim=2)
                value = torch.cat([shared_value.expand(count, -1, -1, -1), value], dim=2)
            seen = self._seen_by_prompt(query.shape[2], key.shape[2], window)
            return _attend_once(query, key, value, seen, scale, cap)
        own, own_weight = _attend(query, key, value, self._seen_own(key, window, query.dtype), scale, cap)
        if not self.shared_length:
            return own
        # One product for all slots: [1, kv heads, slots * group, size] against the shared keys.
        slots, heads, _, size = query.shape
        shared_key, shared_value = self._shared[layer]
        groups = shared_key.shape[1]
        together = query.view(slots, groups, heads // groups, size).transpose(0, 1).reshape(1, groups, -1, size)
        seen = self._seen_shared(heads // groups, window, query.dtype)
        shared, shared_weight = _attend(together, shared_key, shared_value, seen, scale, cap)
        shared = shared.view(groups, slots, -1, shared.shape[-1]).transpose(0, 1).reshape(own.shape)
        shared_weight = shared_weight.view(groups, slots, -1).transpose(0, 1).reshape(own_weight.shape)
        share = torch.sigmoid(shared_weight - own_weight)[..., None]  # of the whole weight, from logs of the sums
        return torch.lerp(own.float(), shared.float(), share).to(own.dtype)

    def _grow(self, needed: int) -> None:
        if needed <= self._capacity:
            return
        capacity = -(-needed // _GROWTH) * _GROWTH
        for kept in (self._keys, self._values):
            for layer in kept:
                kept[layer] = pad(kept[layer], (0, 0, 0, capacity - self._capacity))
        self._capacity = capacity

    def _seen_by_prompt(self, queries: int, keys: int, window: int | None) -> Tensor | None:
        """Return which keys a prompt's tokens see, [queries, keys]; None for all up to themselves, with none before."""
        if queries == keys and (window is None or window >= keys):
            return None
        name = ("prompt", window or 0)
        if name not in self._masks:
            place = torch.arange(queries, device=self.lengths.device)[:, None] + keys - queries
            other = torch.arange(keys, device=self.lengths.device)
            self._masks[name] = (other <= place) & (other > place - (window or keys + 1))
        return self._masks[name]

    def _seen_own(self, key: Tensor, window: int | None, dtype: torch.dtype) -> Tensor:
        """Return 0 for the keys of its own that a slot's new token sees, [slots, 1, 1, keys]."""
        name = ("own", window or 0)
        if name not in self._masks:
            place = torch.arange(key.shape[2], device=key.device)
            seen = place <= self.lengths[:, None]
            if window:
                seen &= place > self.lengths[:, None] - window
            self._masks[name] = torch.where(seen, 0.0, _UNSEEN).to(dtype)[:, None, None]
        return self._masks[name]

    def _seen_shared(self, group: int, window: int | None, dtype: torch.dtype) -> Tensor | None:
        """Return 0 for the shared keys that each slot sees, [1, 1, slots * group, keys]; None for all."""
        if window is None:
            return None
        name = ("shared", window)
        if name not in self._masks:
            place = torch.arange(self.shared_length, device=self.lengths.device)
            seen = place > self.lengths[:, None] + self.shared_length - window
            mask = torch.where(seen, 0.0, _UNSEEN).to(dtype)
            self._masks[name] = mask.repeat_interleave(group, dim=0)[None, None]
        return self._masks[name]


@contextmanager
def _used(cache: SlotCache) -> Iterator[None]:
    token = _current.set(cache)
    try:
        yield
    finally:
        _current.reset(token)


def _attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    softcap: float | None = None,
    sliding_window: int | None = None,
    s_aux: Tensor | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attend as the slot cache of this pass says; the mask is made from its lengths."""
    if s_aux is not None:
        raise NotImplementedError("attention sinks")
    layer = module.layer_idx
    assert isinstance(layer, int)
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    result = _current.get().attend(layer, query, key, value, scale, softcap, sliding_window)
    return result.transpose(1, 2).contiguous(), None


AttentionInterface.register(IMPLEMENTATION, _attention)


def _attend_once(
    query: Tensor, key: Tensor, value: Tensor, seen: Tensor | None, scale: float, cap: float | None
) -> Tensor:
    if cap is None:
        is_grouped = query.shape[1] != key.shape[1]
        return scaled_dot_product_attention(
            query, key, value, attn_mask=seen, is_causal=seen is None, scale=scale, enable_gqa=is_grouped
        )
    if seen is None:
        seen = torch.ones(query.shape[2], key.shape[2], dtype=torch.bool, device=query.device).tril()
    return _attend(query, key, value, torch.where(seen, 0.0, _UNSEEN).to(query.dtype), scale, cap)[0]


def _attend(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float, cap: float | None
) -> tuple[Tensor, Tensor]:
    """Return the result [B, heads, T, size] and, [B, heads, T], the log of its weights' sum before they are normed.

    The log is what two parts of one attention are joined by, and scaled_dot_product_attention keeps it for itself.
    """
    if query.device.type == "cpu" and cap is None:
        result, log_sum = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            query, key, value, 0.0, False, attn_mask=mask, scale=scale
        )
        return result, log_sum
    group = query.shape[1] // key.shape[1]
    if group > 1:
        key, value = key.repeat_interleave(group, dim=1), value.repeat_interleave(group, dim=1)
    scores = (query @ key.transpose(2, 3)).float() * scale
    if cap is not None:
        scores = torch.tanh(scores / cap) * cap
    if mask is not None:
        scores = scores + mask
    log_sum = scores.logsumexp(dim=-1)
    return (scores - log_sum[..., None]).exp().to(value.dtype) @ value, log_sum
