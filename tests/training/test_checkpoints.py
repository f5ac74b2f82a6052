"""A run goes on from the last whole checkpoint, and only if it is the same run."""

from pathlib import Path

import pytest

from orpo.running.errors import InputError
from orpo.training.checkpoints import check_same_run, newest_whole_checkpoint, remember_settings
from orpo.training.settings import TrainSettings

WHOLE = {"adapter_model.safetensors": "x", "optimizer.pt": "x", "scheduler.pt": "x", "trainer_state.json": '{"a": 1}'}


def make_checkpoint(folder: Path, step: int, **changes: str | None) -> Path:
    """Write a checkpoint's files; a change of None leaves a file out."""
    checkpoint = folder / f"checkpoint-{step}"
    checkpoint.mkdir()
    for name, content in {**WHOLE, **changes}.items():
        if content is not None:
            (checkpoint / name).write_text(content)
    return checkpoint


def test_the_highest_step_counts_not_the_name(tmp_path: Path) -> None:
    make_checkpoint(tmp_path, 9)
    newest = make_checkpoint(tmp_path, 10)
    assert newest_whole_checkpoint(tmp_path) == newest


@pytest.mark.parametrize(
    "damage", [{"trainer_state.json": None}, {"trainer_state.json": '{"a"'}, {"optimizer.pt": None}]
)
def test_a_checkpoint_cut_off_by_a_crash_is_passed_over(tmp_path: Path, damage: dict[str, str | None]) -> None:
    whole = make_checkpoint(tmp_path, 5)
    cut_off = make_checkpoint(tmp_path, 10, **damage)
    assert newest_whole_checkpoint(tmp_path) == whole
    assert not cut_off.exists()


def test_other_folders_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "checkpoint-best").mkdir()
    assert newest_whole_checkpoint(tmp_path) is None
    assert (tmp_path / "checkpoint-best").is_dir()


def test_another_setting_or_other_data_are_refused_by_name(tmp_path: Path) -> None:
    remember_settings(tmp_path, TrainSettings(beta=0.1), "abc")
    check_same_run(tmp_path, TrainSettings(beta=0.1, resume=True, keep_checkpoints=5), "abc")
    with pytest.raises(InputError, match=r"--beta 0\.1 \(now 0\.2\)"):
        check_same_run(tmp_path, TrainSettings(beta=0.2, resume=True), "abc")
    with pytest.raises(InputError, match="no longer holds the pairs"):
        check_same_run(tmp_path, TrainSettings(resume=True), "other")
