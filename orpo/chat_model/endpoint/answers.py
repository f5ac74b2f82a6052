"""What an endpoint's answer says: the reply in it, or the reason of a refusal. Nothing in it is taken on trust."""

import json
import re
from html import unescape
from typing import Final

from orpo.records.replies import Reply

LONGEST_REPLY_CHARACTERS: Final = 50_000

_MOST_TOKENS: Final = 10_000_000
_THOUGHT_FIELDS: Final = ("reasoning_content", "reasoning")
_REASON_FIELDS: Final = ("message", "msg", "detail", "details", "error", "errors", "reason", "title")
_DEEPEST_REASON: Final = 6


class CallFailed(Exception):
    """One call failed for good, after all retries; the message is the reason, short enough to count by."""


def read_answer(body: bytes) -> Reply:
    """Return the reply in a chat completion, without the thoughts before it; CallFailed where there is none."""
    try:
        choice = json.loads(body)["choices"][0]
        message = choice["message"]
        text = _text_of(message["content"]) if message.get("content") is not None else ""
        thought = any(message.get(name) for name in _THOUGHT_FIELDS)
        tokens = _tokens_of(json.loads(body).get("usage"))
    except (ValueError, RecursionError, LookupError, TypeError, AttributeError):
        raise CallFailed("answer not understood") from None
    if "</think>" in text:
        text, thought = text.rpartition("</think>")[2], True
    elif re.match(r"\s*<think>", text):
        text, thought = "", True
    # Half a surrogate pair cannot be written as UTF-8 by anyone.
    clean = text.encode("utf-8", "replace").decode("utf-8").strip()
    if len(clean) > LONGEST_REPLY_CHARACTERS:
        raise CallFailed(f"reply of more than {LONGEST_REPLY_CHARACTERS} characters")
    if thought and not clean:
        raise CallFailed("a thought without an answer; allow more tokens or switch thinking off")
    return Reply(clean, choice.get("finish_reason") != "length", tokens)


def read_reason(body: bytes) -> str:
    """Return what the body of a refusal says, whatever its form; empty for nothing that can be read."""
    text = body[:100_000].decode("utf-8", "replace").strip()
    try:
        return _reason_in(json.loads(text), 0)
    except (ValueError, RecursionError):
        pass
    if text.startswith("<"):  # a page of a proxy
        title = re.search(r"<(title|h1)[^>]*>([^<]*)</", text, re.IGNORECASE)
        return unescape(title[2]).strip() if title else ""
    return text


def _text_of(content: object) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise TypeError("neither text nor parts")
    parts = [part["text"] for part in content if part.get("type", "text") == "text"]
    return "".join(parts)  # TypeError where a part's text is none


def _tokens_of(usage: object) -> int:
    tokens = usage.get("completion_tokens") if isinstance(usage, dict) else None
    if not isinstance(tokens, int) or isinstance(tokens, bool):
        return 0
    if not 0 <= tokens <= _MOST_TOKENS:
        raise ValueError("absurd number of tokens")
    return tokens


def _reason_in(value: object, depth: int) -> str:
    if isinstance(value, str):
        return value
    if depth > _DEEPEST_REASON:
        return ""
    if isinstance(value, list):
        return "; ".join(filter(None, (_reason_in(entry, depth + 1) for entry in value[:3])))
    if isinstance(value, dict):
        found = next((text for name in _REASON_FIELDS if (text := _reason_in(value.get(name), depth + 1))), "")
        where = value.get("loc")  # FastAPI, and so vLLM, names the field that it refuses
        if found and isinstance(where, list):
            return f"{'.'.join(map(str, where))}: {found}"
        return found
    return ""
