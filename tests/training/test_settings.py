"""A setting out of range is told with its flag, and defaults fit the model."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from orpo.command.errors import SettingsError
from tests.training.small_models import settings_from


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
        settings_from(**wrong)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"method": "sft", "beta": 0.1}, r"--beta 0.1: is not read by --method sft, only by orpo, dpo"),
        ({"margin": 0.5}, r"--margin 0.5: is not read by --method orpo, only by simpo"),
        ({"method": "kto", "label_smoothing": 0.1}, r"--label-smoothing .*only by dpo, cpo"),
        ({"method": "dpo", "nll": "completion"}, r"--nll completion: is not read by --method dpo"),
        ({"method": "ipo", "beta": 0.0}, r"--beta 0.0"),
        ({"method": "dpo", "trainer": "trl"}, r"--trainer trl: knows the method orpo only"),
    ],
)
def test_what_a_method_does_not_read_is_refused_by_name(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        settings_from(**wrong)


def test_the_learning_rate_follows_the_width_and_the_family_and_a_given_one_wins() -> None:
    """5e-4 (2000 / 576)^0.781 = 5e-4 * 2.6431 = 1.322e-3 for SmolLM2-135M; Qwen2.5-0.5B 5e-4 (2000 / 896)^0.0775."""
    from transformers import LlamaConfig, Qwen2Config

    from orpo.training.learning_rate import peak_learning_rate

    llama, qwen = LlamaConfig(hidden_size=576), Qwen2Config(hidden_size=896)
    assert peak_learning_rate(settings_from(), llama).value == pytest.approx(1.322e-3, rel=1e-3)
    assert peak_learning_rate(settings_from(), qwen).value == pytest.approx(5.3209e-4, rel=1e-3)
    assert peak_learning_rate(settings_from(method="dpo"), llama).value == pytest.approx(1.322e-4, rel=1e-3)
    assert "Thinking Machines" in peak_learning_rate(settings_from(), llama).source
    given = peak_learning_rate(settings_from(learning_rate=1e-5), llama)
    assert (given.value, given.source) == (1e-5, "given")


def test_the_run_folder_is_named_after_the_model(orpo_home: Path) -> None:
    assert settings_from(model="Qwen/Qwen2.5-0.5B").run_folder == orpo_home / "trained" / "Qwen2.5-0.5B-orpo"
    assert settings_from(model="../models/mine/").run_folder.name == "mine-orpo"
    assert settings_from(model="..").run_folder.name == "model-orpo"
    assert settings_from(method="simpo").run_folder.name == "SmolLM2-135M-Instruct-simpo"


def test_four_bit_weights_compute_in_their_compute_dtype() -> None:
    """Their norms are fp32, from which the trainers took that nothing is to be computed in bf16."""
    import torch

    from orpo.training.trainer_arguments import compute_dtype

    model = torch.nn.Linear(2, 2)
    model.config = SimpleNamespace()  # type: ignore[assignment]
    assert compute_dtype(cast(Any, model)) == "float32"
    quantized = SimpleNamespace(bnb_4bit_compute_dtype=torch.bfloat16)
    model.config = SimpleNamespace(quantization_config=quantized)  # type: ignore[assignment]
    assert compute_dtype(cast(Any, model)) == "bfloat16"
