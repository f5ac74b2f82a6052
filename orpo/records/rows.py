"""Rows as a user brought them, each with the place where its owner finds it, and what to do with those that are bad."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from orpo.command.errors import InputError

BadRowsPolicy = Literal["raise", "drop"]
"""Whether rows that cannot be used stop the run or are left out and counted."""

_SHOWN_ROWS: Final = 8
_SHOWN_PROBLEMS: Final = 10


@dataclass(frozen=True)
class Place:
    """Where a row stands: `pairs.jsonl line 3`.

    Attributes:
        file: The file, folder or data set, as the user named it or as it was found under that name.
        number: The row's number there, counted from 1.
        unit: What is counted: the `line`s of a file or the `row`s of a table.
    """

    file: str
    number: int
    unit: str

    def __str__(self) -> str:
        """Return the place as an error names it."""
        return f"{self.file} {self.unit} {self.number}"


@dataclass(frozen=True)
class Row:
    """One row and its place."""

    columns: dict[str, object]
    place: Place


@dataclass(frozen=True)
class BadRow:
    """A row that cannot be used.

    Attributes:
        place: Where it stands.
        what: What is wrong, without the place, so that equal problems are told together.
        remedy: What to do about it.
    """

    place: Place
    what: str
    remedy: str


class RowProblem(Exception):
    """What is wrong with the row that is being read; whoever reads the rows adds the place."""

    def __init__(self, what: str, remedy: str) -> None:
        """Keep what is wrong and what to do."""
        super().__init__(what)
        self.what = what
        self.remedy = remedy

    def at(self, place: Place) -> BadRow:
        """Return the problem with its place."""
        return BadRow(place, self.what, self.remedy)


def raise_for_bad_rows(bad: Sequence[BadRow], source: str, setting: str) -> None:
    """Raise one InputError that tells all problems, equal ones together with their rows."""
    if bad:
        raise InputError(f"{source}: {tell_bad_rows(bad, source)}", setting=setting)


def check_usable(
    found: Sequence[object], bad: Sequence[BadRow], source: str, policy: BadRowsPolicy, setting: str
) -> None:
    """Raise InputError for bad rows where they are to stop everything, and where leaving them out leaves nothing."""
    if policy == "raise":
        raise_for_bad_rows(bad, source, setting)
    elif not found:
        raise InputError(f"{source}: no row can be used: {tell_bad_rows(bad, source)}", setting=setting)


def tell_bad_rows(bad: Sequence[BadRow], source: str = "", most: int = _SHOWN_ROWS) -> str:
    """Return `chosen is null in lines 4, 10 (fill or drop these rows); ...`, files named where there are several."""
    groups: dict[tuple[str, str], list[Place]] = {}
    for row in bad:
        groups.setdefault((row.what, row.remedy), []).append(row.place)
    told = [f"{what} in {_tell_places(places, source, most)} ({remedy})" for (what, remedy), places in groups.items()]
    more = [f"and {len(told) - _SHOWN_PROBLEMS} other problems"] if len(told) > _SHOWN_PROBLEMS else []
    return "; ".join(told[:_SHOWN_PROBLEMS] + more)


def _tell_places(places: Sequence[Place], source: str, most: int) -> str:
    by_file: dict[tuple[str, str], list[int]] = {}
    for place in places[:most]:
        by_file.setdefault((place.file, place.unit), []).append(place.number)
    told = [
        ("" if file == source else f"{file} ")
        + f"{unit}{'s' if len(numbers) > 1 else ''} {', '.join(map(str, numbers))}"
        for (file, unit), numbers in by_file.items()
    ]
    more = f" and {len(places) - most} more" if len(places) > most else ""
    return "; ".join(told) + more
