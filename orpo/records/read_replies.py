"""Replies with what they answer, from text with one a line, JSON lines or a JSON array: what `score` reads."""

import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from orpo.command.errors import InputError, SettingsError
from orpo.records.file_formats import decode_text
from orpo.records.json_text import kind_of_value, parse_json_entries, parse_json_lines
from orpo.records.messages import Message
from orpo.records.read_messages import read_messages
from orpo.records.rows import RowProblem

REPLY_COLUMNS: Final = ("reply", "text", "response", "completion", "output", "content")

_JSON_LINES: Final = (".jsonl", ".ndjson")


@dataclass(frozen=True)
class AnsweredReply:
    """A reply with what it answers."""

    reply: str
    prompt: str = ""
    system: str = ""


def read_given_replies(texts: Sequence[str], file: Path | None, asked: AnsweredReply) -> Iterator[AnsweredReply]:
    """Yield the texts, or else the replies of a file or of standard input; an error where there is none."""
    if texts:
        yield from (replace(asked, reply=text) for text in texts)
        return
    if file is None and sys.stdin.isatty():
        raise SettingsError('nothing to score: pass a text, such as `score.py "Well done! 🎉"`, or name a file')
    from_input = file is None or str(file) == "-"
    name = "standard input" if from_input else str(file)
    number = 0
    data = sys.stdin.buffer.read() if file is None or from_input else file.read_bytes()
    for number, reply in enumerate(read_replies(data, name, asked), start=1):  # noqa: B007
        yield reply
    if not number:
        raise InputError(f"{name}: holds no text to score")


def read_replies(data: bytes, name: str, asked: AnsweredReply) -> Iterator[AnsweredReply]:
    """Yield the replies of a file or of standard input; InputError names the line or entry of what cannot be read.

    Args:
        data: The file's bytes.
        name: How errors name it; its ending says whether it holds JSON.
        asked: The prompt and the system message of rows that have none of their own; its reply counts for nothing.
    """
    text = decode_text(data, name, setting="")
    try:
        is_array = name.lower().endswith(".json") or re.match(r"\s*\[\s*\{", text)
        entries = parse_json_entries(text) if is_array else None
    except RowProblem as problem:
        raise InputError(f"{name}: {problem.what}") from None
    if entries is not None:
        found = ((f"{name}, entry {number}", entry) for number, entry in enumerate(entries, start=1))
    elif name.lower().endswith((*_JSON_LINES, ".json")) or text.lstrip().startswith('{"'):
        found = ((f"{name}, line {number}", value) for number, value in parse_json_lines(text))
    else:
        yield from (replace(asked, reply=line.rstrip("\r")) for line in text.split("\n") if line.strip())
        return
    for where, value in found:
        try:
            yield _read_entry(value, asked)
        except RowProblem as problem:
            raise InputError(f"{where}: {problem.what} ({problem.remedy})") from None


def _read_entry(entry: object, asked: AnsweredReply) -> AnsweredReply:
    """Return the reply, prompt and system message of one entry: an object, or the reply alone as text."""
    remedy = f"write a text or an object with the reply, named one of {', '.join(REPLY_COLUMNS)}"
    if isinstance(entry, RowProblem):
        raise entry
    if isinstance(entry, str):
        return replace(asked, reply=entry)
    if not isinstance(entry, dict):
        raise RowProblem(f"neither a text nor a JSON object with a reply, but {kind_of_value(entry)}", remedy)
    talk = _talk(entry, "messages")
    if isinstance(entry.get("prompt"), list):
        talk = [*talk, *_talk(entry, "prompt")]
    told = _last_of(talk)
    reply = next((entry[name] for name in REPLY_COLUMNS if entry.get(name) is not None), None)
    said = told.get("assistant") if reply is None else _text_of(reply, "assistant", "the reply")
    if said is None:
        raise RowProblem("has no reply", remedy)
    prompt, system = entry.get("prompt"), entry.get("system")
    if prompt and not isinstance(prompt, list):
        told["user"] = _text_of(prompt, "user", "the prompt")
    if system:
        told["system"] = _text_of(system, "system", "the system message")
    return AnsweredReply(said, told.get("user") or asked.prompt, told.get("system") or asked.system)


def _talk(entry: dict[str, object], column: str) -> list[Message]:
    value = entry.get(column)
    # A message of another role, a tool's for example, is no part of what is scored.
    return (
        (read_messages([one for one in value if _counts(one)], "user", column) or []) if isinstance(value, list) else []
    )


def _counts(message: object) -> bool:
    if not isinstance(message, dict):
        return True
    # A call of a tool has no content.
    return message.get("role") != "tool" and not (message.get("content") is None and "tool_calls" in message)


def _last_of(talk: list[Message]) -> dict[str, str]:
    return {message["role"]: message["content"] for message in talk}


def _text_of(value: object, role: str, name: str) -> str:
    if isinstance(value, str):
        return value  # a reply that looks like written messages is still the reply
    messages = read_messages(value, role, name)
    if not messages:
        raise RowProblem(f"{name} is empty", "write a text or chat messages")
    return messages[-1]["content"]
