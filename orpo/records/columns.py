"""Which columns of a data set hold the prompt, the replies and the system prompt, and which are not read."""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from orpo.command.errors import InputError
from orpo.records.json_text import kind_of_value
from orpo.records.messages import Message, system_message, with_system
from orpo.records.read_messages import LONGEST_MESSAGE, checked_text, read_messages, whole_text
from orpo.records.read_rows import Rows
from orpo.records.rows import BadRow, RowProblem, raise_for_bad_rows, tell_bad_rows

_CHOSEN_NAMES: Final = ("chosen", "chosen_response", "response_chosen", "chosen_completion", "preferred", "accepted")
_REJECTED_NAMES: Final = (
    "rejected", "rejected_response", "response_rejected", "rejected_completion", "dispreferred", "non_preferred",
)  # fmt: skip
_PROMPT_NAMES: Final = (
    "prompt", "question", "instruction", "query", "conversations", "conversation", "messages", "text", "input",
)  # fmt: skip
_CONVERSATION_NAMES: Final = frozenset({"conversations", "conversation", "messages"})
_COMPLETION_NAMES: Final = ("completion", "response", "reply", "output", "answer")
_LABEL_NAME: Final = "label"
_SYSTEM_NAMES: Final = ("system", "system_prompt", "system_message")
_INPUT_NAME: Final = "input"
# Of such a name even one word, `persona: pirate`, was meant for the model.
_SPEAKING: Final = re.compile(
    r"(system|persona|context|history|prompt|question|instruction|input|query)(?!.*(id|hash|type|source|lang\w*)$)",
    re.I,
)
# What our own pairs say beside the replies, and what other sets say about a row rather than in it.
_ABOUT: Final = frozenset(
    {"chosen_score", "rejected_score", "chosen_model", "rejected_model", "prompt_id", "source", "kind",
     "chosen_reasons", "rejected_reasons", "id", "split", "category", "tags", "metadata", "meta", "model", "models",
     "created", "timestamp", "date", "url", "license", "language", "lang", "dataset", "origin", "principle"}
)  # fmt: skip
_ROWS_LOOKED_AT: Final = 200
_WORDS_OF_NO_COINCIDENCE: Final = 4


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
        completion: The one reply, of a set with labels; empty where the conversations end with it.
        label: Whether that reply is good.
    """

    prompt: str | None
    chosen: str = ""
    rejected: str = ""
    system: str | None = None
    input: str | None = None
    completion: str = ""
    label: str = ""


def has_labels(rows: Rows, wanted: PairColumns) -> bool:
    """Tell whether rows hold single replies with a label rather than pairs."""
    there = rows.columns()
    has_pairs = all(
        (name in there) if name else any(known in there for known in usual)
        for name, usual in ((wanted.chosen, _CHOSEN_NAMES), (wanted.rejected, _REJECTED_NAMES))
    )
    return _LABEL_NAME in there and not has_pairs


def find_labelled_columns(rows: Rows, wanted: PairColumns, setting: str) -> ColumnsFound:
    """Return the columns of a set of single replies with labels."""
    there = _columns_there(rows, setting)
    prompt = _find(rows, wanted.prompt, _PROMPT_NAMES, setting)
    completion = _find(rows, None, _COMPLETION_NAMES, setting)
    if completion is None and prompt not in _CONVERSATION_NAMES:
        what = "has labels, but neither a column 'completion' nor conversations"
        raise InputError(f"{rows.source}: {what}; it has {listed(there)}; call the replies completion", setting=setting)
    system = _find(rows, wanted.system, _SYSTEM_NAMES, setting)
    inputs = _input_beside(prompt, there)
    return ColumnsFound(prompt, system=system, input=inputs, completion=completion or "", label=_LABEL_NAME)


def find_pair_columns(rows: Rows, wanted: PairColumns, setting: str) -> ColumnsFound:
    """Return the columns of a set of preference pairs; InputError where one that is needed is not there."""
    there = _columns_there(rows, setting)
    chosen = _find(rows, wanted.chosen, _CHOSEN_NAMES, setting)
    rejected = _find(rows, wanted.rejected, _REJECTED_NAMES, setting)
    if chosen is None or rejected is None:
        missing = [name for name, found in (("chosen", chosen), ("rejected", rejected)) if found is None]
        what = " and ".join(f"no column {name!r}" for name in missing)
        remedy = "name the columns that hold the better and the worse reply, or, for kto, labels in a column label"
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
    if (names.prompt or "").strip().casefold() in _CONVERSATION_NAMES and prompt and prompt[-1]["role"] == "assistant":
        prompt = prompt[:-1]  # the set's own answer; the replies stand in columns of their own
    extra = _read_input(cells.get(names.input), names.input) if names.input else ""
    if prompt and extra and not _stands_in(extra, prompt[-1]["content"]):
        prompt = [*prompt[:-1], {**prompt[-1], "content": f"{prompt[-1]['content'].rstrip()}\n\n{extra}"}]
    system = read_messages(cells.get(names.system), "system", names.system) if names.system else None
    if system and system[0]["content"].strip():
        said = system_message(prompt)
        if said and said.strip() != system[0]["content"].strip():
            raise RowProblem(f"{names.system} and {names.prompt} hold two system prompts", "keep one of them")
        prompt = with_system(system[0]["content"], prompt)
    return prompt


def _read_input(value: object, name: str) -> str:
    """Return what an instruction is to be done on as text, a number too; RowProblem for what has no one text."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise RowProblem(f"{name} is not text, but {kind_of_value(value)}", "write it as text, or leave it out")
    return checked_text(str(value), name).strip("\n") if str(value).strip() else ""


