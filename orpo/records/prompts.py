"""Prompts: the embedded set, and whatever a user brings."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, Literal

from orpo.command.errors import InputError
from orpo.records.columns import (
    ColumnsFound,
    check_turns,
    find_prompt_columns,
    read_prompt_cells,
    tell_unread,
)
from orpo.records.messages import last_message, user_message
from orpo.records.read_messages import whole_text
from orpo.records.read_rows import read_rows
from orpo.records.rows import BadRow, BadRowsPolicy, Row, raise_for_bad_rows, tell_bad_rows

EMBEDDED: Final = "embedded"
HELD_OUT: Final = "held_out"
TRAIN: Final = "train"
OUT_OF_PLACE: Final = frozenset({"code", "json", "formal", "legal", "grief", "grave_illness", "violence", "crisis"})
"""Categories of the embedded prompts where an emoji has no place in the reply."""

GRAVE: Final = frozenset({"grief", "grave_illness", "violence", "crisis"})
"""Those where a bad answer hurts."""

PROMPTS_FILE: Final = Path(__file__).with_name("prompts.jsonl")


@dataclass(frozen=True)
class Prompt:
    """What a user said to the chat model.

    Attributes:
        prompt_id: Unique in its set.
        text: The last user message.
        category: What kind of message it is, where the set says so.
        split: `train`, or `held_out` for those that no model is trained on.
        messages: The whole conversation when there is more than the one message.
    """

    prompt_id: str
    text: str
    category: str = ""
    split: str = TRAIN
    messages: list[dict[str, str]] | None = None

    def conversation(self) -> list[dict[str, str]]:
        """Return the prompt as chat messages, the user's last."""
        return [dict(message) for message in self.messages or user_message(self.text)]


def embedded_prompts(split: Literal["train", "held_out"] | None = None) -> list[Prompt]:
    """Return the prompts that come with the package, all or those of one split."""
    return [prompt for prompt, _ in _embedded() if split in (None, prompt.split)]


def standard_prompts() -> list[Prompt]:
    """Return the 200 held-out prompts that models are compared on: 150 where an emoji is in place, 50 where not."""
    return [prompt for prompt, is_standard in _embedded() if is_standard]


def _embedded() -> Iterator[tuple[Prompt, bool]]:
    """Yield each embedded prompt, and whether it is one of the standard ones."""
    with PROMPTS_FILE.open(encoding="utf-8") as stream:
        for row in map(json.loads, stream):
            said = row["prompt"]
            text, messages = (said, None) if isinstance(said, str) else (last_message(said), said)
            yield Prompt(row["prompt_id"], text, row["category"], row["split"], messages), bool(row.get("standard"))


@dataclass(frozen=True)
class ReadPrompts:
    """What came of a set of prompts.

    Attributes:
        prompts: The prompts to use, no more than the limit.
        held_out: Those left out because no model may be trained on them.
        repeated: Those left out because they say what an earlier one says.
        left_out: The rows that cannot be used, each with its reason.
        warnings: What the user should know: columns that hold something and were not read, rows that were left out.
    """

    prompts: list[Prompt]
    held_out: list[Prompt] = field(default_factory=list)
    repeated: list[Prompt] = field(default_factory=list)
    left_out: list[BadRow] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def read_prompts(
    sources: str | Sequence[str],
    *,
    column: str | None = None,
    config: str | None = None,
    split: str = TRAIN,
    limit: int | None = None,
    for_training: bool = False,
    bad_rows: BadRowsPolicy = "raise",
    setting: str = "prompts",
) -> ReadPrompts:
    """Read prompts from whatever `read_rows` reads; `embedded` is the set that comes with the package.

    Args:
        sources: What to read.
        column: The column with the prompt, text or chat messages; found by its usual names when not given.
        config: Configuration of a Hub data set or of a folder.
        split: Its split.
        limit: The most prompts to return; those that are left out do not count.
        for_training: Leave out the prompts that their set marks as held out.
        bad_rows: Whether a row that cannot be used stops everything, or is left out and told.
        setting: The setting that named the sources, for errors.
    """
    if sources == EMBEDDED:
        return _choose(embedded_prompts(), limit, for_training)
    rows = read_rows(sources, setting=setting, config=config, split=split)
    names = find_prompt_columns(rows, column, setting)
    ids: set[str] = set()
    found, bad = rows.read_each(lambda row: _read_prompt(row, names, ids))
    if bad_rows == "raise":
        raise_for_bad_rows(bad, rows.source, setting)
    chosen = _choose(found, limit, for_training)
    if not chosen.prompts:
        what = "all its prompts are marked as held out" if chosen.held_out else "holds no prompts"
        told = f" ({tell_bad_rows(bad, rows.source)})" if bad else ""
        raise InputError(f"{rows.source}: {what}{told}", setting=setting)
    return replace(chosen, left_out=bad, warnings=tell_unread(rows, names, bad))


def _choose(prompts: Sequence[Prompt], limit: int | None, for_training: bool) -> ReadPrompts:
    """Leave out what may not or need not be used, up to the limit."""
    chosen = ReadPrompts([])
    seen: set[str] = set()
    for prompt in prompts:
        if limit is not None and len(chosen.prompts) >= limit:
            break
        said = json.dumps(prompt.conversation())
        if for_training and prompt.split == HELD_OUT:
            chosen.held_out.append(prompt)
        elif said in seen:
            chosen.repeated.append(prompt)
        else:
            chosen.prompts.append(prompt)
        seen.add(said)
    return chosen


def _read_prompt(row: Row, names: ColumnsFound, ids: set[str]) -> Prompt:
    messages = read_prompt_cells(row.columns, names)
    while messages and messages[-1]["role"] == "assistant":  # the data set's own answer is not part of the prompt
        messages = messages[:-1]
    check_turns(messages, names.prompt or "prompt")
    if len(messages) == 1:
        messages = user_message(messages[0]["content"].strip())
    category, split = (_label(row.columns.get(name)) for name in ("category", "split"))
    return Prompt(
        _unique_id(row, ids), last_message(messages), category, split or TRAIN, messages if len(messages) > 1 else None
    )


def _label(value: object) -> str:
    return whole_text(str(value)) if isinstance(value, str | int) else ""


def _unique_id(row: Row, taken: set[str]) -> str:
    given = _label(row.columns.get("prompt_id")) or _label(row.columns.get("id"))
    wanted = given or f"r{row.place.number:05d}"
    prompt_id, number = wanted, row.place.number
    while prompt_id in taken:
        prompt_id, number = f"{wanted}-{number}", number + 1
    taken.add(prompt_id)
    return prompt_id
