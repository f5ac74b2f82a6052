"""Merged weights are W + (alpha / r) B A, added once, with shared embeddings as they should be."""

from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from orpo.chat_model.loading import load_model
from orpo.command.errors import ExportError
from orpo.exporting.merging import merge_adapter
from tests import small_models
from tests.exporting.conftest import save_llama

IDS = torch.arange(3, 40)[None]


def logits(model: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(input_ids=IDS).logits
    return found


@pytest.mark.parametrize(("alpha", "rank", "scale"), [(8, 4, 2.0), (3, 6, 0.5)])
def test_a_merged_weight_is_the_sum_that_the_paper_writes(base: Path, alpha: int, rank: int, scale: float) -> None:
    """W' = W + (alpha / r) B A (arXiv 2106.09685, section 4.1), computed here from the adapter's own tensors."""
    model = load_model(str(base), device="cpu", dtype="float32")
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    tuned = small_models.with_lora(model, r=rank, lora_alpha=alpha, target_modules=["q_proj", "down_proj"])
    kept = {name: weight.clone() for name, weight in tuned.state_dict().items()}
    after = merge_adapter(tuned).state_dict()
    changed = [name for name, weight in after.items() if not torch.equal(weight, before[name])]
    assert set(after) == set(before) and len(changed) == 4
    for name in changed:
        stem = f"base_model.model.{name.removesuffix('.weight')}"
        a, b = kept[f"{stem}.lora_A.default.weight"], kept[f"{stem}.lora_B.default.weight"]
        torch.testing.assert_close(after[name], before[name] + scale * (b.double() @ a.double()).float())


def test_merging_twice_is_refused(base: Path) -> None:
    tuned = small_models.with_lora(load_model(str(base), device="cpu", dtype="float32"))
    merged = merge_adapter(tuned)
    weights = {name: weight.clone() for name, weight in merged.state_dict().items()}
    with pytest.raises(ExportError, match="merged before"):
        merge_adapter(tuned)
    assert all(torch.equal(weight, weights[name]) for name, weight in merged.state_dict().items())
    halfway = small_models.with_lora(load_model(str(base), device="cpu", dtype="float32"))
    halfway.merge_adapter()
    with pytest.raises(ExportError, match="merged already"):
        merge_adapter(halfway)


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`:UserWarning")  # what is tested
@pytest.mark.parametrize(
    ("settings", "stays_tied"),
    [
        ({"target_modules": ["q_proj"]}, True),
        ({"target_modules": ["q_proj", "lm_head"]}, False),
        ({"target_modules": ["q_proj", "embed_tokens"]}, False),
        ({"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]}, False),
        ({"target_modules": ["q_proj"], "trainable_token_indices": [5, 9]}, True),
    ],
)
def test_shared_embeddings_are_parted_only_where_the_adapter_changes_one(
    settings: dict[str, object], stays_tied: bool, tmp_path: Path
) -> None:
    """A LoRA on the head of a tied model went into the input embedding as well: another model from the first token."""
    model = load_model(str(save_llama(tmp_path / "tied", tied=True)), device="cpu", dtype="float32")
    tuned = get_peft_model(model, LoraConfig(r=4, lora_alpha=8, task_type="CAUSAL_LM", **settings))  # type: ignore[arg-type]
    torch.manual_seed(0)
    with torch.no_grad():
        for name, weight in tuned.named_parameters():
            if weight.requires_grad and ("lora" in name or "trainable" in name or "modules_to_save" in name):
                weight.add_(0.2 * torch.randn_like(weight))
    wanted = logits(tuned.eval())
    merged = merge_adapter(tuned)
    torch.testing.assert_close(logits(merged), wanted, atol=1e-4, rtol=1e-4)
    assert merged.config.tie_word_embeddings is stays_tied
    merged.save_pretrained(tmp_path / "merged")
    again = load_model(str(tmp_path / "merged"), device="cpu", dtype="float32")
    torch.testing.assert_close(logits(again), logits(merged))
