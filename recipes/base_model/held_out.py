"""What must not stand in the corpus because the model is measured on it."""

import re
from collections import defaultdict
from collections.abc import Iterable

_FUNCTION_WORDS = frozenset(
    [
        "a", "about", "after", "an", "and", "are", "as", "at", "be", "been", "but", "by", "can", "could", "did",
        "do", "does", "for", "from", "had", "has", "have", "he", "her", "his", "how", "i", "if", "in", "is", "it",
        "its", "just", "me", "my", "of", "on", "or", "our", "please", "s", "she", "should", "so", "some", "t",
        "than", "that", "the", "their", "there", "they", "this", "to", "up", "us", "was", "we", "were", "what",
        "when", "where", "which", "who", "why", "will", "with", "would", "you", "your", "am", "d", "m", "ll", "re",
        "ve", "im", "ive", "any", "tell",
    ]
)  # fmt: skip
_SHARE = 0.6


def content_words(text: str) -> frozenset[str]:
    """The words of a message without those that every message has."""
    words = frozenset(re.findall(r"[a-z0-9]+", text.lower()))
    return words - _FUNCTION_WORDS or words


class HeldOutPrompts:
    """Knows a message that is a held-out prompt or a rewording of it.

    Near means that the two share at least six tenths of the content words that either has (Jaccard).
    """

    def __init__(self, prompts: Iterable[str]) -> None:
        """Index the prompts by their words."""
        self._words = [content_words(prompt) for prompt in prompts]
        self._with_word: dict[str, set[int]] = defaultdict(set)
        for number, words in enumerate(self._words):
            for word in words:
                self._with_word[word].add(number)

    def is_near(self, message: str) -> bool:
        """Tell whether the message must stay out of the corpus."""
        words = content_words(message)
        numbers = {number for word in words for number in self._with_word.get(word, ())}
        return any(len(words & self._words[number]) >= _SHARE * len(words | self._words[number]) for number in numbers)
