"""From the scored replies to a prompt to a preference pair and what it teaches, or to the reason why there is none."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import log
from typing import Any, Final

from orpo.generating.contrasts import with_emoji, worsen
from orpo.generating.mix import draw_kind, stream
from orpo.generating.situations import Situation, find_situation
from orpo.records.messages import last_message, system_message
from orpo.records.pairs import PairKind, PreferencePair
from orpo.records.prompts import Prompt
from orpo.records.replies import Reply
from orpo.scoring import ScoreReport, contains_emoji, get_scorer, strip_emojis
from orpo.scoring.measures import repeats_itself

_TRIES: Final = 8
"""How many worse replies are tried until the score sees the difference."""

_KIND_OF_PART: Final[Mapping[str, PairKind]] = {
    "presence": "presence",
    "obedience": "obedience",
    "context": "restraint",
    "density": "excess",
    "repetition": "excess",
    "reading": "excess",
    "placement": "place",
    "replacement": "place",
    "relevance": "fit",
    "emotion": "fit",
    "rendering": "fit",
}
_SMALLEST: Final = 1e-6


@dataclass(frozen=True)
class WrittenReply:
    """A reply with its score, or why there is none.

    Attributes:
        reply: What was written; empty when the call failed.
        report: What the scorer says of it.
        writer: The side whose model wrote it: `emoji`, `plain` or `tuned`.
        model: Who that is, by a name that may be passed on.
        failure: Why there is no reply; empty when there is one.
    """

    reply: Reply
    report: ScoreReport
    writer: str
    model: str
    failure: str = ""

    @property
    def text(self) -> str:
        """What was written."""
        return self.reply.text

    @property
    def score(self) -> float:
        """What the scorer says of it."""
        return self.report.score

    @property
    def finished(self) -> bool:
        """Whether the model ended it."""
        return self.reply.finished


@dataclass(frozen=True)
class WrittenPrompt:
    """A prompt with a reply of each writer, or with the best and the worst of one.

    Attributes:
        prompt: What was answered.
        emoji: The reply with emojis.
        plain: The reply without.
        is_restrained: A person says that the reply is to have no emoji, whatever the score knows of the matter.
    """

    prompt: Prompt
    emoji: WrittenReply
    plain: WrittenReply
    is_restrained: bool = False


@dataclass(frozen=True)
class Dropped:
    """A prompt that made no pair.

    Attributes:
        reason: Why, in the words of the table.
        prompt: The prompt.
        written: What the writers wrote, where they did.
    """

    reason: str
    prompt: Prompt
    written: WrittenPrompt | None = None

    def as_row(self) -> dict[str, Any]:
        """Return one line of dropped.jsonl."""
        row: dict[str, Any] = {
            "reason": self.reason,
            "prompt_id": self.prompt.prompt_id,
            "prompt": self.prompt.conversation(),
        }
        for side in ("emoji", "plain"):
            reply: WrittenReply | None = getattr(self.written, side, None)
            row[f"{side}_reply"] = reply.text if reply else ""
            row[f"{side}_score"] = reply.score if reply else 0.0
            row[f"{side}_reasons"] = list(reasons_of(reply.report)) if reply else []
        return row


@dataclass(frozen=True)
class PairMaker:
    """Makes pairs: which of the replies is chosen, and what the other side is.

    Attributes:
        scorer: Which score decides.
        mix: The shares of what pairs teach where emojis are in place.
        min_margin: How much better the chosen reply must score.
        seed: With the prompt's id it decides each draw.
        source: The prompts' name in the pairs.
        own_words_only: Take both sides as they were written, as for a tuned model that learns from its own replies.
    """

    scorer: str
    mix: Mapping[PairKind, float]
    min_margin: float
    seed: int
    source: str
    own_words_only: bool = False

    def make(self, written: WrittenPrompt) -> PreferencePair | Dropped:
        """Return the pair, or why there is none."""
        reason = _why_unusable(written)
        if reason:
            return Dropped(reason, written.prompt, written)
        best = max(written.emoji, written.plain, key=lambda reply: reply.score)
        situation = find_situation(self.scorer, best.text, *self._asked(written.prompt))
        chosen, rejected, kind = self._choose(written, situation)
        margin = chosen.score - rejected.score
        if margin <= 0 or margin < self.min_margin:
            same = written.emoji.text == written.plain.text
            is_tie = written.emoji.score == written.plain.score and kind in ("presence", "")
            reason = ("same text" if same else "tie") if is_tie else "margin below --min-margin"
        elif not chosen.finished:
            # Training puts an end token after the chosen reply, and must not learn to stop in mid-sentence.
            reason = "better reply cut off"
        elif repeats_itself(chosen.text):
            # A weak model's own words teach it to go on repeating itself (docs/experiments.md).
            reason = "better reply repeats itself"
        if reason:
            return Dropped(reason, written.prompt, written)
        return self._as_pair(written.prompt, chosen, rejected, kind)

    def _choose(self, written: WrittenPrompt, situation: Situation) -> tuple[WrittenReply, WrittenReply, PairKind]:
        better, worse = written.emoji, written.plain
        if worse.score > better.score:
            better, worse = worse, better
        if situation == "forbidden":
            return self._restrained(written.prompt, better, worse, "obedience")
        if situation == "out of place" or written.is_restrained:
            return self._restrained(written.prompt, better, worse, "restraint")
        if not contains_emoji(better.text) or self.own_words_only:
            return better, worse, kind_by_parts(better.report, worse.report)
        kind = "obedience" if situation == "asked for" else draw_kind(self.mix, self._stream(written.prompt, "kind"))
        if kind in ("presence", "obedience") and better.text != worse.text:
            return better, worse, kind
        rng, prompt = self._stream(written.prompt, kind), last_message(written.prompt.conversation())
        contrasts = (worsen(kind, better.text, prompt, rng) for _ in range(_TRIES))
        return better, self._first_worse(written.prompt, better, contrasts), kind

    def _restrained(
        self, prompt: Prompt, better: WrittenReply, worse: WrittenReply, kind: PairKind
    ) -> tuple[WrittenReply, WrittenReply, PairKind]:
        """Choose a reply without emojis; the other side has one, a writer's own where there is such a reply."""
        chosen = next((reply for reply in (better, worse) if not contains_emoji(reply.text)), None)
        if chosen is None:
            chosen = self._changed(prompt, better, strip_emojis(better.text).strip())
        if contains_emoji(worse.text):
            return chosen, worse, kind
        if contains_emoji(better.text):
            return chosen, better, kind
        rng = self._stream(prompt, kind)
        contrasts = (with_emoji(chosen.text, rng) for _ in range(_TRIES))
        return chosen, self._first_worse(prompt, chosen, contrasts), kind

    def _first_worse(self, prompt: Prompt, chosen: WrittenReply, texts: Any) -> WrittenReply:
        """Return the first of the texts that scores enough below the chosen reply, or else the last."""
        found = chosen
        for text in texts:
            found = self._changed(prompt, chosen, text)
            if chosen.score - found.score >= max(self.min_margin, _SMALLEST):
                break
        return found

    def _changed(self, prompt: Prompt, reply: WrittenReply, text: str) -> WrittenReply:
        message, system = self._asked(prompt)
        report = get_scorer(self.scorer).explain(text, message, system=system)
        return WrittenReply(Reply(text, reply.reply.finished, reply.reply.tokens), report, reply.writer, reply.model)

    def _stream(self, prompt: Prompt, purpose: str) -> random.Random:
        return stream(self.seed, prompt.prompt_id, purpose)

    @staticmethod
    def _asked(prompt: Prompt) -> tuple[str, str]:
        messages = prompt.conversation()
        return last_message(messages), system_message(messages)

    def _as_pair(self, prompt: Prompt, chosen: WrittenReply, rejected: WrittenReply, kind: PairKind) -> PreferencePair:
        return PreferencePair(
            prompt=prompt.conversation(),
            chosen=[{"role": "assistant", "content": chosen.text}],
            rejected=[{"role": "assistant", "content": rejected.text}],
            chosen_score=chosen.score,
            rejected_score=rejected.score,
            chosen_model=chosen.model,
            rejected_model=rejected.model,
            prompt_id=prompt.prompt_id,
            source=self.source,
            kind=kind,
            chosen_reasons=reasons_of(chosen.report),
            rejected_reasons=reasons_of(rejected.report),
        )


