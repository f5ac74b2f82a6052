"""This project's own ORPO trainer: TRL's numbers without its padding, its second copy of the prompt, and its logits.

One optimiser step takes batch size x accumulation pairs, as with TRL, but how they are cut into forward passes is not
the user's business: they are packed into as few rows as the token budget allows, and every row's loss is normalised
over the whole step (over all processes too), so the cut changes nothing but speed and memory, and 1 x 8 is 8 x 1.
"""

import json
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, Final, cast

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from orpo.command.errors import SettingsError
from orpo.command.ranks import is_model_sharded
from orpo.training.fast.folded_lora import fold
from orpo.training.fast.memory import MemoryEstimate, estimate_memory, largest_token_budget
from orpo.training.fast.packed_forward import best_layout
from orpo.training.fast.packing import (
    Layout,
    PackedPairs,
    nll_tokens,
    pack_pairs,
    packed_length,
    plan_micro_batches,
    spread_evenly,
)
from orpo.training.losses import OrpoTerms, orpo_loss
from orpo.training.settings import TrainSettings
from orpo.training.tokenization import TokenizedPair
from orpo.training.trainer_arguments import compute_dtype, keep_to_one_gpu, remove_console_callbacks, trainer_arguments

DEFAULT_TOKEN_BUDGET: Final = {"cpu": 2048, "mps": 4096, "cuda": 16384}
"""Most tokens of a forward pass, where they fit into memory: more would make the products no faster."""

_PENDING_FILE: Final = "pending_log.json"


