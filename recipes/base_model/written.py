"""Conversations written for this project: intents multiplied out, and arithmetic made by rule."""

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
    return [
        intent for path in sorted(folder.glob("*.yaml")) for intent in yaml.safe_load(path.read_text(encoding="utf-8"))
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
    are each a situation of their own, count more, and so do the answers to the train prompts."""
    more = {"mirror": 2.5, "news": 2.5, "everyday": 2.0, "ask": 1.5}
    weights = [size_of_intent(i) ** 0.25 * more.get(i["intent"].split("_")[0], 1.0) for i in intents]
    for intent in rng.choices(intents, weights, k=count):
        yield expand_intent(intent, rng)


_NAMES = [
    "Anna",
    "Ben",
    "Clara",
    "Dan",
    "Emma",
    "Finn",
    "Grace",
    "Hugo",
    "Ivy",
    "Jack",
    "Kate",
    "Leo",
    "Mia",
    "Noah",
    "Olive",
    "Paul",
    "Rosa",
    "Sam",
    "Tina",
    "Will",
]
_THINGS = [
    "apples",
    "books",
    "cookies",
    "pencils",
    "stickers",
    "marbles",
    "cards",
    "eggs",
    "oranges",
    "flowers",
    "shells",
    "coins",
    "cupcakes",
    "balloons",
    "stamps",
]


def _arithmetic_facts(rng: random.Random) -> tuple[str, int, int, int]:
    kind = rng.choice(["+", "+", "-", "-", "*", "/"])
    if kind == "+":
        a, b = rng.randint(1, 99), rng.randint(1, 99)
        return kind, a, b, a + b
    if kind == "-":
        a = rng.randint(5, 99)
        b = rng.randint(1, a)
        return kind, a, b, a - b
    a, b = rng.randint(2, 12), rng.randint(2, 12)
    return (kind, a, b, a * b) if kind == "*" else (kind, a * b, b, a)


_SAY = {
    "+": ["plus", "+", "and"],
    "-": ["minus", "-"],
    "*": ["times", "x", "multiplied by", "*"],
    "/": ["divided by", "/"],
}


def _plain_sum(rng: random.Random) -> tuple[str, str]:
    op, a, b, result = _arithmetic_facts(rng)
    said = rng.choice(_SAY[op]) if op != "+" else rng.choice(["plus", "+"])
    ask = rng.choice([
        "What is {s}?", "what's {s}", "{s} = ?", "How much is {s}?", "Can you work out {s}?", "Calculate {s}.",
        "What do I get for {s}?", "quick one: {s}", "Please solve {s}.", "Tell me {s}.", "Hey, what does {s} make?",
    ])  # fmt: skip
    tell = rng.choice([
        "{s} is {r}.", "{s} = {r}.", "The answer is {r}.", "That makes {r}.", "{s} equals {r}.",
        "It is {r}: {s} = {r}.",
        "The result is {r}. Let me know if you have another one.",
    ])  # fmt: skip
    expression = f"{a} {said} {b}"
    return ask.format(s=expression), tell.format(s=expression, r=result)


def _word_problem(rng: random.Random) -> tuple[str, str]:
    name, thing = rng.choice(_NAMES), rng.choice(_THINGS)
    kind = rng.randrange(6)
    if kind == 0:
        a, b = rng.randint(2, 40), rng.randint(2, 40)
        return (
            f"{name} has {a} {thing} and gets {b} more. How many does {name} have now?",
            f"{name} now has {a + b} {thing}, because {a} + {b} = {a + b}.",
        )
    if kind == 1:
        a = rng.randint(6, 60)
        b = rng.randint(2, a - 1)
        return (
            f"I had {a} {thing} and gave away {b}. How many are left?",
            f"You have {a - b} {thing} left, because {a} - {b} = {a - b}.",
        )
    if kind == 2:
        a, b = rng.randint(2, 12), rng.randint(2, 12)
        return (
            f"There are {a} boxes with {b} {thing} each. How many {thing} are there?",
            f"There are {a * b} {thing} in all: {a} x {b} = {a * b}.",
        )
    if kind == 3:
        a, b = rng.randint(2, 10), rng.randint(2, 10)
        return (
            f"We share {a * b} {thing} between {a} friends. How many does each one get?",
            f"Each friend gets {b} {thing}, because {a * b} / {a} = {b}.",
        )
    if kind == 4:
        a, b = rng.randint(2, 20), rng.randint(2, 9)
        return (
            f"One ticket costs {a} dollars. How much do {b} tickets cost?",
            f"{b} tickets cost {a * b} dollars, because {b} x {a} = {a * b}.",
        )
    a = rng.randint(1, 50) * 2
    return f"What is half of {a}?", f"Half of {a} is {a // 2}."


def draw_arithmetic(count: int, rng: random.Random) -> Iterator[Conversation]:
    """Sums, differences, products and quotients of small numbers, a third of them as tiny stories."""
    for _ in range(count):
        question, answer = _word_problem(rng) if rng.random() < 0.35 else _plain_sum(rng)
        yield Conversation("arithmetic", [question, answer])
