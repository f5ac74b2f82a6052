"""A cheap look at a text before an expensive search.

A pattern of many alternatives is tried at every word of a text, mostly in vain. But whatever it matches holds one of a
few fragments ("funeral", "lawyer"): a text without any of them needs no search. tests/scoring/test_screening.py proves
from each pattern's syntax tree that its fragments suffice.
"""

from collections.abc import Iterable

# What IGNORECASE takes for an ASCII letter and `str.lower` does not turn into one: İ, ı, ſ.
_ALSO_LETTERS = str.maketrans("\u0130\u0131\u017f", "iis")


def fold_case(text: str) -> str:
    """Return lower-case text that holds every ASCII fragment which a pattern with IGNORECASE would find in it."""
    return text.lower() if text.isascii() else text.translate(_ALSO_LETTERS).lower()


def fragments(listed: str) -> tuple[str, ...]:
    """Return the fragments of a list with bars between them."""
    return tuple(listed.split("|"))


def holds_any(folded: str, wanted: Iterable[str]) -> bool:
    """Return whether one of the lower-case fragments stands in a text from `fold_case`."""
    return any(map(folded.__contains__, wanted))
