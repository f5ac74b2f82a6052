"""Preference pairs: the record, how it is written, and how any preference data set is read as such."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, get_args

from orpo.command.errors import InputError
from orpo.records.check_pairs import check_pairs, raise_for_problems
from orpo.records.messages import Message
from orpo.records.read_rows import DATASET_FOLDER, PAIRS_FILE, Row, read_rows, role_and_content

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
    def margin(self) -> float:
        """How much better the chosen reply scored; 0 where one of them has no score."""
        margin = self.chosen_score - self.rejected_score
        return 0.0 if math.isnan(margin) else margin

    @property
    def where(self) -> str:
        """How an error names the pair: `pairs.jsonl line 3`."""
        return f"{self.file} {self.unit} {self.row}".strip()

    def as_row(self) -> Row:
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


def write_pairs(folder: Path, pairs: Sequence[PreferencePair], *, card: str = "") -> None:
    """Write pairs as a `datasets` folder and as JSONL, with a data set card where one is given."""
    import datasets

    rows = [pair.as_row() for pair in pairs]
    with (folder / PAIRS_FILE).open("w", encoding="utf-8") as stream:
        stream.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    datasets.Dataset.from_list(rows, features=_features()).save_to_disk(str(folder / DATASET_FOLDER))
    if card:
        (folder / "README.md").write_text(card, encoding="utf-8")


def read_pairs(
    source: str, *, config: str | None = None, split: str = "train", limit: int | None = None, flag: str = "--data"
) -> list[PreferencePair]:
    """Read preference pairs, each with its row in the user's file.

    Takes our own folder, JSONL, JSON, CSV, TSV, Parquet, a `datasets` folder or a Hub data set. Text becomes messages;
    `chosen` and `rejected` may be whole conversations, whose common beginning is then the prompt.
    Raises one InputError that tells all that is wrong with the rows.
    """
    remedy = f"choose with {flag}-config and {flag}-split"
    rows = read_rows(source, flag=flag, config=config, split=split, remedy=remedy)
    columns = rows.columns()
    missing = [name for name in ("chosen", "rejected") if name not in columns]
    if missing:
        raise InputError(
            f"{flag} {source}: has no column {' and no column '.join(map(repr, missing))}; preference data need "
            f"prompt, chosen and rejected (it has {', '.join(map(str, columns[:12]))})"
        )
    kept = rows[:limit]
    read = [_read_pair(row, f"{flag} {rows.where(index)}", "prompt" in columns) for index, row in enumerate(kept)]
    raise_for_problems(check_pairs(read, rows.numbers[: len(read)]), source, unit=rows.unit)
    return [_typed_pair(row, rows.source, number, rows.unit) for row, number in zip(read, rows.numbers, strict=False)]


def _typed_pair(row: Row, file: str, number: int, unit: str) -> PreferencePair:
    def text(name: str) -> str:
        return str(row.get(name) or "")

    def reasons(name: str) -> tuple[str, ...]:
        return tuple(map(str, row.get(name) or ()))

    kind = row.get("kind")
    return PreferencePair(
        row["prompt"],
        row["chosen"],
        row["rejected"],
        _as_number(row.get("chosen_score")),
        _as_number(row.get("rejected_score")),
        text("chosen_model"),
        text("rejected_model"),
        text("prompt_id"),
        text("source"),
        kind if kind in PAIR_KINDS else "",
        reasons("chosen_reasons"),
        reasons("rejected_reasons"),
        file,
        number,
        unit,
    )


def _as_number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan


def _read_pair(row: Row, where: str, has_prompt: bool) -> Row:
    chosen, rejected = (_as_messages(row.get(name), "assistant", name, where) for name in ("chosen", "rejected"))
    prompt = _as_messages(row.get("prompt"), "user", "prompt", where)
    if not has_prompt and (_is_text(row.get("chosen")) or _is_text(row.get("rejected"))):
        raise InputError(f"{where}: chosen and rejected are plain text, so a column 'prompt' is needed")
    prompt, chosen, rejected = _split_conversations(prompt, chosen, rejected)
    return {**row, "prompt": prompt, "chosen": chosen, "rejected": rejected}


def _split_conversations(
    prompt: Messages | None, chosen: Messages | None, rejected: Messages | None
) -> tuple[Messages | None, Messages | None, Messages | None]:
    """Move what whole conversations share into the prompt; leave alone what is a prompt and two replies already."""
    if not chosen or not rejected or (prompt and len(chosen) == 1 and len(rejected) == 1):
        return prompt, chosen, rejected
    # Not the last message of either, even when they are equal: that is the reply, and the checks say so.
    most = min(len(chosen), len(rejected)) - 1
    shared = 0
    while shared < most and chosen[shared] == rejected[shared]:
        shared += 1
    beginning = chosen[:shared]
    if not prompt or prompt == beginning or (beginning and beginning[-len(prompt) :] == prompt):
        prompt = beginning
    elif shared:
        prompt = prompt + beginning
    return prompt, chosen[shared:], rejected[shared:]


def _as_messages(value: Any, role: str, column: str, where: str) -> Messages | None:
    if value is None:
        return None
    if isinstance(value, str):
        parsed = _parse_messages(value)
        if parsed is None:
            return [{"role": role, "content": value}]
        value = parsed
    if isinstance(value, Mapping):
        value = [value]
    if not isinstance(value, list):
        raise InputError(f"{where}: column {column!r} holds neither text nor chat messages, but {value!r:.60}")
    return [_as_message(entry, column, where) for entry in value]


def _parse_messages(text: str) -> list[Any] | None:
    """Return the messages of a table cell that holds them as JSON, which is all that CSV can do."""
    if not text.lstrip().startswith("[{"):
        return None
    try:
        value = json.loads(text)
    except ValueError:
        return None
    is_messages = isinstance(value, list) and all(
        isinstance(entry, dict) and ("role" in entry or "from" in entry) for entry in value
    )
    return value if is_messages else None


def _as_message(entry: Any, column: str, where: str) -> dict[str, Any]:
    message = role_and_content(entry)
    if message is None:
        raise InputError(f"{where}: column {column!r} holds a message without role and content: {entry!r:.80}")
    return message


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and _parse_messages(value) is None


def _features() -> Any:
    import datasets

    text, number = datasets.Value("string"), datasets.Value("float64")
    messages = datasets.List({"role": text, "content": text})
    return datasets.Features(
        {
            "prompt": messages,
            "chosen": messages,
            "rejected": messages,
            "chosen_score": number,
            "rejected_score": number,
            "chosen_model": text,
            "rejected_model": text,
            "prompt_id": text,
            "source": text,
            "kind": text,
            "chosen_reasons": datasets.List(text),
            "rejected_reasons": datasets.List(text),
        }
    )
