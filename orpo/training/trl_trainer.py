"""TRL's ORPOTrainer, fed with token ids that are right already. The only importer of trl.

What its own tokenization does wrong (a second end token, a cut-off one, NaN for an over-long prompt; trl 1.16) is
replaced by ours, and so is its odds ratio loss, which is NaN where a reply's probability reaches 1. The batches, the
model's forward pass and the names of what is logged are TRL's.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset
from peft import PeftModel
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, logsigmoid
from transformers import PreTrainedTokenizerBase, Trainer, TrainerCallback
from trl.experimental.orpo import ORPOConfig, ORPOTrainer

from orpo.training.kept_log import KeptLog, Side
from orpo.training.losses import log_odds_ratio
from orpo.training.settings import TrainSettings
from orpo.training.tokenization import TokenizedPair
from orpo.training.trainer_arguments import compute_dtype, finish_trainer, keep_to_one_gpu, trainer_arguments

_IGNORED = -100


class PairOrpoTrainer(ORPOTrainer):
    """ORPOTrainer for tokenized pairs, with the likelihood term over the reply alone where that is asked."""

    def __init__(self, *args: Any, nll_on_prompt: bool, **kwargs: Any) -> None:
        """Take what ORPOTrainer takes, and whether the likelihood term runs over the prompt too."""
        self._nll_on_prompt = nll_on_prompt
        self.kept_log = KeptLog()
        super().__init__(*args, **kwargs)

    def train(self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any) -> Any:
        """Train, and log after a resume what an unbroken run would."""
        if isinstance(resume_from_checkpoint, str):
            self.kept_log.restore(Path(resume_from_checkpoint), self.args.process_index)
        return super().train(resume_from_checkpoint, *args, **kwargs)

    def tokenize_row(self, feature: dict[str, Any], model: nn.Module | None = None) -> dict[str, Any]:
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

    def concatenated_forward(self, model: nn.Module, batch: dict[str, Any]) -> Any:
        """Compute log-probabilities and likelihood as TRL does, over prompt and completion, or over the latter only."""
        outputs = super().concatenated_forward(model, batch)
        if self._nll_on_prompt:
            return outputs
        chosen_logits = outputs[2]  # [pairs, T - 1, V], padded to the longest of chosen and rejected
        labels = batch["chosen_labels"][:, 1:].to(chosen_logits.device)
        reach = labels.shape[1]
        nll = cross_entropy(chosen_logits[:, :reach].flatten(0, 1).float(), labels.flatten(), ignore_index=_IGNORED)
        return (*outputs[:4], nll, *outputs[5:])

    def training_step(self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Any = None) -> Tensor:
        """Do one micro-batch, and count its tokens and its loss."""
        masks = (inputs["chosen_attention_mask"], inputs["rejected_attention_mask"])
        self.state.num_input_tokens_seen += int(sum(mask.sum() for mask in masks))
        loss: Tensor = super().training_step(model, inputs, num_items_in_batch)
        self.kept_log.add("train", {"loss": float(loss.detach())}, 1 / self.current_gradient_accumulation_steps)
        return loss

    def store_metrics(self, metrics: dict[str, float], train_eval: Side = "train") -> None:
        """Keep the metrics of a micro-batch where a checkpoint keeps them too."""
        self.kept_log.add(train_eval, {name.removeprefix("eval_"): value for name, value in metrics.items()})

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log as Trainer does, with the means of what was stored; TRL's own sums are left out."""
        side: Side = "train" if "loss" in logs else "eval"
        prefix = "" if side == "train" else "eval_"
        logs.update({prefix + name: value for name, value in self.kept_log.take_means(side, self).items()})
        super(ORPOTrainer, self).log(logs, start_time)

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """Write none: `card` does."""

    def _send_telemetry(self) -> None:
        """Send none."""


def build_trainer(
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    train_pairs: Sequence[TokenizedPair],
    eval_pairs: Sequence[TokenizedPair],
    settings: TrainSettings,
    output_dir: Path,
    callbacks: Sequence[TrainerCallback],
    *,
    learning_rate: float,
    is_resumed: bool = False,
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
        learning_rate: The peak rate.
        is_resumed: Whether training goes on from a checkpoint.
    """
    shared = trainer_arguments(
        settings,
        output_dir,
        train_count=len(train_pairs),
        has_eval=bool(eval_pairs),
        learning_rate=learning_rate,
        dtype=compute_dtype(model),
        is_resumed=is_resumed,
    )
    # disable_dropout would silently switch the adapter's own dropout off; the base model's is off already.
    arguments = ORPOConfig(
        **shared, beta=settings.objective.strength, max_length=settings.lengths.max_length, disable_dropout=False
    )
    keep_to_one_gpu(arguments)
    trainer = PairOrpoTrainer(
        model=model,
        args=arguments,
        train_dataset=_as_dataset(train_pairs),
        eval_dataset=_as_dataset(eval_pairs) if eval_pairs else None,
        processing_class=tokenizer,
        callbacks=list(callbacks),
        nll_on_prompt=settings.objective.nll_on_prompt,
    )
    finish_trainer(trainer, trainer.kept_log)
    return trainer


def _as_dataset(pairs: Sequence[TokenizedPair]) -> Dataset:
    return Dataset.from_list([_as_feature(pair) for pair in pairs])


def _as_feature(pair: TokenizedPair) -> dict[str, list[int]]:
    """Return the columns that TRL's own tokenization makes."""
    columns = {"prompt_input_ids": pair.prompt_ids, "prompt_attention_mask": [1] * len(pair.prompt_ids)}
    for side, reply in (("chosen", pair.chosen_ids), ("rejected", pair.rejected_ids)):
        ids = [*pair.prompt_ids, *reply]
        columns[f"{side}_input_ids"] = ids
        columns[f"{side}_attention_mask"] = [1] * len(ids)
        columns[f"{side}_labels"] = [*([_IGNORED] * len(pair.prompt_ids)), *reply]
    return columns
