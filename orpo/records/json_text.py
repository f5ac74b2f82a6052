"""JSON as people bring it: one value a line, or one value in all. Nothing else in the project parses a user's JSON."""

import json
from collections.abc import Iterator
from typing import Final

from orpo.records.rows import RowProblem

_REMEDY: Final = "fix or drop it"


def parse_json(text: str) -> object:
    """Return the value that a text holds; RowProblem where it is not JSON or no computer should read it."""
    try:
        return json.loads(text)
    except RecursionError:
        raise RowProblem("is nested too deeply", _REMEDY) from None
    except json.JSONDecodeError as problem:
        where = f"column {problem.colno}" if problem.lineno == 1 else f"line {problem.lineno}"
        raise RowProblem(f"is not JSON: {problem.msg} ({where})", _REMEDY) from None
    except ValueError:  # Python converts no number of more than 4,300 digits
        raise RowProblem("holds a number of thousands of digits", _REMEDY) from None


def parse_json_lines(text: str) -> Iterator[tuple[int, object]]:
    """Yield the number and the value of each line that is not blank; the value is a RowProblem where it is not JSON."""
    # splitlines() would also break at U+2028, which JSON allows inside a string.
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                yield number, parse_json(line)
            except RowProblem as problem:
                yield number, problem


def parse_json_entries(text: str) -> list[object] | None:
    """Return the entries of a text that is one JSON value in all: those of an array, or the value itself.

    None for a text that is JSON lines instead, however it begins.
    """
    beginning = text.lstrip()[:1]
    if beginning not in ("[", "{"):
        return None
    try:
        value = parse_json(text)
    except RowProblem:
        first_line = text.lstrip().split("\n", 1)[0]
        if _is_json(first_line):
            return None
        raise
    return value if isinstance(value, list) else [value]


def _is_json(line: str) -> bool:
    try:
        parse_json(line)
    except RowProblem:
        return False
    return True


def kind_of_value(value: object) -> str:
    """Return what a JSON value is, for an error: `a list`, `text`, `null`."""
    if isinstance(value, bool):
        return "a truth value"
    names = {str: "text", list: "a list", dict: "an object", int: "a number", float: "a number", type(None): "null"}
    return names.get(type(value), type(value).__name__)
