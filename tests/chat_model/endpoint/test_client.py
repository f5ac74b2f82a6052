"""One call to an endpoint: what it may be refused for, and what may be told of it."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType
from typing import Any

import pytest

from orpo.chat_model.endpoint.answers import CallFailed
from orpo.chat_model.endpoint.client import Endpoint
from orpo.chat_model.endpoint.options import EndpointOptions
from orpo.command.errors import ModelError
from orpo.records.replies import Sampling

OPTIONS = EndpointOptions(timeout_seconds=20, retries=0)
MESSAGES = [{"role": "user", "content": "hello"}]


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


def refusal(parts: ModuleType, status: int, message: str) -> Any:
    return parts.Answer(status=status, body=json.dumps({"error": {"message": message}}).encode())


def test_first_calls_at_once_all_learn_the_other_name_of_the_limit(parts: ModuleType, chat_server: Any) -> None:
    """The first call to come back changed the name for all, and the others took the new one for their own: HTTP 400."""
    together = threading.Barrier(4)

    def script(request: dict[str, Any], number: int) -> Any:
        if "max_tokens" in request:
            together.wait(timeout=10)
            return refusal(parts, 400, "Unsupported parameter: use 'max_completion_tokens' instead.")
        return parts.two_sided(request, number)

    chat_server.script = script
    endpoint = Endpoint("one", chat_server.url, OPTIONS)
    with ThreadPoolExecutor(4) as pool:
        replies = list(pool.map(lambda seed: endpoint.reply(MESSAGES, Sampling(), seed), range(4)))
    endpoint.close()
    assert [reply.text for reply in replies] == ["About hello."] * 4
    assert sum("max_completion_tokens" in request for request in chat_server.requests) == 4


def test_a_refused_call_gives_the_endpoints_reason_but_no_key(
    parts: ModuleType, chat_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All that was told of a refused call was its status."""
    monkeypatch.setenv("OPENAI_API_KEY", "very-secret")
    endpoint = Endpoint("one", chat_server.url, OPTIONS)
    chat_server.script = lambda *_: refusal(parts, 400, "no\x1b[2J\nlogprobs for very-secret, sk-12**34. " + "x" * 500)
    with pytest.raises(CallFailed, match=r"^HTTP 400: no\ufffd logprobs for \*\*\*, \*\*\* x+…$") as caught:
        endpoint.reply(MESSAGES, Sampling(), 0)
    assert len(str(caught.value)) <= len("HTTP 400: ") + 120
    chat_server.script = lambda *_: refusal(parts, 404, "The model `one` does not exist")
    with pytest.raises(ModelError, match=r"knows no such model .*\(HTTP 404: The model `one` does not exist\)"):
        endpoint.reply(MESSAGES, Sampling(), 0)
    chat_server.script = lambda *_: parts.Answer(status=500, body=b"<html>")
    with pytest.raises(CallFailed, match=r"^HTTP 500$"):
        endpoint.reply(MESSAGES, Sampling(), 0)
    endpoint.close()


def test_only_the_client_knows_the_password_of_an_address(chat_server: Any) -> None:
    """The address stood with its password in the reply store and in error lines."""
    endpoint = Endpoint("one", chat_server.url.replace("//", "//me:word@"), OPTIONS)
    assert endpoint.address == chat_server.url.replace("//", "//***@")
    assert endpoint.reply(MESSAGES, Sampling(), 0).text == "About hello."
    assert chat_server.authorisations == ["Basic bWU6d29yZA=="], "me:word"
    endpoint.close()
