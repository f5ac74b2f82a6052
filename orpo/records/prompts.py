"""Prompts: the embedded set, and whatever a user brings."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from orpo.command.errors import InputError
from orpo.records.messages import last_message
from orpo.records.read_rows import SAVE_A_FILE, Rows, number_list, read_rows, role_and_content

EMBEDDED: Final = "embedded"
HELD_OUT: Final = "held_out"
TRAIN: Final = "train"
OUT_OF_PLACE: Final = frozenset({"code", "json", "formal", "legal", "grief", "grave_illness", "violence", "crisis"})
"""Categories of the embedded prompts where an emoji has no place in the reply."""

PROMPTS_FILE: Final = Path(__file__).with_name("prompts.jsonl")
_COLUMNS: Final = ("prompt", "messages", "instruction", "question", "query", "text", "conversations")
_ROLES: Final = frozenset({"system", "user", "assistant"})


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
        return [dict(message) for message in self.messages or [{"role": "user", "content": self.text}]]


def embedded_prompts(split: Literal["train", "held_out"] | None = None) -> list[Prompt]:
    """Return the prompts that come with the package, all or those of one split."""
    return [_embedded_prompt(row) for row in _embedded_rows() if split in (None, row["split"])]


def standard_prompts() -> list[Prompt]:
    """Return the 200 held-out prompts that models are compared on: 150 where an emoji is in place, 50 where not."""
    return [_embedded_prompt(row) for row in _embedded_rows() if row.get("standard")]


def _embedded_rows() -> list[dict[str, Any]]:
    with PROMPTS_FILE.open(encoding="utf-8") as stream:
        return [json.loads(line) for line in stream]


def _embedded_prompt(row: dict[str, Any]) -> Prompt:
    said = row["prompt"]
    text, messages = (said, None) if isinstance(said, str) else (last_message(said), said)
    return Prompt(row["prompt_id"], text, row["category"], row["split"], messages)


def load_prompts(
    source: str,
    *,
    column: str | None = None,
    config: str | None = None,
    hub_split: str = TRAIN,
    limit: int | None = None,
    flag: str = "--prompts",
    has_own_flags: bool = False,
) -> list[Prompt]:
    """Load prompts from a file, a folder or a Hub data set; `embedded` is the set that comes with the package.

    Args:
        source: JSONL, JSON, CSV, TSV, Parquet, text with one prompt a line, a `datasets` folder, or a Hub id.
        column: The column with the prompt, text or chat messages; found by its usual names when not given.
        config: Configuration of a Hub data set.
        hub_split: Split of a Hub data set, or of a folder that `datasets` saved.
        limit: Take only so many, from the start.
        flag: The flag that errors name.
        has_own_flags: Whether the command has FLAG-column, FLAG-config and FLAG-split too, for errors to recommend.
    """
    if source == EMBEDDED:
        return embedded_prompts()[:limit]
    remedy = f"choose with {flag}-config and {flag}-split" if has_own_flags else SAVE_A_FILE
    rows = read_rows(source, flag=flag, config=config, split=hub_split, remedy=remedy)
    name = _find_column(rows, column, flag, f"name yours with {flag}-column" if has_own_flags else "rename yours")
    prompts: list[Prompt] = []
    empty: list[int] = []
    ids: set[str] = set()
    for index, row in enumerate(rows):
        if limit is not None and len(prompts) >= limit:
            break
        messages = _as_messages(row.get(name), rows.where(index), name, flag)
        if not messages:
            empty.append(rows.numbers[index])
            continue
        prompt_id = _unique_id(row, rows.numbers[index], ids)
        text = messages[-1]["content"]
        category, split = str(row.get("category") or ""), str(row.get("split") or TRAIN)
        prompts.append(Prompt(prompt_id, text, category, split, messages if len(messages) > 1 else None))
    if empty and Path(source).expanduser().exists():  # a user can mend a file, but not a data set on the Hub
        raise InputError(f"{flag} {source}: no prompt in column {name!r} of {rows.unit}s {number_list(empty)}")
    if not prompts:
        raise InputError(f"{flag} {source}: holds no prompts")
    return prompts


def _find_column(rows: Rows, column: str | None, flag: str, remedy: str) -> str:
    columns = rows.columns()
    if column is not None:
        if column not in columns:
            raise InputError(f"{flag} {rows.source}: has no column {column!r}; it has {', '.join(columns)}")
        return column
    for name in _COLUMNS:
        if name in columns:
            return name
    raise InputError(
        f"{flag} {rows.source}: has none of the columns {', '.join(_COLUMNS)}; {remedy} "
        f"(it has {', '.join(map(str, columns[:12]))})"
    )


def _as_messages(value: Any, where: str, column: str, flag: str) -> list[dict[str, str]]:
    """Return chat messages that end with the user's; empty for an empty cell."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return []
    if isinstance(value, str):
        return [{"role": "user", "content": value.strip()}]
    if not isinstance(value, list):
        raise InputError(f"{flag} {where}: column {column!r} holds neither text nor chat messages, but {value!r:.60}")
    messages = [_as_message(entry, where, column, flag) for entry in value]
    while messages and messages[-1]["role"] != "user":  # the data set's own answer is not part of the prompt
        messages.pop()
    return messages if messages and messages[-1]["content"].strip() else []


def _as_message(entry: Any, where: str, column: str, flag: str) -> dict[str, str]:
    message = role_and_content(entry)
    if message is None or message["role"] not in _ROLES or not isinstance(message["content"], str):
        raise InputError(
            f"{flag} {where}: column {column!r} holds a message that is not "
            f"{{'role': system, user or assistant, 'content': text}}: {entry!r:.80}"
        )
    return message


def _unique_id(row: dict[str, Any], number: int, taken: set[str]) -> str:
    given = row.get("prompt_id", row.get("id"))
    prompt_id = str(given) if isinstance(given, str | int) and str(given) else f"r{number:05d}"
    if prompt_id in taken:
        prompt_id = f"{prompt_id}-{number}"
    taken.add(prompt_id)
    return prompt_id
