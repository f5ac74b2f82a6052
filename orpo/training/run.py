"""One training run from settings to a finished run folder: check, tokenize, load, train, save, record."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Final, Literal, cast

import torch
from accelerate import DistributedType
from peft import PeftModel, load_peft_weights, set_peft_model_state_dict
from transformers import PreTrainedTokenizerBase, Trainer, TrainerCallback, TrainerState, set_seed
from transformers.utils.logging import disable_progress_bar

from orpo.chat_model.loading import add_markers, load_model, load_tokenizer, locate_model, read_tokenizer
from orpo.chat_model.options import resolve_device, resolve_dtype
from orpo.command.display import console_err
from orpo.command.errors import SettingsError
from orpo.command.output_folder import growing_folder
from orpo.command.ranks import is_main_process, is_model_sharded, local_rank, process_count
from orpo.command.run_record import RunRecord
from orpo.records.pairs import Messages
from orpo.training.adapter import add_adapter, check_fit, continue_adapter, make_room, save_adapter, starting_model
from orpo.training.card import RunCounts, median_speed, run_metrics, write_model_card
from orpo.training.checkpoints import check_same_run, newest_whole_checkpoint, remember_settings
from orpo.training.data import TrainingData, check_and_read, held_out_conversations, prepare_data
from orpo.training.data_sets import DataSet, DataSetCounts
from orpo.training.early_stopping import (
    BestCheckpoint,
    best_checkpoint,
    check_evaluation,
    early_stopping,
    is_stopped,
)
from orpo.training.examples import TokenizedPair, TokenizedReply
from orpo.training.fast.memory import MemoryEstimate
from orpo.training.learning_rate import FEW_PAIRS, LearningRate, peak_learning_rate
from orpo.training.objective import label_weights
from orpo.training.settings import TrainSettings
from orpo.training.trainer_arguments import TrainerParts
from orpo.training.verdict import Metrics, verdict
from orpo.training.watching.guards import FiniteGuard, RuinGuard, SpamGuard, StopRequest
from orpo.training.watching.reply_probe import ReplyProbe
from orpo.training.watching.reporting import Boards, make_boards
from orpo.training.watching.tensorboard import ProgressMonitor, ThroughputMonitor

TENSORBOARD_FOLDER: Final = "tensorboard"

_SHOWN_ROWS: Final = 20


@dataclass(frozen=True)
class TrainingResult:
    """A finished run.

    Attributes:
        folder: The run folder: adapter, tokenizer, template, model card, run.json, checkpoints, TensorBoard events.
        metrics: First and last value of what was watched.
        counts: Pairs and steps.
        tokens_per_second: The median speed; None where no step was timed.
        wall_seconds: From the first look at the data to the record.
        verdict: What the run came to, in words.
        sets: What became of each data set.
        best: With early stopping, the checkpoint whose adapter was written.
    """

    folder: Path
    metrics: Metrics
    counts: RunCounts
    tokens_per_second: float | None
    wall_seconds: float
    verdict: str
    sets: Sequence[DataSetCounts]
    best: BestCheckpoint | None = None


def train(settings: TrainSettings, sets: Sequence[DataSet] | None = None) -> TrainingResult:
    """Train an adapter as the settings say. Everything that can be checked is checked before a model is loaded.

    The data sets are what `check_and_read` returned for the settings, where it was called already.
    """
    record = RunRecord("train", settings)
    folder = settings.run_folder
    ready = _make_ready(settings, sets)
    data = ready.data
    record.device, record.data_fingerprint = str(ready.device), data.fingerprint
    if settings.resume and folder.is_dir():
        check_same_run(folder, settings, data.fingerprint)
    with _own_folder(folder, settings) as run_folder:
        if is_main_process():
            remember_settings(run_folder, settings, data.fingerprint)
        model = _load_with_adapter(ready, settings)
        rate = peak_learning_rate(settings, model.config)
        record.facts["learning_rate"] = asdict(rate)
        trainer = _run_trainer(model, ready, settings, run_folder, rate.value)
        return _finish(trainer, ready, settings, run_folder, record, rate)


def estimate(settings: TrainSettings, sets: Sequence[DataSet] | None = None) -> MemoryEstimate:
    """Say what the largest step of the run would take, and train nothing."""
    from orpo.training.fast.trainer import estimate_step

    ready = _make_ready(settings, sets)
    if settings.trainer_on(ready.device.type) != "fast":
        raise SettingsError(
            f"`estimate` knows the memory of the `trainer` fast only, and {ready.device} has trl by default"
        )
    return estimate_step(_load_with_adapter(ready, settings), ready.data.train, settings)


@dataclass(frozen=True)
class _Ready:
    """What is known before the model is loaded."""

    device: torch.device
    dtype: torch.dtype
    model_name: str
    tokenizer: PreTrainedTokenizerBase
    added_tokens: list[int]
    data: TrainingData
    conversations: Sequence[Messages]


def _make_ready(settings: TrainSettings, sets: Sequence[DataSet] | None) -> _Ready:
    sets = check_and_read(settings) if sets is None else sets
    if not console_err.is_terminal:
        disable_progress_bar()  # type: ignore[no-untyped-call]  # transformers' own
    device = resolve_device(settings.compute.device)
    dtype = resolve_dtype(settings.compute.dtype, device)
    if dtype == torch.float16 and device.type != "cuda":
        raise SettingsError("float16: can be trained on CUDA only; choose bfloat16 or float32", setting="dtype")
    if settings.compute.quantize != "none" and device.type != "cuda":
        # bitsandbytes repacks its weights on a CPU at the first evaluation, and has no gradient for them afterwards.
        raise SettingsError(
            f"{settings.compute.quantize}: can be trained on CUDA only; leave it out", setting="quantize"
        )
    if device.type == "cuda" and process_count() > 1:
        device = torch.device("cuda", local_rank())
        torch.cuda.set_device(device)
    name = starting_model(settings)
    locate_model(name)
    tokenizer, added = _prepare_tokenizer(name, settings)
    data = prepare_data(sets, tokenizer, settings)
    check_evaluation(settings, data.evaluation)
    _say_what_was_left_out(data, settings)
    return _Ready(device, dtype, name, tokenizer, added, data, held_out_conversations(settings, data.rows))


def _prepare_tokenizer(name: str, settings: TrainSettings) -> tuple[PreTrainedTokenizerBase, list[int]]:
    """Return the tokenizer, an adapter's own where one is trained further, and the ids of tokens added to it."""
    template, adapter = settings.chat_template, settings.from_adapter
    if adapter is not None and (adapter / "tokenizer_config.json").is_file():
        return read_tokenizer(str(adapter), str(adapter), settings.trust_remote_code, template), []
    tokenizer = load_tokenizer(
        name,
        trust_remote_code=settings.trust_remote_code,
        chat_template=template,
        adds_markers=settings.add_chat_tokens,
    )
    added = add_markers(tokenizer) if settings.add_chat_tokens else []
    if settings.add_chat_tokens:
        texts = ", ".join(map(str, tokenizer.convert_ids_to_tokens(added)))
        told = f"added as tokens, and trained too: {texts}" if added else "the tokenizer lacks no marker; none is added"
        console_err.print(told, soft_wrap=True)
    return tokenizer, added


