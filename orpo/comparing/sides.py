"""What is asked, and what each side answers to it."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from orpo.comparing.approaches import Approach
from orpo.records.messages import Message, system_message, user_message, with_system
from orpo.records.prompts import OUT_OF_PLACE, Prompt
from orpo.records.replies import Reply
from orpo.records.shipped import HeldOutWish, ShortQuestion
from orpo.scoring import ScoreReport

_PROSE_FILE = Path(__file__).with_name("plain_text.txt")


@dataclass(frozen=True)
class HeldOut:
    """What no model is trained on; an empty list is not measured."""

    prompts: list[Prompt] = field(default_factory=list)
    obedience: list[HeldOutWish] = field(default_factory=list)
    questions: list[ShortQuestion] = field(default_factory=list)
    prose: list[str] = field(default_factory=list)
    system: str | None = None
    """A system prompt for every conversation that has none of its own."""

    def prompt_conversations(self) -> list[list[Message]]:
        """Return the prompts as chat messages."""
        return [self._with_system(prompt.conversation()) for prompt in self.prompts]

    def obedience_conversations(self) -> list[list[Message]]:
        """Return the wishes for and against emojis as chat messages."""
        return [self._with_system(case.messages) for case in self.obedience]

    def question_conversations(self) -> list[list[Message]]:
        """Return the short questions as chat messages."""
        return [self._with_system(user_message(question.question)) for question in self.questions]

    def _with_system(self, messages: Sequence[Message]) -> list[Message]:
        return list(messages) if system_message(messages) else with_system(self.system, messages)

    def places(self) -> dict[str, list[bool]]:
        """Return which prompts each measure of place counts: in place, out of place, each category of these."""
        named = [prompt.category for prompt in self.prompts]
        out = [category in OUT_OF_PLACE for category in named]
        places = {
            "in_place": [bool(category) and not outside for category, outside in zip(named, out, strict=True)],
            "out_of_place": out,
        }
        for category in sorted(set(named) & OUT_OF_PLACE):
            places[f"out_of_place/{category}"] = [name == category for name in named]
        return places


@dataclass(frozen=True)
class Side:
    """What one approach answered.

    Attributes:
        approach: How the replies came about.
        replies: To the prompts, [seeds][prompts].
        reports: Their scores, [seeds][prompts].
        obedience: Replies to wishes for and against emojis, [seeds][cases].
        answers: Replies to the short questions.
        prose: (log p, tokens) of each text of prose.
        seconds: How long the replies to the prompts took; None where that is not known.
    """

    approach: Approach
    replies: list[list[Reply]] = field(default_factory=list)
    reports: list[list[ScoreReport]] = field(default_factory=list)
    obedience: list[list[Reply]] = field(default_factory=list)
    answers: list[Reply] = field(default_factory=list)
    prose: list[tuple[float, int]] = field(default_factory=list)
    seconds: float | None = None

    @property
    def name(self) -> str:
        """Return the side's name in tables."""
        return self.approach.name


def choose_prompts(prompts: Sequence[Prompt], count: int) -> list[Prompt]:
    """Return `count` prompts from all over the list, always the same ones; 0 takes all of them."""
    if count <= 0 or count >= len(prompts):
        return list(prompts)
    return random.Random(0).sample(list(prompts), len(prompts))[:count]


def prose_texts() -> list[str]:
    """Return the everyday prose, written for this purpose, on which perplexity is measured."""
    return [line for line in _PROSE_FILE.read_text(encoding="utf-8").splitlines() if line.strip()]
