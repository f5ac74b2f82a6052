"""A text that the cheap look lets pass unsearched is one that the search would not match either."""

import re
import sys
from collections.abc import Callable
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from orpo.scoring import surroundings
from orpo.scoring.screening import fold_case, holds_any
from orpo.scoring.surroundings import Reply


def choices(node: tuple[Any, Any]) -> list[list[Any]] | None:
    """Return the sequences of which a node of a syntax tree matches one, or None for a node of unknown text."""
    kind, value = str(node[0]), node[1]
    if kind == "SUBPATTERN":
        return [list(value[-1])]
    if kind == "BRANCH":
        return [list(option) for option in value[1]]
    if kind == "IN" and all(str(item[0]) == "LITERAL" for item in value):
        return [[item] for item in value]
    if kind in ("MAX_REPEAT", "MIN_REPEAT"):
        least, most, inside = value
        if (least, most) == (0, 1):
            return [[], list(inside)]
        unknown = ("ANY", None)
        return [[*list(inside) * least, unknown]] if least and least < 4 else None
    return None


def always_holds_one(sequence: list[Any], wanted: tuple[str, ...], fold: Callable[[str], str] = fold_case) -> bool:
    """Return whether whatever a sequence of nodes matches holds one of the fragments, as its syntax tree shows."""
    kinds = [str(node[0]) for node in sequence]
    # positions and look-arounds take up no text of their own
    sequence = [node for node, kind in zip(sequence, kinds, strict=True) if kind not in ("AT", "ASSERT", "ASSERT_NOT")]
    literal = "".join(chr(value) if str(kind) == "LITERAL" else "\0" for kind, value in sequence)
    if holds_any(fold(literal), wanted):
        return True
    options = [choices(node) for node in sequence]
    if any(found and all(always_holds_one(option, wanted, fold) for option in found) for found in options):
        return True
    for number, found in enumerate(options):
        if found:  # a fragment may reach from before a choice to behind it
            before, after = sequence[:number], sequence[number + 1 :]
            return all(always_holds_one([*before, *option, *after], wanted, fold) for option in found)
    return False


def syntax_tree(pattern: re.Pattern[str]) -> list[Any]:
    parser: Any = sys.modules["re._parser"]  # private, but it only reads the pattern
    return list(parser.parse(pattern.pattern, pattern.flags))


def test_code_is_looked_for_wherever_it_may_be() -> None:
    for pattern, wanted in surroundings._CODE_AND_ITS_SIGNS:
        assert always_holds_one(syntax_tree(pattern), wanted, str)
        for fragment in wanted:
            fewer = tuple(other for other in wanted if other != fragment)
            assert not always_holds_one(syntax_tree(pattern), fewer, str), f"{fragment!r} is not needed"


CODE_PIECES = st.sampled_from(
    [*"`~:{}()[];<=>\"'x \n", "~~~", "import os", "else", "def f", "let a ", "SELECT a FROM b"]
)


@settings(deadline=None, max_examples=300)
@given(text=st.lists(CODE_PIECES, max_size=20).map("".join))
def test_the_same_code_is_found_as_by_searching_always(text: str) -> None:
    patterns = (surroundings._CODE, surroundings._UNFENCED, surroundings._OBJECT)
    assert Reply(text).code == [match.span() for pattern in patterns for match in pattern.finditer(text)]


def test_folding_finds_the_letters_that_a_pattern_without_case_finds() -> None:
    """U+0130, U+0131 and U+017F count as i and s for IGNORECASE, but lower() leaves them apart."""
    letters = {letter: re.compile(letter, re.IGNORECASE) for letter in "abcdefghijklmnopqrstuvwxyz"}
    anyone = re.compile("[a-z]", re.IGNORECASE)
    for code in range(sys.maxunicode + 1):
        if anyone.match(character := chr(code)):
            assert [fold_case(character)] == [name for name, letter in letters.items() if letter.match(character)]
