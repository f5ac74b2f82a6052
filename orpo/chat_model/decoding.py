"""The loop that writes many replies at once: a reply that ends makes room for a waiting one in the same step."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import torch

from orpo.chat_model.decoder import Decoder
from orpo.chat_model.slot_cache import SlotCache
from orpo.chat_model.token_picker import TokenPicker

_SHORTEST_BEGINNING: Final = 8  # tokens; reading fewer once saves nothing
_SHORTEST_APART: Final = 64  # tokens; below this a second product costs more than it saves
_FREE_SHARE: Final = 8  # new prompts are read when one slot in this many is free, so that they are read together


@dataclass(frozen=True)
class Request:
    """What is to be answered.

    Attributes:
        prompts: The ids of each row.
        picker: Picks the tokens.
        end_ids: Ids that end a reply.
        slots: Rows at once.
        examples: How many tokens at their beginning all prompts share by intention, such as examples; these are kept
            once for all slots. Rounding then differs a little from that without, so it must not depend on which
            prompts happen to be answered together.
        on_step: Called before each pass through the model; it may raise to stop.
    """

    prompts: Sequence[Sequence[int]]
    picker: TokenPicker
    end_ids: Sequence[int]
    slots: int = 1
    examples: int = 0
    on_step: Callable[[], None] | None = None


def decode(decoder: Decoder, request: Request) -> Iterator[list[tuple[int, int, bool]]]:
    """Yield, step by step, (row, token, whether it is the reply's last) for every row that got a token."""
    return _Loop(decoder, request).run()


class _Loop:
    def __init__(self, decoder: Decoder, request: Request) -> None:
        prompts, picker, slots, examples = request.prompts, request.picker, request.slots, request.examples
        self._decoder, self._picker, self._end_ids = decoder, picker, set(request.end_ids)
        self._on_step = request.on_step or (lambda: None)
        self._most = picker.sampling.max_new_tokens
        self._apart = examples >= _SHORTEST_APART
        common = examples if self._apart else common_beginning(prompts)
        is_worth_it = self._apart or common >= _SHORTEST_BEGINNING
        self._beginning = list(prompts[0][:common]) if is_worth_it else []
        self._rests = [prompt[len(self._beginning) :] for prompt in prompts]
        self._waiting = deque(sorted(range(len(prompts)), key=lambda row: len(prompts[row])))
        self._rows: list[int | None] = [None] * max(1, min(slots, len(prompts)))  # of each slot
        self._tokens = torch.zeros(len(self._rows), dtype=torch.long)  # the last of each slot
        self._steps = [0] * len(prompts)
        self._cache = SlotCache(len(self._rows), decoder.device)

    def run(self) -> Iterator[list[tuple[int, int, bool]]]:
        if self._beginning:
            self._on_step()
            self._decoder.begin(self._cache, self._beginning, apart=self._apart)
        while self._waiting or any(row is not None for row in self._rows):
            self._on_step()
            free = [slot for slot, row in enumerate(self._rows) if row is None]
            if self._waiting and len(free) * _FREE_SHARE >= len(self._rows):
                yield self._fill(free[: len(self._waiting)])
            else:
                if not self._waiting and len(free) * 4 >= len(self._rows):
                    self._drop(free)
                yield self._step()

    def _fill(self, slots: list[int]) -> list[tuple[int, int, bool]]:
        rows = [self._waiting.popleft() for _ in slots]
        for slot, row in zip(slots, rows, strict=True):
            self._rows[slot] = row
        logits = self._decoder.fill(self._cache, slots, [self._rests[row] for row in rows])
        return self._take(slots, logits)

    def _step(self) -> list[tuple[int, int, bool]]:
        logits = self._decoder.step(self._cache, self._tokens)
        busy = [slot for slot, row in enumerate(self._rows) if row is not None]
        if len(busy) < len(self._rows):  # an idle slot must not make the cache grow
            self._cache.lengths[[slot for slot, row in enumerate(self._rows) if row is None]] = 0
        return self._take(busy, logits if len(busy) == len(self._rows) else logits[busy])

    def _take(self, slots: list[int], logits: torch.Tensor) -> list[tuple[int, int, bool]]:
        """Pick a token for each of these slots, and free those whose reply ends with it."""
        rows = [row for slot in slots if (row := self._rows[slot]) is not None]
        picked = self._picker.pick(logits, rows, [self._steps[row] for row in rows]).cpu()
        self._tokens[slots] = picked
        events = []
        for slot, row, token in zip(slots, rows, picked.tolist(), strict=True):
            self._steps[row] += 1
            is_last = token in self._end_ids or self._steps[row] >= self._most
            events.append((row, token, is_last))
            if is_last:
                self._rows[slot] = None
        return events

    def _drop(self, free: list[int]) -> None:
        """Go on with fewer slots: nobody waits for the free ones."""
        kept = [slot for slot in range(len(self._rows)) if slot not in set(free)]
        self._cache.keep(kept)
        self._tokens = self._tokens[kept]
        self._rows = [self._rows[slot] for slot in kept]


def common_beginning(rows: Sequence[Sequence[int]]) -> int:
    """Return how many ids all rows begin with, leaving at least one of each; 0 for a row by itself."""
    if len(rows) < 2:
        return 0
    # In the order of their ids the first and the last share what all share.
    first, last, most = min(map(list, rows)), max(map(list, rows)), min(map(len, rows)) - 1
    return next((place for place in range(most) if first[place] != last[place]), most)
