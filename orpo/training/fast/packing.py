"""Batches without padding: what several replies share is computed once, and many prompts stand in one row.

Two replies to a prompt p, c = [a, b, c2, c3] and r = [a, b, r2, r3, r4], begin alike. All that they share is the stem,
p + [a, b]; behind it the replies branch off (T = stem + the branches, each without its last token):

    tokens      p0 p1  a  b | c2 | r2 r3
    positions    0  1  2  3 |  4 |  4  5
    predicts    p1  a  b  * | c3 | r3 r4       * both c2 and r2

The last token of a reply predicts nothing that a loss needs, so it is never fed to the model. The log-probabilities of
a and b are computed once and counted for both replies. Which tokens may see which is the attention's part
(`shared_prompt_attention`). Without sharing, each reply is an ordinary sequence with its own copy of the prompt.
"""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from orpo.chat_model.decoding import common_beginning

Layout = Literal["shared", "packed", "plain"]
"""How a model takes replies: stems shared; whole sequences packed in a row; one sequence at a time (always works)."""


@dataclass(frozen=True)
class ReplyGroup:
    """A prompt with one or several replies, as token ids; the likelihood term counts the first reply."""

    prompt_ids: Sequence[int]
    replies: tuple[Sequence[int], ...]


@dataclass(frozen=True)
class Segments:
    """A group's share of a row, counted in input tokens: its stem, and what of each reply stands behind it."""

    stem: int
    branches: tuple[int, ...]

    @property
    def total(self) -> int:
        """All of the group's tokens in the row."""
        return self.stem + sum(self.branches)


@dataclass
class PackedReplies:
    """One forward pass: a row of T tokens, and the N (hidden state, target) places at which a loss looks.

    A place that lies in a shared stem is counted for several replies, so the M (place, reply) entries may be more than
    the places. Not frozen, because torch's distributed wrappers copy dataclasses field by field.
    """

    layout: Layout
    segments: list[Segments]  # one for each group
    input_ids: Tensor  # (1, T)
    position_ids: Tensor  # (1, T)
    hidden_places: Tensor  # (N,) which of the T hidden states predicts
    targets: Tensor  # (N,) the token it should predict
    in_nll: Tensor  # (N,) fp32, 1 where the likelihood term counts the place, else 0
    entry_places: Tensor  # (M,) which of the N places
    entry_replies: Tensor  # (M,) which of the R replies counts it
    reply_tokens: Tensor  # (R,)

    def to(self, device: torch.device) -> "PackedReplies":
        """Return the same batch with its tensors on another device."""
        moved = replace(self)
        for name, value in vars(self).items():
            if isinstance(value, Tensor):
                setattr(moved, name, value.to(device, non_blocking=True))
        return moved

    def sum_by_reply(self, log_probs: Tensor) -> Tensor:
        """Sum (N,) token log-probabilities into (R,), the replies in the order of the groups."""
        counted = log_probs.index_select(0, self.entry_places)
        return log_probs.new_zeros(len(self.reply_tokens)).index_add(0, self.entry_replies, counted)


def packed_length(group: ReplyGroup, layout: Layout) -> int:
    """Count the tokens that the model computes for a group."""
    replies = sum(len(reply) - 1 for reply in group.replies)
    if layout != "shared":
        return len(group.replies) * len(group.prompt_ids) + replies
    return len(group.prompt_ids) + replies - (len(group.replies) - 1) * common_beginning(group.replies)


def nll_tokens(group: ReplyGroup, nll_on_prompt: bool) -> int:
    """Count the tokens over which the likelihood term of a group runs."""
    return len(group.replies[0]) + (len(group.prompt_ids) - 1 if nll_on_prompt else 0)


