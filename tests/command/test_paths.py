"""Each command finds what the one before it wrote, from any working folder."""

import json
from pathlib import Path

import pytest

from orpo.command import paths as places
from orpo.command.paths import (
    default_data_folder,
    default_training_folder,
    newest_adapter,
    project_folder,
    public_name,
    resolve_user_path,
    without_folders,
)


def make_run(folder: Path, finished: str | None, *, adapter: bool = True) -> Path:
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps({"finished": finished}) if finished else "{", encoding="utf-8")
    if adapter:
        (folder / "adapter_model.safetensors").touch()
    return folder


def test_a_home_that_is_set_wins(orpo_home: Path) -> None:
    assert project_folder() == orpo_home
    assert default_data_folder() == orpo_home / "data" / "preferences"
    assert default_training_folder() == orpo_home / "trained"


def test_a_checkout_is_the_home_from_any_working_folder(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ORPO_HOME")
    monkeypatch.chdir(tmp_path)
    assert project_folder() == repository


def test_an_installed_package_writes_into_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ORPO_HOME")
    monkeypatch.setattr(places, "_PACKAGE_FOLDER", tmp_path / "site-packages" / "orpo")
    monkeypatch.chdir(tmp_path)
    assert project_folder() == tmp_path


def test_the_newest_adapter_is_the_one_that_finished_last(orpo_home: Path) -> None:
    assert newest_adapter() is None
    trained = default_training_folder()
    make_run(trained / "z-old", "2026-01-01T10:00:00.000000+00:00")
    newest = make_run(trained / "a-new", "2026-01-02T10:00:00.000000+00:00")
    make_run(trained / "no-adapter", "2026-01-03T10:00:00.000000+00:00", adapter=False)
    make_run(trained / ".hidden.old", "2026-01-04T10:00:00.000000+00:00")
    unfinished = make_run(trained / "unfinished", "2026-01-05T10:00:00.000000+00:00")
    (unfinished / "unfinished.json").touch()
    make_run(trained / "broken-record", None)
    (trained / "stray-file").touch()
    assert newest_adapter() == newest


def test_a_users_path_is_relative_to_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert resolve_user_path("pairs.jsonl") == tmp_path / "pairs.jsonl"
    assert resolve_user_path("~/pairs.jsonl") == Path.home() / "pairs.jsonl"


@pytest.mark.parametrize(
    ("told", "public"),
    [
        ("/home/somebody/models/mine", "mine"),
        ("~/models/mine", "mine"),
        (r"C:\\models\\mine", "mine"),
        ("Qwen/Qwen2.5-7B-Instruct", "Qwen/Qwen2.5-7B-Instruct"),
        ("openai:org/name", "openai:org/name"),
        ("/no_think Be kind, and/or brief.", "/no_think Be kind, and/or brief."),
        ("and/or " * 1000, "and/or " * 1000),
    ],
)
def test_folders_of_a_machine_are_left_out_of_what_is_passed_on(told: str, public: str) -> None:
    assert public_name(told) == public
    assert without_folders({"a": [told, 3, None]}) == {"a": [public, 3, None]}


def test_a_file_that_is_here_is_named_without_its_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a folder").mkdir()
    (tmp_path / "a folder" / "b").touch()
    assert public_name("a folder/b") == public_name(str(tmp_path / "a folder" / "b")) == "b"


def test_the_demo_ends_with_where_things_are(orpo_home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run(default_training_folder() / "run", "2026-01-01T10:00:00.000000+00:00")
    assert places.main([]) == 0
    shown = capsys.readouterr().out
    assert str(default_data_folder()) in shown and str(run) in shown
