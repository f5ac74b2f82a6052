"""Sums, differences, products and quotients, asked in many ways and answered step by step.

A small model cannot see 63 - 28 at a glance, but it can learn 63 - 20 = 43 and 43 - 8 = 35 and read the result off its
own words. So every answer that takes more than one digit's worth of work shows the steps first and the result last.
"""

import random
from collections.abc import Iterator

from corpora import Conversation

NAMES = [
    "Anna", "Ben", "Clara", "Dan", "Emma", "Finn", "Grace", "Hugo", "Ivy", "Jack", "Kate", "Leo", "Mia", "Noah",
    "Olive", "Paul", "Rosa", "Sam", "Tina", "Will", "Lena", "Omar", "Nina", "Carlos", "Yuki", "Priya", "Tom", "Sarah",
]  # fmt: skip
THINGS = [
    "apples", "books", "cookies", "pencils", "stickers", "marbles", "cards", "eggs", "oranges", "flowers", "shells",
    "coins", "cupcakes", "balloons", "stamps", "plates", "chairs", "candles", "bottles", "pears", "plums", "tickets",
    "photos", "letters", "buttons", "bricks", "carrots", "muffins", "towels", "bulbs",
]  # fmt: skip
PLACES = ["bag", "basket", "row", "table", "page", "tray", "jar", "drawer", "crate", "pack"]

_SAID = {"+": ["plus", "+"], "-": ["minus", "-"], "*": ["times", "x", "multiplied by", "*"], "/": ["divided by", "/"]}
_SIGN = {"+": "+", "-": "-", "*": "x", "/": "/"}
_ASKED = [
    "What is {s}?", "what's {s}", "{s} = ?", "{s}", "How much is {s}?", "Can you work out {s}?", "Calculate {s}.",
    "What do I get for {s}?", "quick one: {s}", "Please solve {s}.", "Tell me {s}.", "Hey, what does {s} make?",
    "Could you compute {s} for me?", "how much is {s} in total", "I need {s}.", "Work out {s}, please.",
]  # fmt: skip
_ASKED_ONE = {
    "+": ["Add {a} and {b}.", "add {b} to {a} please", "What is the sum of {a} and {b}?", "{a} and {b} together?",
          "What number is {b} more than {a}?", "Sum up {a} and {b} for me.", "what do {a} and {b} make",
          "Please add {a} and {b}.", "If I put {a} and {b} together, what do I get?"],
    "-": ["Subtract {b} from {a}.", "take {b} from {a}", "What is left of {a} when {b} are gone?", "{a} less {b}?",
          "What is the difference between {a} and {b}?", "What number is {b} less than {a}?", "{a} take away {b}",
          "What remains if I take {b} away from {a}?", "how far is it from {b} to {a}"],
    "*": ["Multiply {a} by {b}.", "What is the product of {a} and {b}?", "{a} groups of {b}, how many is that?",
          "multiply {a} and {b} please", "What do {a} lots of {b} make?"],
    "/": ["Divide {a} by {b}.", "How many times does {b} go into {a}?", "Split {a} into {b} equal parts.",
          "divide {a} by {b} please", "What is {a} shared by {b}?"],
}  # fmt: skip

