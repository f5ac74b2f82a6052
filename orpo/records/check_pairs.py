"""Find what is wrong with preference pairs before any model is loaded.

Measured on TRL 1.16: a wrong column name trains on garbage and exits 0, chosen equal to rejected trains silently, and a
null ends in an error of the template engine. So every row is looked at, and every problem names its rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from orpo.command.errors import InputError
from orpo.records.read_rows import number_list

_COLUMNS: Final = ("prompt", "chosen", "rejected")
_ROLES: Final = frozenset({"system", "user", "assistant"})


@dataclass(frozen=True)
class Problem:
    """One thing wrong with one row.

    Attributes:
        row: The number of the row, as its owner counts; 0 for the data as a whole.
        column: The column at fault.
        what: What is wrong, without the row, so that equal problems can be told together.
        remedy: What to do.
    """

    row: int
    column: str
    what: str
    remedy: str


def check_pairs(rows: Sequence[dict[str, Any]], numbers: Sequence[int] | None = None) -> list[Problem]:
    """Return all problems of the rows' text; `numbers` are their own numbers, counted from 1 where none are given."""
    if not rows:
        return [Problem(0, "", "there are no rows", "give data with at least one pair")]
    counted = numbers if numbers is not None else range(1, len(rows) + 1)
    return [problem for number, row in zip(counted, rows, strict=True) for problem in _check_pair(row, number)]


def raise_for_problems(problems: Sequence[Problem], source: str, *, flag: str = "--data", unit: str = "row") -> None:
    """Raise one InputError that tells all problems, equal ones together with their rows."""
    if not problems:
        return
    groups: dict[tuple[str, str], list[int]] = {}
    for problem in problems:
        groups.setdefault((problem.what, problem.remedy), []).append(problem.row)
    told = [_tell(what, remedy, rows, unit) for (what, remedy), rows in groups.items()]
    raise InputError(f"{flag} {source}: {'; '.join(told)}")


def _tell(what: str, remedy: str, rows: list[int], unit: str) -> str:
    if rows == [0]:
        return f"{what} ({remedy})"
    return f"{what} in {unit}{'s' if len(rows) > 1 else ''} {number_list(rows)} ({remedy})"


def _check_pair(row: dict[str, Any], number: int) -> list[Problem]:
    problems = [problem for column in _COLUMNS for problem in _check_messages(row, column, number)]
    if not problems and _words(row["chosen"]) == _words(row["rejected"]):
        problems.append(
            Problem(number, "chosen", "chosen and rejected are the same", "drop these rows: they teach nothing")
        )
    return problems


def _check_messages(row: dict[str, Any], column: str, number: int) -> list[Problem]:
    def problem(what: str, remedy: str) -> list[Problem]:
        return [Problem(number, column, what, remedy)]

    if column not in row:
        return problem(f"no column {column!r}", "name the columns prompt, chosen and rejected")
    messages = row[column]
    if messages is None:
        return problem(f"{column} is null", "fill or drop these rows")
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        return problem(f"{column} is no list of chat messages", "read the data with read_pairs")
    if not messages:
        return problem(f"{column} is empty", "fill or drop these rows")
    if any(message.get("content") is None for message in messages):
        return problem(f"{column} holds a message without content", "fill or drop these rows")
    if not all(isinstance(message["content"], str) for message in messages):
        return problem(f"{column} holds a message whose content is not text", "only text can be trained on")
    return _check_roles(messages, column, number)


def _check_roles(messages: list[dict[str, Any]], column: str, number: int) -> list[Problem]:
    roles = [message.get("role") for message in messages]
    unknown = sorted({str(role) for role in roles if role not in _ROLES})
    if unknown:
        what, remedy = f"{column} has the role {', '.join(unknown)}", "roles are system, user and assistant"
    elif not messages[-1]["content"].strip():
        what, remedy = f"{column} is empty", "fill or drop these rows"
    elif column == "prompt" and roles[-1] != "user":
        what, remedy = f"prompt ends with the role {roles[-1]}", "a prompt ends with the user's message"
    elif column != "prompt" and roles != ["assistant"]:
        what = f"{column} is not one assistant message but {', '.join(map(str, roles))}"
        remedy = "put what comes before the last reply into prompt"
    else:
        return []
    return [Problem(number, column, what, remedy)]


def _words(messages: list[dict[str, Any]]) -> list[str]:
    return [message["content"].strip() for message in messages]
