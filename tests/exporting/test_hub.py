"""Uploads with the real client, to a small Hub on the loopback that keeps what it is sent."""

import base64
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from orpo.command.errors import SettingsError
from orpo.export import main

COMMAND = Path(__file__).resolve().parents[2] / "orpo" / "export.py"
TOKEN = "hf_of_nobody_1234567890"


class SmallHub(ThreadingHTTPServer):
    """Knows one user; `repositories` holds what was made, `files` what was uploaded."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.repositories: dict[str, bool] = {}
        self.files: dict[str, dict[str, bytes]] = {}
        self.refuses = False

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: SmallHub

    def log_message(self, *_: object) -> None:
        pass

    def answer(self, code: int, body: object, **headers: str) -> None:
        data = json.dumps(body).encode()
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if self.headers["Authorization"] != f"Bearer {TOKEN}":
            self.answer(401, {"error": "who are you"})
        elif path == "/api/whoami-v2":
            self.answer(200, {"type": "user", "name": "nobody", "fullname": "No Body", "auth": {}})
        elif path.startswith("/api/models/"):
            name = path.removeprefix("/api/models/").partition("/revision/")[0]
            if name in self.server.repositories:
                about = {"id": name, "private": self.server.repositories[name], "sha": "0" * 40, "siblings": []}
                self.answer(200, about)
            else:
                self.answer(404, {"error": "none"}, X_Error_Code="RepoNotFound")
        else:
            self.answer(404, {"error": path})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        path = self.path.partition("?")[0]
        if self.server.refuses:
            self.answer(403, {"error": "may not write"})
        elif path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked.get('organization') or 'nobody'}/{asked['name']}"
            self.server.repositories[name] = asked.get("private", asked.get("visibility") == "private")
            self.answer(200, {"url": f"{self.server.address}/{name}", "name": name, "id": name})
        elif "/preupload/" in path:
            asked = [file["path"] for file in json.loads(body)["files"]]
            self.answer(
                200, {"files": [{"path": name, "uploadMode": "regular", "shouldIgnore": False} for name in asked]}
            )
        elif "/commit/" in path:
            name = path.removeprefix("/api/models/").partition("/commit/")[0]
            lines = [json.loads(line) for line in body.splitlines()]
            sent = {
                line["value"]["path"]: base64.b64decode(line["value"]["content"])
                for line in lines
                if line["key"] == "file"
            }
            self.server.files[name] = sent
            self.answer(200, {"commitUrl": f"{self.server.address}/{name}/commit/{'1' * 40}", "commitOid": "1" * 40})
        else:
            self.answer(200, {})


@pytest.fixture
def hub() -> Iterator[SmallHub]:
    server = SmallHub()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def export(hub: SmallHub, adapter: Path, *arguments: str, token: str = TOKEN) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own: the client reads the Hub's address once."""
    further = {"HF_ENDPOINT": hub.address, "HF_TOKEN": token, "HF_HUB_DISABLE_XET": "1", "HF_HUB_OFFLINE": "0"}
    command = [sys.executable, COMMAND, "--to", "adapter", "--adapter", adapter, "--no-check", "--device", "cpu"]
    return subprocess.run(
        [*map(str, command), *arguments], env={**os.environ, **further}, capture_output=True, text=True, timeout=300
    )


def test_an_upload_is_private_and_holds_all_but_the_record(hub: SmallHub, adapter: Path, orpo_home: Path) -> None:
    (adapter / "README.md").write_text(
        "# tuned\n\n<!-- report: begin -->\n| measure | base |\n<!-- report: end -->\n", encoding="utf-8"
    )
    done = export(hub, adapter, "--push", "emoji", "--yes")
    assert done.returncode == 0, done.stderr
    assert f"uploaded  {hub.address}/nobody/emoji" in done.stdout
    assert hub.repositories == {"nobody/emoji": True}
    sent = hub.files["nobody/emoji"]
    assert {"adapter_config.json", "adapter_model.safetensors", "README.md"} <= set(sent) and "run.json" not in sent
    base = json.loads((orpo_home / "exported" / "tuned-adapter" / "adapter_config.json").read_text(encoding="utf-8"))
    there = Path(base["base_model_name_or_path"])
    assert there.is_dir(), "PEFT finds it here"
    assert json.loads(sent["adapter_config.json"]) == {**base, "base_model_name_or_path": there.name}
    assert not [name for name, data in sent.items() if str(there.parent).encode() in data], "a folder of this machine"
    assert b"| measure | base |" in sent["README.md"] and b"library_name: peft" in sent["README.md"]
    kept = orpo_home / "exported" / "tuned-adapter"
    assert sent["adapter_model.safetensors"] == (kept / "adapter_model.safetensors").read_bytes()
    assert TOKEN not in done.stdout + done.stderr + (kept / "run.json").read_text(encoding="utf-8")


def test_a_public_repository_is_not_written_to_unasked(hub: SmallHub, adapter: Path, orpo_home: Path) -> None:
    hub.repositories["nobody/emoji"] = False
    done = export(hub, adapter, "--push", "nobody/emoji", "--yes")
    assert done.returncode == 1 and "is public; pass --public" in done.stderr and not hub.files
    assert not (orpo_home / "exported" / "tuned-adapter").exists(), "found out before the work"


def test_what_the_hub_refuses_is_one_line_and_the_export_stays(hub: SmallHub, adapter: Path, orpo_home: Path) -> None:
    hub.refuses = True
    done = export(hub, adapter, "--push", "emoji", "--yes")
    assert done.returncode == 1 and "does not let this login write there (403)" in done.stderr
    assert "the export is whole and kept in" in done.stderr and TOKEN not in done.stderr
    assert (orpo_home / "exported" / "tuned-adapter" / "run.json").is_file()
    wrong = export(hub, adapter, "--push", "emoji", "--yes", token="hf_wrong")
    assert wrong.returncode == 1 and "(401)" in wrong.stderr


def test_nobody_to_ask_no_login_and_no_name_are_said_before_the_work(
    adapter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def says(arguments: list[str], what: str) -> None:
        with pytest.raises(Exception, match=what):
            main(["--to", "adapter", "--adapter", str(adapter), *arguments])

    says(["--push", "emoji"], "nobody can answer here; pass `yes`")
    says(["--push", "a/b/c", "--yes"], "is no name of a repository")
    says(["--push", "emoji", "--yes"], "HF_HUB_OFFLINE")
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    says(["--push", "emoji", "--yes"], "nobody is logged in")
    with pytest.raises(SettingsError, match="--public: is for --push"):
        main(["--public"])


@pytest.mark.parametrize(("answer", "is_sent"), [("y\n", True), ("\n", False), ("no\n", False)])
def test_only_a_yes_uploads(answer: str, is_sent: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from io import StringIO

    from orpo.exporting import hub as module

    sent: list[list[Any]] = []

    class Api:
        endpoint = "http://127.0.0.1"

        def create_repo(self, name: str, *, private: bool) -> None:
            assert private

        def create_commit(self, name: str, operations: list[Any], *, commit_message: str) -> None:
            sent.append(operations)

    monkeypatch.setattr("huggingface_hub.HfApi", Api)
    monkeypatch.setattr("sys.stdin", StringIO(answer))
    (tmp_path / "README.md").write_text("text")
    address = module.upload(tmp_path, module.Destination("nobody/emoji", True, False), yes=False)
    assert bool(sent) is is_sent and (address is not None) is is_sent
