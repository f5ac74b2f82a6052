"""Replies to score, in every form that people bring; what cannot be read is named, never scored as text."""

import json
from typing import Any

import pytest

from orpo.command.errors import InputError
from orpo.records.read_replies import AnsweredReply, read_replies

PARTS = [{"type": "text", "text": "Well "}, {"type": "text", "text": "done! 🎉"}]


def read(*entries: Any, name: str = "replies.jsonl") -> list[AnsweredReply]:
    data = "".join(json.dumps(entry) + "\n" for entry in entries).encode()
    return list(read_replies(data, name, AnsweredReply("", "asked", "told")))


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ("Hi", ("Hi", "asked", "told")),
        ({"reply": "Hi", "prompt": "p", "system": "s"}, ("Hi", "p", "s")),
        ({"text": '[{"role": "admin", "content": "x"}]'}, ('[{"role": "admin", "content": "x"}]', "asked", "told")),
        ({"reply": {"role": "assistant", "content": PARTS}}, ("Well done! 🎉", "asked", "told")),
        ({"messages": [{"role": "user", "content": "p"}, {"role": "assistant", "content": PARTS}]},
         ("Well done! 🎉", "p", "told")),
        ({"prompt": [{"role": "system", "content": "s"}, {"role": "user", "content": "p"}], "reply": "Hi"},
         ("Hi", "p", "s")),
        ({"messages": [{"role": "user", "content": "p"}, {"role": "assistant", "content": None, "tool_calls": [1]},
                       {"role": "tool", "content": 3}, {"role": "assistant", "content": "Hi"}]}, ("Hi", "p", "told")),
        ({"reply": "Hi", "system": {"role": "system", "content": "s"}}, ("Hi", "asked", "s")),
    ],
)  # fmt: skip
def test_every_form_of_a_reply_is_read(entry: Any, expected: tuple[str, str, str]) -> None:
    (found,) = read(entry)
    assert (found.reply, found.prompt, found.system) == expected


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ({"reply": "Hi", "system": {"mood": "kind"}}, "line 1: the system message holds a message without role"),
        ({"reply": "Hi", "system": 3}, "line 1: the system message holds neither text nor chat messages, but a number"),
        ({"reply": [{"role": "assistant", "content": {"a": 1}}]}, "line 1: the reply holds a message whose content is"),
        ({"messages": [{"role": ["user"], "content": "Hi"}]}, "line 1: messages has a message whose role is a list"),
        ({"messages": [{"role": "assistant", "content": [{"type": "image"}]}]}, "a part of the type 'image'"),
        ({"nothing": 1}, "line 1: has no reply"),
        (3, "line 1: neither a text nor a JSON object"),
    ],
)
def test_what_is_no_reply_is_refused_with_its_line(entry: Any, says: str) -> None:
    with pytest.raises(InputError, match=says):
        read(entry)


def test_lines_that_nothing_can_read_are_named() -> None:
    for line, says in (("[" * 100_000, "nested too deeply"), ('{"n": ' + "9" * 6000 + "}", "thousands of digits")):
        with pytest.raises(InputError, match=f"x.jsonl, line 2: .*{says}"):
            list(read_replies(f'"Hi"\n{line}\n'.encode(), "x.jsonl", AnsweredReply("")))


def test_text_is_a_reply_a_line_in_any_usual_encoding() -> None:
    for encoding in ("utf-8", "utf-8-sig", "utf-16", "utf-16-le"):
        data = "Hi 😊\r\n\nHo\n".encode(encoding)
        assert [found.reply for found in read_replies(data, "x.txt", AnsweredReply(""))] == ["Hi 😊", "Ho"], encoding
