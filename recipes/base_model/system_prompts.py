"""System prompts that ask for emojis, forbid them, or do not mention them, in many wordings."""

import random
from pathlib import Path

import yaml

_WORDINGS: dict[str, list[str]] = yaml.safe_load((Path(__file__).parent / "system_prompts.yaml").read_text())
_NEUTRAL = _WORDINGS["neutral"]


def _combined(core: list[str], rng: random.Random) -> str:
    text = rng.choice(core)
    draw = rng.random()
    if draw < 0.3:
        return f"{rng.choice(_WORDINGS['neutral'])} {text}"
    if draw < 0.4:
        return f"{text} {rng.choice(_WORDINGS['neutral'])}"
    if draw < 0.45:
        return f"{rng.choice(_WORDINGS['neutral'])} {text} {rng.choice(_WORDINGS['neutral'])}"
    return text


def asking(rng: random.Random) -> str:
    """A system prompt that asks for emojis."""
    return _combined(_WORDINGS["ask"], rng)


def forbidding(rng: random.Random) -> str:
    """A system prompt that forbids emojis."""
    return _combined(_WORDINGS["forbid"], rng)


def neutral(rng: random.Random) -> str:
    """A system prompt that says nothing of emojis."""
    return rng.choice(_NEUTRAL)


def in_message(wanted: bool, rng: random.Random) -> str:
    """The same wish, said in the user's own message."""
    return rng.choice(_WORDINGS["in_message_ask"] if wanted else _WORDINGS["in_message_forbid"])
