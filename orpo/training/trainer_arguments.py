"""What both trainers are told: one translation of our settings into the arguments of `transformers.Trainer`."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orpo.command.ranks import process_count
from orpo.training.settings import TrainSettings

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import Trainer, TrainingArguments

    from orpo.training.kept_log import KeptLog

_EVALUATIONS = 4


def count_steps(settings: TrainSettings, train_count: int, processes: int = 1) -> int:
    """Return the optimiser steps of the run."""
    micro_batches = math.ceil(train_count / (settings.optimiser.batch_size * processes))
    per_epoch = max(math.ceil(micro_batches / settings.optimiser.gradient_accumulation_steps), 1)
    return settings.optimiser.max_steps or max(math.ceil(settings.optimiser.epochs * per_epoch), 1)


def evaluation_steps(settings: TrainSettings, total_steps: int) -> int:
    """Return after how many steps an evaluation comes round."""
    return settings.watch.eval_steps or max(math.ceil(total_steps / _EVALUATIONS), 1)


def trainer_arguments(
    settings: TrainSettings,
    output_dir: Path,
    *,
    train_count: int,
    has_eval: bool,
    learning_rate: float,
    dtype: str = "float32",
    is_resumed: bool = False,
) -> dict[str, Any]:
    """Return keyword arguments for TrainingArguments, or for a class derived from it.

    Args:
        settings: The run's settings.
        output_dir: The run folder, where checkpoints go.
        train_count: How many pairs are trained on.
        has_eval: Whether there are pairs to evaluate on.
        learning_rate: The peak rate.
        dtype: The base model's type, as torch names it without `torch.`.
        is_resumed: Whether training goes on from a checkpoint, so that step 0 is behind it.
    """
    total = count_steps(settings, train_count, process_count())
    every = evaluation_steps(settings, total)
    on_gpu = _uses_cuda(settings)
    return {
        "output_dir": str(output_dir),
        "learning_rate": learning_rate,
        "lr_scheduler_type": "constant_with_warmup"
        if settings.optimiser.schedule == "constant"
        else settings.optimiser.schedule,
        "warmup_steps": round(settings.optimiser.warmup_share * total),
        "weight_decay": settings.optimiser.weight_decay,
        "max_grad_norm": settings.optimiser.max_gradient_norm,
        "num_train_epochs": settings.optimiser.epochs,
        "max_steps": settings.optimiser.max_steps or -1,
        "per_device_train_batch_size": settings.optimiser.batch_size,
        "per_device_eval_batch_size": settings.optimiser.batch_size,
        "gradient_accumulation_steps": settings.optimiser.gradient_accumulation_steps,
        "gradient_checkpointing": settings.compute.gradient_checkpointing,
        "bf16": dtype == "bfloat16" and on_gpu,  # autocast, so the fp32 adapter is multiplied in bf16
        "fp16": dtype == "float16",
        "use_cpu": settings.compute.device == "cpu",
        "seed": settings.seed,
        "data_seed": settings.seed,
        "eval_strategy": "steps" if has_eval else "no",
        "eval_steps": every,
        "eval_on_start": has_eval and not is_resumed,
        "save_strategy": "steps",
        "save_steps": settings.watch.save_steps or every,
        "save_total_limit": settings.watch.keep_checkpoints,
        "logging_strategy": "steps",
        "logging_steps": settings.watch.logging_steps,
        "logging_first_step": True,
        "logging_nan_inf_filter": False,  # it would show the mean of earlier steps in place of a NaN
        "disable_tqdm": True,
        "report_to": [],  # orpo/training/watching writes TensorBoard
        "remove_unused_columns": False,
        "dataloader_num_workers": 0,
        "dataloader_pin_memory": on_gpu,
    }


def compute_dtype(model: "PeftModel") -> str:
    """Return the type that a model computes in, as torch names it; 4-bit weights are no type to compute in."""
    quantized = getattr(model.config, "quantization_config", None)
    dtype = getattr(quantized, "bnb_4bit_compute_dtype", None) or next(model.parameters()).dtype
    return str(dtype).removeprefix("torch.")


def keep_to_one_gpu(arguments: "TrainingArguments") -> None:
    """Have each process use one GPU: several go through `accelerate launch`, never through nn.DataParallel."""
    import torch

    if torch.cuda.is_available():
        arguments._n_gpu = 1


def finish_trainer(trainer: "Trainer", kept_log: "KeptLog") -> None:
    """Take out what Trainer prints with, and seal checkpoints once everything else has been written."""
    from transformers import PrinterCallback, ProgressCallback

    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(ProgressCallback)
    trainer.add_callback(kept_log)


def _uses_cuda(settings: TrainSettings) -> bool:
    import torch

    return settings.compute.device in ("auto", "cuda") and torch.cuda.is_available()
