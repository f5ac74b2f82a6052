"""Sums of what is logged, kept with each checkpoint, so that a resumed run logs what an unbroken one does.

Trainer itself forgets them: a run that goes on from a checkpoint between two logs would log the mean of fewer steps.
"""

import json
from collections import defaultdict
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Literal

import torch
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, TrainOutput

from orpo.training.checkpoints import seal_checkpoint

Side = Literal["train", "eval"]

_FILE: Final = "pending_log.json"


class KeptLog(TrainerCallback):
    """Weighted means of named values, for training and for evaluation; the last thing that a checkpoint waits for."""

    def __init__(self) -> None:
        self._sums: dict[Side, dict[str, tuple[float, float]]] = {"train": {}, "eval": {}}

    def add(self, side: Side, sums: dict[str, float], weight: float = 1.0) -> None:
        """Add sums of values over `weight` pairs, tokens or steps."""
        kept = self._sums[side]
        for name, value in sums.items():
            earlier, count = kept.get(name, (0.0, 0.0))
            kept[name] = (earlier + value, count + weight)

    def take_means(self, side: Side, trainer: Trainer) -> dict[str, float]:
        """Return the means over all processes, and begin again."""
        sums, self._sums[side] = self._sums[side], {}
        if trainer.accelerator.num_processes > 1:
            sums = _over_processes(sums, trainer)
        return {name: total / count for name, (total, count) in sums.items() if count}

    def restore(self, checkpoint: Path, process: int) -> None:
        """Take up the sums of the checkpoint that the run goes on from."""
        file = checkpoint / f"{process}_{_FILE}"
        if file.is_file():
            kept = json.loads(file.read_text(encoding="utf-8"))
            self._sums["train"] = {name: (total, count) for name, (total, count) in kept.items()}

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object) -> None:
        """Write the sums into the checkpoint, then seal it: it is whole now."""
        folder = Path(str(args.output_dir)) / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}"
        file = folder / f"{args.process_index}_{_FILE}"
        file.write_text(json.dumps(self._sums["train"]), encoding="utf-8")
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.barrier()
        if state.is_world_process_zero:
            seal_checkpoint(folder)


class LoggingTrainer(Trainer):
    """A Trainer that logs the means of what its steps note, after a resume too."""

    @cached_property
    def kept_log(self) -> KeptLog:
        """What was noted since the last log."""
        return KeptLog()

    def train(self, resume_from_checkpoint: str | bool | None = None, *rest: Any, **named: Any) -> TrainOutput:
        """Train, and log after a resume what an unbroken run would."""
        if isinstance(resume_from_checkpoint, str):
            self.kept_log.restore(Path(resume_from_checkpoint), self.args.process_index)
        return super().train(resume_from_checkpoint, *rest, **named)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log, with the means of what was noted since the last time under TRL's names."""
        side: Side = "train" if "loss" in logs else "eval"
        prefix = "" if side == "train" else "eval_"
        logs.update({prefix + name: value for name, value in self.kept_log.take_means(side, self).items()})
        super().log(logs, start_time)


def _over_processes(sums: dict[str, tuple[float, float]], trainer: Trainer) -> dict[str, tuple[float, float]]:
    """Add up the sums of all processes; one that had nothing to do takes part with none."""
    everywhere: list[dict[str, tuple[float, float]]] = [{} for _ in range(trainer.accelerator.num_processes)]
    torch.distributed.all_gather_object(everywhere, sums)
    found: defaultdict[str, tuple[float, float]] = defaultdict(lambda: (0.0, 0.0))
    for one in everywhere:
        for name, (total, count) in one.items():
            found[name] = (found[name][0] + total, found[name][1] + count)
    return dict(found)
