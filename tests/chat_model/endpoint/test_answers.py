"""Forty answers that endpoints give, as they go over the wire: a reply, or a failed call with its reason."""

import gzip
import json
from types import ModuleType
from typing import Any

import pytest

from orpo.chat_model.endpoint.answers import CallFailed
from orpo.chat_model.endpoint.client import Endpoint
from orpo.chat_model.endpoint.options import EndpointOptions
from orpo.command.errors import ModelError, SettingsError
from orpo.records.replies import Reply, Sampling

MESSAGES = [{"role": "user", "content": "hello"}]
NOT_UNDERSTOOD = "answer not understood"
ONLY_A_THOUGHT = "a thought without an answer; allow more tokens or switch thinking off"


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


def completion(content: Any, *, finish: Any = "stop", usage: Any = None, **message: Any) -> bytes:
    choice = {"index": 0, "finish_reason": finish, "message": {"role": "assistant", "content": content, **message}}
    return json.dumps({"id": "1", "choices": [choice], "usage": usage}).encode()


def ask(parts: ModuleType, server: Any, options: EndpointOptions | None = None, **answer: Any) -> Reply | str:
    server.script = lambda *_: parts.Answer(**answer)
    endpoint = Endpoint("one", server.url, options or EndpointOptions(timeout_seconds=20, retries=0))
    try:
        return endpoint.reply(MESSAGES, Sampling(), 0)
    except CallFailed as failure:
        return str(failure)
    finally:
        endpoint.close()


ANSWERS: dict[str, tuple[bytes, Reply | str]] = {
    "plain": (completion("Hi! 🎉", usage={"completion_tokens": 4}), Reply("Hi! 🎉", True, 4)),
    "cut by its limit": (completion("Hi", finish="length"), Reply("Hi", False, 0)),
    "no finish reason": (completion("Hi", finish=None), Reply("Hi", True, 0)),
    "empty": (completion(""), Reply("", True, 0)),
    "null": (completion(None), Reply("", True, 0)),
    "blanks": (completion(" \n "), Reply("", True, 0)),
    "text parts": (
        completion([{"type": "text", "text": "Hi "}, {"type": "text", "text": "you"}]),
        Reply("Hi you", True, 0),
    ),
    "an image part": (completion([{"type": "image_url"}, {"type": "text", "text": "Hi"}]), Reply("Hi", True, 0)),
    "a number": (completion(3), NOT_UNDERSTOOD),
    "an object": (completion({"text": "Hi"}), NOT_UNDERSTOOD),
    "parts of numbers": (completion([1, 2]), NOT_UNDERSTOOD),
    "a thought": (completion("<think>\nThey greet.\n</think>\n\nHi!"), Reply("Hi!", True, 0)),
    "a thought without its beginning": (completion("They greet.</think>Hi!"), Reply("Hi!", True, 0)),
    "a thought cut off": (completion("<think>They gr", finish="length"), ONLY_A_THOUGHT),
    "a thought and nothing": (completion("<think>They greet.</think>  "), ONLY_A_THOUGHT),
    "a thought of its own": (completion("Hi!", reasoning_content="They greet."), Reply("Hi!", True, 0)),
    "a thought of another name": (completion("Hi!", reasoning="They greet."), Reply("Hi!", True, 0)),
    "only a thought of its own": (completion(None, reasoning_content="Well"), ONLY_A_THOUGHT),
    "half a surrogate pair": (b'{"choices":[{"message":{"content":"Hi \\ud83c"}}]}', Reply("Hi ?", True, 0)),
    "a character cut in half": (b'{"choices":[{"message":{"content":"Hi \xf0\x9f"}}]}', NOT_UNDERSTOOD),
    "invalid UTF-8": (b"\xff\xfe\xfd", NOT_UNDERSTOOD),
    "absurd nesting": (b"[" * 200_000, NOT_UNDERSTOOD),
    "nesting in a field": (b'{"choices":' + b"[" * 100_000 + b"]" * 100_000 + b"}", NOT_UNDERSTOOD),
    "an absurd number of tokens": (completion("Hi", usage={"completion_tokens": 10**30}), NOT_UNDERSTOOD),
    "a number of 6,000 digits": (b'{"choices":' + b"1" * 6000 + b"}", NOT_UNDERSTOOD),
    "tokens below zero": (completion("Hi", usage={"completion_tokens": -1}), NOT_UNDERSTOOD),
    "tokens as text": (completion("Hi", usage={"completion_tokens": "4"}), Reply("Hi", True, 0)),
    "usage of another form": (completion("Hi", usage=[1]), Reply("Hi", True, 0)),
    "no choices": (b'{"choices": []}', NOT_UNDERSTOOD),
    "choices null": (b'{"choices": null}', NOT_UNDERSTOOD),
    "no message": (b'{"choices": [{}]}', NOT_UNDERSTOOD),
    "a message of text": (b'{"choices": [{"message": "Hi"}]}', NOT_UNDERSTOOD),
    "a list": (b"[1, 2]", NOT_UNDERSTOOD),
    "null itself": (b"null", NOT_UNDERSTOOD),
    "a page": (b"<html><title>Welcome</title></html>", NOT_UNDERSTOOD),
    "nothing": (b"", NOT_UNDERSTOOD),
    "a JSON cut off": (completion("Hi")[:-9], NOT_UNDERSTOOD),
    "a stream of events": (b'data: {"choices":[]}\n\ndata: [DONE]\n\n', NOT_UNDERSTOOD),
    "more than a reply": (completion("word " * 20_000), "reply of more than 50000 characters"),
    "more than an answer": (completion("x" * 5_000_000), NOT_UNDERSTOOD),
}


