"""A setting out of range is told with its flag, and defaults fit the model."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from orpo.command.errors import SettingsError
from orpo.training.settings import TrainSettings


@pytest.mark.parametrize(
    ("wrong", "flag"),
    [
        ({"learning_rate": 0.0}, "--learning-rate 0"),
        ({"beta": -0.1}, "--beta -0.1"),
        ({"lora_rank": 0}, "--lora-rank 0"),
        ({"lora_dropout": 1.0}, "--lora-dropout 1.0"),
        ({"lora_targets": []}, "--lora-targets"),
        ({"epochs": 0.0}, "--epochs 0"),
        ({"batch_size": 0}, "--batch-size 0"),
        ({"max_steps": 0}, "--max-steps 0"),
        ({"eval_share": 1.0}, "--eval-share 1.0"),
        ({"max_length": 4}, "--max-length 4"),
        ({"max_length": 64, "max_prompt_length": 64}, "--max-prompt-length 64"),
        ({"model": " "}, "--model"),
        ({"resume": True, "overwrite": True}, "--resume and --overwrite"),
    ],
)
def test_a_value_out_of_range_names_its_flag(wrong: dict[str, Any], flag: str) -> None:
    with pytest.raises(SettingsError, match=flag):
        TrainSettings(**wrong)


def test_the_embedded_model_gets_a_higher_rate_and_a_given_one_wins() -> None:
    embedded, other = TrainSettings(), TrainSettings(model="org/big")
    assert embedded.peak_learning_rate > other.peak_learning_rate
    assert TrainSettings(learning_rate=1e-5).peak_learning_rate == 1e-5


def test_the_run_folder_is_named_after_the_model(orpo_home: Path) -> None:
    assert TrainSettings(model="Qwen/Qwen2.5-0.5B").run_folder == orpo_home / "trained" / "Qwen2.5-0.5B-orpo"
    assert TrainSettings(model="../models/mine/").run_folder.name == "mine-orpo"
    assert TrainSettings(model="..").run_folder.name == "model-orpo"


def test_four_bit_weights_compute_in_their_compute_dtype() -> None:
    """Their norms are fp32, from which the trainers took that nothing is to be computed in bf16."""
    import torch

    from orpo.training.trainer_arguments import compute_dtype

    model = torch.nn.Linear(2, 2)
    assert compute_dtype(model) == "float32"
    quantized = SimpleNamespace(bnb_4bit_compute_dtype=torch.bfloat16)
    model.config = SimpleNamespace(quantization_config=quantized)  # type: ignore[assignment]
    assert compute_dtype(model) == "bfloat16"
