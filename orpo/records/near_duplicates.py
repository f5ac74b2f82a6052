"""Tells when two messages say nearly the same: what ships to learn from must not repeat what ships to measure with.

Near means that the two share at least six tenths of the content words that either has (Jaccard).
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Final

_FUNCTION_WORDS: Final = frozenset(
    [
        "a", "about", "after", "an", "and", "are", "as", "at", "be", "been", "but", "by", "can", "could", "did",
        "do", "does", "for", "from", "had", "has", "have", "he", "her", "his", "how", "i", "if", "in", "is", "it",
        "its", "just", "me", "my", "of", "on", "or", "our", "please", "s", "she", "should", "so", "some", "t",
        "than", "that", "the", "their", "there", "they", "this", "to", "up", "us", "was", "we", "were", "what",
        "when", "where", "which", "who", "why", "will", "with", "would", "you", "your", "am", "d", "m", "ll", "re",
        "ve", "im", "ive", "any", "tell",
    ]
)  # fmt: skip
_SHARE: Final = 0.6


def content_words(text: str) -> frozenset[str]:
    """The words of a message without those that every message has."""
    words = frozenset(re.findall(r"[a-z0-9]+", text.lower()))
    return words - _FUNCTION_WORDS or words


class KnownMessages:
    """Knows a message that is one of these or a rewording of one."""

    def __init__(self, messages: Iterable[str] = ()) -> None:
        """Index the messages by their words."""
        self._words: list[frozenset[str]] = []
        self._with_word: dict[str, set[int]] = defaultdict(set)
        for message in messages:
            self.add(message)

    def add(self, message: str) -> None:
        """Know one more."""
        words = content_words(message)
        for word in words:
            self._with_word[word].add(len(self._words))
        self._words.append(words)

    def is_near(self, message: str) -> bool:
        """Tell whether the message says nearly what a known one says."""
        words = content_words(message)
        return any(len(words & other) >= _SHARE * len(words | other) for other in self._sharing_words(words))

    def is_held(self, message: str) -> bool:
        """Tell whether a known message has all words of this one, as one with a wish added to it does."""
        words = content_words(message)
        return any(words <= other for other in self._sharing_words(words))

    def _sharing_words(self, words: frozenset[str]) -> Iterator[frozenset[str]]:
        numbers = {number for word in words for number in self._with_word.get(word, ())}
        return (self._words[number] for number in numbers)
