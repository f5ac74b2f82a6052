"""Rows of the data as token ids: a prompt with two replies, or with one that has a label."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Generic, TypeVar

from orpo.records.labelled import LabelledReply
from orpo.records.pairs import PreferencePair

SourceRow = PreferencePair | LabelledReply


@dataclass(frozen=True)
class TokenizedPair:
    """One pair ready for training; the ids hold no padding.

    Attributes:
        prompt_ids: The prompt up to and with the template's opening of the assistant's turn.
        chosen_ids: The better reply; its last id is the end token, which stands nowhere else in it.
        rejected_ids: The worse reply, likewise.
        pair: What it was made of.
        row: Its row in the user's data; pairs that come from no file are counted from 1.
    """

    prompt_ids: list[int]
    chosen_ids: list[int]
    rejected_ids: list[int]
    pair: PreferencePair
    row: int

    @property
    def replies(self) -> tuple[list[int], ...]:
        """Both replies, the better one first."""
        return self.chosen_ids, self.rejected_ids

    @property
    def source(self) -> PreferencePair:
        """What it was made of."""
        return self.pair

    @property
    def longest(self) -> int:
        """The tokens of the prompt with the longer reply."""
        return len(self.prompt_ids) + max(len(self.chosen_ids), len(self.rejected_ids))

    def cut(self, prompt: list[int], room: int) -> "TokenizedPair":
        """Return it with another prompt, and with replies of no more tokens than there is room for."""
        return replace(
            self, prompt_ids=prompt, chosen_ids=_cut(self.chosen_ids, room), rejected_ids=_cut(self.rejected_ids, room)
        )


@dataclass(frozen=True)
class TokenizedReply:
    """One labelled reply ready for training, likewise.

    Attributes:
        prompt_ids: As those of a pair.
        reply_ids: The reply.
        source: What it was made of.
        row: Its row in the user's data.
    """

    prompt_ids: list[int]
    reply_ids: list[int]
    source: LabelledReply
    row: int

    @property
    def label(self) -> bool:
        """Whether the reply is a good one."""
        return self.source.label

    @property
    def replies(self) -> tuple[list[int], ...]:
        """The one reply."""
        return (self.reply_ids,)

    @property
    def longest(self) -> int:
        """The tokens of prompt and reply."""
        return len(self.prompt_ids) + len(self.reply_ids)

    def cut(self, prompt: list[int], room: int) -> "TokenizedReply":
        """Return it with another prompt, and with a reply of no more tokens than there is room for."""
        return replace(self, prompt_ids=prompt, reply_ids=_cut(self.reply_ids, room))


@dataclass(frozen=True)
class SampledGroup:
    """Replies that the model in training wrote to one prompt, with their scores.

    Attributes:
        prompt_ids: The prompt up to and with the template's opening of the assistant's turn.
        replies: The ids of each reply as they were sampled; one that the model ended holds its end token.
        scores: The emoji score of each, in [0, 1].
        row: The prompt's row in the user's data.
    """

    prompt_ids: list[int]
    replies: tuple[list[int], ...]
    scores: tuple[float, ...]
    row: int


Example = TokenizedPair | TokenizedReply
"""One row of the data, ready for training."""

Tokenized = TypeVar("Tokenized", TokenizedPair, TokenizedReply, Example)


@dataclass
class TokenizedPairs(Generic[Tokenized]):
    """The rows that can be trained on, and those that were left out, by reason, or shortened."""

    pairs: list[Tokenized] = field(default_factory=list)
    dropped: dict[str, list[int]] = field(default_factory=dict)
    truncated: list[int] = field(default_factory=list)

    @classmethod
    def joined(cls, parts: "Sequence[TokenizedPairs[Tokenized]]") -> "TokenizedPairs[Tokenized]":
        """Return those of several data sets as one."""
        whole: TokenizedPairs[Tokenized] = TokenizedPairs()
        for part in parts:
            whole.pairs += part.pairs
            whole.truncated += part.truncated
            for reason, rows in part.dropped.items():
                whole.dropped.setdefault(reason, []).extend(rows)
        return whole

    def drop(self, reason: str, row: int) -> None:
        """Leave a row out."""
        self.dropped.setdefault(reason, []).append(row)


def _cut(ids: list[int], room: int) -> list[int]:
    return ids if len(ids) <= room else [*ids[: room - 1], ids[-1]]
