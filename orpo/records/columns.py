"""Which columns of a data set hold the prompt, the replies and the system prompt, and which are not read."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from orpo.command.errors import InputError
from orpo.records.messages import Message, system_message, with_system
from orpo.records.read_messages import read_messages, whole_text
from orpo.records.read_rows import Rows
from orpo.records.rows import RowProblem, raise_for_bad_rows

_CHOSEN_NAMES: Final = ("chosen", "chosen_response", "response_chosen", "chosen_completion", "preferred", "accepted")
_REJECTED_NAMES: Final = (
    "rejected", "rejected_response", "response_rejected", "rejected_completion", "dispreferred", "non_preferred",
)  # fmt: skip
_PROMPT_NAMES: Final = (
    "prompt", "question", "instruction", "query", "conversations", "conversation", "messages", "text", "input",
)  # fmt: skip
_CONVERSATION_NAMES: Final = frozenset({"conversations", "conversation", "messages"})
_SYSTEM_NAMES: Final = ("system", "system_prompt", "system_message")
_INPUT_NAME: Final = "input"
# What our own pairs say beside the replies, and what other sets say about a row rather than in it.
_ABOUT: Final = frozenset(
    {"chosen_score", "rejected_score", "chosen_model", "rejected_model", "prompt_id", "source", "kind",
     "chosen_reasons", "rejected_reasons", "id", "split", "category", "tags", "metadata", "meta", "model", "models",
     "created", "timestamp", "date", "url", "license", "language", "lang", "dataset", "origin", "principle"}
)  # fmt: skip
_ROWS_LOOKED_AT: Final = 200


@dataclass(frozen=True)
class PairColumns:
    """The names of the columns that hold a pair; None finds them by their usual names."""

    prompt: str | None = None
    chosen: str | None = None
    rejected: str | None = None
    system: str | None = None


USUAL_COLUMNS: Final = PairColumns()


@dataclass(frozen=True)
class ColumnsFound:
    """The columns that are read.

    Attributes:
        prompt: The prompt, as text or messages; None where the conversations hold it.
        chosen: The better reply; empty where only prompts are read.
        rejected: The worse reply, likewise.
        system: The system prompt.
        input: What the prompt, an instruction then, is to be done on.
    """

    prompt: str | None
    chosen: str = ""
    rejected: str = ""
    system: str | None = None
    input: str | None = None


def find_pair_columns(rows: Rows, wanted: PairColumns, setting: str) -> ColumnsFound:
    """Return the columns of a set of preference pairs; InputError where one that is needed is not there."""
    there = _columns_there(rows, setting)
    chosen = _find(rows, wanted.chosen, _CHOSEN_NAMES, setting)
    rejected = _find(rows, wanted.rejected, _REJECTED_NAMES, setting)
    if chosen is None or rejected is None:
        missing = [name for name, found in (("chosen", chosen), ("rejected", rejected)) if found is None]
        what = " and ".join(f"no column {name!r}" for name in missing)
        remedy = "name the columns that hold the better and the worse reply"
        raise InputError(f"{rows.source}: has {what}; it has {listed(there)}; {remedy}", setting=setting)
    prompt = _find(rows, wanted.prompt, _PROMPT_NAMES, setting)
    system = _find(rows, wanted.system, _SYSTEM_NAMES, setting)
    return ColumnsFound(prompt, chosen, rejected, system, _input_beside(prompt, there))


def find_prompt_columns(rows: Rows, wanted: str | None, setting: str) -> ColumnsFound:
    """Return the columns of a set of prompts; InputError where there is none."""
    there = _columns_there(rows, setting)
    prompt = _find(rows, wanted, _PROMPT_NAMES, setting)
    if prompt is None:
        what = f"has none of the columns {', '.join(_PROMPT_NAMES)}"
        remedy = "name the column that holds the prompts, or call it prompt"
        raise InputError(f"{rows.source}: {what}; it has {listed(there)}; {remedy}", setting=setting)
    system = _find(rows, None, _SYSTEM_NAMES, setting)
    return ColumnsFound(prompt, system=system, input=_input_beside(prompt, there))


def read_prompt_cells(cells: Mapping[str, object], names: ColumnsFound) -> list[Message]:
    """Return what a row says before any reply: the system prompt, the prompt, and what it is to be done on."""
    value = cells.get(names.prompt) if names.prompt else None
    prompt = read_messages(value, "user", names.prompt or "prompt") or []
    if names.prompt in _CONVERSATION_NAMES and prompt and prompt[-1]["role"] == "assistant":
        prompt = prompt[:-1]  # the set's own answer; the replies stand in columns of their own
    extra = cells.get(names.input) if names.input else None
    if isinstance(extra, str) and extra.strip() and prompt and extra.strip() not in prompt[-1]["content"]:
        prompt = [*prompt[:-1], {**prompt[-1], "content": f"{prompt[-1]['content'].rstrip()}\n\n{extra}"}]
    system = read_messages(cells.get(names.system), "system", names.system) if names.system else None
    if system and system[0]["content"].strip():
        said = system_message(prompt)
        if said and said.strip() != system[0]["content"].strip():
            raise RowProblem(f"{names.system} and {names.prompt} hold two system prompts", "keep one of them")
        prompt = with_system(system[0]["content"], prompt)
    return prompt


def check_turns(prompt: Sequence[Message], name: str) -> None:
    """Raise RowProblem unless user and assistant take turns, after a system message perhaps, and the user is last."""
    roles = [message["role"] for message in prompt]
    if not prompt or not prompt[-1]["content"].strip() or roles == ["system"]:
        raise RowProblem(f"{name} is empty", "fill or drop these rows")
    if roles[-1] != "user":
        raise RowProblem(f"{name} ends with the role {roles[-1]}", "a prompt ends with the user's message")
    turns = roles[1:] if roles[0] == "system" else roles
    if turns != (["user", "assistant"] * len(turns))[: len(turns)]:
        what = f"{name} has the roles {', '.join(roles[:6])}{', ...' if len(roles) > 6 else ''}"
        raise RowProblem(what, "after a system message, user and assistant must take turns, the user first")


def meaningful_columns(rows: Rows, names: ColumnsFound) -> list[str]:
    """Return the columns that are not read though they say something that the others do not."""
    read = {names.prompt, names.chosen, names.rejected, names.system, names.input}
    found: dict[str, None] = {}
    for row in rows.rows[:_ROWS_LOOKED_AT]:
        known: set[str] | None = None
        for name, value in row.columns.items():
            if name in read or name in _ABOUT or name in found or not _says_something(value):
                continue
            if known is None:
                known = {text for column in read if column for text in _texts(row.columns.get(column))}
            if any(text not in known for text in _texts(value)):
                found[name] = None
    return list(found)


def listed(names: Sequence[object], most: int = 12) -> str:
    """Return column names for an error, cut after a few."""
    shown = ", ".join(whole_text(str(name))[:60] for name in names[:most])
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown


def _columns_there(rows: Rows, setting: str) -> list[str]:
    there = rows.columns()
    if not there:
        raise_for_bad_rows(rows.bad, rows.source, setting)
        raise InputError(f"{rows.source}: holds no columns", setting=setting)
    return there


def _find(rows: Rows, wanted: str | None, usual: Sequence[str], setting: str) -> str | None:
    there = rows.columns()
    if wanted is None:
        return next((known for known in usual if known in there), None)
    if wanted not in there:
        raise InputError(f"{rows.source}: has no column {wanted!r}; it has {listed(there)}", setting=setting)
    return wanted


def _input_beside(prompt: str | None, there: Sequence[str]) -> str | None:
    return _INPUT_NAME if _INPUT_NAME in there and prompt not in (None, _INPUT_NAME) else None


def _says_something(value: object) -> bool:
    """Tell sentences, lists and objects from names, numbers and ids."""
    if isinstance(value, str):
        return len(value.split()) > 1
    return isinstance(value, list | dict) and any(_texts(value))


def _texts(value: object, depth: int = 4) -> Iterator[str]:
    """Yield the texts of more than one word within a value."""
    if isinstance(value, str):
        if len(value.split()) > 1:
            yield value.strip()
    elif depth and isinstance(value, list | dict):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _texts(inner, depth - 1)
