"""The run record says what was asked, with what, and what came out, and gives no secret away."""

import json
import math
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from orpo.command import run_record
from orpo.command.errors import InputError
from orpo.command.run_record import (
    RunRecord,
    as_json_value,
    fingerprint_rows,
    git_state,
    read_run_record,
)
from orpo.command.settings import setting
from tests.command.command_process import run


@dataclass(kw_only=True)
class BakeSettings:
    """Settings of a command that talks to an endpoint."""

    data: Path = setting(Path("pairs"), "where the pairs are")
    seed: int = setting(7, "seed")
    api_key: str | None = setting(None, "key")
    base_url: str = setting("http://me:word@127.0.0.1:1/v1", "endpoint")
    max_new_tokens: int = setting(80, "length")


def test_a_record_holds_settings_versions_and_metrics_and_reads_back(tmp_path: Path) -> None:
    record = RunRecord("bake", BakeSettings(api_key="abc"))
    record.metrics["loss"] = 0.25
    record.facts["rows"] = 12
    record.device = "cpu"
    record.write(tmp_path)
    read: dict[str, Any] = dict(read_run_record(tmp_path))
    assert read["command"] == "bake" and read["seed"] == 7 and read["device"] == "cpu"
    assert read["metrics"] == {"loss": 0.25} and read["facts"] == {"rows": 12}
    assert read["settings"] == {
        "data": "pairs",
        "seed": 7,
        "api_key": "***",
        "base_url": "http://***@127.0.0.1:1/v1",
        "max_new_tokens": 80,
    }
    assert {"python", "orpo", "torch", "transformers", "trl", "peft", "datasets", "distilabel"} <= set(read["versions"])
    assert read["started"] <= read["finished"] and read["wall_seconds"] >= 0
    assert 5 < read["peak_memory_mb"] < 100_000
    assert [file.name for file in tmp_path.iterdir()] == ["run.json"]


def test_wall_time_counts_from_the_start_of_the_process(tmp_path: Path) -> None:
    """It began after the data had been read and torch imported: half of a short run was missing."""
    body = """
        import time
        time.sleep(0.5)
        from orpo.command.run_record import RunRecord
        print(RunRecord("bake", {}).as_dict()["wall_seconds"])
    """
    assert 0.5 < float(run(tmp_path, body).stdout) < 60


def test_the_record_is_strict_json_even_with_nan(tmp_path: Path) -> None:
    record = RunRecord("bake", {"beta": math.inf, "path": Path("x")})
    record.metrics["loss"] = math.nan
    text = record.write(tmp_path).read_text(encoding="utf-8")
    read = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert read["metrics"]["loss"] is None and read["settings"] == {"beta": None, "path": "x"}


def test_a_rows_fingerprint_depends_on_values_and_order_alone() -> None:
    rows = [{"prompt": "Hi 👋", "score": 1.0}, {"prompt": "Bye", "score": 0.0}]
    same = ({"score": row["score"], "prompt": row["prompt"]} for row in rows)
    assert fingerprint_rows(rows) == fingerprint_rows(same)
    assert fingerprint_rows(rows) != fingerprint_rows(rows[::-1])
    assert fingerprint_rows(rows) != fingerprint_rows([rows[0], {"prompt": "Bye", "score": 0.5}])
    assert fingerprint_rows([{"text": "\ud83d"}])  # a lone surrogate is no reason to fail


def test_numbers_of_array_libraries_become_plain_numbers() -> None:
    import numpy

    assert as_json_value({"a": numpy.float32(0.5), "b": numpy.arange(3), "c": {2, 1}}) == {
        "a": 0.5,
        "b": [0, 1, 2],
        "c": [1, 2],
    }


def test_commit_and_changes_are_recorded_in_a_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def git(*arguments: str) -> str:
        identity = ("-c", "user.name=a", "-c", "user.email=a@b.example", "-c", "commit.gpgsign=false")
        return subprocess.run(
            ["git", "-C", str(tmp_path), *identity, *arguments], check=True, capture_output=True, text=True
        ).stdout.strip()

    monkeypatch.setattr(run_record, "checkout_folder", lambda: tmp_path)
    assert git_state() is None
    git("init", "-q")
    (tmp_path / "file").write_text("one")
    git("add", "file")
    git("commit", "-q", "-m", "one")
    assert git_state() == {"commit": git("rev-parse", "HEAD"), "dirty": False}
    (tmp_path / "file").write_text("two")
    state = git_state()
    assert state is not None and state["dirty"] is True


def test_a_folder_without_a_whole_record_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no run\.json"):
        read_run_record(tmp_path)
    for text in ("{", "[]"):
        (tmp_path / "run.json").write_text(text)
        with pytest.raises(InputError, match=r"run\.json"):
            read_run_record(tmp_path)
