"""The inference command, on small real models: what it shows, what it refuses, and how it is stopped."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from orpo.chat_model.adapters import load_with_adapter
from orpo.command.errors import InputError, ModelError, OrpoError, OutputError, SettingsError
from orpo.command.signals import NOTHING_KEPT
from orpo.comparing.chat import TerminalChat
from orpo.comparing.settings import InferenceSettings
from orpo.inference import main
from orpo.records.replies import Sampling
from tests import small_models

COMMAND = Path(__file__).resolve().parents[1] / "orpo" / "inference.py"
SHORT = ["--max-new-tokens", "6", "--device", "cpu"]


@pytest.fixture(scope="session")
def tiny() -> Any:
    return small_models


@pytest.fixture(scope="session")
def model_folder(tiny: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tiny.save_model(tmp_path_factory.mktemp("models") / "tiny")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["max_position_embeddings"] = 1024  # the longest held-out wish has 400 letters, and a letter is a token
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def adapter_folder(tiny: Any, model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tiny.save_adapter(tmp_path_factory.mktemp("adapters") / "run", model_folder)
    return folder


@pytest.fixture(autouse=True)
def own_cache(orpo_home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep what is answered in the test's own home."""
    monkeypatch.setenv("ORPO_CACHE", str(orpo_home / "cache"))
    return orpo_home / "cache"


@pytest.fixture
def trained(orpo_home: Path, adapter_folder: Path) -> Path:
    """A home in which a run has finished."""
    return Path(shutil.copytree(adapter_folder, orpo_home / "trained" / "first"))


