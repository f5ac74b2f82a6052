"""Early stopping: when it ends a run, whose adapter is written, after a resume too, and what it needs."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from orpo.command.errors import InputError, SettingsError
from orpo.command.output_folder import UNFINISHED_NAME
from orpo.training.run import TrainingResult, train
from orpo.training.settings import TrainSettings
from tests.training.small_models import settings_from
from tests.training.test_run import make_settings, save_pairs, twelve_pairs


def stopping(model: Path, data: Path, out: Path, **changes: Any) -> TrainSettings:
    """Return settings of a run whose evaluation loss rises soon, since the rate is too high for what it has learnt."""
    values: dict[str, Any] = {
        "trainer": "fast",
        "early_stopping": 2,
        "eval_steps": 2,
        "max_steps": 60,
        "learning_rate": 5e-2,
        "schedule": "constant",
        "keep_checkpoints": 2,
        "eval_prompt_count": 0,
        "lora_dropout": 0.0,
    }
    return make_settings(model, data, out, **{**values, **changes})


@pytest.fixture(scope="module")
def stopped(
    tiny_model_folder: Path, tmp_path_factory: pytest.TempPathFactory, pair: Any
) -> tuple[TrainingResult, Path]:
    """Return a run that stopped early, and its data."""
    folder = tmp_path_factory.mktemp("stopped")
    data = twelve_pairs(folder, pair)
    return train(stopping(tiny_model_folder, data, folder / "run")), data


def losses(folder: Path, step: int) -> dict[int, float]:
    """Return the evaluation losses that a checkpoint remembers, without that before the first step."""
    state = json.loads((folder / f"checkpoint-{step}" / "trainer_state.json").read_text(encoding="utf-8"))
    return {e["step"]: e["eval_loss"] for e in state["log_history"] if "eval_loss" in e and e["step"]}


def test_the_adapter_is_the_best_checkpoints_and_the_run_says_so(stopped: tuple[TrainingResult, Path]) -> None:
    result, _ = stopped
    best = result.best
    assert best is not None and best.last_step < best.planned_steps == 60
    found = losses(result.folder, best.last_step)
    assert best.step == min(found, key=lambda step: found[step]) and best.loss == min(found.values())
    assert best.last_step == best.step + 2 * 2, "two evaluations without a better one"
    written, kept, last = (
        load_file(folder / "adapter_model.safetensors")
        for folder in (
            result.folder,
            result.folder / f"checkpoint-{best.step}",
            result.folder / f"checkpoint-{best.last_step}",
        )
    )
    assert all(bool((written[name] == kept[name]).all()) for name in kept)
    assert any(bool((written[name] != last[name]).any()) for name in last)
    assert result.metrics["eval_loss"]["last"] == best.loss
    record = json.loads((result.folder / "run.json").read_text(encoding="utf-8"))
    assert record["facts"]["early_stopping"]["step"] == best.step
    assert f"stopped at step {best.last_step} of 60" in (result.folder / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("before_the_end", [0, 2])
def test_a_killed_run_stops_at_the_same_step_with_the_same_adapter(
    before_the_end: int, stopped: tuple[TrainingResult, Path], tiny_model_folder: Path, tmp_path: Path
) -> None:
    """The evaluations counted so far are kept with the checkpoint; at the end none is added."""
    result, data = stopped
    assert result.best is not None
    killed = tmp_path / "killed"
    shutil.copytree(result.folder, killed, ignore=shutil.ignore_patterns("run.json", "adapter_*", "README.md"))
    for file in killed.glob("checkpoint-*/trainer_state.json"):  # as if it had been trained here
        file.write_text(file.read_text(encoding="utf-8").replace(str(result.folder), str(killed)), encoding="utf-8")
        (file.parent / "whole.json").unlink()
    if before_the_end:
        # Only the best and the last are kept: what lies before the last is the best one.
        shutil.rmtree(killed / f"checkpoint-{result.best.last_step}")
    (killed / UNFINISHED_NAME).write_text("{}")
    resumed = train(stopping(tiny_model_folder, data, killed, resume=True))
    assert resumed.best == result.best and resumed.metrics == result.metrics
    ours, theirs = (folder / "adapter_model.safetensors" for folder in (killed, result.folder))
    assert ours.read_bytes() == theirs.read_bytes()


def test_without_evaluation_pairs_it_is_refused(tiny_model_folder: Path, tmp_path: Path, pair: Any) -> None:
    with pytest.raises(SettingsError, match=r"--early-stopping 3: needs evaluation pairs"):
        settings_from(early_stopping=3, eval_share=0.0)
    with pytest.raises(SettingsError, match=r"--save-steps 5: leave it out"):
        settings_from(early_stopping=3, save_steps=5)
    data = tmp_path / "one.jsonl"
    rows = [pair("The same?", f"Answer {number} 🎉", f"Answer {number}") for number in range(4)]
    save_pairs(data, rows)
    with pytest.raises(
        InputError, match=r"early_stopping 2: needs evaluation pairs, and all pairs have the same prompt"
    ):
        train(stopping(tiny_model_folder, data, tmp_path / "run"))
