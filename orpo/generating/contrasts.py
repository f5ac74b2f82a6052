"""A good reply made worse in one respect, so that a pair differs in nothing but what it teaches."""

import random
import re
from collections.abc import Sequence
from functools import cache
from typing import Final

from orpo.records.pairs import PairKind
from orpo.scoring import find_emojis, normalise_emoji, strip_emojis
from orpo.scoring.emoji_table import emoji_table
from orpo.scoring.meaning import meaning_model
from orpo.scoring.profiles import PROFILES
from orpo.scoring.relevance import Place, relevance

FRIENDLY: Final = ("😊", "🎉", "💪", "🌟", "🤗", "😄", "🙌", "✨", "🌈", "😅", "👍", "🥳", "❤️", "🌞")
"""What chat models put behind any message, so what a model must unlearn to put into grave ones."""

_FRIENDLY_SHARE: Final = 0.6
_USUAL_GRADE: Final = 4.0
_UNFITTING: Final = 0.2
_DRAWS: Final = 200
_SENTENCE_END: Final = re.compile(r"(?<=[.!?]) ")
_CODE_BLOCK: Final = re.compile(r"```[^\n]*\n(.+?)```", re.DOTALL)


def worsen(kind: PairKind, reply: str, prompt: str, rng: random.Random, palette: Sequence[str] | None = None) -> str:
    """Return the reply, which has emojis, with what pairs of this kind teach to avoid.

    Emojis that do not fit are of the palette, where there is one: what the model is taught to use it may also misuse.
    """
    if kind == "fit":
        return with_unfitting(reply, prompt, rng, palette)
    if kind == "excess":
        return with_too_many(reply, rng, palette)
    if kind == "place":
        return misplaced(reply, rng)
    return strip_emojis(reply).strip()


def with_unfitting(reply: str, prompt: str, rng: random.Random, palette: Sequence[str] | None = None) -> str:
    """Return the reply with each emoji replaced by a usual one that has nothing to do with it."""
    plain, changed = strip_emojis(reply).strip(), reply
    present = {span.text for span in find_emojis(reply)}
    for span in reversed(find_emojis(reply)):
        emoji = _unfitting_emoji(plain, prompt, present, rng, palette)
        present.add(emoji)
        changed = changed[: span.start] + emoji + changed[span.end :]
    return changed


def with_too_many(reply: str, rng: random.Random, palette: Sequence[str] | None = None) -> str:
    """Return the reply with one emoji repeated, with a heap of different ones, or with two behind each sentence."""
    own, plain = [span.text for span in find_emojis(reply)], strip_emojis(reply).strip()
    form = rng.randrange(3)
    if form == 0:
        return f"{plain} {own[0] * rng.randint(4, 8)}"
    if form == 1:
        return f"{plain} {''.join(rng.sample(_enough(palette), rng.randint(4, 7)))}"
    choices = [*own, *(palette or FRIENDLY)]
    return " ".join(f"{part} {rng.choice(choices)}{rng.choice(choices)}" for part in _SENTENCE_END.split(plain))


def misplaced(reply: str, rng: random.Random) -> str:
    """Return the reply with its first emoji inside a word, inside a clause, or inside its code."""
    emoji, plain = find_emojis(reply)[0].text, strip_emojis(reply).strip()
    if code := _CODE_BLOCK.search(plain):
        position = _random_line_end(plain, code.start(1), code.end(1), rng)
        return f"{plain[:position]} {emoji}{plain[position:]}"
    words = plain.split(" ")
    if len(words) < 4:
        return f"{emoji}{plain}" if not plain else f"{plain[: len(plain) // 2]}{emoji}{plain[len(plain) // 2 :]}"
    # Not the word before a comma or full stop: behind that an emoji would stand well.
    inside = [number for number in range(1, len(words) - 1) if words[number - 1][-1:].isalnum()] or [1]
    number = rng.choice(inside)
    word = words[number]
    if rng.random() < 0.5 and len(word) > 3:
        words[number] = word[: len(word) // 2] + emoji + word[len(word) // 2 :]
    else:
        words.insert(number, emoji)
    return " ".join(words)


def with_emoji(reply: str, rng: random.Random, palette: Sequence[str] | None = None) -> str:
    """Return a plain reply with a friendly or usual emoji behind it, behind one of its sentences, or in its code.

    With a palette it is one of these, the first more often than the last: what the other pairs teach to use is what has
    to be held back.
    """
    if palette:
        emoji = rng.choices(palette, [1 / (place + 2) for place in range(len(palette))])[0]
    else:
        emoji = rng.choice(FRIENDLY) if rng.random() < _FRIENDLY_SHARE else rng.choice(_usual_emojis())
    code = _CODE_BLOCK.search(reply)
    if code and rng.random() < 0.5:
        position = _random_line_end(reply, code.start(1), code.end(1), rng)
        return f"{reply[:position]} {emoji}{reply[position:]}"
    if not code and rng.random() < 0.3:
        parts = _SENTENCE_END.split(reply)
        number = rng.randrange(len(parts))
        parts[number] += f" {emoji}"
        return " ".join(parts)
    return f"{reply}{'' if reply.endswith(chr(10)) else ' '}{emoji}"


def _random_line_end(text: str, start: int, end: int, rng: random.Random) -> int:
    ends = [match.start() for match in re.finditer(r"(?<=\S)[ \t]*(?=\n|\Z)", text[start:end])]
    return start + rng.choice(ends or [0])


def _unfitting_emoji(
    text: str, prompt: str, present: set[str], rng: random.Random, palette: Sequence[str] | None
) -> str:
    usual, where = palette or _usual_emojis(), Place(text, reply=text, prompt=prompt)
    emoji = rng.choice(usual)
    for _ in range(_DRAWS):
        if emoji not in present and relevance(normalise_emoji(emoji), where) < _UNFITTING:
            break
        emoji = rng.choice(usual)
    return emoji


def _enough(palette: Sequence[str] | None) -> Sequence[str]:
    """Return emojis to heap up: those of the palette, unless there are too few."""
    return palette if palette and len(palette) >= 7 else _usual_emojis()


@cache
def _usual_emojis() -> Sequence[str]:
    """Return the emojis that people use often and that every device shows."""
    model, table, newest = meaning_model(), emoji_table(), PROFILES["tasteful"].newest_version
    grades = zip(model.emojis, model.usualness.tolist(), strict=True)
    keys = [key for key, grade in grades if grade >= _USUAL_GRADE and key in table and table[key].version <= newest]
    return [table[key].text for key in keys]
