"""Words of a text, as the lexicon and the word vectors know them: lower case, hashtags taken apart, stems.

The vocabulary is ordered by frequency; its word probabilities split hashtags (`#teamwork` -> team, work) and weigh
words.
"""

import re
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from orpo.scoring.text_features import HUMP

_WORD = re.compile(r"[a-zA-Z0-9]+(?:'[a-zA-Z]+)?|[!?]+|:\)|:\(|<3")
_TOKEN = re.compile(rf"#(\w+)|@\w+|https?://\S+|({_WORD.pattern})")
_OTHER_THAN_WORDS = ("#", "@", "http")
_SUFFIXES = ("'s", "ing", "ies", "es", "ed", "s", "y", "er")
_LONGEST_WORD = 14
_LONGEST_HASHTAG = 30
_COMMON_ENOUGH = -13.0  # log probability above which a hashtag counts as one word


@lru_cache(maxsize=20_000)
def stem(word: str) -> str:
    """Return a word without its commonest endings: enough to meet a keyword half-way."""
    for suffix in _SUFFIXES:
        if word.endswith(suffix) and len(word) - len(suffix) >= 3:
            return word[: -len(suffix)]
    return word


class Vocabulary:
    """Words with their log probabilities, in falling order of frequency."""

    def __init__(self, words: list[str], log_probabilities: NDArray[np.floating]) -> None:
        """Take parallel words and natural-log probabilities."""
        self.words = words
        self.index = {word: number for number, word in enumerate(words)}
        self.log_probabilities: list[float] = [float(value) for value in log_probabilities]
        self._segment = lru_cache(maxsize=10_000)(self._segment_uncached)

    def tokens(self, text: str) -> list[str]:
        """Return the text's words in order; hashtags come apart, people and links are left out."""
        text = text.replace("\u2019", "'")
        if not any(map(text.__contains__, _OTHER_THAN_WORDS)):
            return list(map(str.lower, _WORD.findall(text)))
        found: list[str] = []
        for hashtag, word in _TOKEN.findall(text):
            if word:
                found.append(word.lower())
            elif hashtag:
                humps = HUMP.sub(" ", hashtag).lower().split()
                for hump in humps:
                    found.extend(self._segment(hump))
                if len(humps) > 1:
                    found.append(hashtag.lower())
        return found

    def _log_probability(self, word: str) -> float:
        number = self.index.get(word)
        if number is None or (len(word) == 1 and word not in "ai"):
            return -10.0 - 4.0 * len(word)
        return self.log_probabilities[number] - (2.0 if len(word) <= 2 else 0.0)

    def _segment_uncached(self, hashtag: str) -> tuple[str, ...]:
        """Return the likeliest words that make up a hashtag (dynamic programming over split points)."""
        length = len(hashtag)
        if length > _LONGEST_HASHTAG or self._log_probability(hashtag) > _COMMON_ENOUGH:
            return (hashtag,)
        best: list[tuple[float, tuple[str, ...]]] = [(0.0, ())]
        for end in range(1, length + 1):
            options = [
                (best[start][0] + self._log_probability(hashtag[start:end]) - 1.0, start)
                for start in range(max(0, end - _LONGEST_WORD), end)
            ]
            value, start = max(options)
            best.append((value, (*best[start][1], hashtag[start:end])))
        return best[length][1]
