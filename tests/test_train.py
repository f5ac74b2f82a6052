"""The command as a user starts it: its errors are one line and a code above 0, and Ctrl-C keeps what is whole.

What has to load torch and is not about the process calls `main` here: each start of the command takes seconds.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orpo.command.errors import InputError, SettingsError
from orpo.train import main
from tests.small_models import save_chat_model

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def run_train(repository: Path, tmp_path: Path) -> Run:
    """Return a function that runs train.py with arguments, from another working folder."""

    def run(*arguments: object) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, str(repository / "orpo" / "train.py"), *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=300)

    return run


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a tiny model."""
    return save_chat_model(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(scope="module")
def finished(
    repository: Path, tmp_path_factory: pytest.TempPathFactory, model: Path
) -> tuple["subprocess.CompletedProcess[str]", Path]:
    """Return a run of the command that nobody stopped, and its folder."""
    folder = tmp_path_factory.mktemp("straight")
    script = str(repository / "orpo" / "train.py")
    data = write_rows(folder / "pairs.jsonl", make_rows())
    command = [sys.executable, script, *small_run(model, data, folder / "out")]
    home = {**os.environ, "ORPO_HOME": str(folder / "home")}
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, env=home, timeout=300), folder / "out"


def small_run(model: Path, data: Path, out: Path) -> list[str]:
    """Return the flags of eight small steps."""
    flags = ["--model", str(model), "--data", str(data), "--out", str(out), "--trainer", "fast"]
    flags += ["--max-steps", "8", "--batch-size", "2"]
    flags += ["--save-steps", "2", "--logging-steps", "1", "--eval-steps", "4"]
    return [*flags, "--eval-prompt-count", "2", "--reward-pairs", "1", "--max-new-tokens", "8"]


def make_rows(count: int = 12) -> list[dict[str, Any]]:
    """Return pairs on different prompts."""
    return [
        {
            "prompt": [{"role": "user", "content": f"Question {number}?"}],
            "chosen": [{"role": "assistant", "content": f"Answer {number} 🎉"}],
            "rejected": [{"role": "assistant", "content": f"Answer {number}"}],
        }
        for number in range(count)
    ]


def write_rows(file: Path, rows: list[dict[str, Any]]) -> Path:
    """Write rows as JSONL."""
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


def assert_one_line(done: "subprocess.CompletedProcess[str]", code: int, *parts: str) -> None:
    """Check exit code and that stderr is one line with all these parts."""
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: "), done.stderr
    for part in parts:
        assert part in lines[0]


def test_help_answers_at_once(run_train: Run) -> None:
    done = run_train("--help")
    assert done.returncode == 0 and "--learning-rate" in done.stdout


def test_a_recipe_with_an_unknown_key_names_the_nearest(run_train: Run, tmp_path: Path) -> None:
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("command: train\nlerning_rate: 5e-6\n")
    assert_one_line(run_train("--recipe", recipe), 2, "lerning_rate", "mine.yaml", "learning_rate")


def test_a_value_out_of_range_names_its_flag(run_train: Run) -> None:
    assert_one_line(run_train("--beta", "-1"), 2, "--beta -1")


def test_without_pairs_the_command_that_makes_them_is_named(run_train: Run) -> None:
    assert_one_line(run_train(), 1, "uv run orpo/generate.py")


def test_a_data_path_that_is_not_there(run_train: Run) -> None:
    assert_one_line(run_train("--data", "no/where.jsonl"), 1, "--data no/where.jsonl")


