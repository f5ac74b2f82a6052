"""What ends a training run early: numbers that are not finite, a model that is ruined, Ctrl-C."""

import math
import signal
from contextlib import suppress
from types import FrameType
from typing import Final

import torch
from torch import nn
from transformers import TrainerCallback

from orpo.command.display import console_err
from orpo.command.errors import TrainingError
from orpo.command.ranks import process_count
from orpo.training.verdict import SPAM_MEAN
from orpo.training.watching import Arguments, Control, Logs, State

RUINED_BY: Final = 2.0
"""Nats per token by which the chosen replies may become less likely: a perplexity seven times as high."""


class FiniteGuard(TrainerCallback):
    """Stops the run before a gradient that is not finite reaches the weights.

    Trainer itself goes on: clipping turns an infinite gradient into NaN, the step writes NaN into every weight, and the
    log shows the mean of earlier losses.
    """

    def on_pre_optimizer_step(
        self, args: Arguments, state: State, control: Control, model: nn.Module | None = None, **_: object
    ) -> None:
        """Look at the gradients after accumulation and clipping, before the step."""
        if args.fp16 or model is None:  # the loss scaler meets infinite gradients all the time, and skips these steps
            return
        gradients = [weight.grad for weight in model.parameters() if weight.grad is not None]
        if gradients and not math.isfinite(float(torch.nn.utils.get_total_norm(gradients))):
            raise _not_finite("gradient", state.global_step + 1, args)

    def on_log(self, args: Arguments, state: State, control: Control, logs: Logs = None, **_: object) -> None:
        """Look at the losses."""
        for key in ("loss", "eval_loss"):
            if logs and not math.isfinite(logs.get(key, 0.0)):
                raise _not_finite(key.replace("_", " "), state.global_step, args)


class RuinGuard(TrainerCallback):
    """Stops a run whose numbers are finite and whose model is lost: chosen replies became far less likely.

    Too high a rate does that within a few steps, and the run would end well with an adapter that writes noise. Losses
    that look at differences alone let chosen replies become somewhat less likely; not that much.
    """

    def __init__(self) -> None:
        self._first: dict[str, float] = {}

    def on_log(self, args: Arguments, state: State, control: Control, logs: Logs = None, **_: object) -> None:
        """Compare with what was logged first, before a resume too."""
        for key in ("logps/chosen", "eval_logps/chosen"):
            if not logs or key not in logs:
                continue
            earlier = next((entry[key] for entry in state.log_history if key in entry), logs[key])
            first = self._first.setdefault(key, earlier)
            if first - logs[key] > RUINED_BY:
                raise TrainingError(
                    f"training ruined the model: a token of the chosen replies had a log-probability of {first:.1f}, "
                    f"and has {logs[key]:.1f} at step {state.global_step}; start again with a lower learning rate (now "
                    f"{args.learning_rate:g}) and `overwrite`"
                )


class SpamGuard(TrainerCallback):
    """Stops a run on sampled replies in which the score is won by emojis for their own sake, or the model is lost."""

    def on_log(self, args: Arguments, state: State, control: Control, logs: Logs = None, **_: object) -> None:
        """Look at the replies that were sampled since the last log."""
        emojis, distance = ((logs or {}).get(key, 0.0) for key in ("samples/mean_emojis", "kl"))
        if emojis > SPAM_MEAN:
            raise TrainingError(
                f"training found spam: the replies sampled up to step {state.global_step} hold {emojis:.1f} emojis "
                "each; choose a `scorer` that minds their number, or a higher `kl_weight`, and start again with "
                "`overwrite`"
            )
        if distance > RUINED_BY:
            raise TrainingError(
                f"training ruined the model: at step {state.global_step} its sampled replies are {distance:.1f} nats a "
                f"token from the reference; start again with a lower learning rate (now {args.learning_rate:g}) or a "
                "higher `kl_weight`, and `overwrite`"
            )


class StopRequest(TrainerCallback):
    """Lets Ctrl-C or a termination signal end the run after the step at hand, with a checkpoint; twice, at once."""

    def __init__(self) -> None:
        self._asked: int | None = None
        self._earlier: dict[int, signal._HANDLER] = {}

    @property
    def asked(self) -> bool:
        """Whether somebody wants the run to stop."""
        return self._asked is not None

    def __enter__(self) -> "StopRequest":
        for number in (signal.SIGINT, signal.SIGTERM):
            with suppress(ValueError):  # not the main thread: whoever started this one handles signals
                self._earlier[number] = signal.signal(number, self._ask)
        return self

    def __exit__(self, *_: object) -> None:
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

    def on_step_end(self, args: Arguments, state: State, control: Control, **_: object) -> None:
        """Write a checkpoint and stop, if asked; an evaluation that is due comes first, or `--resume` would lack it."""
        self._hear_the_others(args)
        if self.asked:
            control.should_save = control.should_training_stop = True

    def _hear_the_others(self, args: Arguments) -> None:
        """Let all processes stop after the same step: one that went on alone would wait for the others for ever."""
        if process_count() > 1 and torch.distributed.is_initialized():
            asked = torch.tensor(self._asked or 0, device=args.device)
            torch.distributed.all_reduce(asked, torch.distributed.ReduceOp.MAX)
            self._asked = int(asked) or None

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            self.raise_if_asked()
        self._asked = number
        with suppress(RuntimeError):  # it came while another line was being written to a pipe that nobody empties
            console_err.print("stopping after this step with a checkpoint; once more stops at once", soft_wrap=True)


def _not_finite(what: str, step: int, args: Arguments) -> TrainingError:
    return TrainingError(
        f"the {what} of step {step} is not a finite number, so training cannot go on; start again with a lower "
        f"learning rate (now {args.learning_rate:g}), or in float32 if another was chosen"
    )
