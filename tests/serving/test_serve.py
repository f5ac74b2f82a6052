"""The command: what it serves, how it ends, the line that repeats a reply, and a generator that asks it."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from orpo.command.errors import ModelError, SettingsError
from orpo.command.settings import parse_settings
from orpo.generate import main as generate
from orpo.inference import main as inference
from orpo.serving.fair_queue import FairQueue
from orpo.serving.growing_text import GrowingText
from orpo.serving.models import find_models
from orpo.serving.settings import ServeSettings
from tests import small_models
from tests.serving.conftest import Served

PATIENCE = 600  # seconds; on a machine that is busy with other tests a command may take minutes to import its libraries
Start = Callable[..., subprocess.Popen[str]]
COMMAND = Path(__file__).resolve().parents[2] / "orpo" / "serve.py"


def settings_of(*arguments: str) -> ServeSettings:
    return parse_settings(ServeSettings, arguments, prog="serve.py", description="")


def test_clients_take_turns() -> None:
    waiting: FairQueue[str] = FairQueue()
    for item in ("a1", "a2", "a3", "b1", "c1", "b2"):
        waiting.put(item[0], item)
    waiting.remove_if(lambda item: item == "a2")
    assert [waiting.take() for _ in range(len(waiting))] == ["a1", "b1", "c1", "a3", "b2"]


@pytest.mark.parametrize("step", [1, 2, 5])
def test_nothing_of_a_stop_text_is_ever_shown(step: int) -> None:
    whole = "Well done 🎉 END. More"
    text = GrowingText(["END.", "ENDING"])
    shown, is_stopped, position = "", False, 0
    while not is_stopped:
        position += step
        piece, is_stopped = text.feed(whole[:position])
        shown += piece
        assert "E" not in shown
    assert shown == "Well done 🎉"
    unstopped = GrowingText(["END."])
    assert unstopped.feed("The EN") == ("The", False)
    assert unstopped.finish("The EN") == (" EN", False)


def test_the_adapters_in_trained_are_found_the_newest_first(
    orpo_home: Path, adapters: dict[str, Path], model_folder: Path
) -> None:
    assert find_models(settings_of()).notes[0].startswith("there is no adapter to serve yet")
    (orpo_home / "trained").mkdir(parents=True)
    for name, folder in adapters.items():
        (orpo_home / "trained" / name).symlink_to(folder)
    found = find_models(settings_of())
    assert list(found.adapters) == ["first", "second-0.5"] and found.base == str(model_folder)
    assert found.ids == [model_folder.name, "first", "second-0.5"] and found.find("base") == model_folder.name
    other = small_models.save_adapter(orpo_home / "trained" / "other", model_folder)
    config = json.loads((other / "adapter_config.json").read_text(encoding="utf-8"))
    changed = {**config, "base_model_name_or_path": "another/model"}
    (other / "adapter_config.json").write_text(json.dumps(changed), encoding="utf-8")
    assert "was trained on another/model" in find_models(settings_of()).notes[0]
    assert find_models(settings_of("--base-only", "--model", "x/y")).ids == ["x/y"]
    both = ["--adapter", str(other), "--adapter", str(adapters["first"])]
    with pytest.raises(ModelError, match="adapters of one base model"):
        find_models(settings_of(*both))


@pytest.mark.parametrize(
    "arguments", [["--base-only", "--adapter", "x"], ["--overwrite"], ["--max-new-tokens", "2000"], ["--host", ""]]
)
def test_flags_that_do_not_go_together_are_named(arguments: list[str]) -> None:
    with pytest.raises(SettingsError, match=re.escape(arguments[0])):
        settings_of(*arguments)


CONVERSATIONS: list[list[dict[str, str]]] = [
    [{"role": "user", "content": "--hello, 'you' and \"you\" $HOME `x`"}],
    [{"role": "system", "content": "good\nnews"}, {"role": "user", "content": "hi"}],
    [{"role": "system", "content": "@file"}, {"role": "user", "content": "hi"}],
    [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "it's good\nnews"},
        {"role": "user", "content": "thank you 🎉"},
    ],
]


@pytest.mark.parametrize("number", range(len(CONVERSATIONS)))
@pytest.mark.parametrize("model", ["base", "second-0.5"])
def test_the_line_that_repeats_a_reply_gives_that_reply(
    served: Served, number: int, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    asked = {"model": model, "messages": CONVERSATIONS[number], "seed": 11, "temperature": 1.1, "max_tokens": 30}
    answer = httpx.post(f"{served.url}/v1/chat/completions", json=asked, timeout=60).json()
    line = httpx.post(f"{served.url}/api/line", json=asked, timeout=60).json()["line"]
    if " && " in line:  # the shell writes the file
        writing, _, line = line.rpartition(" && ")
        subprocess.run(["sh", "-c", writing], check=True)
    words = shlex.split(line)
    assert words[:3] == ["uv", "run", "orpo/inference.py"]
    capsys.readouterr()
    assert inference([*words[3:], "--json"]) == 0
    rows = [json.loads(row) for row in capsys.readouterr().out.splitlines()]
    replies = rows[0]["replies"]["base" if model == "base" else "tuned"]
    assert len(rows) == 2 and replies["text"] == answer["choices"][0]["message"]["content"]


def test_a_generator_asks_it_as_a_writer(served: Served, orpo_home: Path, tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("\n".join(f"message {number}" for number in range(6)), encoding="utf-8")
    arguments = ["--emoji-model", "place", "--plain-model", "openai:second-0.5", "--base-url", f"{served.url}/v1"]
    sizes = ["--prompts", str(prompts), "--max-new-tokens", "12", "--out", str(tmp_path / "pairs"), "--min-margin", "0"]
    try:
        generate([*arguments, *sizes, "--example-pairs", "0"])
    except Exception as problem:  # a random model's words may make no pair; that they were written is what counts
        assert "pair" in str(problem)
    import sqlite3

    store = tmp_path / "pairs-replies" / "replies.sqlite"
    with sqlite3.connect(store) as connection:
        assert connection.execute("SELECT COUNT(*) FROM replies").fetchone()[0] >= 5


@pytest.fixture
def start(orpo_home: Path) -> Iterator[Start]:
    """Return what starts the command with these arguments; a server that a failed test leaves behind is killed."""
    started = []

    def begin(*arguments: str) -> subprocess.Popen[str]:
        environment = {**os.environ, "ORPO_HOME": str(orpo_home)}
        command = [sys.executable, str(COMMAND), "--port", "0", "--device", "cpu", *arguments]
        pipe = subprocess.PIPE
        server = subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=environment)
        started.append(server)
        return server

    yield begin
    for server in started:
        if server.poll() is None:
            server.kill()
            server.communicate()


def test_the_command_serves_until_ctrl_c(start: Start, model_folder: Path, adapters: dict[str, Path]) -> None:
    """The page is there before the models are, and the end says where the votes are."""
    server = start("--model", str(model_folder), "--adapter", str(adapters["first"]))
    assert server.stdout is not None
    url = server.stdout.readline().split()[-1]
    assert "<main" in httpx.get(url, timeout=PATIENCE).text
    asked = {"model": "first", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 3}
    assert httpx.post(f"{url}v1/chat/completions", json=asked, timeout=PATIENCE).status_code == 200
    server.send_signal(signal.SIGINT)
    _, said = server.communicate(timeout=PATIENCE)
    assert server.returncode == 130 and "judgements.sqlite" in said and "Traceback" not in said


def test_ctrl_c_in_the_middle_of_replies_ends_them_without_a_traceback(start: Start, model_folder: Path) -> None:
    """The terminal got 40 lines of a cancelled task, and clients a connection that broke."""
    server = start("--model", str(model_folder), "--base-only", "--batch-size", "1")
    assert server.stdout is not None and server.stderr is not None
    url = server.stdout.readline().split()[-1]
    assert any(line.startswith("ready") for line in server.stderr)
    asked = {"model": "base", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 400, "temperature": 2}
    waiting = ThreadPoolExecutor(1).submit(httpx.post, f"{url}v1/chat/completions", json=asked, timeout=PATIENCE)
    while not (waiting.done() or httpx.get(f"{url}api/state", timeout=PATIENCE).json()["writing"]):
        time.sleep(0.02)  # what the server has not taken yet when it stops is a connection that breaks
    with httpx.stream("POST", f"{url}v1/chat/completions", json={**asked, "stream": True}, timeout=PATIENCE) as answer:
        lines = answer.iter_lines()
        next(lines)
        server.send_signal(signal.SIGINT)
        assert "the server is being stopped" in [line for line in lines if line][-1]
    assert waiting.result().status_code in (200, 503)
    _, said = server.communicate(timeout=PATIENCE)
    assert (
        server.returncode == 130 and said.startswith("stopped; votes and reviews are kept in") and "\n" not in said[:-1]
    )


def test_ctrl_c_while_the_models_are_loaded_is_heard_at_once(start: Start, orpo_home: Path, model_folder: Path) -> None:
    """It waited for five seconds of loading, and said `ready` before `stopped`."""
    server = start("--model", str(model_folder), "--base-only")
    assert server.stderr is not None and server.stderr.readline().startswith("loading")
    server.send_signal(signal.SIGINT)
    _, said = server.communicate(timeout=PATIENCE)
    kept = orpo_home / "data" / "judgements.sqlite"
    assert said == f"stopped; votes and reviews are kept in {kept}; the same command serves them again\n"
    assert server.returncode == 130


def test_a_model_that_cannot_be_loaded_ends_the_command_with_one_line(start: Start, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    server = start("--base-only", "--model", str(tmp_path / "empty"))
    _, said = server.communicate(timeout=PATIENCE)
    assert server.returncode == 1
    assert str(tmp_path / "empty") in said.splitlines()[-1] and "Traceback" not in said
