"""What is seen of a training run: TensorBoard, its speed, and the progress bar.

All are callbacks of `transformers.Trainer`, so both trainers are watched in the same way. A trainer adds the tokens of
each micro-batch (padding not counted) to `state.num_input_tokens_seen`.
"""

import sys
import time
from collections.abc import Mapping, Sized
from contextlib import ExitStack, suppress
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Final, Protocol

from transformers import TrainerCallback

from orpo.command.display import Advance, progress_bar
from orpo.training.watching import Arguments, Control, Logs, State

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

# Sums over a whole run, and TRL's mean logit over the padded batch, which says nothing.
_NOT_SHOWN = ("logits/", "train_", "total_flos", "epoch", "eval_runtime", "eval_samples_per", "eval_steps_per")


_CLOSING_SECONDS: Final = 5.0


class Board(Protocol):
    """What shows figures."""

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Show numbers under their tags."""

    def text(self, step: int, tag: str, text: str) -> None:
        """Show a text, written as Markdown."""

    def close(self) -> None:
        """Write what is still in memory."""


class TensorBoardMonitor(TrainerCallback):
    """Writes what is logged to TensorBoard as `train/...` and `eval/...`; what measures something names it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writer: SummaryWriter | None = None

    def on_train_begin(self, args: Arguments, state: State, control: Control, **_: object) -> None:
        """Open the event file; after a resume, what was logged past the checkpoint is hidden."""
        from torch.utils.tensorboard import SummaryWriter

        purge = state.global_step + 1 if state.global_step else None
        self._writer = SummaryWriter(log_dir=str(self._folder), purge_step=purge, flush_secs=5)

    def on_log(self, args: Arguments, state: State, control: Control, logs: Logs = None, **_: object) -> None:
        """Write what the trainer logged."""
        shown = {key: value for key, value in (logs or {}).items() if not _is_hidden(key)}
        self.scalars(state.global_step, {_tag(key): value for key, value in shown.items()})

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Write numbers under their tags."""
        for tag, value in values.items():
            if self._writer is not None and isinstance(value, int | float):
                self._writer.add_scalar(tag, value, step)

    def text(self, step: int, tag: str, text: str) -> None:
        """Write a text, as Markdown."""
        if self._writer is not None:
            self._writer.add_text(tag, text, step)

    def close(self) -> None:
        """Write what is still in memory; where an exception ends the run, for a few seconds at most.

        A second Ctrl-C within the writer may leave the lock of its queue taken, and closing would wait for it for ever.
        """
        writer, self._writer = self._writer, None
        if writer is not None and sys.exc_info()[0] is None:
            writer.close()
        elif writer is not None:
            closing = Thread(target=_close_quietly, args=(writer,), daemon=True)
            closing.start()
            closing.join(_CLOSING_SECONDS)


def _close_quietly(writer: "SummaryWriter") -> None:
    with suppress(Exception):  # the run's own failure is what is told
        writer.close()


class ThroughputMonitor(TrainerCallback):
    """Adds tokens per second, prompts and replies without padding, to what is logged; evaluations do not count."""

    def __init__(self, board: Board) -> None:
        self._board = board
        self._begun = 0.0
        self._tokens_then = 0
        self._seconds = 0.0
        self._tokens = 0

    def on_step_begin(self, args: Arguments, state: State, control: Control, **_: object) -> None:
        """Start the clock of a step."""
        self._begun, self._tokens_then = time.perf_counter(), state.num_input_tokens_seen

    def on_step_end(self, args: Arguments, state: State, control: Control, **_: object) -> None:
        """Stop the clock."""
        self._seconds += time.perf_counter() - self._begun
        self._tokens += state.num_input_tokens_seen - self._tokens_then

    def on_log(self, args: Arguments, state: State, control: Control, logs: Logs = None, **_: object) -> None:
        """Report the rate since the last log."""
        if logs and "loss" in logs and self._seconds > 0 and self._tokens:
            rate = self._tokens / self._seconds
            self._board.scalars(state.global_step, {"train/tokens_per_second": rate})
            state.log_history[-1]["tokens_per_second"] = rate
            self._seconds, self._tokens = 0.0, 0


class ProgressMonitor(TrainerCallback):
    """Shows steps and loss on stderr, and between two steps how far an evaluation is, which may take longer."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._advance: Advance | None = None
        self._stats: dict[str, object] = {"loss": "-"}
        self._evaluated = 0

    def on_train_begin(self, args: Arguments, state: State, control: Control, **_: object) -> None:
        """Open the bar, where a resumed run stands already."""
        bar = progress_bar("training", state.max_steps, done=state.global_step)
        self._advance = self._stack.enter_context(bar)

    def on_step_end(self, args: Arguments, state: State, control: Control, **_: object) -> None:
        """Move on by a step."""
        if self._advance is not None:
            self._advance(1, **self._stats)

    def on_prediction_step(
        self, args: Arguments, state: State, control: Control, eval_dataloader: Sized | None = None, **_: object
    ) -> None:
        """Show how many batches are evaluated."""
        self._evaluated += 1
        self.tell("evaluated", self._evaluated, None if eval_dataloader is None else len(eval_dataloader))

    def on_evaluate(self, args: Arguments, state: State, control: Control, **_: object) -> None:
        """Begin to count anew."""
        self._evaluated = 0

    def tell(self, what: str, done: int, total: int | None) -> None:
        """Show how much of something else than steps is done, until the next step."""
        if self._advance is not None:
            of = "" if total is None else f"/{total}"
            self._advance(0, **{**self._stats, what: f"{done}{of}"})

    def on_log(self, args: Arguments, state: State, control: Control, logs: Logs = None, **_: object) -> None:
        """Show the last loss."""
        if self._advance is not None and logs and "loss" in logs:
            shown = {"loss": "loss", "margin": "rewards/margins"}  # sft has no margin
            self._stats = {name: float(logs[key]) for name, key in shown.items() if key in logs}
            self._advance(0, **self._stats)


def _is_hidden(key: str) -> bool:
    name = key.removeprefix("eval_")
    return key.startswith(_NOT_SHOWN) or name.startswith(_NOT_SHOWN)


def _tag(key: str) -> str:
    return f"eval/{key.removeprefix('eval_')}" if key.startswith("eval_") else f"train/{key}"
