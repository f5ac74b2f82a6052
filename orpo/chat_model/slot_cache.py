"""Keys and values of many replies at once, each in a slot of its own, and the attention over them.

A slot belongs to one reply until it ends and then to the next, so replies of any length keep all slots busy. Nothing is
padded on the left. What all prompts begin with is read once, and then either copied into every slot, which changes no
number, or kept apart for all slots to attend to, which saves most of the memory traffic where it is long.

transformers asks for an attention implementation by name and for a cache by two methods; ours are `orpo_slots` and
`SlotCache`, so the models' own code computes everything else.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn.functional import pad, scaled_dot_product_attention
from transformers import AttentionInterface

IMPLEMENTATION: Final = "orpo_slots"

_GROWTH: Final = 64  # tokens that a cache grows by: copying it costs one step in this many
_ATTENDED: Final = 16  # tokens; keys beyond the longest slot's are not read, in steps of this
_QUERY_ROWS: Final = 32
_UNSEEN: Final = -1e30  # finite, so that a slot that sees none of the shared beginning does not turn to NaN

_current: "ContextVar[SlotCache]" = ContextVar("slot cache of this pass")


class SlotCache:
    """The keys and values of each layer: [slots, heads, tokens, size], and of the shared beginning: [1, heads, ...]."""

    def __init__(self, slots: int, device: torch.device) -> None:
        """Make a cache of empty slots; memory is taken as it is needed."""
        self.lengths = torch.zeros(slots, dtype=torch.long, device=device)  # of what each slot itself holds
        self.begun = 0  # tokens of the common beginning
        self._apart = False
        self._keys: dict[int, Tensor] = {}
        self._values: dict[int, Tensor] = {}
        self._beginning: dict[int, tuple[Tensor, Tensor]] = {}
        self._filling: list[int] | None = None  # slots whose prompts are read in this pass; None: a token for each slot
        self._capacity = 0
        self._attended = 0  # tokens of each slot that a step looks at: no more than the longest needs
        self._masks: dict[tuple[str, int], Tensor] = {}

    @property
    def places(self) -> Tensor:
        """Return the position of each slot's next token."""
        return self.lengths + self.begun if self._apart else self.lengths

    @contextmanager
    def beginning(self, length: int, *, apart: bool) -> Iterator[None]:
        """In this block the model reads what all prompts begin with, which may be padded to more than its length."""
        self._filling = []
        with self._used():
            yield
        self._beginning = {layer: (k[:, :, :length], v[:, :, :length]) for layer, (k, v) in self._beginning.items()}
        self.begun, self._apart = length, apart

    @contextmanager
    def filling(self, slots: list[int], lengths: list[int], padded: int) -> Iterator[None]:
        """In this block the model reads prompts of these lengths, [len(slots), padded], into these slots."""
        copied = 0 if self._apart else self.begun
        self._grow(copied + padded)
        self._filling = slots
        with self._used():
            yield
        self.lengths[slots] = torch.tensor(lengths, device=self.lengths.device) + copied

    @contextmanager
    def stepping(self) -> Iterator[None]:
        """In this block the model reads one token more for each slot."""
        needed = int(self.lengths.max()) + 1
        self._grow(needed)
        self._attended = -(-needed // _ATTENDED) * _ATTENDED
        self._filling = None
        with self._used():
            yield
        self.lengths += 1

    def keep(self, slots: list[int]) -> None:
        """Drop all slots but these, which are numbered anew in the order given."""
        index = torch.tensor(slots, device=self.lengths.device)
        self.lengths = self.lengths[index]
        width = min(self._capacity, -(-(int(self.lengths.max()) + 1) // _GROWTH) * _GROWTH)
        for layer in self._keys:
            self._keys[layer] = self._keys[layer][index, :, :width].contiguous()
            self._values[layer] = self._values[layer][index, :, :width].contiguous()
        self._capacity = width

    def add(self, count: int) -> None:
        """Add empty slots after those that there are; no prompt may have been kept apart for all of them."""
        self.lengths = pad(self.lengths, (0, count))
        for kept in (self._keys, self._values):
            for layer in kept:
                kept[layer] = pad(kept[layer], (0, 0, 0, 0, 0, 0, 0, count))

    def update(self, keys: Tensor, values: Tensor, layer_idx: int, *_: object, **__: object) -> tuple[Tensor, Tensor]:
        """Keep a layer's new keys and values, and return those to attend to besides the shared beginning."""
        if self._filling is None:
            rows = torch.arange(len(self.lengths), device=keys.device)
            self._keys[layer_idx][rows, :, self.lengths] = keys[:, :, 0]
            self._values[layer_idx][rows, :, self.lengths] = values[:, :, 0]
            return self._keys[layer_idx][:, :, : self._attended], self._values[layer_idx][:, :, : self._attended]
        if not self._filling:
            self._beginning[layer_idx] = keys, values
            return keys, values
        own = keys, values
        if self.begun:
            before = [part.expand(len(keys), -1, -1, -1) for part in self._beginning[layer_idx]]
            keys, values = torch.cat([before[0], keys], dim=2), torch.cat([before[1], values], dim=2)
        kept = own if self._apart else (keys, values)
        if layer_idx not in self._keys:
            shape = (len(self.lengths), keys.shape[1], self._capacity, keys.shape[3])
            self._keys[layer_idx] = keys.new_zeros(shape)  # zeros: memory that was never written could hold NaN
            self._values[layer_idx] = values.new_zeros((*shape[:3], values.shape[3]))
        self._keys[layer_idx][self._filling, :, : kept[0].shape[2]] = kept[0]
        self._values[layer_idx][self._filling, :, : kept[1].shape[2]] = kept[1]
        return keys, values

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Return how many tokens came before; models ask although positions are given."""
        return self.begun

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float, cap: float | None, window: int | None
    ) -> Tensor:
        """Return the attention's result [B, heads, T, size] for queries of the same shape."""
        if self._filling is not None:
            seen = self._seen_by_prompt(query.shape[2], key.shape[2], window)
            return _attend_once(query, key, value, seen, scale, cap)
        slots, heads, _, size = query.shape
        # The queries that share a key's head are rows of one product: a sixth less time than one by one.
        together = query.view(slots, key.shape[1], -1, size)
        mask = self._seen_own(key, window, query.dtype).expand(-1, -1, together.shape[2], -1)
        own, own_weight = _attend(together, key, value, mask, scale, cap)
        own, own_weight = own.reshape(slots, heads, 1, -1), own_weight.reshape(slots, heads, 1)
        if not self._apart:
            return own
        shared, shared_weight = self._attend_to_beginning(layer, query, scale, cap, window)
        share = torch.sigmoid(shared_weight - own_weight)[..., None]  # of the whole weight, from logs of the sums
        return torch.lerp(own.float(), shared.float(), share).to(own.dtype)

    def _attend_to_beginning(
        self, layer: int, query: Tensor, scale: float, cap: float | None, window: int | None
    ) -> tuple[Tensor, Tensor]:
        """Attend to what is kept once: the slots' queries in rows of 32, so that none depends on how many there are."""
        key, value = self._beginning[layer]
        slots, heads, _, size = query.shape
        groups = key.shape[1]
        rows = query.view(slots, groups, heads // groups, size).transpose(1, 2).reshape(-1, groups, size)
        blocks = -(-len(rows) // _QUERY_ROWS)
        rows = pad(rows, (0, 0, 0, 0, 0, blocks * _QUERY_ROWS - len(rows)))
        together = rows.view(blocks, _QUERY_ROWS, groups, size).transpose(1, 2)
        seen = self._seen_beginning(heads // groups, blocks, window, query.dtype)
        result, log_sum = _attend(
            together, key.expand(blocks, -1, -1, -1), value.expand(blocks, -1, -1, -1), seen, scale, cap
        )
        count = slots * (heads // groups)
        result = result.transpose(1, 2).reshape(-1, groups, result.shape[-1])[:count]
        log_sum = log_sum.transpose(1, 2).reshape(-1, groups)[:count]
        result = result.view(slots, heads // groups, groups, -1).transpose(1, 2).reshape(slots, heads, 1, -1)
        return result, log_sum.view(slots, heads // groups, groups).transpose(1, 2).reshape(slots, heads, 1)

    @contextmanager
    def _used(self) -> Iterator[None]:
        self._masks.clear()
        token = _current.set(self)
        try:
            yield
        finally:
            _current.reset(token)

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

    def _seen_beginning(self, group: int, blocks: int, window: int | None, dtype: torch.dtype) -> Tensor | None:
        """Return 0 for what each row of queries sees of the beginning, [blocks, 1, 32, keys]; None where it is all."""
        if window is None:
            return None
        name = ("beginning", window)
        if name not in self._masks:
            place = torch.arange(self.begun, device=self.lengths.device)
            seen = place > self.places[:, None] - window
            mask = torch.where(seen, 0.0, _UNSEEN).to(dtype).repeat_interleave(group, dim=0)
            mask = pad(mask, (0, 0, 0, blocks * _QUERY_ROWS - len(mask)))
            self._masks[name] = mask.view(blocks, 1, _QUERY_ROWS, -1)
        return self._masks[name]


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
    **_: object,
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
