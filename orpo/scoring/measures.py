"""How many replies use emojis, counted in one place for the tables, TensorBoard and the report."""

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Final

from orpo.scoring.emoji_table import normalise_emoji
from orpo.scoring.finding import find_emojis, strip_emojis

_REPEATED_WORDS: Final = 4
_REPEATED_TIMES: Final = 3
_REPEATED_SHARE: Final = 0.1
_SHORT_REPLY: Final = 120  # words
_SYMBOLS: Final = {"So", "No", "Sk", "Co", "Cn"}  # Unicode's categories of pictures, numbers in circles, and nothing
_USUAL_SIGNS: Final = frozenset("™℃℉№✓✔✗★☆")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplyMeasures:
    """What several replies come to."""

    replies: int
    """How many were measured."""
    emoji_rate: float
    """Share with at least one emoji."""
    mean_emojis: float
    """Emojis a reply."""
    p95_emojis: int
    """95 % of the replies hold at most this many."""
    max_emojis: int
    """Most emojis in one reply."""
    different_emojis: int
    """How many different emojis were written in all."""
    commonest_emoji: str
    """The emoji written most often; empty where there is none."""
    commonest_share: float
    """Its share of all emojis written; near 1 where one emoji serves for everything."""
    repeated_share: float
    """Share in which four words in a row stand three times."""
    stray_share: float
    """Share with a symbol that is neither emoji nor usual: what comes out where an emoji's bytes are not finished."""
    distinct_share: float
    """Different replies divided by replies; low where one answer serves for everything."""
    mean_words: float
    """Words a reply."""
    max_words: int
    """Words of the longest reply."""


def measure_replies(texts: Sequence[str]) -> ReplyMeasures:
    """Return the measures of replies' texts; all zero where there are none."""
    found = [[normalise_emoji(span.text) for span in find_emojis(text)] for text in texts]
    counts = [len(emojis) for emojis in found]
    words = [len(text.split()) for text in texts]
    written = Counter(emoji for emojis in found for emoji in emojis)
    commonest, times = written.most_common(1)[0] if written else ("", 0)
    number = max(1, len(texts))
    return ReplyMeasures(
        replies=len(texts),
        emoji_rate=sum(count > 0 for count in counts) / number,
        mean_emojis=sum(counts) / number,
        p95_emojis=percentile(counts, 0.95),
        max_emojis=max(counts, default=0),
        different_emojis=len(written),
        commonest_emoji=commonest,
        commonest_share=times / max(1, sum(counts)),
        repeated_share=sum(map(repeats_itself, texts)) / number,
        stray_share=sum(map(has_stray_symbol, texts)) / number,
        distinct_share=len(set(texts)) / number,
        mean_words=sum(words) / number,
        max_words=max(words, default=0),
    )


def repeats_itself(text: str) -> bool:
    """Return whether some four words in a row stand at least three times in the text."""
    words = text.lower().split()
    starts = range(len(words) - _REPEATED_WORDS + 1)
    runs = Counter(tuple(words[start : start + _REPEATED_WORDS]) for start in starts)
    return max(runs.values(), default=0) >= _REPEATED_TIMES


def has_stray_symbol(text: str) -> bool:
    """Return whether the text holds a broken character, or a symbol beyond Latin-1 that is neither emoji nor usual."""
    return not text.isascii() and any(
        character == "\ufffd"
        or (character > "\xff" and character not in _USUAL_SIGNS and unicodedata.category(character) in _SYMBOLS)
        for character in strip_emojis(text)
    )


def says_things_twice(text: str) -> bool:
    """Return whether over a tenth of a short reply's three words in a row stood in it before; code may do so."""
    words = re.findall(r"\w+", text.lower())
    runs = list(zip(words, words[1:], words[2:], strict=False))
    is_short_prose = len(words) <= _SHORT_REPLY and "```" not in text
    return is_short_prose and len(runs) - len(set(runs)) > _REPEATED_SHARE * len(runs)


def percentile(counts: Sequence[int], share: float) -> int:
    """Return the smallest count that at least this share of the counts do not exceed; 0 for no counts."""
    return sorted(counts)[ceil(share * len(counts)) - 1] if counts else 0
