"""What ships beside the prompts: examples to learn from, and what a tuned model is measured with.

No held-out message stands among the training prompts or the examples, nor one that says nearly the same; a test holds
this.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final, Literal

from orpo.records.messages import Message, last_message, user_message, with_system

WishKind = Literal["asks", "forbids"]
ASKS: Final = "asks"
FORBIDS: Final = "forbids"
WISHES: Final[tuple[WishKind, ...]] = (ASKS, FORBIDS)

_FOLDER: Final = Path(__file__).parent


@dataclass(frozen=True)
class Example:
    """A prompt with the reply that a person would like to read.

    Attributes:
        example_id: Unique among the examples.
        prompt: The conversation up to the user's message.
        category: What kind of message it is; in `orpo.records.prompts.OUT_OF_PLACE` the reply has no emoji.
        reply: The reply.
    """

    example_id: str
    prompt: list[Message]
    category: str
    reply: str


@dataclass(frozen=True)
class ShortQuestion:
    """A question whose answer is known: does a tuned model still know what it knew?

    Attributes:
        question: What is asked.
        answers: The right answers in lower case; a reply that holds one of them is right.
        kind: `fact` or `sum`.
    """

    question: str
    answers: tuple[str, ...]
    kind: str


@dataclass(frozen=True)
class TrainingWish:
    """A wish about emojis that goes with any message: put to one, it decides which of two replies is better.

    Attributes:
        wish: Whether it `asks` for emojis or `forbids` them.
        where: It is the `system` prompt, or stands `before` or `after` the message of the user.
        text: The wish.
    """

    wish: WishKind
    where: Literal["system", "before", "after"]
    text: str

    def put_to(self, messages: Sequence[Message]) -> list[Message]:
        """Return a conversation without a system prompt as one that ends with this wish, or begins with it."""
        if self.where == "system":
            return with_system(self.text, messages)
        said = last_message(messages)
        parts = (self.text, said) if self.where == "before" else (said, self.text)
        return [*messages[:-1], *user_message(" ".join(parts))]


@dataclass(frozen=True)
class HeldOutWish:
    """A conversation in which somebody wishes for emojis or for none.

    Attributes:
        messages: The conversation; the wish stands in the system prompt or in the user's message.
        wish: Whether it `asks` for emojis or `forbids` them.
    """

    messages: list[Message]
    wish: WishKind


def shipped_examples() -> list[Example]:
    """Return the examples, written for this project."""
    rows = _read("examples.jsonl")
    return [
        Example(f"x{number:04d}", row["prompt"], row["category"], row["reply"])
        for number, row in enumerate(rows, start=1)
    ]


def short_questions() -> list[ShortQuestion]:
    """Return 100 short questions with their answers, held out."""
    return [
        ShortQuestion(row["question"], tuple(row["answers"]), row["kind"]) for row in _read("short_questions.jsonl")
    ]


def held_out_wishes() -> list[HeldOutWish]:
    """Return 60 wishes for or against emojis, held out."""
    return [HeldOutWish(row["messages"], row["wish"]) for row in _read("obedience.jsonl")]


@cache
def shipped_wishes() -> tuple[TrainingWish, ...]:
    """Return wishes to train on: 247 that forbid emojis and 140 that ask for them."""
    return tuple(TrainingWish(row["wish"], row["where"], row["text"]) for row in _read("wishes.jsonl"))


def _read(name: str) -> list[dict[str, Any]]:
    with (_FOLDER / name).open(encoding="utf-8") as stream:
        return [json.loads(line) for line in stream]
