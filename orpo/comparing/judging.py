"""A model as judge: which of two replies to a message a person would rather read.

Judges prefer what stands first, so each pair is shown in both orders, and only a verdict that holds in both counts; the
rest are ties (Zheng et al. 2023, arXiv 2306.05685, section 3.4). What it says is told beside how far it agrees with the
score, and taken for no measure by itself.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from orpo.comparing.comparison import Comparison
from orpo.comparing.intervals import Interval, mean_interval, share_interval, tally
from orpo.comparing.sides import Side
from orpo.records.messages import Message, user_message

Conversations = Sequence[Sequence[Message]]
Answering = Callable[[Conversations], Sequence[str | None]]
"""Answers conversations, greedily; None where there is no answer."""

_QUESTION: Final = """\
Somebody wrote this message to an assistant:

{prompt}

Reply A:
{first}

Reply B:
{second}

Which reply would the person rather read? Count whether it answers the message, and whether its emojis, if any, \
suit the message and are not too many; a grave or technical message wants none. Answer with one letter, A or B, and \
nothing else."""


@dataclass(frozen=True)
class Judgement:
    """What a judge says of one side beside the first one.

    Attributes:
        name: The side's name.
        wins: Prompts on which it is preferred in both orders.
        losses: Prompts on which the first side is.
        ties: The others that were judged.
        failed: Prompts without an answer in one of the orders, which count nowhere.
        preferred: Its wins and half of its ties, by all prompts that were judged, with its interval.
        agreement: Of the prompts that were decided and whose scores differ, the share where the score says the same.
    """

    name: str
    wins: int
    losses: int
    ties: int
    failed: int
    preferred: Interval | None
    agreement: Interval | None


def judge_sides(comparison: Comparison, answer: Answering) -> list[Judgement]:
    """Return what the judge says of every side but the first, on the replies of the first seed."""
    base, *others = comparison.sides
    prompts = [prompt.text for prompt in comparison.held_out.prompts]
    return [_judge(prompts, base, side, answer) for side in others]


def judgements_to_write(comparison: Comparison) -> int:
    """Return how many answers the judge gives."""
    return 2 * (len(comparison.sides) - 1) * len(comparison.held_out.prompts)


def _judge(prompts: Sequence[str], base: Side, side: Side, answer: Answering) -> Judgement:
    pairs = list(zip(prompts, base.replies[0], side.replies[0], strict=True))
    shown_second = [_question(prompt, theirs.text, ours.text) for prompt, theirs, ours in pairs]
    shown_first = [_question(prompt, ours.text, theirs.text) for prompt, theirs, ours in pairs]
    said = answer([*shown_second, *shown_first])
    margins = [ours.score - theirs.score for theirs, ours in zip(base.reports[0], side.reports[0], strict=True)]
    judged = [
        (_preference(_letter(second), _letter(first)), margin)
        for second, first, margin in zip(said[: len(pairs)], said[len(pairs) :], margins, strict=True)
        if second is not None and first is not None
    ]
    values = [value for value, _ in judged]
    agreeing = [float((value == 1.0) == (margin > 0)) for value, margin in judged if value != 0.5 and margin]
    return Judgement(
        side.name,
        wins=values.count(1.0),
        losses=values.count(0.0),
        ties=values.count(0.5),
        failed=len(pairs) - len(judged),
        preferred=mean_interval(tally(values)) if values else None,
        agreement=share_interval(tally(agreeing)) if agreeing else None,
    )


def _question(prompt: str, first: str, second: str) -> list[Message]:
    return user_message(_QUESTION.format(prompt=prompt, first=first or "(empty)", second=second or "(empty)"))


def _letter(text: str) -> str:
    """Return the verdict, A or B; empty where the judge says neither."""
    found = re.match(r"\W*(?:(?:reply|answer|option)\W+)?([AB])(?![\w'])", text, flags=re.IGNORECASE)
    return found[1].upper() if found else ""


def _preference(shown_second: str, shown_first: str) -> float:
    """Return 1 where the side is preferred in both orders, 0 where the other one is, else one half."""
    if (shown_second, shown_first) == ("B", "A"):
        return 1.0
    return 0.0 if (shown_second, shown_first) == ("A", "B") else 0.5
