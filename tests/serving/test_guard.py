"""Who is let in: by which name, from which page, with which token, with how much; and what every answer carries."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from orpo.command.errors import OutputError, SettingsError
from orpo.serving.guard import Admission, is_loopback
from orpo.serving.run import TOKEN_VARIABLE, _admission
from orpo.serving.service import Service
from orpo.serving.settings import ServeSettings
from tests.serving.conftest import Served, running

TOKEN = "a-token-of-this-test"
ASKED: dict[str, Any] = {"model": "base", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 2}


@pytest.fixture(scope="module")
def web(served: Served) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=served.url, timeout=60) as web:
        yield web


@pytest.fixture(scope="module")
def elsewhere(service: Service) -> Iterator[httpx.Client]:
    """A server that believes it listens on every address, and so wants a token."""
    admission = Admission("0.0.0.0", ("proxy.example",), TOKEN, most_bytes=2000)
    with running(service, admission) as server, httpx.Client(base_url=server.url, timeout=60) as web:
        yield web


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", "192.168.1.5:80", ""])
def test_a_name_that_somebody_pointed_here_is_refused(web: httpx.Client, host: str) -> None:
    """DNS rebinding: the browser takes evil.example for the origin and asks 127.0.0.1."""
    for path in ("/", "/v1/models", "/page/main.js"):
        answer = web.get(path, headers={"Host": host})
        assert answer.status_code in ((400, 421) if host == "" else (421,))


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost:1", "[::1]:8000", "LOCALHOST"])
def test_this_machines_own_names_are_taken(web: httpx.Client, host: str) -> None:
    assert web.get("/v1/models", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1:1", "http://localhost"])
def test_pages_of_other_sites_may_not_ask(web: httpx.Client, origin: str) -> None:
    for path in ("/v1/chat/completions", "/api/duels", "/api/votes/export"):
        answer = web.post(path, json=ASKED, headers={"Origin": origin})
        assert answer.status_code == 403 and answer.json()["error"]["code"] == "wrong_origin"
        assert "access-control-allow-origin" not in answer.headers
    assert web.get("/api/votes", headers={"Sec-Fetch-Site": "cross-site"}).status_code == 403
    assert web.options("/v1/chat/completions", headers={"Origin": origin}).status_code == 403


def test_a_form_cannot_send_json_by_the_back_door(web: httpx.Client) -> None:
    """A form's content types need no permission of the server's; they are not read as JSON."""
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
        answer = web.post("/v1/chat/completions", content=b"{}", headers={"Content-Type": kind})
        assert answer.status_code == 415


def test_the_pages_own_requests_pass(web: httpx.Client, served: Served) -> None:
    own = {"Origin": served.url, "Sec-Fetch-Site": "same-origin"}
    assert web.post("/v1/chat/completions", json=ASKED, headers=own).status_code == 200


def test_every_answer_says_what_may_run(web: httpx.Client) -> None:
    for path in ("/", "/page/main.js", "/v1/models", "/nothing", "/favicon.ico"):
        headers = web.get(path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy and "script-src 'self'" in policy and "unsafe" not in policy
        assert headers["x-content-type-options"] == "nosniff" and headers["x-frame-options"] == "DENY"
    page = web.get("/").text
    assert "<script>" not in page and "style=" not in page and "onclick" not in page


@pytest.mark.parametrize("path", ["/nothing", "/v1/nothing", "/page/../settings.py", "/page/%2e%2e/settings.py"])
def test_what_is_not_there_is_an_error_in_the_apis_form(web: httpx.Client, path: str) -> None:
    answer = web.get(path)
    assert answer.status_code == 404 and answer.json()["error"]["code"] == "unknown_url"


def test_elsewhere_everything_but_the_pages_own_files_wants_the_token(elsewhere: httpx.Client) -> None:
    for path in ("/", "/page/main.js", "/page/style.css"):
        assert elsewhere.get(path).status_code == 200
    for path in ("/v1/models", "/api/state", "/api/votes", "/api/data"):
        for wrong in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": TOKEN}):
            answer = elsewhere.get(path, headers=wrong)
            assert answer.status_code == 401 and answer.json()["error"]["type"] == "authentication_error"
        assert elsewhere.get(path, headers={"Authorization": f"Bearer {TOKEN}"}).status_code == 200


def test_elsewhere_names_are_checked_too(elsewhere: httpx.Client) -> None:
    known = {"Authorization": f"Bearer {TOKEN}"}
    for host, status in (("proxy.example", 200), ("10.0.0.7:8000", 200), ("evil.example", 421)):
        assert elsewhere.get("/v1/models", headers={**known, "Host": host}).status_code == status


def test_a_large_body_is_refused_whether_it_says_so_or_not(elsewhere: httpx.Client) -> None:
    known = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
    assert elsewhere.post("/v1/chat/completions", content=b"x" * 3000, headers=known).status_code == 413

    def chunks() -> Iterator[bytes]:
        for _ in range(5):
            yield b"x" * 1000

    answer = elsewhere.post("/v1/chat/completions", content=chunks(), headers=known)
    assert answer.status_code == 413 and answer.json()["error"]["code"] == "too_large"


def test_a_token_is_made_where_one_is_needed_and_none_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)
    assert _admission(ServeSettings())[0].token is None
    made, is_made = _admission(ServeSettings(host="0.0.0.0"))
    assert is_made and made.token and len(made.token) >= 32
    assert _admission(ServeSettings(host="0.0.0.0"))[0].token != made.token
    monkeypatch.setenv(TOKEN_VARIABLE, TOKEN)
    assert _admission(ServeSettings())[0].token == TOKEN, "one that is set counts on loopback too"
    assert _admission(ServeSettings(host="0.0.0.0")) == (Admission("0.0.0.0", (), TOKEN), False)
    monkeypatch.setenv(TOKEN_VARIABLE, "short")
    with pytest.raises(SettingsError, match=TOKEN_VARIABLE):
        _admission(ServeSettings())


def test_what_counts_as_this_machine() -> None:
    assert [is_loopback(host) for host in ("127.0.0.1", "127.1.2.3", "::1", "localhost", "0.0.0.0", "::", "me")] == [
        *[True] * 4, *[False] * 3,
    ]  # fmt: skip


def test_a_store_that_is_no_store_is_an_error_of_one_line(tmp_path: Any) -> None:
    from orpo.serving.judgements import JudgementStore

    (tmp_path / "store").write_text("not a database, and long enough to be seen as none" * 40, encoding="utf-8")
    with pytest.raises(OutputError, match="cannot be kept"):
        JudgementStore(tmp_path / "store")
