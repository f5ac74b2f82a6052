"""One cell of a user's data as chat messages, whichever of the usual ways it was written in.

Text, a message, a list of messages, ShareGPT's `from` and `value`, contents in parts, dialogues within one text
(`Human: ... Assistant: ...`), and what pandas or a CSV made of a list. What cannot be read is a RowProblem, never text.
"""

import ast
import json
import math
import re
from collections.abc import Mapping
from typing import Final

from orpo.command.safe_text import HALF_CHARACTER
from orpo.records.json_text import kind_of_value
from orpo.records.messages import Message
from orpo.records.rows import RowProblem

LONGEST_MESSAGE: Final = 2_000_000
"""Characters of one message; far more than any context holds, and few enough to be tokenized in seconds."""

_ROLES: Final = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "prompter": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "bot": "assistant",
    "chatbot": "assistant",
    "model": "assistant",
}
# A list of messages as Python, JSON or numpy writes it, and one whose end is cut off (a cell of Excel's has a limit).
_WRITTEN_LIST: Final = re.compile(r"\s*(array\()?\s*\[?\s*\{\s*['\"]")
_BEGUN_LIST: Final = re.compile(
    r"\s*(array\()?\s*\[\s*\{\s*(['\"])(role|content|from|value)\2\s*:(?!.*\}\s*\])", re.DOTALL
)
_KEYS: Final = ({"role", "content"}, {"from", "value"})
_DIALOGUE: Final = re.compile(r"\s*Human:")
_TURNS: Final = (re.compile(r"(?:^|\n\n)\s*(Human|Assistant):"), re.compile(r"(?:^|\n)\s*(Human|Assistant):"))
_ARRAY: Final = re.compile(r"\s*array\((.*?)(?:,\s*dtype=\w+)?\)\s*", re.DOTALL)
_FILL: Final = "fill or drop these rows"
_KEEP_LISTS: Final = "save the data as JSONL or Parquet, which keep lists"


def read_messages(value: object, role: str, column: str) -> list[Message] | None:
    """Return a cell as messages; text becomes one message of the given role; None for an empty cell.

    Raises RowProblem, whose text names the column.
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, str):
        value = _within_text(value, column)
        if isinstance(value, str):
            return [{"role": role, "content": checked_text(value, column)}]
    if isinstance(value, Mapping):
        value = [value]
    if not isinstance(value, list | tuple):
        what = f"{column} holds neither text nor chat messages, but {kind_of_value(value)}"
        raise RowProblem(what, "write text or a list of messages with role and content")
    return [_read_message(entry, column) for entry in value]


def checked_text(text: str, column: str) -> str:
    """Return text that can be tokenized and written; RowProblem for half a character or a message without end."""
    if len(text) > LONGEST_MESSAGE:
        raise RowProblem(f"{column} has a message of more than {LONGEST_MESSAGE:,} characters", "shorten or drop it")
    if HALF_CHARACTER.search(text):
        raise RowProblem(f"{column} holds half of a character (a lone surrogate)", "fix or drop these rows")
    return text


def whole_text(text: str) -> str:
    """Return text with every half character replaced, for ids and names that nobody is trained on."""
    return HALF_CHARACTER.sub("\ufffd", text)


def holds_dialogue(value: object) -> bool:
    """Tell whether a cell is a dialogue within one text."""
    return isinstance(value, str) and _DIALOGUE.match(value) is not None and "Assistant:" in value


def _read_message(entry: object, column: str) -> Message:
    remedy = "each message needs a role (system, user, assistant) and a content"
    if not isinstance(entry, Mapping):
        raise RowProblem(f"{column} holds a list with {kind_of_value(entry)} in place of a message", remedy)
    for role_key, content_key in (("role", "content"), ("from", "value")):
        if role_key in entry and content_key in entry:
            content = _read_content(entry[content_key], column)
            return {"role": _read_role(entry[role_key], column), "content": checked_text(content, column)}
    raise RowProblem(f"{column} holds a message without role and content", remedy)


def _read_role(role: object, column: str) -> str:
    remedy = "roles are system, user and assistant"
    if not isinstance(role, str):
        raise RowProblem(f"{column} has a message whose role is {kind_of_value(role)}", remedy)
    known = _ROLES.get(role.strip().lower())
    if known is None:
        raise RowProblem(f"{column} has the role {role[:40]!r}", remedy)
    return known


def _read_content(content: object, column: str) -> str:
    if isinstance(content, str):
        return content
    if content is None:
        raise RowProblem(f"{column} holds a message without content", _FILL)
    parts = content if isinstance(content, list | tuple) else [content]
    return "".join(_read_part(part, column) for part in parts)


def _read_part(part: object, column: str) -> str:
    if isinstance(part, str):
        return part
    fields = part if isinstance(part, Mapping) else {}
    text, named = fields.get("text"), fields.get("type")
    # Tables give every part the columns of all: a text part may carry `image: null`.
    if isinstance(text, str) and fields.get("type", "text") == "text":
        return text
    what = f"a part of the type {named[:40]!r}" if isinstance(named, str) else kind_of_value(part)
    raise RowProblem(f"{column} holds a message whose content is {what}", "only text can be used")


def _within_text(text: str, column: str) -> object:
    """Return the messages that a text holds, or the text itself."""
    if _WRITTEN_LIST.match(text) and text.rstrip()[-1] in "]})":
        return _parse_written_list(text, column) or text
    if _BEGUN_LIST.match(text):
        raise RowProblem(f"{column} holds chat messages as text that is cut off", _KEEP_LISTS)
    if holds_dialogue(text):
        return _parse_dialogue(text)
    return text


def _parse_written_list(text: str, column: str) -> list[object] | None:
    """Parse messages as JSON, as Python wrote them, or as numpy did: with a line break where a comma should be.

    None for data that are not messages, such as a reply that lists users with their roles.
    """
    if not any(all(re.search(rf"['\"]{key}['\"]\s*:", text) for key in keys) for keys in _KEYS):
        return None
    if bare := _ARRAY.fullmatch(text):
        text = bare[1]
    with_commas = re.sub(r"\}\s*\n\s*\{", "}, {", text)
    for parse, written in ((json.loads, text), (ast.literal_eval, text), (ast.literal_eval, with_commas)):
        try:
            value = parse(written.strip())
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        entries = value if isinstance(value, list) else [value]
        is_talk = all(isinstance(entry, dict) and any(keys <= entry.keys() for keys in _KEYS) for entry in entries)
        return entries if is_talk else None
    raise RowProblem(f"{column} holds chat messages as text that cannot be parsed", _KEEP_LISTS)


def _parse_dialogue(text: str) -> list[Message]:
    """Take a dialogue apart as Anthropic's HH data set writes it; an open turn of the assistant at its end goes."""
    blank_line_between = re.search(r"\n\n\s*Assistant:", text) is not None
    pieces = _TURNS[0 if blank_line_between else 1].split(text)[1:]
    turns = [{"role": role, "content": said.strip()} for role, said in zip(pieces[::2], pieces[1::2], strict=True)]
    turns = [{**turn, "role": "user" if turn["role"] == "Human" else "assistant"} for turn in turns]
    if turns and turns[-1]["role"] == "assistant" and not turns[-1]["content"]:
        turns.pop()
    return turns
