"""The loop that writes replies to conversations that come and go: one may join or leave before any step.

What `decoding` is to a list of prompts, for a server. A reply is the same whatever else is being written: each
conversation has a slot and random numbers of its own.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import torch

from orpo.chat_model.decoder import Decoder
from orpo.chat_model.slot_cache import SlotCache
from orpo.chat_model.token_picker import TokenPicker
from orpo.records.replies import Sampling


@dataclass(eq=False)
class Writing:
    """A reply as it is being written.

    Attributes:
        prompt: The ids to answer.
        sampling: How tokens are picked.
        seed: With the key it decides the reply.
        key: What `row_keys` says of the prompt.
        ids: What has been written.
    """

    prompt: Sequence[int]
    sampling: Sampling
    seed: int
    key: str
    ids: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._picker = TokenPicker(self.sampling, [self.key], self.seed)

    def take(self, logits: torch.Tensor) -> None:
        """Pick the next token from logits [1, V]."""
        self.ids += self._picker.pick(logits, [0], [len(self.ids)]).tolist()


class OpenLoop:
    """Writes replies with one decoder, a token for each of them at a time."""

    def __init__(self, decoder: Decoder, end_ids: Iterable[int]) -> None:
        """Start with nothing to write."""
        self._decoder, self._end_ids = decoder, set(end_ids)
        self._slots: list[Writing | None] = []
        self._cache = SlotCache(0, decoder.device)

    @property
    def writing(self) -> list[Writing]:
        """What is being written."""
        return [one for one in self._slots if one is not None]

    def is_whole(self, one: Writing) -> bool:
        """Tell whether a reply has its last token."""
        return bool(one.ids) and (one.ids[-1] in self._end_ids or len(one.ids) >= one.sampling.max_new_tokens)

    def join(self, new: Sequence[Writing]) -> None:
        """Read the prompts of new conversations and write the first token of each; whole ones leave at once."""
        self._tidy()
        free = [slot for slot, one in enumerate(self._slots) if one is None]
        if len(free) < len(new):
            free += range(len(self._slots), len(self._slots) + len(new) - len(free))
            self._cache.add(len(new) - sum(one is None for one in self._slots))
            self._slots += [None] * (max(free) + 1 - len(self._slots))
        slots = free[: len(new)]
        logits = self._decoder.fill(self._cache, slots, [one.prompt for one in new])
        for row, (slot, one) in enumerate(zip(slots, new, strict=True)):
            one.take(logits[row : row + 1])
            self._slots[slot] = None if self.is_whole(one) else one

    def step(self) -> list[Writing]:
        """Write one token more for each; return those that got one. Whole ones leave."""
        self._tidy()
        busy = [(slot, one) for slot, one in enumerate(self._slots) if one is not None]
        if not busy:
            return []
        last = torch.tensor([0 if one is None else one.ids[-1] for one in self._slots])
        logits = self._decoder.step(self._cache, last)
        for slot, one in busy:
            one.take(logits[slot : slot + 1])
            if self.is_whole(one):
                self._slots[slot] = None
        idle = [slot for slot, one in enumerate(self._slots) if one is None]
        if idle:  # an idle slot must not make the cache grow
            self._cache.lengths[idle] = 0
        return [one for _, one in busy]

    def leave(self, one: Writing) -> None:
        """Write no more of this reply."""
        self._slots = [None if other is one else other for other in self._slots]

    def _tidy(self) -> None:
        """Go on with fewer slots once half of them are idle; with none, let the memory go."""
        kept = [slot for slot, one in enumerate(self._slots) if one is not None]
        if not kept:
            self._slots, self._cache = [], SlotCache(0, self._decoder.device)
        elif len(kept) * 2 <= len(self._slots):
            self._cache.keep(kept)
            self._slots = [self._slots[slot] for slot in kept]
