"""Conversations written for this project: intents multiplied out."""

import random
import re
from collections.abc import Iterator
from pathlib import Path

import yaml

from corpora import Conversation

_SLOT = re.compile(r"\{(\w+)\}")


def _fill(text: str, values: dict[str, str]) -> str:
    for _ in range(3):  # a slot's value may itself name a slot
        text = _SLOT.sub(lambda m: values.get(m.group(1), m.group(0)), text)
    return text


def _sentence_case(reply: str) -> str:
    """Capitals where slot values open a sentence; code and JSON stay as they are."""
    if "```" in reply or reply.startswith(("{", "[")):
        return reply
    reply = reply[0].upper() + reply[1:]
    return re.sub(r"([.!?] )([a-z])", lambda m: m.group(1) + m.group(2).upper(), reply)


def load_intents(folder: Path) -> list[dict]:
    """All intents of the folder's YAML files, in order."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the same result, ten times as fast
    return [
        intent
        for path in sorted(folder.glob("*.yaml"))
        for intent in yaml.load(path.read_text(encoding="utf-8"), Loader=loader)
    ]


def _register(text: str, rng: random.Random) -> str:
    """The message as a hurried person might type it: lower case or no closing mark, now and then."""
    draw = rng.random()
    if draw < 0.10:
        text = text[0].lower() + text[1:] if not text.startswith("I ") and not text.startswith("I'") else text
    if draw < 0.06 or draw > 0.9:
        text = text.rstrip(".!") if not text.endswith("...") else text
    return text


def expand_intent(intent: dict, rng: random.Random) -> Conversation:
    """One conversation drawn from an intent."""
    values = {name: rng.choice(options) for name, options in (intent.get("slots") or {}).items()}
    if intent.get("rows"):
        values |= rng.choice(intent["rows"])
    user = _register(_fill(rng.choice(intent["user"]), values), rng)
    reply = _sentence_case(_fill(rng.choice(intent["reply"]), values))
    return Conversation("written", [user, reply.strip()], intent["mood"], bool(intent.get("out_of_place")))


def size_of_intent(intent: dict) -> int:
    """How many different conversations the intent holds."""
    size = len(intent["user"]) * len(intent["reply"]) * max(1, len(intent.get("rows") or []))
    for options in (intent.get("slots") or {}).values():
        size *= len(options)
    return size


def draw_written(intents: list[dict], count: int, rng: random.Random) -> Iterator[Conversation]:
    """`count` conversations; an intent is drawn in proportion to the fourth root of its size, so that
    large tables of facts do not crowd out the many small situations. The mirroring intents, whose rows
    are each a situation of their own, count more, and so do the answers to the train prompts. The direct ones,
    whose replies were written for one message each, count most: they are a little less than half of what is drawn."""
    more = {"direct": 12.0, "mirror": 2.5, "news": 2.5, "everyday": 2.0, "ask": 1.5}
    weights = [size_of_intent(i) ** 0.25 * more.get(i["intent"].split("_")[0], 1.0) for i in intents]
    for intent in rng.choices(intents, weights, k=count):
        yield expand_intent(intent, rng)
