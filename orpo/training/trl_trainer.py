"""TRL's ORPOTrainer, fed with token ids that are right already. The only importer of trl.

What its own tokenization does wrong (a second end token, a cut-off one, NaN for an over-long prompt; trl 1.16) is
replaced by ours, and so is its odds ratio loss, which is NaN where a reply's probability reaches 1. The batches, the
model's forward pass and the names of what is logged are TRL's.
"""

from collections.abc import Sequence
from functools import partial
from typing import cast

from datasets import Dataset
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, logsigmoid
from transformers import Trainer
from trl.experimental.orpo import ORPOConfig, ORPOTrainer

from orpo.training.examples import Example, TokenizedPair
from orpo.training.kept_log import LoggingTrainer, Side
from orpo.training.losses import log_odds_ratio
from orpo.training.trainer_arguments import TrainerParts, finish_trainer, trainer_arguments

_IGNORED = -100


class PairOrpoTrainer(LoggingTrainer, ORPOTrainer):
    """ORPOTrainer for tokenized pairs, with the likelihood term over the reply alone where that is asked."""

    nll_on_prompt = False

    def tokenize_row(self, feature: dict[str, object], model: nn.Module | None = None) -> dict[str, object]:
        """Return the row as it is: it holds ids."""
        return feature

    def odds_ratio_loss(  # type: ignore[override]  # TRL says FloatTensor
        self, policy_chosen_logps: Tensor, policy_rejected_logps: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Compute the odds ratio term with this project's functions, which stay finite at P = 1."""
        log_odds = log_odds_ratio(policy_chosen_logps, policy_rejected_logps)
        ratio = logsigmoid(log_odds)
        rewards = (self.beta * logps.detach().float() for logps in (policy_chosen_logps, policy_rejected_logps))
        chosen_rewards, rejected_rewards = rewards
        return self.beta * ratio, chosen_rewards, rejected_rewards, ratio.mean(), log_odds.mean()

    def concatenated_forward(  # type: ignore[override]  # TRL says LongTensor and FloatTensor
        self, model: nn.Module, batch: dict[str, Tensor]
    ) -> tuple[Tensor, ...]:
        """Compute log-probabilities and likelihood as TRL does, over prompt and completion, or over the latter only."""
        outputs: tuple[Tensor, ...] = super().concatenated_forward(model, batch)  # type: ignore[arg-type]
        if self.nll_on_prompt:
            return outputs
        chosen_logits = outputs[2]  # [pairs, T - 1, V], padded to the longest of chosen and rejected
        labels = batch["chosen_labels"][:, 1:].to(chosen_logits.device)
        reach = labels.shape[1]
        nll = cross_entropy(chosen_logits[:, :reach].flatten(0, 1).float(), labels.flatten(), ignore_index=_IGNORED)
        return (*outputs[:4], nll, *outputs[5:])

    def training_step(
        self, model: nn.Module, inputs: dict[str, Tensor], num_items_in_batch: Tensor | int | None = None
    ) -> Tensor:
        """Do one micro-batch, and count its tokens and its loss."""
        masks = (inputs["chosen_attention_mask"], inputs["rejected_attention_mask"])
        self.state.num_input_tokens_seen += int(sum(mask.sum() for mask in masks))
        loss: Tensor = super().training_step(model, inputs, num_items_in_batch)
        self.kept_log.add("train", {"loss": float(loss.detach())}, 1 / self.current_gradient_accumulation_steps)
        return loss

    def store_metrics(self, metrics: dict[str, float], train_eval: Side = "train") -> None:
        """Keep the metrics of a micro-batch where a checkpoint keeps them too."""
        self.kept_log.add(train_eval, {name.removeprefix("eval_"): value for name, value in metrics.items()})

    def create_model_card(self, *args: object, **kwargs: object) -> None:
        """Write none: `card` does."""

    def _send_telemetry(self) -> None:
        """Send none."""


def build_trainer(parts: TrainerParts) -> Trainer:
    """Return a trainer for a PEFT model."""
    settings = parts.settings
    # disable_dropout would silently switch the adapter's own dropout off; the base model's is off already.
    config = partial(
        ORPOConfig, beta=settings.objective.strength, max_length=settings.lengths.max_length, disable_dropout=False
    )
    trainer = PairOrpoTrainer(
        model=parts.model,
        args=trainer_arguments(config, parts),
        train_dataset=_as_dataset(parts.train),
        eval_dataset=_as_dataset(parts.evaluation) if parts.evaluation else None,
        processing_class=parts.tokenizer,
        callbacks=list(parts.watchers),
    )
    trainer.nll_on_prompt = settings.objective.nll_on_prompt
    return finish_trainer(trainer)


def _as_dataset(pairs: Sequence[Example]) -> Dataset:
    # Only KTO takes single replies, and the settings leave that to the other trainer.
    return Dataset.from_list([_as_feature(cast(TokenizedPair, pair)) for pair in pairs])


def _as_feature(pair: TokenizedPair) -> dict[str, list[int]]:
    """Return the columns that TRL's own tokenization makes."""
    columns = {"prompt_input_ids": pair.prompt_ids, "prompt_attention_mask": [1] * len(pair.prompt_ids)}
    for side, reply in (("chosen", pair.chosen_ids), ("rejected", pair.rejected_ids)):
        ids = [*pair.prompt_ids, *reply]
        columns[f"{side}_input_ids"] = ids
        columns[f"{side}_attention_mask"] = [1] * len(ids)
        columns[f"{side}_labels"] = [*([_IGNORED] * len(pair.prompt_ids)), *reply]
    return columns