def test_there_are_forty() -> None:
    assert len(ANSWERS) == 40


@pytest.mark.faults("endpoint answers")
@pytest.mark.parametrize("name", ANSWERS)
def test_an_answer_is_a_reply_or_a_failed_call(parts: ModuleType, chat_server: Any, name: str) -> None:
    """Invalid UTF-8, absurd nesting and absurd numbers ended the run with exit 70; thoughts were kept as replies."""
    body, expected = ANSWERS[name]
    assert ask(parts, chat_server, body=body) == expected


REFUSALS: dict[str, tuple[bytes, str]] = {
    "OpenAI's form": (b'{"error": {"message": "no seed here", "type": "x"}}', ": no seed here"),
    "text": (b'{"error": "no seed here"}', ": no seed here"),
    "FastAPI's form": (
        b'{"detail": [{"loc": ["body", "seed"], "msg": "Extra inputs are not permitted"}]}',
        ": body.seed: Extra inputs are not permitted",
    ),
    "a detail": (b'{"detail": "no seed here"}', ": no seed here"),
    "a message": (b'{"message": "no seed here", "code": 422}', ": no seed here"),
    "several": (b'{"errors": [{"message": "one"}, {"message": "two"}]}', ": one; two"),
    "no JSON": (b"seed is not known\n", ": seed is not known"),
    "a page": (b"<html><head><title>422 Nope &amp; no</title></head>", ": 422 Nope & no"),
    "nesting": (b'{"error":' * 9000, ": " + '{"error":' * 20),
    "nothing": (b"", ""),
    "invalid UTF-8": (b"\xff seed", ": \ufffd seed"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_a_refusal_tells_its_reason_in_whatever_form(parts: ModuleType, chat_server: Any, name: str) -> None:
    """An endpoint that answers 422 to `seed` got a run that failed with "HTTP 422" and no reason."""
    body, reason = REFUSALS[name]
    told = ask(parts, chat_server, status=422, body=body)
    assert isinstance(told, str) and told[:100] == f"HTTP 422{reason}"[:100]


def test_an_answer_that_never_quite_ends_is_given_up(parts: ModuleType, chat_server: Any) -> None:
    """One byte every half second never ended: each byte came in time."""
    options = EndpointOptions(timeout_seconds=0.6, retries=0)
    assert ask(parts, chat_server, options, body=completion("Hi"), byte_delay_seconds=0.1) == "timed out"
    assert ask(parts, chat_server, options, status=400, body=b"x" * 500, byte_delay_seconds=0.1) == "timed out"


def test_a_packed_answer_is_not_unpacked(parts: ModuleType, chat_server: Any) -> None:
    """It was asked for unpacked, and a few packed kilobytes may hold gigabytes."""
    packed = gzip.compress(b" " * 3_000_000)
    assert ask(parts, chat_server, body=packed, headers={"Content-Encoding": "gzip"}) == NOT_UNDERSTOOD


def test_requests_have_what_was_added_and_lack_what_was_left_out(parts: ModuleType, chat_server: Any) -> None:
    options = EndpointOptions(
        timeout_seconds=20,
        retries=0,
        extra={"chat_template_kwargs": {"enable_thinking": False}, "temperature": 1, "api_key": "secret-in-extra"},
        omit=frozenset({"seed", "top_p", "max_tokens"}),
    )
    assert ask(parts, chat_server, options, content="Hi") == Reply("Hi", True, 0)
    (request,) = chat_server.requests
    assert request == {
        "model": "one",
        "messages": MESSAGES,
        "temperature": 1,
        "chat_template_kwargs": {"enable_thinking": False},
        "api_key": "secret-in-extra",
    }
    plain = Endpoint("one", chat_server.url, EndpointOptions())
    changed = Endpoint("one", chat_server.url, options)
    assert plain.identity != changed.identity, "another request may get another answer"
    assert "secret-in-extra" not in changed.identity
    plain.close()
    changed.close()


@pytest.mark.faults("keys and addresses")
@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("http://[::1/v1", "is not a web address"),
        ("http://", "names no host"),
        ("http://host:99999/v1", "is not a web address"),
        ("http://host:port/v1", "is not a web address"),
        ("http://ho st/v1", "holds a blank or a control character"),
        ("http://host/v1\x00", "holds a blank or a control character"),
        ("http://host\n/v1", "holds a blank or a control character"),
        ("http://" + "a" * 300 + "/v1", "is not a web address"),
        ("ftp://host/v1", "must begin with http:// or https://"),
        ("host:8000/v1", "must begin with http:// or https://"),
    ],
)
def test_an_address_that_is_none_is_told_in_one_line(address: str, says: str) -> None:
    """Most of these ended with exit 70."""
    with pytest.raises(SettingsError, match=says) as caught:
        Endpoint("one", address, EndpointOptions())
    assert caught.value.for_command().startswith("--base-url ") and "\n" not in str(caught.value)
    assert "\x00" not in str(caught.value)


