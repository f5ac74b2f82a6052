"""Where figures go: the packages' own callbacks are fed, a package that is absent or refuses is one line."""

import json
import sys
import types
from pathlib import Path
from typing import Any

import pytest
from transformers import TrainerControl, TrainerState, TrainingArguments

from orpo.command.errors import InputError, SettingsError
from orpo.training.data import check_reporters
from orpo.training.run import train
from orpo.training.watching.reporting import Boards, Reporter, make_boards
from orpo.training.watching.tensorboard import TensorBoardMonitor
from tests.training.small_models import settings_from
from tests.training.test_run import make_settings


class Trackio(types.ModuleType):
    """The calls of trackio that transformers makes."""

    def __init__(self, refusal: str = "") -> None:
        super().__init__("trackio")
        self.__spec__ = types.SimpleNamespace(name="trackio")  # type: ignore[assignment]
        self.__version__ = "0.30.0"
        self.refusal, self.logged, self.finished = refusal, [], 0  # type: ignore[var-annotated]
        self.config = _Config()
        self.context_vars = types.SimpleNamespace(current_space_id=types.SimpleNamespace(get=lambda: None))

    def init(self, **_: Any) -> None:
        if self.refusal:
            raise RuntimeError(self.refusal)

    def log(self, values: dict[str, Any]) -> None:
        self.logged.append(values)

    def finish(self) -> None:
        self.finished += 1


class _Config(dict[str, Any]):
    def update(self, values: Any, allow_val_change: bool = False) -> None:  # type: ignore[override]
        super().update(values)


@pytest.fixture
def trackio(monkeypatch: pytest.MonkeyPatch) -> Trackio:
    module = Trackio()
    monkeypatch.setitem(sys.modules, "trackio", module)
    return module


def test_a_run_reports_losses_and_replies_to_a_package_in_place_of_tensorboard(
    trackio: Trackio, tiny_model_folder: Path, pairs_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the trainer logs and what is sampled beside it both arrive; run.json names the package and no secret."""
    monkeypatch.setenv("WANDB_API_KEY", "very-secret")
    settings = make_settings(tiny_model_folder, pairs_file, tmp_path / "run", max_steps=2, report_to=["trackio"])
    result = train(settings)
    names = {name for entry in trackio.logged for name in entry}
    assert {"train/loss", "eval/loss", "train/replies/emoji_rate", "train/tokens_per_second"} <= names
    assert trackio.finished == 1 and not (result.folder / "tensorboard").exists()
    record = (result.folder / "run.json").read_text(encoding="utf-8")
    assert json.loads(record)["settings"]["report_to"] == ["trackio"] and "very-secret" not in record
    assert "very-secret" not in json.dumps(trackio.config, default=str)


def test_a_package_that_refuses_is_one_line(trackio: Trackio, tmp_path: Path) -> None:
    trackio.refusal = "no account\nTraceback"
    arguments = TrainingArguments(output_dir=str(tmp_path), report_to=[], use_cpu=True)
    with pytest.raises(InputError, match=r"report_to trackio: cannot be reported to \(no account\)$"):
        Reporter("trackio").on_train_begin(arguments, TrainerState(), TrainerControl())


def test_a_package_that_is_not_installed_is_named_with_the_way_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orpo.training.data.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"report_to mlflow: needs the package mlflow; `uv sync --extra mlflow` or"):
        check_reporters(settings_from(report_to=["mlflow"]))
    check_reporters(settings_from(report_to=["none"]))


@pytest.mark.parametrize("names", [["none", "wandb"], []])
def test_none_stands_alone(names: list[str]) -> None:
    with pytest.raises(SettingsError, match=r"--report-to"):
        settings_from(report_to=names)


def test_several_boards_show_the_same(tmp_path: Path) -> None:
    class Kept:
        def __init__(self) -> None:
            self.seen: list[object] = []

        def scalars(self, step: int, values: Any) -> None:
            self.seen.append((step, dict(values)))

        def text(self, step: int, tag: str, text: str) -> None:
            self.seen.append((tag, text))

        def close(self) -> None:
            self.seen.append("closed")

    kept = Kept(), Kept()
    boards = Boards(kept)
    boards.scalars(3, {"a": 1.0})
    boards.text(3, "replies", "Hi")
    boards.close()
    assert kept[0].seen == kept[1].seen == [(3, {"a": 1.0}), ("replies", "Hi"), "closed"]
    made = make_boards(["tensorboard", "trackio"], tmp_path)
    assert [type(board) for board in made] == [TensorBoardMonitor, Reporter] and not make_boards(["none"], tmp_path)