# A question and what its result counts: {a} {b} numbers, {n} {m} names, {t} things, {p} a container, {r} the result.
_STORIES = {
    "+": [
        ("{n} has {a} {t} and gets {b} more. How many does {n} have now?", "{n} now has {r} {t}."),
        ("I bought {a} {t} on Monday and {b} on Friday. How many is that?", "That is {r} {t}."),
        ("{n} found {a} {t}, {m} found {b}. How many did they find together?", "Together they found {r} {t}."),
        ("There are {a} people in the room and {b} more come in. How many are there now?", "Now there are {r} people."),
        ("i drove {a} km before lunch and {b} km after, how far in total", "In total it is {r} kilometers."),
        ("One {p} holds {a} {t} and the other holds {b}. How many {t} are in both?", "Both hold {r} {t}."),
        ("The book costs {a} dollars and the pen {b}. What do I pay?", "You pay {r} dollars."),
        ("We counted {a} {t} in the morning and {b} in the evening. What is the total?", "The total is {r} {t}."),
        ("{n} slept {a} minutes, then {b} minutes more. How long was that?", "That was {r} minutes."),
        ("My team scored {a} points, then {b} more. How many points do we have?", "You have {r} points."),
    ],
    "-": [
        ("I had {a} {t} and gave away {b}. How many are left?", "{r} {t} are left."),
        ("{n} had {a} {t} and lost {b}. How many does {n} still have?", "{n} still has {r} {t}."),
        ("There were {a} {t} in the {p} and we used {b}. How many remain?", "{r} {t} remain."),
        ("A ribbon is {a} meters long and I cut off {b} meters. How long is the rest?", "The rest is {r} meters long."),
        ("there were {a} birds in the tree and {b} flew off, how many stayed", "{r} birds stayed."),
        ("The bus had {a} passengers and {b} got off. How many are still on it?", "{r} passengers are still on it."),
        ("I have {a} dollars and spend {b}. How much do I keep?", "You keep {r} dollars."),
        ("The book has {a} pages and I read {b}. How many pages to go?", "There are {r} pages to go."),
        ("{n} is {a} years old and {m} is {b}. How many years apart are they?", "They are {r} years apart."),
        ("We baked {a} muffins and ate {b}. How many can we give away?", "You can give away {r} muffins."),
    ],
    "*": [
        ("There are {a} {p}s with {b} {t} each. How many {t} is that?", "That is {r} {t}."),
        ("One ticket costs {b} dollars. How much do {a} tickets cost?", "They cost {r} dollars."),
        ("Each {p} has {b} {t}. How many {t} are in {a} {p}s?", "There are {r} {t} in all."),
        ("{n} runs {b} km a day. How far is that in {a} days?", "It is {r} kilometers."),
        ("{a} kids get {b} {t} each, how many {t} do i need", "You need {r} {t}."),
        ("If a lesson takes {b} minutes, how long are {a} lessons?", "They take {r} minutes."),
        ("{n} saves {b} dollars a week. How much is it after {a} weeks?", "After that time it is {r} dollars."),
        ("A spider has {b} legs drawn on it. How many legs do {a} such drawings have?", "They have {r} legs."),
        ("We need {b} {t} for each of {a} guests. How many in all?", "In all you need {r} {t}."),
        ("the room has {a} rows of {b} seats, how many seats", "The room has {r} seats."),
    ],
    "/": [
        ("We share {a} {t} between {b} friends. How many does each one get?", "Each one gets {r} {t}."),
        ("{n} packs {a} {t} into {b} {p}s, equally many in each. How many are in one?", "There are {r} {t} in one."),
        ("{a} dollars for {b} people, how much is that each", "It is {r} dollars each."),
        ("I want to read {a} pages in {b} days. How many a day?", "Read {r} pages a day."),
        ("{a} {t} go into {p}s of {b}. How many {p}s do I need?", "You need {r} of them."),
        ("A rope of {a} meters is cut into {b} equal pieces. How long is one?", "One is {r} meters long."),
    ],
}  # fmt: skip


def draw_numbers(op: str, rng: random.Random) -> tuple[int, int, int]:
    """`a`, `b` and `a op b`; mostly of one or two digits, results whole and never negative."""
    if op == "+":
        high = rng.choice([9, 30, 99, 99, 150])
        a, b = rng.randint(1, high), rng.randint(1, min(high, 99))
        return a, b, a + b
    if op == "-":
        a = rng.choice([rng.randint(5, 30), rng.randint(20, 99), rng.randint(30, 99), rng.randint(10, 20) * 10])
        b = rng.randint(1, a)
        return a, b, a - b
    if op == "*":
        a, b = rng.randint(2, 10), rng.randint(2, 10) if rng.random() < 0.55 else rng.randint(11, 30)
        a, b = (b, a) if rng.random() < 0.5 else (a, b)
        return a, b, a * b
    b, r = rng.randint(2, 10), rng.randint(2, 12)
    return b * r, b, r


