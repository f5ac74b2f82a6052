"""Any preference data set as the same typed pairs: which columns hold what, and where the prompt ends.

A wrong column name trains on garbage, chosen equal to rejected trains silently, and a null ends in an error of the
template engine (measured on TRL 1.16): so every row is looked at before a model is loaded, and every problem names its
rows.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, SupportsFloat

from orpo.records.columns import (
    USUAL_COLUMNS,
    ColumnsFound,
    PairColumns,
    check_turns,
    find_pair_columns,
    listed,
    meaningful_columns,
    read_prompt_cells,
)
from orpo.records.messages import Message, system_message, with_system
from orpo.records.pairs import PAIR_KINDS, PreferencePair
from orpo.records.read_messages import holds_dialogue, read_messages, whole_text
from orpo.records.read_rows import Rows, read_rows
from orpo.records.rows import BadRow, BadRowsPolicy, Row, RowProblem, check_usable, tell_bad_rows

_TOLD_ROWS: Final = 200


@dataclass(frozen=True)
class ReadPairs:
    """What came of a data set.

    Attributes:
        pairs: The pairs, in the order of the data.
        left_out: The rows that were left out because they cannot be used, each with its reason.
        warnings: What the user should know: columns that hold something and were not read, rows that were left out.
    """

    pairs: list[PreferencePair]
    left_out: list[BadRow] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def read_pairs(
    sources: str | Sequence[str],
    *,
    config: str | None = None,
    split: str = "train",
    columns: PairColumns = USUAL_COLUMNS,
    limit: int | None = None,
    bad_rows: BadRowsPolicy = "raise",
    setting: str = "data",
) -> ReadPairs:
    """Read preference pairs, each with its place in the user's data.

    Takes our own folder, JSONL, JSON, CSV, TSV, Parquet (packed with gzip too), globs, folders of a download, a
    `datasets` folder or a Hub data set, or several of them. Text becomes messages; `chosen` and `rejected` may be whole
    conversations, whose common beginning is then the prompt.

    Args:
        sources: What to read.
        config: Configuration of a Hub data set or of a folder.
        split: Its split.
        columns: Names of the columns, where they are not the usual ones.
        limit: Stop after this many pairs; rows that are left out do not count.
        bad_rows: Whether a row that cannot be used stops everything, or is left out and told.
        setting: The setting that named the sources, for errors.
    """
    rows = read_rows(sources, setting=setting, config=config, split=split)
    return pairs_of_rows(rows, columns=columns, limit=limit, bad_rows=bad_rows, setting=setting)


def pairs_of_rows(
    rows: Rows,
    *,
    columns: PairColumns = USUAL_COLUMNS,
    limit: int | None = None,
    bad_rows: BadRowsPolicy = "raise",
    setting: str = "data",
) -> ReadPairs:
    """Return the pairs of rows that are read already; the arguments are those of `read_pairs`."""
    names = find_pair_columns(rows, columns, setting)
    pairs, bad = rows.read_each(lambda row: _read_pair(row, names), limit)
    check_usable(pairs, bad, rows.source, bad_rows, setting)
    warnings = [_tell_left_out(bad, rows)] if bad else []
    if unread := meaningful_columns(rows, names):
        warnings.append(
            f"{rows.source}: not read: {listed(unread)}; if the model should see what they say, join it to the prompt"
        )
    return ReadPairs(pairs, bad, warnings)


def _tell_left_out(bad: Sequence[BadRow], rows: Rows) -> str:
    count = len(rows.rows) + len(rows.bad)
    return f"{rows.source}: left out {len(bad)} of {count} rows: {tell_bad_rows(bad, rows.source, _TOLD_ROWS)}"


def _read_pair(row: Row, names: ColumnsFound) -> PreferencePair:
    cells = row.columns
    chosen, rejected = (_read_reply(cells.get(name), name) for name in (names.chosen, names.rejected))
    prompt = read_prompt_cells(cells, names)
    if names.prompt and holds_dialogue(cells.get(names.prompt)):  # `Assistant:` and a blank, after which replies begin
        chosen, rejected = (
            [*reply[:-1], {**reply[-1], "content": reply[-1]["content"].lstrip()}] for reply in (chosen, rejected)
        )
    prompt, chosen, rejected = _split_conversations(prompt, chosen, rejected, names)
    _check_pair(prompt, chosen, rejected, names)
    return _typed_pair(row, prompt, chosen, rejected)


def _read_reply(value: object, name: str) -> list[Message]:
    messages = read_messages(value, "assistant", name)
    if messages is None:
        raise RowProblem(f"{name} is null", "fill or drop these rows")
    if not messages or not messages[-1]["content"].strip():
        raise RowProblem(f"{name} is empty", "fill or drop these rows")
    if messages[-1]["role"] != "assistant":
        raise RowProblem(f"{name} ends with the role {messages[-1]['role']}", "a reply is the assistant's message")
    return messages


def _split_conversations(
    prompt: list[Message], chosen: list[Message], rejected: list[Message], names: ColumnsFound
) -> tuple[list[Message], list[Message], list[Message]]:
    """Move what whole conversations share into the prompt; leave alone what is a prompt and two replies already."""
    if len(chosen) == len(rejected) == 1:
        if not prompt and names.prompt is None:
            raise RowProblem("there is no prompt, and the replies are plain text", "add a column prompt")
        return prompt, chosen, rejected
    # Not the last message of either, even when they are equal: that is the reply, and the checks say so.
    most = min(len(chosen), len(rejected)) - 1
    shared = next((place for place in range(most) if chosen[place] != rejected[place]), most)
    beginning, chosen, rejected = chosen[:shared], chosen[shared:], rejected[shared:]
    return _join_beginning(prompt, beginning, names), chosen, rejected


def _join_beginning(prompt: list[Message], beginning: list[Message], names: ColumnsFound) -> list[Message]:
    """Return the one prompt that the column and the shared beginning of the conversations are both parts of."""
    system = system_message(prompt)
    asked = prompt[1:] if system else prompt
    if not asked or _holds(beginning, asked):
        return beginning if not system or system_message(beginning) else with_system(system, beginning)
    if not beginning:
        return prompt
    if asked[-1]["role"] == "assistant" and beginning[0]["role"] == "user":
        return [*prompt, *beginning]  # the conversations go on where the prompt ends
    what = f"{names.chosen} and {names.rejected} begin with a conversation that does not hold {names.prompt}"
    raise RowProblem(what, f"leave {names.prompt} out, or make it what the conversations begin with")


def _holds(beginning: list[Message], asked: list[Message]) -> bool:
    """Tell whether the messages stand in the beginning one after the other, whatever the space in their text."""
    said, looked_for = (
        [(message["role"], message["content"].split()) for message in messages] for messages in (beginning, asked)
    )
    return any(said[start : start + len(looked_for)] == looked_for for start in range(len(said)))


def _check_pair(prompt: list[Message], chosen: list[Message], rejected: list[Message], names: ColumnsFound) -> None:
    name = names.prompt or "prompt"
    check_turns(prompt, name)
    for column, reply in ((names.chosen, chosen), (names.rejected, rejected)):
        roles = [message["role"] for message in reply]
        if roles != ["assistant"]:
            what = f"{column} is not one assistant message but {', '.join(roles)}"
            raise RowProblem(what, "put what comes before the last reply into prompt")
    if chosen[0]["content"].strip() == rejected[0]["content"].strip():
        raise RowProblem("chosen and rejected are the same", "drop these rows: they teach nothing")


def _typed_pair(row: Row, prompt: list[Message], chosen: list[Message], rejected: list[Message]) -> PreferencePair:
    cells = row.columns

    def text(name: str) -> str:
        value = cells.get(name)
        return whole_text(str(value)) if isinstance(value, str | int) else ""

    def reasons(name: str) -> tuple[str, ...]:
        value = cells.get(name)
        return tuple(whole_text(str(reason)) for reason in value) if isinstance(value, list) else ()

    kind = cells.get("kind")
    return PreferencePair(
        prompt,
        chosen,
        rejected,
        _as_number(cells.get("chosen_score")),
        _as_number(cells.get("rejected_score")),
        text("chosen_model"),
        text("rejected_model"),
        text("prompt_id"),
        text("source"),
        kind if isinstance(kind, str) and kind in PAIR_KINDS else "",
        reasons("chosen_reasons"),
        reasons("rejected_reasons"),
        row.place.file,
        row.place.number,
        row.place.unit,
    )


def _as_number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, str | SupportsFloat):
        return math.nan
    try:
        return float(value)
    except (ValueError, OverflowError):
        return math.nan
