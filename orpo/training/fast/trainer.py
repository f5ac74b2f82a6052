"""This project's own trainer: TRL's numbers without its padding, its second copy of the prompt, and its logits.

One optimiser step takes batch size x accumulation pairs, as with TRL, but how they are cut into forward passes is not
the user's business: they are packed into as few rows as the token budget allows (`step` shows a step from tokens to
loss), and the cut changes nothing but speed and memory, so 1 x 8 is 8 x 1.
"""

import math
import random
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Final, cast

import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import Trainer, TrainingArguments

from orpo.chat_model.options import multiplies_bfloat16
from orpo.command.errors import SettingsError
from orpo.command.ranks import is_model_sharded
from orpo.training.examples import Example, TokenizedReply
from orpo.training.fast.folded_lora import fold
from orpo.training.fast.memory import MemoryEstimate, estimate_memory, largest_token_budget
from orpo.training.fast.packed_forward import best_layout, compute_head_in
from orpo.training.fast.packing import Layout, packed_length, plan_micro_batches
from orpo.training.fast.sampling import GroupSampler, longest_group
from orpo.training.fast.step import StepRow, TrainingStep
from orpo.training.kept_log import LoggingTrainer, Side
from orpo.training.objective import Objective, RowTerms, StepTotals
from orpo.training.settings import TrainSettings
from orpo.training.trainer_arguments import TrainerParts, compute_dtype, finish_trainer, trainer_arguments

DEFAULT_TOKEN_BUDGET: Final = {"cpu": 2048, "mps": 4096, "cuda": 16384}
"""Most tokens of a forward pass, where they fit into memory: more would make the products no faster."""