def plan_micro_batches(lengths: Sequence[int], token_budget: int) -> list[list[int]]:
    """Spread groups over as few rows as the budget allows; return each row's groups by index, in order.

    A group longer than the budget raises it to its own length.
    """
    room = max(token_budget, max(lengths, default=1))
    count = max(1, -(-sum(lengths) // room))
    while True:
        rows = spread_evenly(lengths, count)
        if all(sum(lengths[i] for i in row) <= room for row in rows):
            return rows
        count += 1


def spread_evenly(lengths: Sequence[int], count: int) -> list[list[int]]:
    """Spread groups over this many rows, longest first, each into the row that is emptiest; some may stay empty."""
    rows: list[list[int]] = [[] for _ in range(count)]
    emptiest = [(0, row) for row in range(count)]
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        filled, row = heapq.heappop(emptiest)
        rows[row].append(index)
        heapq.heappush(emptiest, (filled + lengths[index], row))
    return [sorted(row) for row in rows]


def pack_replies(groups: Sequence[ReplyGroup], *, layout: Layout, nll_on_prompt: bool) -> PackedReplies:
    """Lay groups into one row."""
    row = _Row()
    segments = []
    for number, group in enumerate(groups):
        if not (group.prompt_ids and group.replies and all(group.replies)):
            raise ValueError(f"group {number} has an empty prompt or reply")
        if layout == "shared":
            segments.append(_lay_branches(row, group, nll_on_prompt))
        else:
            segments.append(_lay_sequences(row, group, nll_on_prompt))
    return row.as_batch(layout, segments)


def _lay_branches(row: "_Row", group: ReplyGroup, nll_on_prompt: bool) -> Segments:
    """Lay what all replies share once, and what each has of its own behind it."""
    prompt, shared = list(group.prompt_ids), common_beginning(group.replies)
    numbers = [row.new_reply(len(reply)) for reply in group.replies]
    start = row.append([*prompt, *group.replies[0][:shared]], first_position=0)
    stem = len(prompt) + shared
    end = start + stem - 1
    if nll_on_prompt:
        row.predict(range(start, start + len(prompt) - 1), prompt[1:], replies=[], in_nll=True)
    row.predict(range(start + len(prompt) - 1, end), group.replies[0][:shared], replies=numbers, in_nll=True)
    for reply, number in zip(group.replies, numbers, strict=True):
        own = list(reply[shared:])
        branch = row.append(own[:-1], first_position=stem)
        places = [end, *range(branch, branch + len(own) - 1)]
        row.predict(places, own, replies=[number], in_nll=number == numbers[0])
    return Segments(stem, tuple(len(reply) - shared - 1 for reply in group.replies))


def _lay_sequences(row: "_Row", group: ReplyGroup, nll_on_prompt: bool) -> Segments:
    """Lay each reply with a prompt of its own."""
    prompt = list(group.prompt_ids)
    for position, reply in enumerate(group.replies):
        number = row.new_reply(len(reply))
        start = row.append([*prompt, *reply[:-1]], first_position=0)
        if nll_on_prompt and position == 0:
            row.predict(range(start, start + len(prompt) - 1), prompt[1:], replies=[], in_nll=True)
        first = start + len(prompt) - 1
        row.predict(range(first, first + len(reply)), reply, replies=[number], in_nll=position == 0)
    return Segments(len(prompt), tuple(len(reply) - 1 for reply in group.replies))


class _Row:
    """A row being filled: its tokens, the places at which it is read out, and the replies that count each place."""

    def __init__(self) -> None:
        self.ids: list[int] = []
        self.positions: list[int] = []
        self.places: list[int] = []
        self.targets: list[int] = []
        self.in_nll: list[float] = []
        self.entries: list[tuple[int, int]] = []
        self.reply_tokens: list[int] = []

    def new_reply(self, tokens: int) -> int:
        """Begin a reply of this many tokens; return its number."""
        self.reply_tokens.append(tokens)
        return len(self.reply_tokens) - 1

    def append(self, ids: Sequence[int], first_position: int) -> int:
        """Add tokens; return where in the row they begin."""
        start = len(self.ids)
        self.ids.extend(ids)
        self.positions.extend(range(first_position, first_position + len(ids)))
        return start

    def predict(self, places: Sequence[int], targets: Sequence[int], *, replies: list[int], in_nll: bool) -> None:
        """Note that the hidden states at these places predict these tokens of these replies."""
        first = len(self.places)
        self.places.extend(places)
        self.targets.extend(targets)
        self.in_nll.extend([float(in_nll)] * len(targets))
        self.entries.extend((place, reply) for reply in replies for place in range(first, first + len(targets)))

    def as_batch(self, layout: Layout, segments: list[Segments]) -> PackedReplies:
        entries = torch.tensor(self.entries).view(-1, 2)
        return PackedReplies(
            layout=layout,
            segments=segments,
            input_ids=torch.tensor([self.ids]),
            position_ids=torch.tensor([self.positions]),
            hidden_places=torch.tensor(self.places),
            targets=torch.tensor(self.targets),
            in_nll=torch.tensor(self.in_nll),
            entry_places=entries[:, 0].contiguous(),
            entry_replies=entries[:, 1].contiguous(),
            reply_tokens=torch.tensor(self.reply_tokens),
        )
