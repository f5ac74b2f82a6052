"""System prompts that ask for emojis, forbid them, or do not mention them: written ones, and many more from a grammar.

The grammar puts a persona, a wish and its wording together, so that the model meets hundreds of thousands of
wordings and learns what they mean. A cheerful persona stands beside all three wishes: it decides nothing.
"""

import random
import re
from functools import cache
from pathlib import Path
from typing import Any

import yaml

_SLOT = re.compile(r"\{(\w+)\}")
# What measure.py asks with: never trained on, so that its figures speak of wordings that the model has not seen.
MEASURED = {
    "use_emojis": [
        "Use emojis.",
        "Please add fitting emojis to your reply.",
        "You are a cheerful assistant who uses emojis.",
        "Write like you would text a good friend, emojis included.",
        "Answer helpfully and liven up your text with emoji.",
    ],
    "no_emojis": [
        "Do not use emojis.",
        "Write plain text without any emoji.",
        "You are an assistant that never uses emojis.",
        "Keep a businesslike tone; emojis have no place in it.",
        "Answer helpfully, but leave emoji out of your text.",
    ],
}


@cache
def _wordings() -> dict[str, Any]:
    text = (Path(__file__).parent / "wish_wordings.yaml").read_text(encoding="utf-8")
    wordings: dict[str, Any] = yaml.safe_load(text)
    return wordings


def _from_grammar(kind: str, rng: random.Random) -> str:
    grammar = _wordings()["grammar"]
    text = rng.choice(grammar[kind])
    while _SLOT.search(text):
        text = _SLOT.sub(lambda slot: rng.choice(grammar[slot.group(1)]), text)
    return re.sub(r" +", " ", text)


def _as_typed(text: str, rng: random.Random) -> str:
    """Now and then in lower case, without its full stop, or with an exclamation mark."""
    draw = rng.random()
    if draw < 0.06:
        return text.lower().rstrip(".")
    if draw < 0.12:
        return text.rstrip(".")
    return text.removesuffix(".") + "!" if draw < 0.16 else text


def _wish(kind: str, rng: random.Random) -> str:
    """A wish about emojis, alone or beside a sentence that says nothing of them."""
    text = rng.choice(_wordings()[kind]) if rng.random() < 0.35 else _from_grammar(kind, rng)
    draw = rng.random()
    if draw < 0.2:
        text = f"{neutral(rng)} {text}"
    elif draw < 0.35:
        text = f"{text} {neutral(rng)}"
    text = _as_typed(text, rng)
    return _wish(kind, rng) if any(text in wordings for wordings in MEASURED.values()) else text


def asking(rng: random.Random) -> str:
    """A system prompt that asks for emojis."""
    return _wish("ask", rng)


def forbidding(rng: random.Random) -> str:
    """A system prompt that forbids emojis."""
    return _wish("forbid", rng)


def neutral(rng: random.Random) -> str:
    """A system prompt that says nothing of emojis."""
    return rng.choice(_wordings()["neutral"]) if rng.random() < 0.35 else _from_grammar("neutral", rng)


def in_message(wanted: bool, rng: random.Random) -> str:
    """The same wish, said in the user's own message."""
    return rng.choice(_wordings()["in_message_ask" if wanted else "in_message_forbid"])