def steps(op: str, a: int, b: int) -> str | None:
    """The way to the result in steps that each need one table, or None where one look is enough."""
    if op == "+" and a > 9 and b > 9 and b % 10:
        tens, ones = b // 10 * 10, b % 10
        return f"{a} + {tens} = {a + tens} and {a + tens} + {ones} = {a + b}"
    if op == "-" and b > 9 and b % 10:
        tens, ones = b // 10 * 10, b % 10
        return f"{a} - {tens} = {a - tens} and {a - tens} - {ones} = {a - b}"
    if op == "*" and max(a, b) > 10 and max(a, b) % 10:
        big, small = max(a, b), min(a, b)
        tens, ones = big // 10 * 10, big % 10
        return f"{small} x {tens} = {small * tens} and {small} x {ones} = {small * ones}, together {a * b}"
    return f"{b} x {a // b} = {a}" if op == "/" else None


def _sum(op: str, rng: random.Random) -> tuple[str, str]:
    a, b, result = draw_numbers(op, rng)
    said = f"{a} {rng.choice(_SAID[op])} {b}"
    asked = rng.choice(_ASKED) if rng.random() < 0.6 else rng.choice(_ASKED_ONE[op])
    way, fact = steps(op, a, b), f"{a} {_SIGN[op]} {b}"
    if way is None:
        told = rng.choice(["{f} is {r}.", "{f} = {r}.", "That makes {r}: {f} = {r}.", "It is {r}, since {f} = {r}."])
    elif op == "/":
        told = rng.choice(["{w}, so {f} is {r}.", "Since {w}, the answer is {r}.", "{f} = {r}, because {w}."])
    else:
        told = rng.choice(["{w}, so {f} is {r}.", "Step by step: {w}. The answer is {r}.", "{w}. That makes {r}."])
    return asked.format(s=said, a=a, b=b), told.format(w=way, f=fact, r=result)


def _story(op: str, rng: random.Random) -> tuple[str, str]:
    a, b, result = draw_numbers(op, rng)
    if op in "+*" and min(a, b) < 2:
        a, b = a + 2, b + 2
        result = a + b if op == "+" else a * b
    if op == "-" and result < 2:
        return _story(op, rng)
    asked, told = rng.choice(_STORIES[op])
    first, second = rng.sample(NAMES, 2)
    words = {"a": a, "b": b, "n": first, "m": second, "t": rng.choice(THINGS), "p": rng.choice(PLACES), "r": result}
    way = steps(op, a, b) or f"{a} {_SIGN[op]} {b} = {result}"
    frame = rng.choice(["{w}. {t}", "{w}, so the answer is {r}. {t}"])
    return asked.format(**words), frame.format(w=way, r=result, t=told.format(**words))


def _halves_and_doubles(rng: random.Random) -> tuple[str, str]:
    a = rng.randint(1, 50)
    if rng.random() < 0.5:
        return rng.choice(["What is half of {x}?", "half of {x}", "Halve {x} for me."]).format(x=2 * a), (
            f"Half of {2 * a} is {a}, because {a} + {a} = {2 * a}."
        )
    return rng.choice(["What is double {x}?", "twice {x}?", "Double {x}, please."]).format(x=a), (
        f"{a} + {a} = {2 * a}, so twice {a} is {2 * a}."
    )


def draw_arithmetic(count: int, rng: random.Random) -> Iterator[Conversation]:
    """`count` questions with worked answers, two fifths of them little stories."""
    for _ in range(count):
        op = rng.choice("++---**/")
        draw = rng.random()
        turns = _story(op, rng) if draw < 0.42 else _sum(op, rng) if draw < 0.94 else _halves_and_doubles(rng)
        yield Conversation("arithmetic", list(turns))
