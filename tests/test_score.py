"""The command `score`."""

import json
import re
import signal
import subprocess
import sys
import time
from io import BytesIO, TextIOWrapper
from pathlib import Path

import pytest

from orpo import score
from orpo.command.errors import InputError, SettingsError
from orpo.score import main


def test_a_text_is_scored_and_explained(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--explain", "Congratulations, you earned it! 🎉", "--prompt", "I passed my exam!"]) == 0
    shown = capsys.readouterr().out
    assert "Congratulations, you earned it! 🎉" in shown
    for name in ("relevance", "placement", "obedience", "a screen reader adds 2 words to 4"):
        assert name in shown


def test_a_text_file_is_scored_line_by_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "replies.txt"
    file.write_text("Thank you! 😊\n\nSee you tomorrow.\n", encoding="utf-8")
    main(["--file", str(file), "--profile", "contains_emoji"])
    assert "2 texts, mean score 0.500" in capsys.readouterr().out


def test_ctrl_c_says_how_many_texts_are_printed(tmp_path: Path) -> None:
    file = tmp_path / "replies.txt"
    file.write_text("Thank you! 😊\n" * 200_000, encoding="utf-8")
    command = [sys.executable, str(Path(score.__file__)), "--file", str(file), "--json"]
    shown = tmp_path / "scored.jsonl"
    with shown.open("w") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.PIPE, text=True)
    while not shown.stat().st_size and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    said = re.fullmatch(r"stopped; (\d+) of 200000 texts are printed; .*\n", err)
    assert process.returncode == 130 and said, err
    assert 0 <= shown.read_bytes().count(b"\n") - int(said[1]) <= 1, "but for the one that was being printed"


def test_rows_with_prompts_and_messages_are_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "replies.jsonl"
    conversation = [
        {"role": "system", "content": "Never use emojis."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello! 🎉"},
    ]
    rows = [
        {"prompt": "No emojis, please.", "reply": "Hi 😊"},
        {"messages": conversation},
        {"prompt": conversation[:2], "completion": conversation[2:]},
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    main(["--file", str(file), "--json"])
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["score"] for line in lines] == [0.0, 0.0, 0.0]
    assert lines[0]["parts"]["obedience"]["reason"] == "1 where none was asked for"


@pytest.mark.parametrize("indent", [None, 2])
def test_a_json_file_is_read_as_a_whole(tmp_path: Path, capsys: pytest.CaptureFixture[str], indent: int | None) -> None:
    """An array was scored line by line, brackets and all."""
    file = tmp_path / "replies.json"
    file.write_text(json.dumps([{"reply": "Hi 😊"}, "Thank you! 🎉"], indent=indent), encoding="utf-8")
    main(["--file", str(file), "--json"])
    assert [json.loads(line)["reply"] for line in capsys.readouterr().out.splitlines()] == ["Hi 😊", "Thank you! 🎉"]
    file.write_text(json.dumps({"reply": "Hi 😊"}, indent=indent), encoding="utf-8")
    main(["--file", str(file), "--json"])
    assert json.loads(capsys.readouterr().out)["reply"] == "Hi 😊"


def test_lines_of_json_are_read_whatever_the_file_is_called(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "replies.json"
    file.write_text('{"reply": "Hi"}\n{"reply": "Ho"}\n', encoding="utf-8")
    main(["--file", str(file), "--json"])
    assert [json.loads(line)["reply"] for line in capsys.readouterr().out.splitlines()] == ["Hi", "Ho"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('["a",\n"b"', r"is not JSON: .* \(line 2\)"),
        ('["a", 3]', "entry 2: neither a text nor"),
        ("[]", "holds no text"),
    ],
)
def test_a_json_file_that_cannot_be_read_is_one_line(tmp_path: Path, content: str, message: str) -> None:
    file = tmp_path / "replies.json"
    file.write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match=message):
        main(["--file", str(file)])


def test_standard_input_is_read(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.stdin", TextIOWrapper(BytesIO("Thank you! 😊\n".encode())))
    main(["--json"])
    assert json.loads(capsys.readouterr().out)["emojis"] == ["😊"]


def test_a_scored_text_cannot_move_the_cursor(capsys: pytest.CaptureFixture[str]) -> None:
    main(["bad \x1b[2J text 🎉"])
    assert "\x1b[2J" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"reply": 3}\n', "line 1: the reply"),
        (b'{"reply": "ok"}\n{"nothing": 1}\n', "line 2: has no reply"),
        (b'{"reply": "ok"}\nnot json\n', "line 2: is not JSON"),
        (b"\xff\xfa", "not UTF-8"),
        (b"\n\n", "holds no text"),
    ],
)
def test_a_file_that_cannot_be_read_is_named_with_its_line(tmp_path: Path, content: bytes, message: str) -> None:
    file = tmp_path / "replies.jsonl"
    file.write_bytes(content)
    with pytest.raises(InputError, match=message):
        main(["--file", str(file)])


def test_texts_and_a_file_together_are_refused() -> None:
    with pytest.raises(SettingsError, match="--file"):
        main(["text", "--file", "x.txt"])