def _load_with_adapter(ready: _Ready, settings: TrainSettings) -> PeftModel:
    set_seed(settings.seed)
    base = load_model(
        ready.model_name,
        device="cpu" if is_model_sharded() else ready.device,  # a model that is cut up may not fit on one GPU
        dtype=ready.dtype,
        trust_remote_code=settings.trust_remote_code,
        attention=settings.compute.attention,
        quantize=settings.compute.quantize,
    )
    make_room(base, ready.tokenizer, ready.added_tokens)
    if settings.from_adapter:
        model = continue_adapter(base, settings)
        check_fit(base, ready.tokenizer, ready.data.tokenized.pairs)
        return model
    check_fit(base, ready.tokenizer, ready.data.tokenized.pairs)
    return add_adapter(base, settings, ready.added_tokens)


def _own_folder(folder: Path, settings: TrainSettings) -> AbstractContextManager[Path]:
    """The run folder belongs to the main process; the others write nothing but their part of its checkpoints."""
    if is_main_process():
        return growing_folder(
            folder,
            overwrite=settings.overwrite,
            resume=settings.resume,
            can_resume=lambda stopped: newest_whole_checkpoint(stopped)[0] is not None,
        )
    return nullcontext(folder.expanduser().resolve())


def _run_trainer(model: PeftModel, ready: _Ready, settings: TrainSettings, folder: Path, rate: float) -> Trainer:
    data, tokenizer = ready.data, ready.tokenizer
    checkpoint, damaged = newest_whole_checkpoint(folder) if settings.resume else (None, [])
    for name in damaged:
        console_err.print(f"{name} is damaged or was not finished, and is left out", soft_wrap=True)
    if settings.resume:
        console_err.print(f"going on from {checkpoint.name}" if checkpoint else "no checkpoint yet, starting again")
    boards = make_boards(settings.watch.report_to, folder / TENSORBOARD_FOLDER) if is_main_process() else []
    board = Boards(boards)
    with ExitStack() as stack, StopRequest() as stop:
        stack.callback(board.close)
        watchers: list[TrainerCallback] = [FiniteGuard(), RuinGuard(), SpamGuard()]
        progress = ProgressMonitor(stack)
        if is_main_process():
            watchers += [*boards, ThroughputMonitor(board), progress]
        watchers += early_stopping(settings)
        pairs = [one for one in data.evaluation if isinstance(one, TokenizedPair)]
        reward_pairs = pairs[: settings.watch.reward_pairs]
        # Every process answers and measures, since a model may be spread over them; the board of the main one shows it.
        answered = partial(progress.tell, "answered")
        watchers += [stop, ReplyProbe(board, tokenizer, ready.conversations, reward_pairs, settings, answered)]
        # GRPO's loss says nothing about how good replies are; those to the held-out prompts do.
        evaluation = [] if settings.objective.method == "grpo" else data.evaluation
        parts = TrainerParts(
            model, tokenizer, data.train, evaluation, settings, folder, watchers, rate, checkpoint is not None
        )
        trainer = _load_builder(settings.trainer_on(ready.device.type))(parts)
        if not (checkpoint and _restore_if_at_its_end(trainer, checkpoint)):
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        stop.raise_if_asked()
    return trainer


