"""TRL's ORPOTrainer, fed with token ids that are right already. The only importer of trl.

What its own tokenization does wrong (a second end token, a cut-off one, NaN for an over-long prompt; trl 1.16) is
replaced by ours; the model's forward pass, the loss and the metrics are TRL's.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import Trainer, TrainerCallback
from trl.experimental.orpo import ORPOConfig, ORPOTrainer

from orpo.training.settings import TrainSettings
from orpo.training.tokenization import TokenizedPair
from orpo.training.trainer_arguments import compute_dtype, keep_to_one_gpu, remove_console_callbacks, trainer_arguments

_IGNORED = -100


class PairOrpoTrainer(ORPOTrainer):
    """ORPOTrainer for tokenized pairs, with the likelihood term over the reply alone where that is asked."""

    def __init__(self, *args: Any, nll: str, **kwargs: Any) -> None:
        """Take what ORPOTrainer takes, and which tokens the likelihood term runs over."""
        self._nll = nll
        super().__init__(*args, **kwargs)

    def tokenize_row(self, feature: dict[str, Any], model: Any = None) -> dict[str, Any]:
        """Return the row as it is: it holds ids."""
        return feature

    def concatenated_forward(self, model: Any, batch: dict[str, Any]) -> Any:
        """Compute log-probabilities and likelihood as TRL does, over prompt and completion, or over the latter only."""
        outputs = super().concatenated_forward(model, batch)
        if self._nll == "prompt_and_completion":
            return outputs
        chosen_logits = outputs[2]  # [pairs, T - 1, V], padded to the longest of chosen and rejected
        labels = batch["chosen_labels"][:, 1:].to(chosen_logits.device)
        reach = labels.shape[1]
        nll = cross_entropy(chosen_logits[:, :reach].flatten(0, 1).float(), labels.flatten(), ignore_index=_IGNORED)
        return (*outputs[:4], nll, *outputs[5:])

    def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> Tensor:
        """Do one micro-batch, and count its tokens."""
        masks = (inputs["chosen_attention_mask"], inputs["rejected_attention_mask"])
        self.state.num_input_tokens_seen += int(sum(mask.sum() for mask in masks))
        loss: Tensor = super().training_step(model, inputs, num_items_in_batch)
        return loss

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """Write none: orpo/training/summary.py does."""

    def _send_telemetry(self) -> None:
        """Send none."""


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
    # disable_dropout would silently switch the adapter's own dropout off; the base model's is off already.
    arguments = ORPOConfig(**shared, beta=settings.beta, max_length=settings.max_length, disable_dropout=False)
    keep_to_one_gpu(arguments)
    trainer = PairOrpoTrainer(
        model=model,
        args=arguments,
        train_dataset=_as_dataset(train_pairs),
        eval_dataset=_as_dataset(eval_pairs) if eval_pairs else None,
        processing_class=tokenizer,
        callbacks=list(callbacks),
        nll=settings.nll,
    )
    remove_console_callbacks(trainer)
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
