"""What a run came to, in figures: pairs of each kind, dropped prompts, and both sides measured."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import TypedDict

from orpo.generating.written import Dropped, WrittenPrompt
from orpo.records.pairs import PAIR_KINDS, PreferencePair
from orpo.scoring.measures import ReplyMeasures, measure_replies

Rows = list[list[object]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredMeasures(ReplyMeasures):
    """What several replies come to, with what the scorer says of them."""

    mean_score: float
    """0 where there are none."""


class GenerationMetrics(TypedDict):
    """What became of the prompts: pairs of each kind, dropped prompts by reason, and both sides measured."""

    prompts: int
    examples: int
    pairs: int
    kinds: dict[str, int]
    dropped: dict[str, int]
    sides: dict[str, ScoredMeasures]


@dataclass(frozen=True)
class GenerationResult:
    """A finished run.

    Attributes:
        folder: Where the pairs are.
        metrics: What became of the prompts.
        samples: A few pairs from all over the data.
    """

    folder: Path
    metrics: GenerationMetrics
    samples: list[PreferencePair]

    def count_rows(self) -> Rows:
        """Return the table of what became of the prompts."""
        rows: Rows = [["prompts", self.metrics["prompts"]]]
        if self.metrics["examples"]:
            rows.append(["examples", self.metrics["examples"]])
        rows.append(["pairs", self.metrics["pairs"]])
        rows += [[f"  {kind}", count] for kind, count in self.metrics["kinds"].items()]
        return rows + [[f"dropped: {reason}", count] for reason, count in self.metrics["dropped"].items()]

    def side_rows(self) -> Rows:
        """Return the table of both sides and of all that the writers wrote."""
        return [
            [name, f"{side.emoji_rate:.1%}", round(side.mean_emojis, 2), round(side.mean_score, 2),
             round(side.mean_words, 1), side.max_words]
            for name, side in self.metrics["sides"].items()
        ]  # fmt: skip


def measure_side(texts: Sequence[str], scores: Sequence[float]) -> ScoredMeasures:
    """Return what is worth knowing of one side's replies: emojis, length, and the mean score."""
    return ScoredMeasures(**asdict(measure_replies(texts)), mean_score=fmean(scores) if scores else 0.0)


def measure_sides(pairs: Sequence[PreferencePair], written: Sequence[WrittenPrompt]) -> dict[str, ScoredMeasures]:
    """Return the measures of both sides of the pairs, and of what each writer wrote."""
    sides = {
        "chosen": measure_side([pair.chosen_text for pair in pairs], [pair.chosen_score for pair in pairs]),
        "rejected": measure_side([pair.rejected_text for pair in pairs], [pair.rejected_score for pair in pairs]),
    }
    is_tuned = any(row.emoji.writer == "tuned" for row in written)
    names = ("best of the tuned model", "its worst") if is_tuned else ("emoji writer", "plain writer")
    for name, replies in zip(names, ([row.emoji for row in written], [row.plain for row in written]), strict=True):
        there = [reply for reply in replies if not reply.failure]
        sides[name] = measure_side([reply.text for reply in there], [reply.score for reply in there])
    return sides


def count_objections(pairs: Sequence[PreferencePair]) -> dict[str, int]:
    """Return what the score had against the rejected replies, and against how many, the commonest first."""
    return dict(Counter(reason.split()[0] for pair in pairs for reason in pair.rejected_reasons).most_common())


def count_kinds(pairs: Sequence[PreferencePair]) -> dict[str, int]:
    """Return how many pairs there are of each kind, in the order of `PAIR_KINDS`."""
    counts = Counter(pair.kind for pair in pairs)
    return {kind or "of no kind": counts[kind] for kind in PAIR_KINDS if counts[kind]}


def spread(pairs: Sequence[PreferencePair], count: int) -> list[PreferencePair]:
    """Return `count` pairs from all over the list, since its first ones are the clearest and not the usual ones."""
    step = max(1, len(pairs) // max(1, count))
    return list(pairs[step // 2 :: step][:count])


def count_reasons(dropped: Sequence[Dropped]) -> dict[str, int]:
    """Return how many prompts were dropped for each reason, the commonest first.

    Replies refused with one HTTP status count as one reason, in the words of the first: an endpoint may put an id or a
    number of tokens into each of them. dropped.jsonl keeps them all.
    """
    first: dict[str, str] = {}
    for entry in dropped:
        first.setdefault(_kind_of(entry.reason), entry.reason)
    counts = Counter(first[_kind_of(entry.reason)] for entry in dropped)
    return dict(counts.most_common())


def _kind_of(reason: str) -> str:
    status = re.match(r"\w+ writer: HTTP \d+", reason)
    return status[0] if status else reason
