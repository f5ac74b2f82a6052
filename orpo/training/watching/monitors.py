"""What watches a training run: TensorBoard, the progress bar, the guard against non-finite numbers, and Ctrl-C.

All of it are callbacks of `transformers.Trainer`, so both trainers are watched in the same way. A trainer adds the
tokens of each micro-batch (padding not counted) to `state.num_input_tokens_seen`.
"""

import math
import signal
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from orpo.command.display import Advance, console_err, progress_bar
from orpo.command.errors import TrainingError
from orpo.command.ranks import process_count

# Sums over a whole run, and TRL's mean logit over the padded batch, which says nothing.
_NOT_SHOWN = ("logits/", "train_", "total_flos", "epoch", "eval_runtime", "eval_samples_per", "eval_steps_per")


class TensorBoardMonitor(TrainerCallback):
    """Writes what is logged to TensorBoard as `train/...` and `eval/...`; the probes name what they measure."""

    def __init__(self, folder: Path) -> None:
        """Write events below the folder once training begins."""
        self._folder = folder
        self._writer: Any = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Open the event file; after a resume, what was logged past the checkpoint is hidden."""
        from torch.utils.tensorboard import SummaryWriter

        purge = state.global_step + 1 if state.global_step else None
        self._writer = SummaryWriter(log_dir=str(self._folder), purge_step=purge, flush_secs=5)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Write what the trainer logged."""
        shown = {key: value for key, value in (logs or {}).items() if not _is_hidden(key)}
        self.scalars(state.global_step, {_tag(key): value for key, value in shown.items()})

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """Write numbers under their tags."""
        for tag, value in values.items():
            if self._writer is not None and isinstance(value, int | float):
                self._writer.add_scalar(tag, value, step)

    def text(self, step: int, tag: str, text: str) -> None:
        """Write a text, as Markdown."""
        if self._writer is not None:
            self._writer.add_text(tag, text, step)

    def close(self) -> None:
        """Write what is still in memory."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None


class ThroughputMonitor(TrainerCallback):
    """Adds tokens per second, prompts and replies without padding, to what is logged; evaluations do not count."""

    def __init__(self, board: TensorBoardMonitor) -> None:
        """Report to the board."""
        self._board = board
        self._begun = 0.0
        self._tokens_then = 0
        self._seconds = 0.0
        self._tokens = 0

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Start the clock of a step."""
        self._begun, self._tokens_then = time.perf_counter(), state.num_input_tokens_seen

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Stop the clock."""
        self._seconds += time.perf_counter() - self._begun
        self._tokens += state.num_input_tokens_seen - self._tokens_then

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Report the rate since the last log."""
        if logs and "loss" in logs and self._seconds > 0 and self._tokens:
            rate = self._tokens / self._seconds
            self._board.scalars(state.global_step, {"train/tokens_per_second": rate})
            state.log_history[-1]["tokens_per_second"] = rate
            self._seconds, self._tokens = 0.0, 0


class ProgressMonitor(TrainerCallback):
    """Shows steps and loss on stderr."""

    def __init__(self, stack: ExitStack, description: str = "training") -> None:
        """Show a bar until the stack is closed."""
        self._stack = stack
        self._description = description
        self._advance: Advance | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Open the bar, where a resumed run stands already."""
        self._advance = self._stack.enter_context(progress_bar(self._description, state.max_steps))
        if state.global_step:
            self._advance(state.global_step)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Move on by a step."""
        if self._advance is not None:
            self._advance()

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Show the last loss."""
        if self._advance is not None and logs and "loss" in logs:
            self._advance(0, loss=float(logs["loss"]), margin=float(logs.get("rewards/margins", math.nan)))


class FiniteGuard(TrainerCallback):
    """Stops the run before a gradient that is not finite reaches the weights.

    Trainer itself goes on: clipping turns an infinite gradient into NaN, the step writes NaN into every weight, and the
    log shows the mean of earlier losses.
    """

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **kwargs: Any
    ) -> None:
        """Look at the gradients after accumulation and clipping, before the step."""
        if args.fp16:  # the loss scaler meets infinite gradients all the time, and skips these steps
            return
        gradients = [weight.grad for weight in model.parameters() if weight.grad is not None]
        if gradients and not math.isfinite(float(torch.nn.utils.get_total_norm(gradients))):
            raise _not_finite("gradient", state.global_step + 1, args)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Look at the losses."""
        for key in ("loss", "eval_loss"):
            if logs and not math.isfinite(logs.get(key, 0.0)):
                raise _not_finite(key.replace("_", " "), state.global_step, args)


class StopRequest(TrainerCallback):
    """Lets Ctrl-C or a termination signal end the run after the step at hand, with a checkpoint; twice, at once."""

    def __init__(self) -> None:
        """Nothing has been asked yet."""
        self._asked: int | None = None
        self._earlier: dict[int, Any] = {}

    @property
    def asked(self) -> bool:
        """Whether somebody wants the run to stop."""
        return self._asked is not None

    def __enter__(self) -> "StopRequest":
        """Take over the signals."""
        for number in (signal.SIGINT, signal.SIGTERM):
            with suppress(ValueError):  # not the main thread: whoever started this one handles signals
                self._earlier[number] = signal.signal(number, self._ask)
        return self

    def __exit__(self, *_: object) -> None:
        """Give the signals back."""
        for number, handler in self._earlier.items():
            signal.signal(number, handler)
        self._earlier.clear()

    def raise_if_asked(self) -> None:
        """End the run as the signal would have done at once, now that the checkpoint is written."""
        if self._asked is None:
            return
        number, self._asked = self._asked, None
        handler = self._earlier.get(number)
        if callable(handler):
            handler(number, None)
        raise KeyboardInterrupt

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Write a checkpoint and stop, if asked."""
        self._hear_the_others(args)
        if self.asked:
            control.should_save = control.should_training_stop = True
            control.should_evaluate = False

    def _hear_the_others(self, args: TrainingArguments) -> None:
        """Let all processes stop after the same step: one that went on alone would wait for the others for ever."""
        if process_count() > 1 and torch.distributed.is_initialized():
            asked = torch.tensor(self._asked or 0, device=args.device)
            torch.distributed.all_reduce(asked, torch.distributed.ReduceOp.MAX)
            self._asked = int(asked) or None

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            self.raise_if_asked()
        self._asked = number
        console_err.print("stopping after this step with a checkpoint; once more stops at once", soft_wrap=True)


def _is_hidden(key: str) -> bool:
    name = key.removeprefix("eval_")
    return key.startswith(_NOT_SHOWN) or name.startswith(_NOT_SHOWN)


def _tag(key: str) -> str:
    return f"eval/{key.removeprefix('eval_')}" if key.startswith("eval_") else f"train/{key}"


def _not_finite(what: str, step: int, args: TrainingArguments) -> TrainingError:
    return TrainingError(
        f"the {what} of step {step} is not a finite number, so training cannot go on; start again with a lower "
        f"--learning-rate (now {args.learning_rate:g}), or with --dtype float32 if another was chosen"
    )