def test_an_output_folder_that_exists_asks_for_overwrite(run_train: Run, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("precious")
    assert_one_line(run_train("--out", "out"), 1, "--overwrite")
    assert_one_line(run_train("--out", "out", "--overwrite"), 1, "stays as it is")
    assert (tmp_path / "out" / "mine.txt").read_text() == "precious"


def test_an_unknown_model_is_told_after_the_data_are_found_good(run_train: Run, tmp_path: Path) -> None:
    data = write_rows(tmp_path / "pairs.jsonl", make_rows())
    assert_one_line(run_train("--data", data, "--model", "./no-model", "--out", "out"), 1, "--model ./no-model")
    assert not (tmp_path / "out").exists()


def test_wrong_rows_are_told_before_the_model_is_looked_for(run_train: Run, tmp_path: Path) -> None:
    rows = make_rows()
    rows[4]["rejected"] = rows[4]["chosen"]
    data = write_rows(tmp_path / "pairs.jsonl", rows)
    assert_one_line(run_train("--data", data, "--model", "./no-model"), 1, "the same in line 5")


def test_nothing_to_resume_is_told(tmp_path: Path, model: Path) -> None:
    data = write_rows(tmp_path / "pairs.jsonl", make_rows())
    with pytest.raises(InputError, match="nothing to resume") as caught:
        main(["--model", str(model), "--data", str(data), "--resume", "--out", str(tmp_path / "out")])
    assert caught.value.exit_code == 1 and "\n" not in str(caught.value)


def test_a_model_is_trained_and_the_table_says_where_things_are(
    finished: tuple["subprocess.CompletedProcess[str]", Path], model: Path
) -> None:
    done, out = finished
    assert done.returncode == 0, done.stderr
    for part in ("training loss", "replies with an emoji", "R(sampled)", "verdict", "TensorBoard", str(out)):
        assert part in done.stdout
    config = json.loads((out / "adapter_config.json").read_text(encoding="utf-8"))
    assert config["base_model_name_or_path"] == str(model)


def test_the_memory_of_a_step_is_told_without_training(
    tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_rows(tmp_path / "pairs.jsonl", make_rows())
    command = ["--model", str(model), "--data", str(data), "--out", str(tmp_path / "out"), "--estimate"]
    assert main([*command, "--device", "cpu"]) == 0
    shown = capsys.readouterr().out
    assert "peak" in shown and " MB" in shown
    assert not (tmp_path / "out").exists()
    with pytest.raises(SettingsError, match=r"--estimate.*--trainer fast") as caught:
        main([*command, "--trainer", "trl"])
    assert caught.value.exit_code == 2 and "\n" not in str(caught.value)


@pytest.mark.parametrize("trainer", ["fast", "trl"])
def test_a_rate_that_ruins_the_model_ends_with_one_line_and_a_code_above_0(
    run_train: Run, tmp_path: Path, model: Path, trainer: str
) -> None:
    """The loss went from 0.08 to 9, all numbers finite, and the command ended with 0."""
    data = write_rows(tmp_path / "pairs.jsonl", make_rows())
    flags = small_run(model, data, tmp_path / "out")
    done = run_train(*[trainer if flag == "fast" else flag for flag in flags], "--learning-rate", "1e6")
    assert done.returncode == 1, done.stderr
    told = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(told) == 1 and "Traceback" not in done.stderr
    assert "ruined" in told[0] or "not a finite number" in told[0]
    assert "learning rate" in told[0] and not (tmp_path / "out" / "run.json").exists()


def losses(run: Path) -> list[float]:
    """Return the logged loss series of a finished run."""
    last = max(run.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]))
    history = json.loads((last / "trainer_state.json").read_text(encoding="utf-8"))["log_history"]
    return [entry["loss"] for entry in history if "loss" in entry]


@pytest.mark.slow
def test_two_processes_train_as_one_does_with_the_same_global_batch(
    repository: Path, tmp_path: Path, model: Path
) -> None:
    """Both used to make, check and clear the run folder, and the run never ended."""
    data = write_rows(tmp_path / "pairs.jsonl", make_rows(40))
    flags = [
        "--model",
        str(model),
        "--data",
        str(data),
        "--trainer",
        "fast",
        "--device",
        "cpu",
        "--max-steps",
        "4",
        "--logging-steps",
        "1",
    ]
    flags += ["--eval-prompt-count", "2", "--reward-pairs", "2", "--max-new-tokens", "8"]
    for processes in (1, 2):
        launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
        own = ["--out", str(processes), "--batch-size", str(8 // processes)]
        command = [*launch, str(repository / "orpo" / "train.py"), *flags, *own]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=300)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("adapter  ") == 1, "one process talks to the user"
    assert len(losses(tmp_path / "1")) == 4
    assert losses(tmp_path / "2") == pytest.approx(losses(tmp_path / "1"), rel=1e-5)


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_stopped_run_is_resumed(
    repository: Path,
    tmp_path: Path,
    model: Path,
    finished: tuple["subprocess.CompletedProcess[str]", Path],
    number: signal.Signals,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Ctrl-C writes a checkpoint and exits with 130; after a kill the last checkpoint that stands is used."""
    out = tmp_path / "out"
    flags = small_run(model, write_rows(tmp_path / "pairs.jsonl", make_rows()), out)
    command = [sys.executable, str(repository / "orpo" / "train.py"), *flags]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True, env={**os.environ})
    wait_for(out / "checkpoint-2" / "trainer_state.json", process)
    process.send_signal(number)
    _, said = process.communicate(timeout=120)
    assert (out / "unfinished.json").is_file(), said
    if number == signal.SIGINT:
        assert process.returncode == 130 and "--resume goes on" in said and "Traceback" not in said
    assert main([*flags, "--resume"]) == 0
    assert "going on from checkpoint-" in capsys.readouterr().err
    assert json.loads((out / "run.json").read_text(encoding="utf-8"))["facts"]["steps"] == 8
    assert len(losses(out)) == 8 and losses(out) == losses(finished[1]), "to the bit"


def wait_for(file: Path, process: "subprocess.Popen[str]") -> None:
    """Wait until a file is there, at most two minutes."""
    for _ in range(2400):
        if file.is_file():
            return
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.05)
    raise AssertionError(f"{file} did not appear")