class FastOrpoTrainer(Trainer):
    """A Trainer whose batches are lists of tokenised pairs; see the module's docstring."""

    loss_is_scaled_for_ga = True  # every loss is its share of the whole step already

    def __init__(
        self,
        *args: Any,
        beta: float,
        nll_on_prompt: bool,
        layout: Layout,
        token_budget: int,
        onednn: bool,
        **kwargs: Any,
    ) -> None:
        """Take what Trainer takes, and what the loss and the packing need.

        Args:
            args: For Trainer.
            beta: The weight of the odds ratio term.
            nll_on_prompt: Whether the likelihood term runs over the prompt too.
            layout: How the model takes pairs (`best_layout` tells).
            token_budget: The most tokens of a forward pass; a longer pair has one of its own.
            onednn: Whether fp32 products on a CPU go through oneDNN.
            kwargs: For Trainer.
        """
        self._beta = beta
        self._nll_on_prompt = nll_on_prompt
        self.layout = layout
        self.token_budget = token_budget
        self._onednn = onednn
        self._meters = {"train": StepMeter(beta), "eval": StepMeter(beta)}
        self._resumed_from: Path | None = None
        super().__init__(*args, **kwargs)
        self.add_callback(_RestoreLog(self))

    def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> Tensor:
        """Do the forward and backward passes of one optimiser step; return its loss."""
        model.train()
        if callable(getattr(self.optimizer, "train", None)):  # schedule-free optimisers
            cast(Any, self.optimizer).train()
        pairs: list[TokenizedPair] = inputs["pairs"]
        rows, totals = self._plan(pairs)
        step_loss = torch.zeros((), device=self.args.device)
        for number, row in enumerate(rows):
            is_last = number == len(rows) - 1
            self.accelerator.gradient_state._set_sync_gradients(is_last)
            with nullcontext() if is_last else self.accelerator.no_sync(model), self._products():
                terms, packed = self._row_terms(model, [pairs[i] for i in row] or pairs[:1], totals)
                # The processes' gradients are averaged, so a share of the sum counts as often as there are processes.
                # A process with nothing left to do takes part with a pair of no weight.
                loss = terms.loss * (self.accelerator.num_processes if row else 0.0)
                self.accelerator.backward(loss)
            step_loss += loss.detach()
            if row:
                self._meters["train"].add(terms, packed, totals)
        self.state.num_input_tokens_seen += sum(
            2 * len(pair.prompt_ids) + len(pair.chosen_ids) + len(pair.rejected_ids) for pair in pairs
        )
        return step_loss

    def prediction_step(
        self, model: Any, inputs: dict[str, Any], prediction_loss_only: bool, ignore_keys: list[str] | None = None
    ) -> tuple[Tensor, None, None]:
        """Compute the loss of an evaluation batch."""
        pairs: list[TokenizedPair] = inputs["pairs"]
        totals = _Totals(len(pairs), sum(nll_tokens(pair, self._nll_on_prompt) for pair in pairs))
        loss = torch.zeros((), device=self.args.device)
        with torch.no_grad(), self._products():
            for row in self._plan(pairs)[0]:  # equally many in every process, as in training
                terms, packed = self._row_terms(model, [pairs[i] for i in row] or pairs[:1], totals)
                if row:
                    self._meters["eval"].add(terms, packed, totals)
                    loss += terms.loss
        return loss, None, None

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log, with the mean of what was measured since the last time under TRL's names."""
        side = "train" if "loss" in logs else "eval"
        gathered = self._meters[side].sums
        if self.accelerator.num_processes > 1:
            gathered = self.accelerator.reduce(gathered.to(self.args.device), "sum")
        logs.update(self._meters[side].means(gathered.cpu(), "eval_" if side == "eval" else ""))
        self._meters[side].reset()
        super().log(logs, start_time)

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Count nothing: Trainer's estimate knows neither packing nor adapters."""
        return 0

    def _plan(self, pairs: Sequence[TokenizedPair]) -> tuple[list[list[int]], "_Totals"]:
        """Cut a step into rows, equally many in every process, and count the step over all processes."""
        lengths = [packed_length(pair, self.layout) for pair in pairs]
        rows = plan_micro_batches(lengths, self.token_budget)
        counts = [len(pairs), sum(nll_tokens(pair, self._nll_on_prompt) for pair in pairs), len(rows)]
        if self.accelerator.num_processes > 1:
            mine = torch.tensor([counts], device=self.args.device)
            all_counts = cast(Tensor, self.accelerator.gather(mine)).cpu()
            counts = [*all_counts[:, :2].sum(0).tolist(), int(all_counts[:, 2].max())]
            if counts[2] > len(rows):
                rows = spread_evenly(lengths, counts[2])
        return rows, _Totals(counts[0], counts[1])

    def _row_terms(
        self, model: Any, pairs: Sequence[TokenizedPair], totals: "_Totals"
    ) -> tuple[OrpoTerms, PackedPairs]:
        """Compute one row's share of the loss."""
        packed = pack_pairs(pairs, layout=self.layout, nll_on_prompt=self._nll_on_prompt).to(self.args.device)
        with self.compute_loss_context_manager():
            log_probs = model(packed_pairs=packed).float()  # FSDP's mixed precision casts what a model returns
        chosen, rejected = packed.sum_by_completion(log_probs)
        chosen_tokens, rejected_tokens = packed.completion_tokens.view(-1, 2).unbind(1)
        nll = -(log_probs * packed.in_nll).sum() / totals.nll_tokens
        terms = orpo_loss(
            chosen, chosen_tokens, rejected, rejected_tokens, nll, self._beta, pairs_in_batch=totals.pairs
        )
        return terms, packed

    @contextmanager
    def _products(self) -> Iterator[None]:
        """Send fp32 products on a CPU to oneDNN, which is up to twice as fast at them; results stay fp32."""
        matmul = cast(Any, torch.backends.mkldnn).matmul
        earlier = matmul.fp32_precision
        if self._onednn and self.args.device.type == "cpu":
            matmul.fp32_precision = "ieee"
        try:
            yield
        finally:
            matmul.fp32_precision = earlier

    def _inner_training_loop(self, *args: Any, **kwargs: Any) -> Any:
        resumed_from = kwargs.get("resume_from_checkpoint")
        self._resumed_from = Path(str(resumed_from)) if resumed_from else None
        return super()._inner_training_loop(*args, **kwargs)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Keep with a checkpoint what has been summed up for the next log, so that a resumed run logs the same."""
        folder = Path(str(self.args.output_dir)) / f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
        folder.mkdir(parents=True, exist_ok=True)
        pending = {
            "loss": float(self._tr_loss),
            "logged_at_step": self._globalstep_last_logged,
            "sums": self._meters["train"].sums.tolist(),
        }
        (folder / f"{self.args.process_index}_{_PENDING_FILE}").write_text(json.dumps(pending), encoding="utf-8")
        super()._save_checkpoint(model, trial)

    def restore_pending_log(self) -> None:
        """Take up the sums of the checkpoint that the run goes on from."""
        file = self._resumed_from and self._resumed_from / f"{self.args.process_index}_{_PENDING_FILE}"
        if file and file.is_file():
            pending = json.loads(file.read_text(encoding="utf-8"))
            self._tr_loss = torch.tensor(pending["loss"], device=self.args.device)
            self._globalstep_last_logged = pending["logged_at_step"]
            self._meters["train"].sums = torch.tensor(pending["sums"], dtype=torch.float64)


class _RestoreLog(TrainerCallback):
    """Restores the log's sums at the one moment after Trainer has cleared them and before the first step."""

    def __init__(self, trainer: FastOrpoTrainer) -> None:
        self._trainer = trainer

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
        """Restore them."""
        self._trainer.restore_pending_log()


class _Totals:
    """How much a whole step holds, over all rows and processes."""

    def __init__(self, pairs: int, nll_tokens: int) -> None:
        self.pairs = pairs
        self.nll_tokens = nll_tokens


