"""The memory estimate against what a backward pass really keeps, and the token budget that it leads to."""

from pathlib import Path

import pytest
import torch

from orpo.training.fast import memory as memory_estimate
from orpo.training.fast.folded_lora import fold
from orpo.training.fast.memory import _kept_by_row, estimate_memory, kept_bytes_per_token, largest_token_budget
from orpo.training.fast.packed_forward import best_layout
from tests.small_models import make_shape, with_lora


def prepared(shape: str = "llama_untied") -> torch.nn.Module:
    model: torch.nn.Module = with_lora(make_shape(shape))
    assert best_layout(model) == "shared"
    fold(model)
    return model


@pytest.mark.parametrize("shape", ["llama_untied", "qwen3", "phi"])
def test_what_a_long_row_keeps_follows_from_two_short_ones(shape: str) -> None:
    model = prepared(shape)
    per_token = kept_bytes_per_token(model, "shared")
    kept, tokens = _kept_by_row(model, "shared", 40)
    assert kept == pytest.approx(per_token * tokens, rel=0.1)


def test_sharing_prompts_keeps_as_much_for_a_token_and_fewer_tokens() -> None:
    model = prepared()
    shared, packed = (_kept_by_row(model, layout, 40) for layout in ("shared", "packed"))
    assert shared[1] < packed[1] and shared[0] < packed[0]


def test_checkpointing_is_expected_to_keep_less() -> None:
    model = prepared()
    plain, checkpointed = (estimate_memory(model, 10_000, "shared", checkpointing=on) for on in (False, True))
    assert checkpointed.over_the_model < plain.over_the_model
    assert plain.total == plain.weights + plain.over_the_model
    told = dict(plain.as_rows())
    assert "activations of a row of 10000 tokens" in told and told["peak"] == f"{plain.total / 2**20:,.0f} MB"


def test_the_token_budget_is_the_largest_that_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    model = prepared()
    monkeypatch.setattr(memory_estimate, "free_memory", lambda device: 2**40)
    assert largest_token_budget(model, "shared", at_most=2048) == 2048
    free = 40 * 2**20
    monkeypatch.setattr(memory_estimate, "free_memory", lambda device: free)
    budget = largest_token_budget(model, "shared", at_most=10**7)
    assert estimate_memory(model, budget, "shared").over_the_model <= free and budget < 10**7


def test_an_estimate_leaves_no_gradients_and_changes_no_mode() -> None:
    model = prepared().eval()
    estimate_memory(model, 100, "shared")
    assert not model.training and all(weight.grad is None for weight in model.parameters())


def test_free_memory_ends_where_the_container_does_and_is_shared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory_estimate, "_CGROUP", tmp_path)
    (tmp_path / "memory.max").write_text("3000000\n")
    (tmp_path / "memory.current").write_text("1000000\n")
    assert memory_estimate.free_memory(torch.device("cpu")) == 2_000_000
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert memory_estimate.free_memory(torch.device("cpu")) == 500_000
    (tmp_path / "memory.max").write_text("max\n")
    assert memory_estimate.free_memory(torch.device("cpu")) > 500_000
