"""Single replies with a label, good or bad, as TRL's unpaired preference format has them, and reading them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from orpo.records.columns import (
    ColumnsFound,
    PairColumns,
    check_turns,
    find_labelled_columns,
    read_prompt_cells,
    tell_unread,
)
from orpo.records.messages import Message
from orpo.records.read_messages import read_messages
from orpo.records.read_rows import Rows
from orpo.records.rows import BadRowsPolicy, Row, RowProblem, check_usable

_GOOD: Final = frozenset({"true", "1", "1.0", "yes"})
_BAD: Final = frozenset({"false", "0", "0.0", "no"})


@dataclass(frozen=True)
class LabelledReply:
    """One reply to a prompt and whether it is a good one.

    Attributes:
        prompt: The conversation up to the reply.
        completion: The reply, one assistant message.
        label: Whether the reply is desirable.
        file: Where it was read from.
        row: Its number there.
        unit: What is counted there.
    """

    prompt: list[Message]
    completion: list[Message]
    label: bool
    file: str = ""
    row: int = 0
    unit: str = "row"


def read_labelled(
    rows: Rows, columns: PairColumns, *, limit: int | None, bad_rows: BadRowsPolicy, setting: str
) -> tuple[list[LabelledReply], list[str]]:
    """Return the replies of a set with a column of labels, and warnings about what was not read.

    The prompt and the reply are texts or messages; without a column of replies, the last message of a conversation is
    the reply.
    """
    names = find_labelled_columns(rows, columns, setting)
    found, bad = rows.read_each(lambda row: _read_one(row, names), limit)
    check_usable(found, bad, rows.source, bad_rows, setting)
    return found, tell_unread(rows, names, bad)


def _read_one(row: Row, names: ColumnsFound) -> LabelledReply:
    label = _read_label(row.columns.get(names.label), names.label)
    column = names.completion or names.prompt or "completion"
    if names.completion:
        prompt = read_prompt_cells(row.columns, names)
        reply = read_messages(row.columns.get(names.completion), "assistant", names.completion) or []
    else:
        prompt, reply = [], read_messages(row.columns.get(column), "user", column) or []
    if len(reply) > 1:  # a conversation: its last message is the reply
        goes_on = reply[0]["role"] == "assistant"
        prompt, reply = [*(prompt if goes_on else []), *reply[:-1]], reply[-1:]
    if not reply or not reply[0]["content"].strip():
        raise RowProblem(f"{column} is empty", "fill or drop these rows")
    if reply[0]["role"] != "assistant":
        raise RowProblem(f"{column} does not end with the assistant's message", "the reply is what is labelled")
    check_turns(prompt, names.prompt or "prompt")
    return LabelledReply(prompt, reply, label, row.place.file, row.place.number, row.place.unit)


def _read_label(value: object, column: str) -> bool:
    written = str(value).strip().lower()
    if isinstance(value, bool | int | float | str) and written in _GOOD | _BAD:
        return written in _GOOD
    shown = "null" if value is None else repr(value)[:40]
    raise RowProblem(f"{column} is {shown}", "write true for a good reply and false for a bad one")


def count_labels(replies: Sequence[LabelledReply]) -> tuple[int, int]:
    """Return how many replies are good, and how many bad."""
    good = sum(reply.label for reply in replies)
    return good, len(replies) - good
