"""TRL's trainer, fed by us, computes the paper's formula and cannot fall into the traps measured in trl 1.16."""

from pathlib import Path
from typing import Any

import pytest
import torch

from orpo.records.pairs import PreferencePair
from orpo.training.examples import TokenizedPair
from orpo.training.losses import log_odds
from orpo.training.tokenization import tokenize_pairs
from orpo.training.trainer_arguments import TrainerParts
from tests.training.small_models import settings_from


def build(folder: Path, pairs: list[TokenizedPair], tokenizer: Any, out: Path, **changes: Any) -> Any:
    """Return a trainer for a tiny model whose adapter already does something."""
    from transformers import AutoModelForCausalLM

    from orpo.training.adapter import add_adapter
    from orpo.training.trl_trainer import build_trainer

    settings = settings_from(model=str(folder), device="cpu", learning_rate=1e-3, **changes)
    torch.manual_seed(1)
    model = add_adapter(AutoModelForCausalLM.from_pretrained(folder), settings)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.2)
    return build_trainer(TrainerParts(model, tokenizer, pairs, [], settings, out, [], 1e-3))


def log_probs(model: Any, ids: list[int]) -> torch.Tensor:
    """Return log p of each token but the first: [T - 1]."""
    logits = model(torch.tensor([ids])).logits[0, :-1]
    return logits.log_softmax(-1).gather(1, torch.tensor(ids[1:])[:, None])[:, 0]


def formula(model: Any, pairs: list[TokenizedPair], beta: float, nll: str) -> float:
    """Compute the loss one sequence at a time, without padding: equations 4 to 7 of the paper."""
    odds, likelihoods = [], []
    for pair in pairs:
        start = len(pair.prompt_ids) - 1
        chosen = log_probs(model, pair.prompt_ids + pair.chosen_ids)
        rejected = log_probs(model, pair.prompt_ids + pair.rejected_ids)
        odds.append(log_odds(chosen[start:].mean()) - log_odds(rejected[start:].mean()))
        likelihoods.append(chosen[start:] if nll == "completion" else chosen)
    odds_ratio_loss = -torch.nn.functional.logsigmoid(torch.stack(odds)).mean()
    return float(-torch.cat(likelihoods).mean() + beta * odds_ratio_loss)


@pytest.mark.parametrize("nll", ["completion", "prompt_and_completion"])
def test_the_loss_is_the_formula(
    tiny_model_folder: Path, tokenizer: Any, rows: list[PreferencePair], tmp_path: Path, nll: str
) -> None:
    pairs = tokenize_pairs(rows[:5], tokenizer, 256).pairs
    assert len({pair.longest for pair in pairs}) > 1, "padding must matter"
    trainer = build(tiny_model_folder, pairs, tokenizer, tmp_path, nll=nll, beta=0.25)
    batch = trainer.data_collator([trainer.train_dataset[index] for index in range(5)])
    with torch.no_grad():
        loss = float(trainer.compute_loss(trainer.model, batch))
        expected = formula(trainer.model, pairs, 0.25, nll)
    assert loss == pytest.approx(expected, abs=1e-5)


def test_each_reply_is_trained_with_one_end_token(
    tiny_model_folder: Path, tokenizer: Any, rows: list[PreferencePair], tmp_path: Path
) -> None:
    pairs = tokenize_pairs(rows, tokenizer, 256).pairs
    trainer = build(tiny_model_folder, pairs, tokenizer, tmp_path)
    for feature in trainer.train_dataset:
        for side in ("chosen", "rejected"):
            labels = [token for token in feature[f"{side}_labels"] if token != -100]
            assert labels.count(tokenizer.eos_token_id) == 1 and labels[-1] == tokenizer.eos_token_id


def test_the_adapters_dropout_is_not_switched_off(
    tiny_model_folder: Path, tokenizer: Any, rows: list[PreferencePair], tmp_path: Path
) -> None:
    """TRL's default disables every dropout of the model, that of the adapter too."""
    pairs = tokenize_pairs(rows, tokenizer, 256).pairs
    trainer = build(tiny_model_folder, pairs, tokenizer, tmp_path, lora_dropout=0.3)
    rates = {module.p for module in trainer.model.modules() if isinstance(module, torch.nn.Dropout)}
    assert rates == {0.3}


def test_tokens_are_counted_without_padding(
    tiny_model_folder: Path, tokenizer: Any, rows: list[PreferencePair], tmp_path: Path
) -> None:
    pairs = tokenize_pairs(rows[:4], tokenizer, 256).pairs
    trainer = build(tiny_model_folder, pairs, tokenizer, tmp_path, batch_size=4, max_steps=1, save_steps=99)
    trainer.train()
    expected = sum(2 * len(pair.prompt_ids) + len(pair.chosen_ids) + len(pair.rejected_ids) for pair in pairs)
    assert trainer.state.num_input_tokens_seen == expected


def test_a_reply_that_became_certain_leaves_loss_and_gradients_finite(
    tiny_model_folder: Path, tokenizer: Any, rows: list[PreferencePair], tmp_path: Path
) -> None:
    """Two one-word pairs at 1e-2 brought a probability to 1 within eight steps, where TRL's own loss is NaN."""
    from trl.experimental.orpo import ORPOTrainer

    pairs = tokenize_pairs(rows[:2], tokenizer, 256).pairs
    trainer = build(tiny_model_folder, pairs, tokenizer, tmp_path)
    rejected = torch.tensor([-1.0, -2.0])

    def gradient(of: Any) -> torch.Tensor:
        chosen = torch.tensor([0.0, -1e-9], requires_grad=True)
        of(chosen, rejected)[0].sum().backward()
        assert chosen.grad is not None
        return chosen.grad

    theirs = gradient(lambda *sides: ORPOTrainer.odds_ratio_loss(trainer, *sides))
    assert not theirs.isfinite().all(), "TRL mended it: take odds_ratio_loss out of trl_trainer.py"
    assert gradient(trainer.odds_ratio_loss).isfinite().all()
