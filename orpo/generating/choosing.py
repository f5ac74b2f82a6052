"""From the scored replies to a prompt to a preference pair and what it teaches, or to the reason why there is none."""

import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import log
from typing import Final

from orpo.generating.contrasts import with_emoji, worsen
from orpo.generating.mix import drawn_kind, stream
from orpo.generating.obedience import with_wish
from orpo.generating.placing import strip
from orpo.generating.situations import find_situation
from orpo.generating.written import Dropped, WrittenPrompt, WrittenReply, reasons_of, rewritten
from orpo.records.messages import last_message
from orpo.records.pairs import PairKind, PreferencePair
from orpo.records.prompts import Prompt
from orpo.records.shipped import ASKS, WISHES, WishKind
from orpo.scoring import ScoreReport, contains_emoji
from orpo.scoring.measures import repeats_itself, says_things_twice

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

_Choice = tuple[Prompt, WrittenReply, WrittenReply, PairKind]  # what is answered, chosen, rejected, and what it teaches


@dataclass(frozen=True)
class PairMaker:
    """Makes pairs: which of the replies is chosen, and what the other side is.

    Attributes:
        scorer: Which score decides.
        mix: The shares of what pairs teach where emojis are in place.
        min_margin: How much better the chosen reply must score.
        seed: With the prompt's id it decides each draw.
        source: The prompts' name in the pairs.
        palette: The emojis that unfitting ones are drawn from; the usual ones if None.
        own_words_only: Take both sides as they were written, as for a tuned model that learns from its own replies.
    """

    scorer: str
    mix: Mapping[PairKind, float]
    min_margin: float
    seed: int
    source: str
    palette: tuple[str, ...] | None = None
    own_words_only: bool = False

    def make(self, written: WrittenPrompt) -> list[PreferencePair | Dropped]:
        """Return the pair, or the two where opposite wishes are put to the prompt; or why there is none."""
        reason = _why_unusable(written)
        if reason:
            return [Dropped(reason, written.prompt, written)]
        return [self._judge(written, *choice) for choice in self._choose(written)]

    def _judge(
        self, written: WrittenPrompt, prompt: Prompt, chosen: WrittenReply, rejected: WrittenReply, kind: PairKind
    ) -> PreferencePair | Dropped:
        """Return the pair, or what speaks against it."""
        reason, margin = "", chosen.score - rejected.score
        if margin <= 0 or margin < self.min_margin:
            same = written.emoji.text == written.plain.text
            is_tie = written.emoji.score == written.plain.score and kind in ("presence", "")
            reason = ("same text" if same else "tie") if is_tie else "margin below min_margin"
        elif not chosen.finished:
            # Training puts an end token after the chosen reply, and must not learn to stop in mid-sentence.
            reason = "better reply cut off"
        elif repeats_itself(chosen.text) or says_things_twice(chosen.text):
            # A weak model's own words teach it to go on repeating itself (docs/experiments.md).
            reason = "better reply repeats itself"
        if reason:
            return Dropped(reason, written.prompt, written)
        return self._as_pair(prompt, chosen, rejected, kind)

    def _choose(self, written: WrittenPrompt) -> list[_Choice]:
        prompt, better, worse = written.prompt, written.emoji, written.plain
        if worse.score > better.score:
            better, worse = worse, better
        situation = find_situation(prompt, better.text, self.scorer)
        if situation == "forbidden":
            return [(prompt, *self._restrained(prompt, better, worse, "obedience"))]
        if situation == "out of place" or written.is_restrained:
            return [(prompt, *self._restrained(prompt, better, worse, "restraint"))]
        if not contains_emoji(better.text) or self.own_words_only:
            return [(prompt, better, worse, kind_by_parts(better.report, worse.report))]
        if situation == "asked for":
            if better.text == worse.text:
                worse = self._changed(prompt, better, strip(better.text))
            return [(prompt, better, worse, "obedience")]
        kind = drawn_kind(self.mix, self.seed, prompt.prompt_id)
        if kind == "obedience":
            return [self._wished(prompt, better, wish) for wish in WISHES]
        if kind == "presence" and better.text != worse.text:
            return [(prompt, better, worse, kind)]
        rng, said = self._stream(prompt, kind), last_message(prompt.conversation())
        contrasts = (worsen(kind, better.text, said, rng, self.palette) for _ in range(_TRIES))
        return [(prompt, better, self._first_worse(prompt, better, contrasts), kind)]

    def _wished(self, prompt: Prompt, reply: WrittenReply, wish: WishKind) -> _Choice:
        """Put a wish to the prompt: it decides whether the reply is chosen with its emojis or without."""
        wished = with_wish(prompt, wish, self.seed)
        having = self._changed(wished, reply, reply.text)
        without = self._changed(wished, reply, strip(reply.text))
        chosen, rejected = (having, without) if wish == ASKS else (without, having)
        return wished, chosen, rejected, "obedience"

    def _restrained(
        self, prompt: Prompt, better: WrittenReply, worse: WrittenReply, kind: PairKind
    ) -> tuple[WrittenReply, WrittenReply, PairKind]:
        """Choose a reply without emojis; the other side has one, a writer's own where there is such a reply."""
        chosen = next((reply for reply in (better, worse) if not contains_emoji(reply.text)), None)
        if chosen is None:
            chosen = self._changed(prompt, better, strip(better.text))
        if contains_emoji(worse.text):
            return chosen, worse, kind
        if contains_emoji(better.text):
            return chosen, better, kind
        rng = self._stream(prompt, kind)
        contrasts = (with_emoji(chosen.text, rng, self.palette) for _ in range(_TRIES))
        return chosen, self._first_worse(prompt, chosen, contrasts), kind

    def _first_worse(self, prompt: Prompt, chosen: WrittenReply, texts: Iterable[str]) -> WrittenReply:
        """Return the first of the texts that scores enough below the chosen reply, or else the last."""
        found = chosen
        for text in texts:
            found = self._changed(prompt, chosen, text)
            if chosen.score - found.score >= max(self.min_margin, _SMALLEST):
                break
        return found

    def _changed(self, prompt: Prompt, reply: WrittenReply, text: str) -> WrittenReply:
        return rewritten(reply, text, prompt, self.scorer)

    def _stream(self, prompt: Prompt, purpose: str) -> random.Random:
        return stream(self.seed, prompt.prompt_id, purpose)

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


def _why_unusable(written: WrittenPrompt) -> str:
    sides = (written.emoji, written.plain)
    for reply in sides:
        if reply.failure:
            return f"{reply.writer} writer: {reply.failure}"
    for reply in sides:
        if not reply.text.strip():
            return f"{reply.writer} writer: empty reply"
    return ""
