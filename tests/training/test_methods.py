"""Every method in the fast trainer: its loss against TRL's trainer where TRL has one, and runs that learn."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from orpo.records.labelled import LabelledReply
from orpo.training.examples import TokenizedReply
from orpo.training.fast import trainer as fast_trainer
from orpo.training.methods import METHODS
from orpo.training.objective import label_weights
from orpo.training.trainer_arguments import TrainerParts
from tests.small_models import make_shape, make_word_tokenizer, with_lora
from tests.training.small_models import (
    LENGTHS,
    Pair,
    copy_of,
    gradients,
    largest_relative_difference,
    make_pairs,
    sequence_log_probs,
    settings_from,
)

PAIRS = make_pairs(LENGTHS)
ON_PAIRS = [method for method in METHODS if method != "grpo"]  # tests/training/test_grpo.py has the other


def fast_loss(model: Any, folder: Path, pairs: Sequence[Any] = PAIRS, **changes: Any) -> float:
    """Do a step of the fast trainer without an update; return its loss, leave its gradients."""
    values = {"device": "cpu", "dtype": "float32", "batch_size": len(pairs), "learning_rate": 1e-3, **changes}
    parts: Any = (model, make_word_tokenizer(), pairs, [], settings_from(**values), folder, [], 1e-3)
    trainer = fast_trainer.build_trainer(TrainerParts(*parts))
    model.zero_grad()
    return float(trainer.training_step(model, {"pairs": list(pairs)}))


def trl_arguments(folder: Path) -> dict[str, Any]:
    return {
        "output_dir": str(folder),
        "per_device_train_batch_size": len(PAIRS),
        "report_to": [],
        "use_cpu": True,
        "bf16": False,
        "max_length": 128,
    }


def trl_loss(trainer: Any, model: Any) -> float:
    batch = next(iter(trainer.get_train_dataloader()))
    model.zero_grad()
    model.train()
    trainer.current_gradient_accumulation_steps = 1
    loss = trainer.compute_loss(model, batch)
    loss.backward()
    return float(loss.detach())


def fresh_and_moved() -> tuple[Any, Any]:
    """Return one model twice: with an adapter that does nothing yet, and with one that does.

    TRL takes the adapter as it finds it for the reference, so it must find the first.
    """
    moved = with_lora(make_shape("llama_untied"))
    fresh = copy_of(moved)
    with torch.no_grad():
        for name, weight in fresh.named_parameters():
            if "lora_B" in name:
                weight.zero_()
    return fresh, moved


def take_weights(twin: Any, moved: Any) -> None:
    """Give the twin's adapter the weights that it would have after some training."""
    own = dict(twin.named_parameters())
    with torch.no_grad():
        for name, weight in moved.named_parameters():
            own[name].copy_(weight)


def dataset(rows: Sequence[dict[str, Any]]) -> Any:
    from datasets import Dataset

    return Dataset.from_list(list(rows))


def pair_columns(pair: Pair) -> dict[str, Any]:
    return {"prompt_ids": pair.prompt_ids, "chosen_ids": pair.chosen_ids, "rejected_ids": pair.rejected_ids}


