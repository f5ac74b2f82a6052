"""A run goes on from the last whole checkpoint, and only if it is the same run."""

from pathlib import Path

import pytest

from orpo.command.errors import InputError
from orpo.training.checkpoints import check_same_run, newest_whole_checkpoint, remember_settings, seal_checkpoint
from tests.training.small_models import settings_from

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
    assert newest_whole_checkpoint(tmp_path)[0] == newest


@pytest.mark.parametrize(
    "damage", [{"trainer_state.json": None}, {"trainer_state.json": '{"a"'}, {"optimizer.pt": None}]
)
def test_a_checkpoint_cut_off_by_a_crash_is_passed_over(tmp_path: Path, damage: dict[str, str | None]) -> None:
    whole = make_checkpoint(tmp_path, 5)
    cut_off = make_checkpoint(tmp_path, 10, **damage)
    assert newest_whole_checkpoint(tmp_path)[0] == whole
    assert not cut_off.exists()


@pytest.mark.parametrize("name", [*WHOLE, "rng_state.pth"])
@pytest.mark.parametrize("damage", ["cut", "zeroed", "gone"])
def test_a_sealed_checkpoint_that_was_damaged_since_is_passed_over_and_named(
    tmp_path: Path, name: str, damage: str
) -> None:
    """A file cut in half or full of zeros ended in an exception of torch, though an older checkpoint was whole."""
    for step in (5, 10):
        seal_checkpoint(make_checkpoint(tmp_path, step, **{"rng_state.pth": "random", "optimizer.pt": "moments"}))
    file = tmp_path / "checkpoint-10" / name
    content = file.read_bytes()
    match damage:
        case "cut":
            file.write_bytes(content[: len(content) // 2])
        case "zeroed":
            file.write_bytes(bytes(len(content)))
        case "gone":
            file.unlink()
    found, damaged = newest_whole_checkpoint(tmp_path)
    assert found == tmp_path / "checkpoint-5" and damaged == ["checkpoint-10"]


def test_settings_that_were_cut_off_are_damage_and_not_another_run(tmp_path: Path) -> None:
    """A cut settings.json switched the comparison off, and the run went on with another rate."""
    remember_settings(tmp_path, settings_from(), "data")
    file = tmp_path / "settings.json"
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(InputError, match=r"settings.json is damaged.*`overwrite`"):
        check_same_run(tmp_path, settings_from(resume=True), "data")


def test_other_folders_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "checkpoint-best").mkdir()
    assert newest_whole_checkpoint(tmp_path)[0] is None
    assert (tmp_path / "checkpoint-best").is_dir()


def test_another_setting_or_other_data_are_refused_by_name(tmp_path: Path) -> None:
    remember_settings(tmp_path, settings_from(beta=0.1), "abc")
    check_same_run(tmp_path, settings_from(beta=0.1, resume=True, keep_checkpoints=5), "abc")
    with pytest.raises(InputError, match=r"`beta` 0\.1 \(now 0\.2\)"):
        check_same_run(tmp_path, settings_from(beta=0.2, resume=True), "abc")
    with pytest.raises(InputError, match="no longer holds the pairs"):
        check_same_run(tmp_path, settings_from(resume=True), "other")


def test_checkpoints_of_a_sharded_model_are_whole_too(tmp_path: Path) -> None:
    """FSDP writes optimizer.bin and DeepSpeed global_step folders; --resume used to delete every one of them."""
    fsdp = make_checkpoint(
        tmp_path, 5, **{"adapter_model.safetensors": None, "optimizer.pt": None, "optimizer.bin": "x"}
    )
    assert newest_whole_checkpoint(tmp_path)[0] == fsdp
    deepspeed = make_checkpoint(tmp_path, 8, **{"optimizer.pt": None, "scheduler.pt": None})
    (deepspeed / "global_step8").mkdir()
    assert newest_whole_checkpoint(tmp_path)[0] == deepspeed


def test_only_the_main_process_removes_what_was_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes that removed the same folder made each other fail."""
    whole, cut_off = make_checkpoint(tmp_path, 5), make_checkpoint(tmp_path, 10, **{"optimizer.pt": None})
    monkeypatch.setenv("RANK", "1")
    assert newest_whole_checkpoint(tmp_path)[0] == whole and cut_off.exists()


def test_a_run_is_resumed_with_as_many_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run of one process, stopped at step 40 of 67, was taken for finished by two, which count 34 steps."""
    remember_settings(tmp_path, settings_from(), "data")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match=r"started with 1 processes \(now 2\)"):
        check_same_run(tmp_path, settings_from(), "data")


def test_what_only_saves_memory_may_change(tmp_path: Path) -> None:
    """After running out of memory a smaller token budget is the remedy."""
    remember_settings(tmp_path, settings_from(), "data")
    check_same_run(tmp_path, settings_from(token_budget=256, gradient_checkpointing=True), "data")
