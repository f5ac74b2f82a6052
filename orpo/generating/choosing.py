"""From two scored replies to a preference pair, or to the reason why there is none."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any, Protocol

from orpo.records.pairs import PreferencePair
from orpo.records.prompts import Prompt
from orpo.scoring.measures import measure_replies


class ScoredReply(Protocol):
    """A reply as the pipeline hands it on."""

    @property
    def text(self) -> str:
        """What was written."""

    @property
    def score(self) -> float:
        """What the scorer says."""

    @property
    def finished(self) -> bool:
        """Whether the model ended it."""

    @property
    def failure(self) -> str:
        """Why there is no reply; empty when there is one."""


@dataclass(frozen=True)
class Dropped:
    """A prompt that made no pair.

    Attributes:
        reason: Why, in the words of the table.
        prompt: The prompt.
        emoji_reply: What the emoji writer wrote.
        plain_reply: What the plain writer wrote.
        emoji_score: Its score.
        plain_score: Its score.
    """

    reason: str
    prompt: Prompt
    emoji_reply: str = ""
    plain_reply: str = ""
    emoji_score: float = 0.0
    plain_score: float = 0.0

    def as_row(self) -> dict[str, Any]:
        """Return one line of dropped.jsonl."""
        return {
            "reason": self.reason,
            "prompt_id": self.prompt.prompt_id,
            "prompt": self.prompt.conversation(),
            "emoji_reply": self.emoji_reply,
            "plain_reply": self.plain_reply,
            "emoji_score": self.emoji_score,
            "plain_score": self.plain_score,
        }


def make_pair(
    prompt: Prompt,
    emoji: ScoredReply,
    plain: ScoredReply,
    *,
    emoji_model: str,
    plain_model: str,
    source: str,
    min_margin: float = 0.0,
) -> PreferencePair | Dropped:
    """Return the pair whose chosen reply scored better, by whichever writer, or why there is none."""
    reason = _reason_to_drop(emoji, plain, min_margin)
    if reason:
        return Dropped(reason, prompt, emoji.text, plain.text, emoji.score, plain.score)
    sides = [(emoji, emoji_model), (plain, plain_model)]
    (better, better_model), (worse, worse_model) = sides if emoji.score > plain.score else sides[::-1]
    return PreferencePair(
        prompt=prompt.conversation(),
        chosen=[{"role": "assistant", "content": better.text}],
        rejected=[{"role": "assistant", "content": worse.text}],
        chosen_score=better.score,
        rejected_score=worse.score,
        chosen_model=better_model,
        rejected_model=worse_model,
        prompt_id=prompt.prompt_id,
        source=source,
    )


def _reason_to_drop(emoji: ScoredReply, plain: ScoredReply, min_margin: float) -> str:
    for name, reply in (("emoji", emoji), ("plain", plain)):
        if reply.failure:
            return f"{name} writer: {reply.failure}"
    for name, reply in (("emoji", emoji), ("plain", plain)):
        if not reply.text.strip():
            return f"{name} writer: empty reply"
    margin = abs(emoji.score - plain.score)
    if margin == 0:
        return "same text" if emoji.text == plain.text else "tie"
    if margin < min_margin:
        return "margin below --min-margin"
    better = emoji if emoji.score > plain.score else plain
    # Training puts an end token after the chosen reply, and must not learn to stop in mid-sentence.
    return "" if better.finished else "better reply cut off"


def spread(pairs: Sequence[PreferencePair], count: int) -> list[PreferencePair]:
    """Return `count` pairs from all over the list, since its first ones are the clearest and not the usual ones."""
    step = max(1, len(pairs) // max(1, count))
    return list(pairs[step // 2 :: step][:count])


def measure_side(texts: Sequence[str], scores: Sequence[float]) -> dict[str, Any]:
    """Return the measures of one side's replies, and their mean score."""
    return {**asdict(measure_replies(texts)), "mean_score": fmean(scores) if scores else 0.0}


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
