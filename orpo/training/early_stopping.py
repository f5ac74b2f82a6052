"""Early stopping by transformers' own callback: the checkpoint with the lowest evaluation loss is what is kept."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from transformers import EarlyStoppingCallback, TrainerState

from orpo.command.errors import InputError
from orpo.training.settings import TrainSettings


@dataclass(frozen=True)
class BestCheckpoint:
    """Which checkpoint's adapter a run with early stopping writes.

    Attributes:
        step: The step of the lowest evaluation loss.
        loss: That loss.
        last_step: The last step that was trained.
        planned_steps: The steps that the run had before it.
    """

    step: int
    loss: float
    last_step: int
    planned_steps: int

    def __str__(self) -> str:
        """Say it in words."""
        told = f"the adapter is that of step {self.step}, whose evaluation loss, {self.loss:.4g}, was the lowest"
        if self.last_step < self.planned_steps:
            return f"stopped at step {self.last_step} of {self.planned_steps}; {told}"
        return f"not before the last step, {self.last_step}; {told}"


def check_evaluation(settings: TrainSettings, evaluation: Sequence[object]) -> None:
    """Raise InputError where there is nothing to evaluate on."""
    if settings.watch.early_stopping is not None and not evaluation:
        raise InputError(
            f"{settings.watch.early_stopping}: needs evaluation pairs, and all pairs have the same prompt, so none is "
            "kept for evaluation; add pairs with other prompts, or leave it out",
            setting="early_stopping",
        )


def early_stopping(settings: TrainSettings) -> list[EarlyStoppingCallback]:
    """Return the callback that stops the run; none where that is not asked."""
    patience = settings.watch.early_stopping
    return [] if patience is None else [EarlyStoppingCallback(patience)]


def is_stopped(state: TrainerState) -> bool:
    """Tell whether a checkpoint is that of the step at which early stopping ended its run."""
    saved = cast(Mapping[str, object], state.stateful_callbacks or {})  # a mapping once it was read from a file
    kept = saved.get(EarlyStoppingCallback.__name__)
    if not isinstance(kept, Mapping):
        return False
    counted = kept["attributes"]["early_stopping_patience_counter"]
    return bool(counted >= kept["args"]["early_stopping_patience"])


def best_checkpoint(settings: TrainSettings, state: TrainerState) -> BestCheckpoint | None:
    """Return which checkpoint was taken; None where the run has no early stopping, or no evaluation took place."""
    if settings.watch.early_stopping is None or state.best_metric is None or state.best_global_step is None:
        return None
    return BestCheckpoint(state.best_global_step, state.best_metric, state.global_step, state.max_steps)
