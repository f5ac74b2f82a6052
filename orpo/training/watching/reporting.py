"""Where the figures go: TensorBoard in the run folder; trackio, wandb and mlflow by transformers' own callbacks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from transformers import TrainerCallback
from transformers.integrations.integration_utils import get_reporting_integration_callbacks

from orpo.command.errors import InputError
from orpo.training.watching import Arguments, Control, Logs, State
from orpo.training.watching.tensorboard import Board, TensorBoardMonitor


@dataclass(frozen=True)
class Boards:
    """All boards of a run as one."""

    boards: Sequence[Board] = ()

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Show numbers on each."""
        for board in self.boards:
            board.scalars(step, values)

    def text(self, step: int, tag: str, text: str) -> None:
        """Show a text on each."""
        for board in self.boards:
            board.text(step, tag, text)

    def close(self) -> None:
        """Close each."""
        for board in self.boards:
            board.close()


class Reporter(TrainerCallback):
    """One of transformers' callbacks by name, which also gets what is measured beside the trainer's own log.

    Where it sends what, under which project and account, its own environment variables say.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._callback: TrainerCallback | None = None
        self._run: tuple[Arguments, State, Control] | None = None

    def on_train_begin(self, args: Arguments, state: State, control: Control, **rest: object) -> None:
        """Begin a run there; InputError where that is refused: no account, no server."""
        try:
            (kind,) = get_reporting_integration_callbacks([self._name])  # type: ignore[no-untyped-call]
            self._callback = kind()
            assert self._callback is not None
            self._callback.on_train_begin(args, state, control, **rest)
        except Exception as problem:  # whatever the package says of its account, its server or its own imports
            reason = (str(problem).strip().splitlines() or [type(problem).__name__])[0][:200]
            raise InputError(f"{self._name}: cannot be reported to ({reason})", setting="report_to") from None
        self._run = args, state, control

    def on_log(self, args: Arguments, state: State, control: Control, logs: Logs = None, **rest: object) -> None:
        """Pass on what the trainer logs."""
        if self._callback is not None:
            self._callback.on_log(args, state, control, logs=dict(logs or {}), **rest)

    def on_train_end(self, args: Arguments, state: State, control: Control, **rest: object) -> None:
        """End the run there."""
        if self._callback is not None:
            self._callback.on_train_end(args, state, control, **rest)
            self._run = None

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Pass on other figures, at the step at hand."""
        if self._callback is not None and self._run is not None:
            shown = {name.removeprefix("train/"): value for name, value in values.items()}  # wandb and trackio add it
            self._callback.on_log(*self._run, logs=shown)

    def text(self, step: int, tag: str, text: str) -> None:
        """Leave texts to TensorBoard: each of these packages has a form of its own for them."""

    def close(self) -> None:
        """End the run there when it failed here."""
        if self._run is not None:
            self.on_train_end(*self._run)


def make_boards(names: Sequence[str], tensorboard: Path) -> list[TensorBoardMonitor | Reporter]:
    """Return the boards of these names; all are callbacks too."""
    return [
        TensorBoardMonitor(tensorboard) if name == "tensorboard" else Reporter(name) for name in names if name != "none"
    ]
