"""Folded LoRA layers against PEFT's own."""

from typing import Any

import pytest
import torch

from orpo.training.fast.folded_lora import fold
from tests.training.small_models import copy_of, gradients, largest_relative_difference, make_model, with_lora

IDS = torch.arange(3, 35).view(2, 16)


def run(model: Any) -> torch.Tensor:
    model.zero_grad()
    loss: torch.Tensor = model(input_ids=IDS, labels=IDS).loss
    loss.backward()
    return loss


@pytest.mark.parametrize("shape", ["llama_untied", "llama_with_biases", "qwen2", "phi"])
def test_loss_and_gradients_are_pefts(shape: str) -> None:
    plain = with_lora(make_model(shape))
    folded = copy_of(plain)
    assert fold(folded) >= 8
    torch.testing.assert_close(run(folded), run(plain), rtol=1e-6, atol=1e-6)
    assert largest_relative_difference(gradients(folded), gradients(plain)) <= 1e-5


def test_switched_off_merged_or_doubled_adapters_are_left_to_peft() -> None:
    plain = with_lora(make_model("llama_untied"))
    folded = copy_of(plain)
    fold(folded)
    with torch.no_grad(), plain.disable_adapter(), folded.disable_adapter():
        torch.testing.assert_close(folded(input_ids=IDS).logits, plain(input_ids=IDS).logits)
    for model in (plain, folded):
        model.merge_adapter()
    with torch.no_grad():
        torch.testing.assert_close(folded(input_ids=IDS).logits, plain(input_ids=IDS).logits)
    for model in (plain, folded):
        model.unmerge_adapter()
        torch.manual_seed(1)
        model.add_adapter("second", model.peft_config["default"])
        model.base_model.set_adapter(["default", "second"])
    with torch.no_grad():
        torch.testing.assert_close(folded(input_ids=IDS).logits, plain(input_ids=IDS).logits)


def test_dropout_in_training_is_left_to_peft() -> None:
    """The same random state must give the same dropout as PEFT's own layers."""
    plain = with_lora(make_model("llama_untied"), lora_dropout=0.3).train()
    folded = copy_of(plain)
    fold(folded)
    losses = []
    for model in (plain, folded):
        torch.manual_seed(5)
        losses.append(run(model))
    assert torch.equal(*losses)


def test_a_frozen_input_gets_no_gradient_and_costs_none() -> None:
    model = with_lora(make_model("llama_untied"))
    fold(model)
    layer = model.get_base_model().model.layers[0].self_attn.q_proj
    x = torch.randn(5, 32)
    layer(x).sum().backward()
    assert x.grad is None and layer.lora_A["default"].weight.grad is not None