def _finish(
    trainer: Trainer, ready: _Ready, settings: TrainSettings, folder: Path, record: RunRecord, rate: LearningRate
) -> TrainingResult:
    data = ready.data
    counts: RunCounts = {
        "pairs": len(data.rows),
        "train": len(data.train),
        "evaluation": len(data.evaluation),
        "dropped": {reason: len(rows) for reason, rows in data.tokenized.dropped.items()},
        "truncated": len(data.tokenized.truncated),
        "steps": trainer.state.global_step,
    }
    history, best = trainer.state.log_history, best_checkpoint(settings, trainer.state)
    # The adapter that is written is the best one, so its figures are the last that count.
    metrics = run_metrics([entry for entry in history if best is None or entry["step"] <= best.step])
    speed, said = median_speed(history), verdict(metrics)
    record.metrics = {**metrics, **({"tokens_per_second": speed} if speed else {})}
    labels = [one.label for one in data.train if isinstance(one, TokenizedReply)]
    if labels:
        desirable, undesirable = label_weights(settings.objective, labels)
        record.facts["kto_weights"] = {"desirable": desirable, "undesirable": undesirable, "good_replies": sum(labels)}
    record.facts |= {**counts, "data_sets": data.sets, "verdict": said, **({"early_stopping": best} if best else {})}
    weights = _gathered_weights(trainer)
    if is_main_process():
        save_adapter(cast(PeftModel, trainer.model), ready.tokenizer, folder, settings, weights=weights)
        write_model_card(folder, settings, metrics, counts, rate, said, best)
        record.write(folder)
    return TrainingResult(folder, metrics, counts, speed, record.wall_seconds, said, data.sets, best)


def _gathered_weights(trainer: Trainer) -> dict[str, torch.Tensor] | None:
    """Put a model together that FSDP or DeepSpeed has cut up, which all processes must do; None for a whole one."""
    if trainer.accelerator.distributed_type not in (DistributedType.FSDP, DistributedType.DEEPSPEED):
        return None
    weights: dict[str, torch.Tensor] = trainer.accelerator.get_state_dict(trainer.model_wrapped)
    return weights


def _restore_if_at_its_end(trainer: Trainer, checkpoint: Path) -> bool:
    """Take weights and log of a run that was killed after its last step: Trainer would add a step to it."""
    state = TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))
    if state.global_step < state.max_steps and not is_stopped(state):
        return False
    trainer.state = state
    if trainer.args.load_best_model_at_end and state.best_model_checkpoint is not None:
        checkpoint = checkpoint.with_name(Path(state.best_model_checkpoint).name)
    set_peft_model_state_dict(trainer.model, load_peft_weights(str(checkpoint), device=str(trainer.args.device)))
    return True


def _load_builder(name: Literal["fast", "trl"]) -> Callable[[TrainerParts], Trainer]:
    """Import one trainer and not the other: trl takes seconds."""
    if name == "fast":
        from orpo.training.fast.trainer import build_trainer as build_fast

        return build_fast
    from orpo.training.trl_trainer import build_trainer as build_trl

    return build_trl


def _say_what_was_left_out(data: TrainingData, settings: TrainSettings) -> None:
    for one, tokenized in zip(data.sets, data.tokenized_sets, strict=True):
        whose = f"{one.name}: " if len(data.sets) > 1 else ""
        for reason, rows in tokenized.dropped.items():
            shown = ", ".join(map(str, rows[:_SHOWN_ROWS])) + (", ..." if len(rows) > _SHOWN_ROWS else "")
            told = f"{whose}left out {len(rows)} of {one.rows} pairs: {reason} (row{'s' * (len(rows) > 1)} {shown})"
            console_err.print(told, soft_wrap=True)
        if tokenized.truncated:
            console_err.print(f"{whose}shortened {len(tokenized.truncated)} of {one.rows} pairs", soft_wrap=True)
    if not data.evaluation and settings.watch.eval_share > 0:
        console_err.print("all pairs have the same prompt, so none is kept for evaluation", soft_wrap=True)
    if len(data.train) < FEW_PAIRS:
        few = f"only {len(data.train)} pairs to train on; under {FEW_PAIRS} a model learns little, or by heart"
        console_err.print(few, soft_wrap=True)