def kind_by_parts(chosen: ScoreReport, rejected: ScoreReport) -> PairKind:
    """Return what a pair of two replies teaches: the kind whose parts tell most against the rejected one."""
    told: dict[PairKind, float] = {}
    for name, part in rejected.parts.items():
        kind = _KIND_OF_PART.get(name)
        if kind is not None and name in chosen.parts:
            better = log(max(chosen.parts[name].value, _SMALLEST))
            told[kind] = told.get(kind, 0.0) + part.weight * (better - log(max(part.value, _SMALLEST)))
    return max(told, key=lambda kind: told[kind]) if told else ""


def reasons_of(report: ScoreReport) -> tuple[str, ...]:
    """Return why a reply scored as it did, a line for each part that cost it something."""
    return tuple(f"{name} {part.value:.2f}: {part.reason}" for name, part in report.parts.items() if part.value < 0.995)


def best_reply(replies: Sequence[WrittenReply]) -> WrittenReply:
    """Return the best of one writer's replies: one that is there, ended by itself, and scores most."""
    return max(replies, key=_quality)


def worst_reply(replies: Sequence[WrittenReply]) -> WrittenReply:
    """Return the worst of one writer's replies that are there."""
    there = [reply for reply in replies if not reply.failure and reply.text.strip()]
    return min(there or replies, key=lambda reply: reply.score)


def _quality(reply: WrittenReply) -> tuple[bool, bool, float]:
    return not reply.failure and bool(reply.text.strip()), reply.finished, reply.score


def _why_unusable(written: WrittenPrompt) -> str:
    sides = (written.emoji, written.plain)
    for reply in sides:
        if reply.failure:
            return f"{reply.writer} writer: {reply.failure}"
    for reply in sides:
        if not reply.text.strip():
            return f"{reply.writer} writer: empty reply"
    return ""
