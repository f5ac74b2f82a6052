"""The data sets that a run is given, each with its weight: `pairs.jsonl:2` is seen twice as often as its size."""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from orpo.command.errors import InputError
from orpo.records.labelled import LabelledReply
from orpo.records.pairs import PreferencePair

Item = TypeVar("Item")

_LARGEST: Final = 100.0


@dataclass(frozen=True)
class DataSet:
    """The rows of one data set.

    Attributes:
        name: What the user called it, without the weight.
        weight: How often each of its rows is seen in an epoch.
        rows: The pairs, or the labelled replies.
    """

    name: str
    weight: float
    rows: list[PreferencePair] | list[LabelledReply]


@dataclass(frozen=True)
class DataSetCounts:
    """What became of a data set: its rows, how many are trained on, and how often an epoch sees one of them."""

    name: str
    weight: float
    rows: int
    train: int
    seen: int

    def __str__(self) -> str:
        """Say it in words."""
        often = f", weight {self.weight:g}: {self.seen} seen in an epoch" if self.weight != 1 else ""
        return f"{self.name}: {self.rows} rows, {self.train} to train on{often}"


def split_weight(text: str) -> tuple[str, float]:
    """Take `name:2` apart into the name and the weight; a name without a number at its end has the weight 1.

    What exists under the whole text is taken as it is, so a file may be called `a:2`.
    """
    name, colon, number = text.rpartition(":")
    if not (colon and name) or Path(text).expanduser().exists():
        return text, 1.0
    try:
        weight = float(number)
    except ValueError:  # a path or an address with a colon in it
        return text, 1.0
    if not (math.isfinite(weight) and 0 < weight <= _LARGEST):
        raise InputError(f"{text}: its weight {number} must be above 0 and at most {_LARGEST:g}", setting="data")
    return name, weight


def weighted(items: Sequence[Item], weight: float, seed: int) -> list[Item]:
    """Return each item as often as the weight says; its fraction is a share of them, chosen by the seed."""
    whole = int(weight)
    chosen = set(random.Random(seed).sample(range(len(items)), round((weight - whole) * len(items))))
    return [item for place, item in enumerate(items) for _ in range(whole + (place in chosen))]