@pytest.mark.faults("keys and addresses")
@pytest.mark.parametrize("key", ["sk-“abc”", "sk-abc def", "sk-abc\x07", "schlüssel", "sk-abc\ndef"])
def test_a_key_that_cannot_be_sent_is_told_in_one_line_and_not_shown(
    key: str, monkeypatch: pytest.MonkeyPatch, chat_server: Any
) -> None:
    """A typographic quote around the key ended with exit 70."""
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with pytest.raises(SettingsError, match=r"OPENAI_API_KEY: its character \d+ \(U\+[0-9A-F]{4}\)") as caught:
        Endpoint("one", chat_server.url, EndpointOptions())
    assert key not in str(caught.value)


def test_secrets_of_an_address_reach_the_endpoint_and_nobody_else(parts: ModuleType, chat_server: Any) -> None:
    """`http://user:hun@ter2secret@host` and `?api_key=...` were kept and shown."""
    host = chat_server.url.removeprefix("http://")
    address = f"http://user:hun@ter2secret@{host}?api_key=topsecret1"
    chat_server.script = lambda *_: parts.Answer(status=404, body=b'{"error": "no hun@ter2secret and topsecret1"}')
    endpoint = Endpoint("one", address, EndpointOptions(timeout_seconds=20, retries=0))
    with pytest.raises(ModelError) as caught:
        endpoint.reply(MESSAGES, Sampling(), 0)
    endpoint.close()
    shown = f"{caught.value} {endpoint.address} {endpoint.identity}"
    assert "ter2secret" not in shown and "topsecret1" not in shown and "***@127.0.0.1" in shown
    assert chat_server.authorisations == ["Basic dXNlcjpodW5AdGVyMnNlY3JldA=="], "user:hun@ter2secret"
