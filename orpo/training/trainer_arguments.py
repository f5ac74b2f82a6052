"""What both trainers are built of, and one translation of our settings into the arguments of `transformers.Trainer`."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import torch
from accelerate import DistributedType
from transformers import PreTrainedTokenizerBase, PrinterCallback, ProgressCallback, TrainerCallback, TrainingArguments

from orpo.command.errors import SettingsError
from orpo.command.ranks import is_model_sharded, process_count
from orpo.training.examples import Example
from orpo.training.kept_log import LoggingTrainer
from orpo.training.settings import TrainSettings

if TYPE_CHECKING:
    from peft import PeftModel

_Arguments = TypeVar("_Arguments", bound=TrainingArguments)

_EVALUATIONS = 4


@dataclass(frozen=True)
class TrainerParts:
    """What either trainer is built of.

    Attributes:
        model: A model with a LoRA adapter, on its device.
        tokenizer: Its tokenizer, which is saved with each checkpoint.
        train: The pairs to train on.
        evaluation: The pairs to evaluate on, perhaps none.
        settings: The run's settings.
        folder: The run folder, where checkpoints go.
        watchers: What watches the run.
        learning_rate: The peak rate.
        is_resumed: Whether training goes on from a checkpoint, so that step 0 is behind it.
    """

    model: "PeftModel"
    tokenizer: PreTrainedTokenizerBase
    train: Sequence[Example]
    evaluation: Sequence[Example]
    settings: TrainSettings
    folder: Path
    watchers: Sequence[TrainerCallback]
    learning_rate: float
    is_resumed: bool = False


def trainer_arguments(
    kind: Callable[..., _Arguments], parts: TrainerParts, *, batches_are_steps: bool = False
) -> _Arguments:
    """Return TrainingArguments, or those of a class derived from it, as the settings say.

    Where one batch holds a whole step, accumulation is another word for a larger batch.
    """
    settings, optimiser, watch = parts.settings, parts.settings.optimiser, parts.settings.watch
    total = _count_steps(settings, len(parts.train))
    every = watch.eval_steps or max(math.ceil(total / _EVALUATIONS), 1)
    on_gpu = settings.compute.device in ("auto", "cuda") and torch.cuda.is_available()
    dtype = compute_dtype(parts.model)
    accumulated = optimiser.gradient_accumulation_steps
    stops_early = watch.early_stopping is not None
    arguments = kind(
        output_dir=str(parts.folder),
        learning_rate=parts.learning_rate,
        lr_scheduler_type="constant_with_warmup" if optimiser.schedule == "constant" else optimiser.schedule,
        warmup_steps=round(optimiser.warmup_share * total),
        weight_decay=optimiser.weight_decay,
        max_grad_norm=optimiser.max_gradient_norm,
        num_train_epochs=optimiser.epochs,
        max_steps=optimiser.max_steps or -1,
        per_device_train_batch_size=optimiser.batch_size * (accumulated if batches_are_steps else 1),
        per_device_eval_batch_size=optimiser.batch_size,
        gradient_accumulation_steps=1 if batches_are_steps else accumulated,
        gradient_checkpointing=settings.compute.gradient_checkpointing,
        bf16=dtype == "bfloat16" and on_gpu,  # autocast, so the fp32 adapter is multiplied in bf16
        fp16=dtype == "float16",
        use_cpu=settings.compute.device == "cpu",
        seed=settings.seed,
        data_seed=settings.seed,
        eval_strategy="steps" if parts.evaluation else "no",
        eval_steps=every,
        eval_on_start=bool(parts.evaluation) and not parts.is_resumed,
        save_strategy="steps",
        save_steps=watch.save_steps or every,
        save_total_limit=watch.keep_checkpoints,
        load_best_model_at_end=stops_early,
        metric_for_best_model="eval_loss" if stops_early else None,
        greater_is_better=False if stops_early else None,
        restore_callback_states_from_checkpoint=stops_early,  # the evaluations counted before a resume
        logging_strategy="steps",
        logging_steps=watch.logging_steps,
        logging_first_step=True,
        logging_nan_inf_filter=False,  # it would show the mean of earlier steps in place of a NaN
        disable_tqdm=True,
        report_to=[],  # orpo/training/watching does: it passes on more than Trainer logs
        remove_unused_columns=False,
        dataloader_num_workers=0,
        dataloader_pin_memory=on_gpu,
    )
    if torch.cuda.is_available():  # several GPUs go through `accelerate launch`, never through nn.DataParallel
        arguments._n_gpu = 1
    return arguments


def compute_dtype(model: "PeftModel") -> str:
    """Return the type that a model computes in, as torch names it; nothing computes in 4-bit weights."""
    quantized = getattr(model.config, "quantization_config", None)
    dtype = getattr(quantized, "bnb_4bit_compute_dtype", None) or next(model.parameters()).dtype
    return str(dtype).removeprefix("torch.")


def finish_trainer(trainer: LoggingTrainer) -> LoggingTrainer:
    """Take out what Trainer prints with, and seal checkpoints once everything else has been written."""
    made = trainer.accelerator.distributed_type
    if is_model_sharded() and made not in (DistributedType.FSDP, DistributedType.DEEPSPEED):
        raise SettingsError(
            f"FSDP: is asked for in the environment, and not done on {trainer.args.device.type} ({made.value}): "
            "accelerate cuts models over GPUs only; start with torchrun, each process with the whole model"
        )
    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(ProgressCallback)
    trainer.add_callback(trainer.kept_log)
    return trainer


def _count_steps(settings: TrainSettings, train_count: int) -> int:
    """Return the optimiser steps of the run."""
    micro_batches = math.ceil(train_count / (settings.optimiser.batch_size * process_count()))
    per_epoch = max(math.ceil(micro_batches / settings.optimiser.gradient_accumulation_steps), 1)
    return settings.optimiser.max_steps or max(math.ceil(settings.optimiser.epochs * per_epoch), 1)
