"""The private names of other libraries that training leans on, each with what breaks when a new version drops it."""

import inspect
from pathlib import Path

import pytest


def test_accelerate_can_be_told_that_gradients_are_not_complete() -> None:
    """DeepSpeed steps its optimiser in `backward` unless told; `no_sync` does not tell it."""
    from accelerate.state import GradientState

    assert callable(getattr(GradientState, "_set_sync_gradients", None)), (
        "accelerate dropped GradientState._set_sync_gradients: with DeepSpeed, fast/trainer.py would step once a row"
    )


def test_transformers_counts_gpus_in_a_field_that_can_be_set(tmp_path: Path) -> None:
    """Otherwise one process with several GPUs would wrap the model in nn.DataParallel."""
    from transformers import TrainingArguments

    arguments = TrainingArguments(output_dir=str(tmp_path), use_cpu=True)
    assert arguments.n_gpu in (0, 1)
    arguments._n_gpu = 7
    assert arguments.n_gpu == 7, (
        "transformers no longer counts GPUs in TrainingArguments._n_gpu: trainer_arguments.keep_to_one_gpu does nothing"
    )


def test_transformers_names_a_models_attention_in_its_configuration() -> None:
    from transformers import LlamaConfig

    assert hasattr(LlamaConfig(), "_attn_implementation"), (
        "transformers dropped config._attn_implementation: fast/packed_forward.py cannot tell which attention is on"
    )


@pytest.mark.parametrize("name", ["model", "sdpa_attention_forward", "flex_attention_forward"])
def test_transformers_has_the_attention_functions_that_ours_build_on(name: str) -> None:
    from transformers.integrations import flex_attention, sdpa_attention
    from transformers.models.llama import modeling_llama

    if name == "model":
        found = getattr(modeling_llama, "eager_attention_forward", None)
    else:
        found = getattr(sdpa_attention, name, None) or getattr(flex_attention, name, None)
    assert found is not None and list(inspect.signature(found).parameters)[:4] == ["module", "query", "key", "value"], (
        f"transformers changed {name}: fast/shared_prompt_attention.py must follow"
    )


def test_transformers_makes_masks_by_name_with_a_mask_function() -> None:
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS

    made_by = ALL_MASK_ATTENTION_FUNCTIONS["sdpa"]
    assert "mask_function" in inspect.signature(made_by).parameters, (
        "transformers changed its mask interface: fast/shared_prompt_attention.py reads `mask_function`"
    )


def test_peft_keeps_adapters_where_folding_looks_for_them() -> None:
    from peft.tuners.lora import Linear

    assert {"disable_adapters", "merged", "active_adapters"} <= set(dir(Linear)), (
        "peft renamed the state of its LoRA layers: fast/folded_lora.py must follow"
    )


def test_trl_still_asks_its_trainer_for_the_loss_and_stores_metrics() -> None:
    from trl.experimental.orpo import ORPOTrainer

    for name in ("odds_ratio_loss", "store_metrics", "concatenated_forward", "tokenize_row"):
        assert name in vars(ORPOTrainer), f"trl dropped ORPOTrainer.{name}: trl_trainer.py must follow"
