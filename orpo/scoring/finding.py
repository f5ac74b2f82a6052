"""Find, count and strip emojis, exactly as Unicode lists them.

A fast scan jumps to the stretches of characters that emojis are made of; in these the grammar (a base with its
modifier, joined families, flags, keycaps) collects candidates, and the table decides. A candidate that Unicode does not
list falls apart into the longest listed parts, as a screen shows it. The text form never counts: `❤` followed by VS15,
bare arrows, `©`, `™`, digits.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from orpo.scoring.emoji_table import KEYCAP, SKIN_TONES, VS15, VS16, ZWJ, emoji_table

_REGIONAL = "\U0001f1e6-\U0001f1ff"
_TAGS = "\U000e0020-\U000e007e"
_TAG_END = "\U000e007f"
_LEFT_BEHIND = re.compile(f"[{VS15}{VS16}{ZWJ}{KEYCAP}{SKIN_TONES}{_TAGS}{_TAG_END}]+")
# Where an emoji may start, and how it may go on. Written as what is left out, ordinary characters first, because the
# regex engine tests a set's ranges in order: 20 times faster over chat than the grammar's own first characters.
_STRETCH = re.compile(
    "[^\x00-\u203b\u2c00-\u302f\u3031-\u303c\u303e-\u3296\u3298\u329a-\U0001efff\U0001fb00-\U0010ffff]"
    "[^\x00-\u200c\u200e-\u203b\u2c00-\ufe0d\ufe10-\U0001efff\U0001fb00-\U000e001f\U000e0080-\U0010ffff]*"
)
_LOW_SIGNS = re.compile(f"[\u00a9\u00ae]{VS16}|{KEYCAP}")  # emojis that start below U+203C hold one of these
_BLANK = " \t"
_CLOSING = ".,!?;:)]}…"
_LONGEST = 24  # characters; the longest listed emoji has 10, and each of them may carry a needless VS16


@dataclass(frozen=True, slots=True)
class EmojiSpan:
    """Where an emoji stands in a text: `text[start:end]`."""

    start: int
    end: int
    text: str


def contains_emoji(text: str) -> float:
    """Return S(m): 1.0 if the text contains an emoji, else 0.0."""
    if text.isascii():  # a keycap needs U+20E3, so no ASCII text holds an emoji
        return 0.0
    return 1.0 if next(_spans(text), None) is not None else 0.0


def count_emojis(text: str) -> int:
    """Return how many emojis a text holds; a flag, a keycap or a family counts once."""
    if text.isascii():
        return 0
    listed = _listed_forms()
    total = 0
    for stretch in [text] if _LOW_SIGNS.search(text) else _STRETCH.findall(text):
        if stretch in listed:
            total += 1
        else:
            for candidate in _grammar().findall(stretch):
                total += 1 if candidate in listed else sum(1 for _ in _parts(candidate, 0))
    return total


def find_emojis(text: str) -> list[EmojiSpan]:
    """Return every emoji of a text with its position, in order."""
    return [] if text.isascii() else list(_spans(text))


def strip_emojis(text: str) -> str:
    """Return the text without its emojis, clean: no doubled spaces, no orphan VS16 or joiner, no emptied lines.

    Text without an emoji comes back unchanged. Stripping twice equals stripping once.
    """
    spans = find_emojis(text)
    while spans:  # taking an emoji out can join the halves of another (a flag's two letters)
        text = _strip_once(text, spans)
        spans = find_emojis(text)
    return text


def _spans(text: str) -> Iterator[EmojiSpan]:
    listed = _listed_forms()
    if _LOW_SIGNS.search(text):
        yield from _candidates(text, 0)
        return
    for match in _STRETCH.finditer(text):
        if match[0] in listed:
            yield EmojiSpan(match.start(), match.end(), match[0])
        else:
            yield from _candidates(match[0], match.start())


def _candidates(stretch: str, offset: int) -> Iterator[EmojiSpan]:
    listed = _listed_forms()
    for match in _grammar().finditer(stretch):
        start = offset + match.start()
        if match[0] in listed:
            yield EmojiSpan(start, offset + match.end(), match[0])
        else:
            yield from _parts(match[0], start)


@cache
def _grammar() -> re.Pattern[str]:
    starts = {key[0] for key in emoji_table()}
    starts -= set("0123456789#*") | {chr(code) for code in range(0x1F1E6, 0x1F200)}
    members = _character_class(starts | {key[-1] for key in emoji_table() if ZWJ in key} - set(SKIN_TONES))
    unit = f"{members}[{VS15}{VS16}{SKIN_TONES}]?{VS15}?"
    branches = [
        f"[{_REGIONAL}][{_REGIONAL}]{VS15}?",
        f"\U0001f3f4[{_TAGS}]+{_TAG_END}",
        f"{unit}(?:{ZWJ}{unit})*",
        f"[0-9#*]{VS16}?{KEYCAP}{VS15}?",
    ]
    return re.compile("|".join(branches))


def _character_class(characters: set[str]) -> str:
    """Return a regex class with runs of neighbouring characters written as ranges."""
    codes = sorted(map(ord, characters))
    runs: list[list[int]] = []
    for code in codes:
        if runs and code == runs[-1][1] + 1:
            runs[-1][1] = code
        else:
            runs.append([code, code])
    return "[" + "".join(f"{chr(low)}-{chr(high)}" for low, high in runs) + "]"


@cache
def _listed_forms() -> frozenset[str]:
    """Return the written forms that are one emoji at a glance: qualified, and bare where bare is no text sign."""
    forms: set[str] = set()
    for key, emoji in emoji_table().items():
        forms.add(emoji.text)
        if not emoji.is_text_sign:
            forms.add(key)
    return frozenset(forms)


def _parts(candidate: str, offset: int) -> Iterator[EmojiSpan]:
    """Yield the emojis inside a candidate that is not listed as it stands: the longest listed prefixes, one by one."""
    start = 0
    while start < len(candidate):
        end = _longest_emoji(candidate, start)
        if end is None:
            start += 2 if VS15 in candidate[start + 1 : start + 2] else 1
            continue
        yield EmojiSpan(offset + start, offset + end, candidate[start:end])
        start = end


def _longest_emoji(candidate: str, start: int) -> int | None:
    table = emoji_table()
    for end in range(min(len(candidate), start + _LONGEST), start, -1):
        form = candidate[start:end]
        if candidate[end : end + 1] == VS15 or (form[-1] == ZWJ):
            continue
        emoji = table.get(form.replace(VS16, ""))
        if emoji is not None and form[0] != VS16 and (VS16 in form or not emoji.is_text_sign):
            return end
    return None


def _strip_once(text: str, spans: list[EmojiSpan]) -> str:
    pieces: list[str] = []
    position = 0
    for start, end in _runs(text, spans):
        left = text[position:start]
        while left and _LEFT_BEHIND.match(left[-1]):
            left = left[:-1]
        pieces.append(left)
        position = end
        _join(pieces, text, position)
        position = _skip_after(pieces, text, position)
    pieces.append(text[position:])
    return "".join(pieces)


def _runs(text: str, spans: list[EmojiSpan]) -> Iterator[tuple[int, int]]:
    """Yield stretches of emojis with the blanks and left-behind marks between and after them."""
    start, end = spans[0].start, spans[0].end
    for span in spans[1:]:
        between = _LEFT_BEHIND.sub("", text[end : span.start]).strip(_BLANK)
        if between:
            yield start, _after_marks(text, end)
            start = span.start
        end = span.end
    yield start, _after_marks(text, end)


def _after_marks(text: str, end: int) -> int:
    marks = _LEFT_BEHIND.match(text, end)
    return marks.end() if marks else end


def _join(pieces: list[str], text: str, position: int) -> None:
    """Drop blanks before the gap where the rest brings its own, ends the line, or opens with a closing mark."""
    following = text[position : position + 1]
    if not following or following in "\r\n" or following in _BLANK or following in _CLOSING:
        pieces[-1] = pieces[-1].rstrip(_BLANK)


def _skip_after(pieces: list[str], text: str, position: int) -> int:
    """Return where the text goes on: past the blanks of an emptied line start, and past an emptied line."""
    last = next((piece[-1] for piece in reversed(pieces) if piece), "\n")
    if last != "\n":
        return position
    while text[position : position + 1] in (" ", "\t"):
        position += 1
    if text[position : position + 1] == "\n":
        position += 1
    return position