def json_lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_no_arguments_show_held_out_prompts_side_by_side(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(SHORT) == 0
    shown = capsys.readouterr()
    assert "base" in shown.out and "tuned" in shown.out and "emoji where in place" in shown.out
    assert str(trained) in shown.err and "8 prompts, 8 replies a side" in shown.out
    home = trained.parent.parent
    assert {file.name for file in home.iterdir()} == {"trained", "cache"}, "nothing is written but the cache"


def test_json_gives_lines_and_nothing_else(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--json", "--prompt", "hello", "--prompt", "thank you", "good news", *SHORT]) == 0
    *rows, last = json_lines(capsys.readouterr().out)
    assert [row["prompt"] for row in rows] == ["hello", "thank you", "good news"]
    said = rows[0]["replies"]
    assert set(said["base"]) == set(said["tuned"]) == {"text", "finished", "tokens", "emojis", "score"}
    assert last["summary"]["tuned"]["replies"] == 3 and last["adapter"] == str(trained)


def test_the_seed_decides_and_the_batch_size_does_not(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def replies(*arguments: str) -> list[dict[str, Any]]:
        assert main(["--json", "--count", "5", *SHORT, *arguments]) == 0
        return json_lines(capsys.readouterr().out)[:-1]

    first = replies()
    assert len(first) == 5
    assert replies("--batch-size", "2") == first
    assert replies("--seed", "1") != first
    assert replies("--system", "Use emojis.") != first


def test_the_summary_measures_everything_and_the_base_once(
    trained: Path, capsys: pytest.CaptureFixture[str], own_cache: Path
) -> None:
    """A second summary takes every reply from the cache and says the same; --json holds all that was said."""
    flags = ["--summary", "--measure", "12", "--count", "2", *SHORT]
    assert main(flags) == 0
    shown = capsys.readouterr().out
    for label in (
        "perplexity of prose",
        "short questions right",
        'obeys "no emojis"',
        'obeys "use emojis"',
        "difference",
    ):
        assert label in shown
    assert "12 prompts, 12 replies a side" in shown
    assert sum("├" in line for line in shown.splitlines()) == 1, "two prompts are shown"
    kept = {file: file.stat().st_mtime_ns for file in (own_cache / "answers").iterdir()}
    assert main([*flags, "--json"]) == 0
    *rows, last = json_lines(capsys.readouterr().out)
    assert [sum(row["part"] == part for row in rows) for part in ("prompts", "obedience", "questions")] == [12, 60, 100]
    assert last["replies_reused"] == 2 * (12 + 60 + 100)
    assert {file: file.stat().st_mtime_ns for file in (own_cache / "answers").iterdir()} == kept
    figure = last["summary"]["tuned"]["figures"]["in_place"]
    assert f"{100 * figure['interval']['value']:.1f}\u00a0%" in shown and figure["verdict"] == "too few prompts"


def test_the_base_alone_needs_no_adapter(model_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--base-only", "--model", str(model_folder), "--json", "-p", "hello", *SHORT]) == 0
    row, last = json_lines(capsys.readouterr().out)
    assert set(row["replies"]) == {"base"} and last["adapter"] is None


def test_prompts_come_from_a_file(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "mine.jsonl"
    file.write_text('{"prompt": "hello"}\n{"prompt": "thank you"}\n', encoding="utf-8")
    assert main(["--prompts", str(file), "--json", *SHORT]) == 0
    assert [row.get("prompt") for row in json_lines(capsys.readouterr().out)] == ["hello", "thank you", None]


def test_bad_rows_of_a_prompts_file_stop_it_or_are_left_out_and_listed(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "mine.jsonl"
    file.write_text('{"prompt": "hello"}\n{"prompt": null}\n{"prompt": "half \\ud83c"}\n', encoding="utf-8")
    flags = ["--prompts", str(file), "--json", *SHORT]
    with pytest.raises(InputError, match=r"is empty in line 2 .*half of a character .* in line 3"):
        main(flags)
    assert main([*flags, "--bad-rows", "drop"]) == 0
    shown = capsys.readouterr()
    assert [row.get("prompt") for row in json_lines(shown.out)] == ["hello", None]
    assert "left out 2 rows: prompt is empty in line 2" in shown.err


@pytest.mark.parametrize(
    ("flags", "answered", "shown"),
    [
        ([], 12, 12),
        (["--count", "5"], 5, 5),
        (["--summary"], 12, 8),
        (["--summary", "--measure", "6", "--count", "2"], 6, 2),
        (["--summary", "--measure", "6", "--count", "0"], 6, 6),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else str(value),
)
def test_count_and_measure_hold_for_the_users_own_prompts(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str], answered: int, shown: int
) -> None:
    """A file was answered and shown whole, whatever the flags said."""
    file = tmp_path / "mine.txt"
    file.write_text("".join(f"hello {number}\n" for number in range(12)), encoding="utf-8")
    assert main(["--prompts", str(file), *flags, *SHORT]) == 0
    out = capsys.readouterr().out
    assert f"{answered} prompts, {answered} replies a side" in out
    assert sum("├" in line for line in out.splitlines()) == shown - 1


def test_the_summary_measures_as_many_held_out_prompts_as_it_is_told() -> None:
    """`--count 0`, to show all that are measured, measured all of the set."""
    assert InferenceSettings(summary=True, count=0, measure=50).answer_count() == 50
    assert InferenceSettings(summary=True, count=0, measure=0).answer_count() == 0
    assert InferenceSettings(summary=True).answer_count() == 0
    assert InferenceSettings(count=0).answer_count() == 0 and InferenceSettings().answer_count() == 8


def test_prompts_come_from_the_split_that_is_named(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from datasets import Dataset, DatasetDict

    splits = {"test": Dataset.from_list([{"prompt": "hello"}]), "dev": Dataset.from_list([{"prompt": "thank you"}])}
    DatasetDict(splits).save_to_disk(str(tmp_path / "saved"))
    flags = ["--prompts", str(tmp_path / "saved"), "--json", *SHORT]
    assert main([*flags, "--prompts-split", "dev"]) == 0
    assert json_lines(capsys.readouterr().out)[0]["prompt"] == "thank you"
    with pytest.raises(InputError, match="it has test, dev; choose another configuration or split"):
        main(flags)


def test_a_picture_of_what_is_shown(trained: Path, tmp_path: Path) -> None:
    file = tmp_path / "demo.svg"
    assert main(["--picture", str(file), "--count", "3", *SHORT]) == 0
    assert "emoji where in place" in "".join(ElementTree.parse(file).getroot().itertext()).replace("\xa0", " ")
    with pytest.raises(OutputError, match="exists already"):
        main(["--picture", str(file), *SHORT])


def test_without_an_adapter_the_command_that_makes_one_is_named(orpo_home: Path) -> None:
    with pytest.raises(InputError, match=r"holds no trained adapter yet; `uv run orpo/train\.py` makes one"):
        main([])


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (["--adapter", "nowhere"], InputError, r"--adapter .*nowhere: there is no such folder"),
        (["--model", "./nowhere"], ModelError, r"--model \./nowhere: there is no such folder"),
        (["--prompts", "nowhere.jsonl"], InputError, r"--prompts nowhere\.jsonl"),
        (["--prompt", " "], SettingsError, "--prompt '': is empty"),
        (["--prompt", "a", "--chat"], SettingsError, "--prompt and --chat do not go together"),
        (["--chat", "--json"], SettingsError, "--chat does not go together"),
        (["--base-only", "--adapter", "x"], SettingsError, "--base-only loads no adapter"),
        (["--temperature", "-1"], SettingsError, "--temperature -1.0: must be 0"),
        (["--device", "toaster"], SettingsError, "--device toaster: not a device"),
        (["--dtype", "int3"], SettingsError, "--dtype: 'int3' is not one of"),
        (["--count", "-1"], SettingsError, "--count -1: must be 0"),
        (["--chat-template", "nowhere.jinja"], InputError, "--chat-template nowhere.jinja: there is no such file"),
        (["--prompt", "long " * 1000], InputError, "prompt 1: .*shorten or leave out"),
        (["--picture", "nowhere/a.svg"], OutputError, r"--picture nowhere/a\.svg: there is no such folder"),
        (["--picture", "a.png"], OutputError, r"--picture a\.png: the picture is an SVG"),
        (["--picture", "a.svg", "--json"], SettingsError, "--json shows nothing to make a picture of"),
    ],
    ids=lambda value: " ".join(value)[:30] if isinstance(value, list) else "",
)
def test_what_is_wrong_is_one_clear_line(
    trained: Path, arguments: list[str], error: type[OrpoError], message: str
) -> None:
    with pytest.raises(error) as caught:
        main(arguments)
    said = caught.value.for_command()
    assert re.search(message, said) and "\n" not in said


@pytest.mark.parametrize(
    ("content", "message"),
    [("", "prompts"), ('{"prompt": ""}\n', "prompt is empty in line 1"), ("{broken\n", "line|JSON")],
)
def test_a_wrong_prompts_file_is_named(trained: Path, tmp_path: Path, content: str, message: str) -> None:
    file = tmp_path / "mine.jsonl"
    file.write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match=message) as caught:
        main(["--prompts", str(file), *SHORT])
    assert "mine.jsonl" in str(caught.value)


@pytest.fixture
def chat(adapter_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Type lines into a chat and return what it printed."""
    model, tokenizer = load_with_adapter(None, adapter_folder, device="cpu", dtype="float32")

    def talk(*lines: str, sampling: Sampling | None = None) -> list[str]:
        monkeypatch.setattr(sys, "stdin", StringIO("\n".join(lines) + "\n"))
        TerminalChat(model, tokenizer, sampling or Sampling(max_new_tokens=6), seed=0).run()
        return capsys.readouterr().out.splitlines()

    return talk


def test_a_chat_switches_between_base_and_tuned(chat: Any) -> None:
    said = "\n".join(chat("hello", "/base", "hello", "/tuned", "hello", "/quit", "not answered"))
    assert said.index("tuned> ") < said.index("(the base model answers now)") < said.index("base> ")
    assert said.count("tuned> ") == 2 and said.count("base> ") == 1


def test_a_chat_remembers_until_reset(chat: Any) -> None:
    """The fourth line stands where the first did, but for the seed; greedy replies show what is remembered."""
    greedy = Sampling(temperature=0, max_new_tokens=8)
    alone = "\n".join(chat("hello", sampling=greedy))
    both = "\n".join(chat("hello", "/reset", "hello", sampling=greedy))
    assert both.count(alone) == 2
    assert "\n".join(chat("hello", "hello", sampling=greedy)).count(alone) == 1


def test_a_long_chat_drops_its_oldest_turns_and_goes_on(chat: Any) -> None:
    said = chat(*["tell me of the cat and the dog"] * 40)
    assert sum(line.startswith("tuned> ") for line in said) == 40


def test_a_message_too_long_for_the_model_is_refused_and_the_chat_goes_on(chat: Any) -> None:
    said = "\n".join(chat("long " * 1000, "hello"))
    assert "context of 1024" in said and said.count("tuned> ") == 1


def test_an_unknown_command_and_blank_lines_are_not_sent_to_the_model(chat: Any) -> None:
    said = chat("/rest", "", "   ", "/help")
    assert said[0].startswith("(/rest is not a command") and len(said) == 2


@pytest.fixture
def start(trained: Path, tmp_path: Path) -> Iterator[Any]:
    """Start the command as a user does, in another folder; SIGINT reaches it as it does in a terminal."""
    processes: list[subprocess.Popen[str]] = []

    def run(*arguments: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, COMMAND, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            cwd=tmp_path,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )
        processes.append(process)
        return process

    yield run
    for process in processes:
        process.kill()
        process.communicate()


def test_ctrl_c_stops_with_130_and_one_line(start: Any) -> None:
    process = start("--count", "0", "--max-new-tokens", "150", "--batch-size", "1")
    assert process.stderr.readline().startswith("loading ")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (130, "", f"stopped; {NOTHING_KEPT}\n")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_stopped_summary_loses_no_reply(
    start: Any, trained: Path, own_cache: Path, capsys: pytest.CaptureFixture[str], number: int
) -> None:
    """Replies were kept by whole sets: at the last of 200 prompts Ctrl-C lost 199, and said `stopped` alone."""
    flags = ["--json", "--measure", "40", "--batch-size", "2", "--max-new-tokens", "60", "--temperature", "1"]
    process = start(*flags)
    while sum(file.read_bytes().count(b"}\n") for file in own_cache.glob("answers/*.jsonl")) < 5:
        assert process.poll() is None
        time.sleep(0.005)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    (lines,) = own_cache.glob("answers/*.jsonl")
    kept = lines.read_bytes().count(b"}\n")
    if number == signal.SIGINT:
        said = f"stopped; {kept} replies are kept in {own_cache / 'answers'}; the same command goes on from there"
        assert process.returncode == 130 and err.splitlines()[-1] == said and out == ""
    assert main(flags) == 0
    *rows, last = json_lines(capsys.readouterr().out)
    assert last["replies_reused"] == kept and not list(own_cache.glob("answers/*.jsonl"))
    assert main([*flags, "--no-reuse-replies"]) == 0
    assert json_lines(capsys.readouterr().out)[:-1] == rows


def test_a_reader_that_leaves_is_no_error(start: Any, model_folder: Path) -> None:
    process = start("--base-only", "--model", str(model_folder), "--json", "--prompt", "hello", *SHORT)
    process.stdout.close()
    process.stdout = None
    process.wait(timeout=120)
    assert process.returncode == 141 and "Traceback" not in process.stderr.read()


def test_in_a_chat_ctrl_c_stops_the_reply_and_the_end_of_input_leaves(start: Any) -> None:
    process = start("--chat", "--max-new-tokens", "200", "--temperature", "1.2")
    process.stdin.write("hello\n")
    process.stdin.flush()
    assert process.stdout.read(8).startswith("tuned> ")  # and the first letter of the reply
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0 and out.endswith(" (stopped)\n") and "Traceback" not in err


def test_the_settings_have_defaults_that_hold() -> None:
    assert InferenceSettings().show_count() == 8


def test_the_default_model_answers_alone(default_model_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--base-only", "--model", str(default_model_folder), "--json", "--count", "2", "--max-new-tokens", "8"]
    assert main(flags) == 0
    assert all(row["replies"]["base"]["text"] for row in json_lines(capsys.readouterr().out)[:-1])
