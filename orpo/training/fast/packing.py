"""Batches without padding: each pair's prompt once, several pairs in one row, as many as a token budget allows.

A pair in a row, when chosen and rejected share their prompt (T = prompt + chosen - 1 + rejected - 1):

    tokens      p0 p1 p2 | c0 c1 | r0 r1 r2
    positions    0  1  2 |  3  4 |  3  4  5
    predicts    p1 p2  * | c1 c2 | r1 r2 r3      * both c0 and r0

The last token of a completion predicts nothing that a loss needs, so it is never fed to the model. Which tokens may see
which is the attention's part (`shared_prompt_attention`). Without sharing, a pair is two ordinary sequences, prompt +
chosen and prompt + rejected, one after the other in the row.
"""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

Layout = Literal["shared", "packed", "plain"]
"""How a model takes pairs: prompts shared; whole sequences packed in a row; one sequence at a time (always works)."""


class PairIds(Protocol):
    """What a tokenised pair must hold: its ids, the completions ending in EOS."""

    @property
    def prompt_ids(self) -> Sequence[int]:
        """The prompt with its template."""

    @property
    def chosen_ids(self) -> Sequence[int]:
        """The chosen completion."""

    @property
    def rejected_ids(self) -> Sequence[int]:
        """The rejected completion."""


@dataclass(frozen=True)
class Segments:
    """One pair's share of a row: how many input tokens are its prompt, chosen and rejected completion."""

    prompt: int
    chosen: int
    rejected: int

    @property
    def total(self) -> int:
        """All of the pair's tokens in the row."""
        return self.prompt + self.chosen + self.rejected


@dataclass
class PackedPairs:
    """One forward pass: a row of T tokens, and the N (hidden state, target) places at which a loss looks.

    Not frozen, because torch's distributed wrappers copy dataclasses field by field.
    """

    layout: Layout
    segments: list[Segments]  # one for each pair
    input_ids: Tensor  # (1, T)
    position_ids: Tensor  # (1, T)
    hidden_places: Tensor  # (N,) which of the T hidden states predicts
    targets: Tensor  # (N,) the token it should predict
    completions: Tensor  # (N,) 2 * pair for a chosen token, 2 * pair + 1 for a rejected, 2 * pairs for a prompt's
    in_nll: Tensor  # (N,) fp32, 1 where the likelihood term counts the place, else 0
    completion_tokens: Tensor  # (2 * pairs,)

    @property
    def pairs(self) -> int:
        """How many pairs the row holds."""
        return len(self.segments)

    def to(self, device: torch.device) -> "PackedPairs":
        """Return the same batch with its tensors on another device."""
        moved: dict[str, Any] = {
            field.name: value.to(device, non_blocking=True)
            for field in fields(self)
            if isinstance(value := getattr(self, field.name), Tensor)
        }
        return replace(self, **moved)

    def sum_by_completion(self, log_probs: Tensor) -> tuple[Tensor, Tensor]:
        """Sum (N,) token log-probabilities into (pairs,) for chosen and for rejected."""
        sums = log_probs.new_zeros(2 * self.pairs + 1).index_add(0, self.completions, log_probs)
        chosen, rejected = sums[:-1].view(-1, 2).unbind(1)
        return chosen, rejected


def packed_length(pair: PairIds, layout: Layout) -> int:
    """Count the tokens that the model computes for a pair."""
    prompts = 1 if layout == "shared" else 2
    return prompts * len(pair.prompt_ids) + len(pair.chosen_ids) + len(pair.rejected_ids) - 2


def nll_tokens(pair: PairIds, nll_on_prompt: bool) -> int:
    """Count the tokens over which the likelihood term of a pair runs."""
    return len(pair.chosen_ids) + (len(pair.prompt_ids) - 1 if nll_on_prompt else 0)


def plan_micro_batches(lengths: Sequence[int], token_budget: int) -> list[list[int]]:
    """Spread pairs over as few rows as the budget allows; return each row's pairs by index, in order.

    A pair longer than the budget raises it to its own length.
    """
    room = max(token_budget, max(lengths, default=1))
    count = max(1, -(-sum(lengths) // room))
    while True:
        rows = spread_evenly(lengths, count)
        if all(sum(lengths[i] for i in row) <= room for row in rows):
            return rows
        count += 1


def spread_evenly(lengths: Sequence[int], count: int) -> list[list[int]]:
    """Spread pairs over so many rows, longest first, each into the row that is emptiest; some rows may stay empty."""
    rows: list[list[int]] = [[] for _ in range(count)]
    emptiest = [(0, row) for row in range(count)]
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        filled, row = heapq.heappop(emptiest)
        rows[row].append(index)
        heapq.heappush(emptiest, (filled + lengths[index], row))
    return [sorted(row) for row in rows]


def pack_pairs(pairs: Sequence[PairIds], *, layout: Layout, nll_on_prompt: bool) -> PackedPairs:
    """Lay pairs into one row."""
    row = _Row()
    segments = []
    for number, pair in enumerate(pairs):
        prompt, chosen, rejected = list(pair.prompt_ids), list(pair.chosen_ids), list(pair.rejected_ids)
        if not (prompt and chosen and rejected):
            raise ValueError(f"pair {number} has an empty prompt or completion")
        segments.append(Segments(len(prompt), len(chosen) - 1, len(rejected) - 1))
        prompt_start = row.append(prompt, first_position=0)
        prompt_end = prompt_start + len(prompt) - 1
        if nll_on_prompt:
            row.predict(range(prompt_start, prompt_end), prompt[1:], completion=2 * len(pairs), in_nll=True)
        start = row.append(chosen[:-1], first_position=len(prompt))
        row.predict([prompt_end, *range(start, start + len(chosen) - 1)], chosen, completion=2 * number, in_nll=True)
        if layout != "shared":
            prompt_end = row.append(prompt, first_position=0) + len(prompt) - 1
        start = row.append(rejected[:-1], first_position=len(prompt))
        row.predict(
            [prompt_end, *range(start, start + len(rejected) - 1)], rejected, completion=2 * number + 1, in_nll=False
        )
    return row.as_batch(layout, segments)


class _Row:
    """A row being filled: its tokens, and the places at which it is read out."""

    def __init__(self) -> None:
        self.ids: list[int] = []
        self.positions: list[int] = []
        self.places: list[int] = []
        self.targets: list[int] = []
        self.completions: list[int] = []
        self.in_nll: list[float] = []

    def append(self, ids: Sequence[int], first_position: int) -> int:
        """Add tokens; return where in the row they begin."""
        start = len(self.ids)
        self.ids.extend(ids)
        self.positions.extend(range(first_position, first_position + len(ids)))
        return start

    def predict(self, places: Sequence[int], targets: Sequence[int], *, completion: int, in_nll: bool) -> None:
        """Note that the hidden states at these places predict these tokens."""
        self.places.extend(places)
        self.targets.extend(targets)
        self.completions.extend([completion] * len(targets))
        self.in_nll.extend([float(in_nll)] * len(targets))

    def as_batch(self, layout: Layout, segments: list[Segments]) -> PackedPairs:
        tokens = [count for pair in segments for count in (pair.chosen + 1, pair.rejected + 1)]
        return PackedPairs(
            layout=layout,
            segments=segments,
            input_ids=torch.tensor([self.ids]),
            position_ids=torch.tensor([self.positions]),
            hidden_places=torch.tensor(self.places),
            targets=torch.tensor(self.targets),
            completions=torch.tensor(self.completions),
            in_nll=torch.tensor(self.in_nll),
            completion_tokens=torch.tensor(tokens),
        )