class FastTrainer(LoggingTrainer):
    """A Trainer whose batches are lists of tokenised pairs; see the module's docstring."""

    loss_is_scaled_for_ga = True  # every loss is its share of the whole step already

    step: TrainingStep
    sampler: GroupSampler | None = None

    def training_step(
        self, model: nn.Module, inputs: dict[str, object], num_items_in_batch: Tensor | int | None = None
    ) -> Tensor:
        """Do the forward and backward passes of one optimiser step; return its loss."""
        model.train()
        if callable(getattr(self.optimizer, "train", None)):  # schedule-free optimisers
            self.optimizer.train()  # type: ignore[union-attr]
        pairs = self._rows_of(inputs, model)
        rows, totals = self.step.plan(pairs, model)
        step_loss = torch.zeros((), device=self.args.device)
        for number, row in enumerate(rows):
            is_last = number == len(rows) - 1
            self.accelerator.gradient_state._set_sync_gradients(is_last)
            with nullcontext() if is_last else self.accelerator.no_sync(model):
                # A process with nothing left to do takes part with a pair of weight 0.
                terms = self.step.row_terms(model, row or pairs[:1], totals)
                # The processes' gradients are averaged, so a share of the sum counts as often as there are processes.
                self.accelerator.backward(terms.loss * (self.accelerator.num_processes if row else 0.0))
            if row:
                step_loss += terms.loss.detach()
                self._note("train", terms, len(row), totals)
        # Shares of one loss, so their sum is the step's: the weight adds up to 1 over the processes.
        self.kept_log.add("train", {"loss": float(step_loss)}, 1 / self.accelerator.num_processes)
        groups = [self.step.objective.group_of(pair) for pair in pairs]
        self.state.num_input_tokens_seen += sum(
            len(group.prompt_ids) + len(reply) for group in groups for reply in group.replies
        )
        return cast(Tensor, step_loss * self.accelerator.num_processes)

    def prediction_step(
        self,
        model: nn.Module,
        inputs: dict[str, object],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> tuple[Tensor, None, None]:
        """Compute the loss of an evaluation batch."""
        pairs = cast(list[Example], inputs["pairs"])
        loss = torch.zeros((), device=self.args.device)
        with torch.no_grad():
            rows, totals = self.step.plan(pairs, model)  # equally many in every process, as in training
            for row in rows:
                terms = self.step.row_terms(model, row or pairs[:1], totals)
                if row:
                    self._note("eval", terms, len(row), totals)
                    loss += terms.loss
        return loss * self.accelerator.num_processes, None, None

    def floating_point_ops(self, inputs: dict[str, object]) -> int:
        """Count nothing: Trainer's estimate knows neither packing nor adapters."""
        return 0

    def _rows_of(self, inputs: dict[str, object], model: nn.Module) -> Sequence[StepRow]:
        """Return the batch's rows; for grpo groups of replies that the model writes to their prompts now."""
        pairs = cast(list[Example], inputs["pairs"])
        if self.sampler is None:
            return pairs
        groups, figures = self.sampler.sample(self.accelerator.unwrap_model(model), pairs, self.state.global_step)
        for name, values in figures.items():
            self.kept_log.add("train", {name: math.fsum(values)}, len(values))
        return groups

    def _note(self, side: Side, terms: RowTerms, pairs: int, totals: StepTotals) -> None:
        for name, values in terms.of_pairs.items():
            self.kept_log.add(side, {name: float(values.sum())}, len(values))
        if terms.nll is not None:
            self.kept_log.add(side, {"nll_loss": float(terms.nll)}, pairs / totals.pairs)


def collate_pairs(pairs: Sequence[Example]) -> dict[str, object]:
    """Return a batch as Trainer wants it: a mapping with a tensor in it, by which it counts the batch."""
    return {"rows": torch.tensor([pair.row for pair in pairs]), "pairs": list(pairs)}


def prepare_model(model: PeftModel, settings: TrainSettings) -> Layout:
    """Let a PEFT model compute in the fast ways that give its own numbers; return its layout."""
    layout = best_layout(model)
    is_own_choice = settings.compute.dtype == "auto" and compute_dtype(model) == "float32"
    products = torch.bfloat16 if is_own_choice and multiplies_bfloat16(model.device) else torch.float32
    fold(model, products)
    compute_head_in(model, products)
    return layout


def choose_token_budget(model: PeftModel, layout: Layout, settings: TrainSettings) -> int:
    """Return the token budget that the user gives, or the largest that is useful and fits into free memory."""
    limit = DEFAULT_TOKEN_BUDGET.get(model.device.type, 4096)
    return settings.compute.token_budget or largest_token_budget(
        model, layout, at_most=limit, checkpointing=settings.compute.gradient_checkpointing
    )


def estimate_step(model: PeftModel, pairs: Sequence[Example], settings: TrainSettings) -> MemoryEstimate:
    """Return what the largest step of a run will take, for a PEFT model that is on its device."""
    layout = prepare_model(model, settings)
    budget = choose_token_budget(model, layout, settings)
    objective = Objective(settings.objective)
    is_sampled = settings.objective.method == "grpo"
    groups = [longest_group(pair, settings) if is_sampled else objective.group_of(pair) for pair in pairs]
    lengths = [packed_length(group, layout) for group in groups]
    random.Random(settings.seed).shuffle(lengths)
    size = settings.optimiser.batch_size * settings.optimiser.gradient_accumulation_steps
    steps = [lengths[start : start + size] for start in range(0, len(lengths), size)]
    rows = [sum(step[i] for i in row) for step in steps for row in plan_micro_batches(step, budget)]
    return estimate_memory(model, max(rows), layout, checkpointing=settings.compute.gradient_checkpointing)


def build_trainer(parts: TrainerParts) -> Trainer:
    """Return a trainer for a PEFT model."""
    settings, model = parts.settings, parts.model
    arguments = trainer_arguments(TrainingArguments, parts, batches_are_steps=True)
    layout = prepare_model(model, settings)
    needs_start = settings.from_adapter is not None and settings.objective.about.needs_reference
    if needs_start and is_model_sharded():
        raise SettingsError(
            f"{settings.from_adapter}: is the reference of {settings.objective.method}, and a model cut over several "
            "devices cannot keep a copy of it; leave it out, or train on one device",
            setting="from_adapter",
        )
    if layout == "plain" and is_model_sharded():  # its passes would be of unequal number
        raise SettingsError("fast: cannot train this model cut over several devices; choose trl", setting="trainer")
    trainer = FastTrainer(
        model=model,
        args=arguments,
        train_dataset=list(parts.train),
        eval_dataset=list(parts.evaluation) or None,
        data_collator=collate_pairs,
        processing_class=parts.tokenizer,
        callbacks=list(parts.watchers),
    )
    trainer.step = TrainingStep(
        Objective(settings.objective, [one.label for one in parts.train if isinstance(one, TokenizedReply)]),
        layout,
        choose_token_budget(model, layout, settings),
        trainer.accelerator,
        trainer.compute_loss_context_manager,
        _trained_weights(model) if needs_start else {},
    )
    if settings.objective.method == "grpo":
        trainer.sampler = GroupSampler(parts.tokenizer, settings)
        trainer.sampler.check_room(model, parts.train)
    return finish_trainer(trainer)


def _trained_weights(model: PeftModel) -> dict[str, Tensor]:
    """Return copies of the weights that are trained."""
    return {name: one.detach().clone() for name, one in model.named_parameters() if one.requires_grad}