@pytest.mark.parametrize(
    ("method", "loss_type", "ours", "theirs", "trivial"),
    [
        ("dpo", "sigmoid", {"beta": 0.3}, {"beta": 0.3}, math.log(2)),
        ("ipo", "ipo", {"beta": 0.3}, {"beta": 0.3}, 1 / 0.36),
    ],
)
def test_dpo_and_ipo_are_trls(
    method: str, loss_type: str, ours: dict[str, Any], theirs: dict[str, Any], trivial: float, tmp_path: Path
) -> None:
    """TRL's DPOTrainer on the same ids: loss within 1e-5, gradients within 1e-4."""
    from trl.trainer.dpo_config import DPOConfig
    from trl.trainer.dpo_trainer import DPOTrainer

    class IdsTrainer(DPOTrainer):
        def _prepare_dataset(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
            return dataset

    twin, model = fresh_and_moved()
    trainer = IdsTrainer(
        model=twin,
        args=DPOConfig(**trl_arguments(tmp_path), loss_type=[loss_type], **theirs, disable_dropout=False),
        train_dataset=dataset([pair_columns(pair) for pair in PAIRS]),
        processing_class=make_word_tokenizer(),
    )
    take_weights(twin, model)
    expected = trl_loss(trainer, twin)
    assert expected != pytest.approx(trivial, abs=1e-3), "the reference must differ"
    assert fast_loss(model, tmp_path, method=method, **ours) == pytest.approx(expected, rel=1e-5)
    assert largest_relative_difference(gradients(model), gradients(twin)) <= 1e-4


@pytest.mark.parametrize(
    ("method", "ours", "theirs"),
    [
        (
            "cpo",
            {"beta": 0.2, "likelihood_weight": 0.7, "label_smoothing": 0.1},
            {"loss_type": "sigmoid", "beta": 0.2, "cpo_alpha": 0.7, "label_smoothing": 0.1},
        ),
        (
            "simpo",
            {"beta": 1.5, "margin": 0.4},
            {"loss_type": "simpo", "beta": 1.5, "simpo_gamma": 0.6, "cpo_alpha": 0.0},
        ),
    ],
)
def test_cpo_and_simpo_are_trls(method: str, ours: dict[str, Any], theirs: dict[str, Any], tmp_path: Path) -> None:
    from trl.experimental.cpo import CPOConfig, CPOTrainer

    class IdsTrainer(CPOTrainer):
        def tokenize_row(self, feature: dict[str, Any], model: Any = None) -> dict[str, Any]:
            return feature

    from orpo.training.trl_trainer import _as_feature

    model = with_lora(make_shape("llama_untied"))
    twin = copy_of(model)
    trainer = IdsTrainer(
        model=twin,
        args=CPOConfig(**trl_arguments(tmp_path), **theirs, disable_dropout=False, remove_unused_columns=False),
        train_dataset=dataset([_as_feature(pair) for pair in PAIRS]),
        processing_class=make_word_tokenizer(),
    )
    expected = trl_loss(trainer, twin)
    assert fast_loss(model, tmp_path, method=method, **ours) == pytest.approx(expected, rel=1e-5)
    assert largest_relative_difference(gradients(model), gradients(twin)) <= 1e-4


def test_kto_is_trls(tmp_path: Path) -> None:
    """TRL's KTOTrainer on the pairs as single rows, with the mismatched replies that ours takes within the step."""
    from trl.trainer.kto_config import KTOConfig
    from trl.trainer.kto_trainer import KTOTrainer

    class IdsTrainer(KTOTrainer):
        def _prepare_dataset(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
            return dataset

    others = [PAIRS[-1], *PAIRS[:-1]]
    rows = [
        {"prompt_ids": pair.prompt_ids, "completion_ids": reply, "KL_completion_ids": other_reply, "label": label}
        for pair, other in zip(PAIRS, others, strict=True)
        for reply, other_reply, label in (
            (pair.chosen_ids, other.chosen_ids, True),
            (pair.rejected_ids, other.rejected_ids, False),
        )
    ]
    twin, model = fresh_and_moved()
    arguments = {**trl_arguments(tmp_path), "per_device_train_batch_size": len(rows)}
    weights: dict[str, Any] = {"desirable_weight": 1.2, "undesirable_weight": 0.8}
    trainer = IdsTrainer(
        model=twin,
        args=KTOConfig(**arguments, beta=0.3, **weights, disable_dropout=False, train_sampling_strategy="sequential"),
        train_dataset=dataset(rows),
        processing_class=make_word_tokenizer(),
    )
    take_weights(twin, model)
    expected = trl_loss(trainer, twin)
    assert expected != pytest.approx(0.5, abs=1e-3), "the reference must differ"
    assert fast_loss(model, tmp_path, method="kto", beta=0.3, **weights) == pytest.approx(expected, rel=1e-5)
    assert largest_relative_difference(gradients(model), gradients(twin)) <= 1e-4


def labelled(labels: Sequence[bool]) -> list[TokenizedReply]:
    """Return the replies of the pairs, alternately the chosen and the rejected one, with these labels."""
    return [
        TokenizedReply(pair.prompt_ids, reply, LabelledReply([], [], label), row)
        for row, (pair, label) in enumerate(zip(PAIRS, labels, strict=True), start=1)
        for reply in [pair.rejected_ids if row % 2 else pair.chosen_ids]
    ]


@pytest.mark.parametrize("labels", [(True, False, True, True, False), (False,) * 5, (True, False, False, False, False)])
def test_kto_on_single_replies_is_trls(labels: tuple[bool, ...], tmp_path: Path) -> None:
    """TRL's KTOTrainer on the same rows; its mismatched replies are the row's before, as ours are."""
    from trl.trainer.kto_config import KTOConfig
    from trl.trainer.kto_trainer import KTOTrainer

    class IdsTrainer(KTOTrainer):
        def _prepare_dataset(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
            return dataset

    replies = labelled(labels)
    rows = [
        {
            "prompt_ids": one.prompt_ids,
            "completion_ids": one.reply_ids,
            "KL_completion_ids": other.reply_ids,
            "label": one.label,
        }
        for one, other in zip(replies, [replies[-1], *replies[:-1]], strict=True)
    ]
    twin, model = fresh_and_moved()
    cut = copy_of(model)
    desirable, undesirable = label_weights(settings_from(method="kto").objective, labels)
    trainer = IdsTrainer(
        model=twin,
        args=KTOConfig(
            **trl_arguments(tmp_path),
            beta=0.3,
            desirable_weight=desirable,
            undesirable_weight=undesirable,
            disable_dropout=False,
            train_sampling_strategy="sequential",
        ),
        train_dataset=dataset(rows),
        processing_class=make_word_tokenizer(),
    )
    take_weights(twin, model)
    expected = trl_loss(trainer, twin)
    ours: dict[str, Any] = {"method": "kto", "beta": 0.3}
    assert fast_loss(model, tmp_path, replies, **ours) == pytest.approx(expected, rel=1e-5)
    assert largest_relative_difference(gradients(model), gradients(twin)) <= 1e-4
    assert fast_loss(cut, tmp_path, replies, token_budget=1, **ours) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("good", "bad", "expected"),
    [
        (10, 10, (1.0, 1.0)),
        (12, 10, (1.0, 1.0)),  # 1.2 lies between 1 and 4/3
        (30, 10, (1.0, 3.0)),
        (10, 25, (2.5, 1.0)),
        (5, 0, (1.0, 1.0)),
    ],
)
def test_ktos_weights_follow_the_numbers_of_both_kinds(good: int, bad: int, expected: tuple[float, float]) -> None:
    """The paper's 1 <= (weight * number of good) / (weight * number of bad) <= 4/3, unless weights are given."""
    labels = [True] * good + [False] * bad
    assert label_weights(settings_from(method="kto").objective, labels) == expected
    given = label_weights(settings_from(method="kto", desirable_weight=0.5).objective, labels)
    assert given == (0.5, expected[1])


def test_sft_is_trls(tmp_path: Path) -> None:
    """TRL's SFTTrainer with the loss over the reply alone."""
    from trl.trainer.sft_config import SFTConfig
    from trl.trainer.sft_trainer import SFTTrainer

    class IdsTrainer(SFTTrainer):
        def _prepare_dataset(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
            return dataset

    model = with_lora(make_shape("llama_untied"))
    twin = copy_of(model)
    rows = [
        {
            "input_ids": [*pair.prompt_ids, *pair.chosen_ids],
            "labels": [*([-100] * len(pair.prompt_ids)), *pair.chosen_ids],
            "completion_mask": [*([0] * len(pair.prompt_ids)), *([1] * len(pair.chosen_ids))],
        }
        for pair in PAIRS
    ]
    trainer = IdsTrainer(
        model=twin,
        args=SFTConfig(**trl_arguments(tmp_path), completion_only_loss=True, remove_unused_columns=False),
        train_dataset=dataset(rows),
        processing_class=make_word_tokenizer(),
    )
    expected = trl_loss(trainer, twin)
    assert fast_loss(model, tmp_path, method="sft") == pytest.approx(expected, rel=1e-5)
    assert largest_relative_difference(gradients(model), gradients(twin)) <= 1e-4


def test_sft_is_the_mean_over_the_tokens_of_chosen_replies(tmp_path: Path) -> None:
    """Against the model's own logits; the rejected reply is not even computed."""
    model = with_lora(make_shape("llama_untied"))
    twin = copy_of(model)
    tokens = torch.cat([sequence_log_probs(twin, p.prompt_ids, p.chosen_ids)[-len(p.chosen_ids) :] for p in PAIRS])
    (-tokens.mean()).backward()
    assert fast_loss(model, tmp_path, method="sft") == pytest.approx(-tokens.mean().item(), rel=1e-5)
    assert largest_relative_difference(gradients(model), gradients(twin)) <= 1e-4


@pytest.mark.parametrize("method", ON_PAIRS)
def test_the_cut_of_a_step_changes_nothing(method: str, tmp_path: Path) -> None:
    """One row against a row for each pair: the same loss and gradients, references and KTO's mean included."""
    model = with_lora(make_shape("llama_untied"))
    whole = copy_of(model)
    expected = fast_loss(whole, tmp_path, method=method)
    assert fast_loss(model, tmp_path, method=method, token_budget=1) == pytest.approx(expected, rel=1e-5)
    assert largest_relative_difference(gradients(model), gradients(whole)) <= 1e-4


@pytest.mark.parametrize(("method", "trivial"), [("dpo", math.log(2)), ("ipo", 1 / (2 * 0.1) ** 2), ("kto", 0.5)])
def test_an_adapter_trained_further_is_the_reference(method: str, trivial: float, tmp_path: Path) -> None:
    """The base model was, so the first step of a second round pulled back to it; the weights come back untouched."""
    model = with_lora(make_shape("llama_untied"))
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    assert fast_loss(copy_of(model), tmp_path, method=method) != pytest.approx(trivial, rel=1e-2)
    assert fast_loss(model, tmp_path, method=method, from_adapter=tmp_path) == pytest.approx(trivial, rel=1e-5)
    assert any(float(gradient.norm()) > 0 for gradient in gradients(model).values())
    assert all(torch.equal(weight, before[name]) for name, weight in model.named_parameters())


@pytest.mark.parametrize("method", ON_PAIRS)
def test_a_run_learns_the_pairs_by_heart(method: str, tmp_path: Path) -> None:
    """Sixty steps on five pairs: the loss falls, the chosen reply ends up preferred, the reference stays the base's."""
    model = with_lora(make_shape("llama_untied"))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.zero_()
    values = {"device": "cpu", "dtype": "float32", "batch_size": 5, "max_steps": 60, "save_steps": 1000}
    settings = settings_from(**values, method=method, logging_steps=20, warmup_share=0.0, learning_rate=1e-2)
    parts: Any = (model, make_word_tokenizer(), PAIRS, [], settings, tmp_path, [], 1e-2)
    trainer = fast_trainer.build_trainer(TrainerParts(*parts))
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert losses[-1] < losses[0]
    last = next(entry for entry in reversed(trainer.state.log_history) if "logps/chosen" in entry)
    if method == "sft":
        assert last["logps/chosen"] > -1.0
    else:
        assert last["rewards/accuracies"] == 1.0 and last["rewards/margins"] > 0