class StepMeter:
    """Sums of what is logged about each pair, and their means under TRL's names."""

    NAMES: Final = (
        "chosen",
        "rejected",
        "accuracies",
        "log_odds_chosen",
        "log_odds_ratio",
        "nll",
        "nll_tokens",
        "pairs",
    )

    def __init__(self, beta: float) -> None:
        """Begin with nothing summed."""
        self._beta = beta
        self.reset()

    def reset(self) -> None:
        """Forget what was summed."""
        self.sums = torch.zeros(len(self.NAMES), dtype=torch.float64)

    def add(self, terms: OrpoTerms, packed: PackedPairs, totals: _Totals) -> None:
        """Add the pairs of one row."""
        chosen, rejected, odds = terms.chosen_logps, terms.rejected_logps, terms.log_odds_ratios
        row = [chosen.sum(), rejected.sum(), (chosen > rejected).sum(), odds.sum(), logsigmoid(odds).sum()]
        counts = [terms.nll * totals.nll_tokens, packed.in_nll.sum()]
        numbers = torch.stack([value.float() for value in (*row, *counts)]).cpu().double()
        self.sums += torch.cat([numbers, torch.tensor([float(packed.pairs)], dtype=torch.float64)])

    def means(self, sums: Tensor, prefix: str) -> dict[str, float]:
        """Return the means of these sums; nothing if there are none."""
        total = dict(zip(self.NAMES, sums.tolist(), strict=True))
        pairs = total["pairs"]
        if not pairs:
            return {}
        chosen, rejected = total["chosen"] / pairs, total["rejected"] / pairs
        values = {
            "rewards/chosen": self._beta * chosen,
            "rewards/rejected": self._beta * rejected,
            "rewards/accuracies": total["accuracies"] / pairs,
            "rewards/margins": self._beta * (chosen - rejected),
            "logps/chosen": chosen,
            "logps/rejected": rejected,
            "nll_loss": total["nll"] / total["nll_tokens"],
            "log_odds_ratio": total["log_odds_ratio"] / pairs,
            "log_odds_chosen": total["log_odds_chosen"] / pairs,
        }
        return {prefix + name: value for name, value in values.items()}


def collate_pairs(pairs: Sequence[TokenizedPair]) -> dict[str, Any]:
    """Return a batch as Trainer wants it: a mapping with a tensor in it, by which it counts the batch."""
    return {"rows": torch.tensor([pair.row for pair in pairs]), "pairs": list(pairs)}


def choose_token_budget(model: Any, layout: Layout, settings: TrainSettings) -> int:
    """Return the token budget that the user gives, or the largest that is useful and fits into free memory."""
    limit = DEFAULT_TOKEN_BUDGET.get(next(model.parameters()).device.type, 4096)
    return settings.token_budget or largest_token_budget(
        model, layout, at_most=limit, checkpointing=settings.gradient_checkpointing
    )


def estimate_step(model: Any, pairs: Sequence[TokenizedPair], settings: TrainSettings) -> MemoryEstimate:
    """Return what the largest step of a run will take, for a PEFT model that is on its device."""
    layout = best_layout(model)
    fold(model)
    budget = choose_token_budget(model, layout, settings)
    lengths = [packed_length(pair, layout) for pair in pairs]
    random.Random(settings.seed).shuffle(lengths)
    size = settings.batch_size * settings.gradient_accumulation_steps
    steps = [lengths[start : start + size] for start in range(0, len(lengths), size)]
    rows = [sum(step[i] for i in row) for step in steps for row in plan_micro_batches(step, budget)]
    return estimate_memory(model, max(rows), layout, checkpointing=settings.gradient_checkpointing)


def build_trainer(
    model: Any,
    tokenizer: Any,
    train_pairs: Sequence[TokenizedPair],
    eval_pairs: Sequence[TokenizedPair],
    settings: TrainSettings,
    output_dir: Path,
    callbacks: Sequence[TrainerCallback],
) -> Trainer:
    """Return a trainer for a PEFT model.

    Args:
        model: A model with a LoRA adapter.
        tokenizer: Its tokenizer, which is saved with each checkpoint.
        train_pairs: The pairs to train on.
        eval_pairs: The pairs to evaluate on, perhaps none.
        settings: The run's settings.
        output_dir: The run folder, where checkpoints go.
        callbacks: What watches the run.
    """
    shared = trainer_arguments(
        settings, output_dir, train_count=len(train_pairs), has_eval=bool(eval_pairs), dtype=compute_dtype(model)
    )
    # A step is one batch here, cut by the token budget: accumulation is only another word for a larger batch.
    shared["per_device_train_batch_size"] *= shared.pop("gradient_accumulation_steps")
    arguments = TrainingArguments(**shared)
    keep_to_one_gpu(arguments)
    layout = best_layout(model)
    if layout == "plain" and is_model_sharded():  # its passes would be of unequal number
        raise SettingsError("--trainer fast: cannot train this model cut over several devices; give --trainer trl")
    fold(model)
    trainer = FastOrpoTrainer(
        model=model,
        args=arguments,
        train_dataset=list(train_pairs),
        eval_dataset=list(eval_pairs) or None,
        data_collator=collate_pairs,
        processing_class=tokenizer,
        callbacks=list(callbacks),
        beta=settings.beta,
        nll_on_prompt=settings.nll == "prompt_and_completion",
        layout=layout,
        token_budget=choose_token_budget(model, layout, settings),
        onednn=settings.onednn,
    )
    remove_console_callbacks(trainer)
    return trainer