def _stands_in(extra: str, prompt: str) -> bool:
    """Tell whether a prompt holds its input already: at its end, or as several words that are no coincidence."""
    extra = extra.strip()
    at_end = re.search(rf"(?<!\w){re.escape(extra)}\W*\Z", prompt) is not None
    return at_end or (len(extra.split()) >= _WORDS_OF_NO_COINCIDENCE and extra in prompt)


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
    if sum(len(message["content"]) for message in prompt) > LONGEST_MESSAGE:
        raise RowProblem(f"{name} has more than {LONGEST_MESSAGE:,} characters in all", "shorten or drop it")


def meaningful_columns(rows: Rows, names: ColumnsFound) -> list[str]:
    """Return the columns that are not read though they say something that the others do not."""
    read = {names.prompt, names.chosen, names.rejected, names.system, names.input, names.completion, names.label}
    found: dict[str, None] = {}
    for row in rows.rows[:_ROWS_LOOKED_AT]:
        known: set[str] | None = None
        for name, value in row.columns.items():
            words = 1 if _SPEAKING.search(name) else 2
            if name in read or name in _ABOUT or name in found or not any(_texts(value, words)):
                continue
            if known is None:
                known = {text for column in read if column for text in _texts(row.columns.get(column), 1)}
            if any(text not in known for text in _texts(value, words)):
                found[name] = None
    return list(found)


def tell_unread(rows: Rows, names: ColumnsFound, bad: Sequence[BadRow]) -> list[str]:
    """Return warnings of the rows that were left out, and of the columns that are not read."""
    warnings = [f"{rows.source}: left out {len(bad)} rows: {tell_bad_rows(bad, rows.source)}"] if bad else []
    if unread := meaningful_columns(rows, names):
        warnings.append(f"{rows.source}: not read: {listed(unread)}")
    return warnings


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
        # `Prompt` is as usual, and so is the ` chosen` of a CSV with a blank after each comma.
        spelled = {name.strip().casefold(): name for name in reversed(there)}
        return next((spelled[known] for known in usual if known in spelled), None)
    if wanted not in there:
        raise InputError(f"{rows.source}: has no column {wanted!r}; it has {listed(there)}", setting=setting)
    return wanted


def _input_beside(prompt: str | None, there: Sequence[str]) -> str | None:
    found = next((name for name in there if name.strip().casefold() == _INPUT_NAME), None)
    return found if prompt not in (None, found) else None


def _texts(value: object, words: int = 2, depth: int = 4) -> Iterator[str]:
    """Yield the texts of so many words within a value: sentences, and not names, numbers and ids."""
    if isinstance(value, str):
        if len(value.split()) >= words:
            yield value.strip()
    elif depth and isinstance(value, list | dict):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _texts(inner, words, depth - 1)
