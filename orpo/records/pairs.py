"""Preference pairs: the record, and how it is written; `read_pairs` reads any preference data set as such."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, get_args

from orpo.records.messages import Message
from orpo.records.read_rows import DATASET_FOLDER, PAIRS_FILE

if TYPE_CHECKING:
    import datasets

Messages = list[Message]
PairKind = Literal["presence", "fit", "excess", "place", "restraint", "obedience", ""]
"""What a pair teaches: that an emoji is there, fits, is not one of many, stands in its place, is left out where it has
no place, or follows a wish. Empty where nobody said."""

PAIR_KINDS: Final[tuple[PairKind, ...]] = get_args(PairKind)


@dataclass(frozen=True)
class PreferencePair:
    """Two replies to one prompt and which is better: TRL's conversational format plus where the pair came from.

    Attributes:
        prompt: The conversation up to the user's last message.
        chosen: The better reply, as one assistant message.
        rejected: The worse reply, as one assistant message.
        chosen_score: What the scorer says of the better one; nan where nobody scored it.
        rejected_score: The same for the worse one.
        chosen_model: Who wrote the better one.
        rejected_model: Who wrote the worse one.
        prompt_id: The prompt's id in its set.
        source: The set that the prompt comes from.
        kind: What the pair teaches.
        chosen_reasons: The scorer's reasons for its score, a line each.
        rejected_reasons: The same for the worse one.
        file: The file that the pair was read from; empty where it was made here. Not part of the data.
        row: Its number in that file, as a user counts; 0 where it was made here. Not part of the data.
        unit: What the number counts: the lines of a file or the rows of a table.
    """

    prompt: Messages
    chosen: Messages
    rejected: Messages
    chosen_score: float = math.nan
    rejected_score: float = math.nan
    chosen_model: str = ""
    rejected_model: str = ""
    prompt_id: str = ""
    source: str = ""
    kind: PairKind = ""
    chosen_reasons: tuple[str, ...] = ()
    rejected_reasons: tuple[str, ...] = ()
    file: str = field(default="", compare=False)
    row: int = field(default=0, compare=False)
    unit: str = field(default="row", compare=False)

    @property
    def chosen_text(self) -> str:
        """The better reply's text."""
        return self.chosen[-1]["content"]

    @property
    def rejected_text(self) -> str:
        """The worse reply's text."""
        return self.rejected[-1]["content"]

    @property
    def where(self) -> str:
        """How an error names the pair: `pairs.jsonl line 3`."""
        return f"{self.file} {self.unit} {self.row}".strip()

    def as_row(self) -> dict[str, object]:
        """Return the pair as one row of the data set."""
        row = asdict(self)
        for name in _PLACE:
            del row[name]
        for name in _SCORES:
            row[name] = None if math.isnan(row[name]) else row[name]
        for name in _REASONS:
            row[name] = list(row[name])
        return row


_PLACE: Final = ("file", "row", "unit")
_SCORES: Final = ("chosen_score", "rejected_score")
_REASONS: Final = ("chosen_reasons", "rejected_reasons")


ROWS_AT_ONCE: Final = 10_000


def write_pairs(folder: Path, pairs: Sequence[PreferencePair], *, card: str = "") -> None:
    """Write pairs as a `datasets` folder and as JSONL, with a data set card where one is given."""
    import datasets

    parts, features = [], _features()
    with (folder / PAIRS_FILE).open("w", encoding="utf-8") as stream:
        for start in range(0, len(pairs), ROWS_AT_ONCE):  # as dicts, rows take several times their share of the table
            rows = [pair.as_row() for pair in pairs[start : start + ROWS_AT_ONCE]]
            stream.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
            parts.append(datasets.Dataset.from_list(rows, features=features))
    whole = datasets.concatenate_datasets(parts) if parts else datasets.Dataset.from_list([], features=features)
    whole.save_to_disk(str(folder / DATASET_FOLDER))
    if card:
        (folder / "README.md").write_text(card, encoding="utf-8")


def _features() -> "datasets.Features":
    import datasets

    text, number = datasets.Value("string"), datasets.Value("float64")
    special = dict.fromkeys(("prompt", "chosen", "rejected"), datasets.List({"role": text, "content": text}))
    special |= dict.fromkeys(_SCORES, number) | dict.fromkeys(_REASONS, datasets.List(text))
    names = [field.name for field in fields(PreferencePair) if field.name not in _PLACE]
    return datasets.Features({name: special.get(name, text) for name in names})
