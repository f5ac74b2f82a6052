"""Folded LoRA layers against PEFT's own."""

from typing import Any

import pytest
import torch

from orpo.chat_model.options import multiplies_bfloat16
from orpo.training.fast.folded_lora import fold
from tests.small_models import make_shape, with_lora
from tests.training.small_models import copy_of, gradients, largest_relative_difference

IDS = torch.arange(3, 35).view(2, 16)


def run(model: Any) -> torch.Tensor:
    model.zero_grad()
    loss: torch.Tensor = model(input_ids=IDS, labels=IDS).loss
    loss.backward()
    return loss


@pytest.mark.parametrize("shape", ["llama_untied", "llama_with_biases", "qwen2", "phi"])
def test_loss_and_gradients_are_pefts(shape: str) -> None:
    plain = with_lora(make_shape(shape))
    folded = copy_of(plain)
    assert fold(folded) >= 8
    torch.testing.assert_close(run(folded), run(plain), rtol=1e-6, atol=1e-6)
    assert largest_relative_difference(gradients(folded), gradients(plain)) <= 1e-5


def test_switched_off_merged_or_doubled_adapters_are_left_to_peft() -> None:
    plain = with_lora(make_shape("llama_untied"))
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
    plain = with_lora(make_shape("llama_untied"), lora_dropout=0.3).train()
    folded = copy_of(plain)
    fold(folded)
    losses = []
    for model in (plain, folded):
        torch.manual_seed(5)
        losses.append(run(model))
    assert torch.equal(*losses)


def test_a_frozen_input_gets_no_gradient_and_costs_none() -> None:
    model = with_lora(make_shape("llama_untied"))
    fold(model)
    layer = model.get_base_model().model.layers[0].self_attn.q_proj
    x = torch.randn(5, 32)
    layer(x).sum().backward()
    assert x.grad is None and layer.lora_A["default"].weight.grad is not None


def test_bfloat16_products_stay_close_and_everything_else_stays_fp32() -> None:
    """Frozen weights are kept in bfloat16; adapters, their gradients and what layers return are fp32."""
    plain = with_lora(make_shape("llama_with_biases"))
    mixed = copy_of(plain)
    fold(mixed, torch.bfloat16)
    layer = mixed.get_base_model().model.layers[0].self_attn.q_proj
    assert layer.base_layer.weight.dtype == torch.bfloat16 and layer.lora_A["default"].weight.dtype == torch.float32
    assert mixed.get_output_embeddings().weight.dtype == torch.float32
    assert layer(torch.randn(2, 3, 32)).dtype == torch.float32
    torch.testing.assert_close(run(mixed), run(plain), rtol=5e-3, atol=5e-3)
    ours, theirs = gradients(mixed), gradients(plain)
    assert {gradient.dtype for gradient in ours.values()} == {torch.float32}
    assert largest_relative_difference(ours, theirs) <= 0.1


def test_the_reference_of_a_model_with_bfloat16_products_is_the_base_model() -> None:
    plain = with_lora(make_shape("llama_with_biases"))
    mixed = copy_of(plain)
    fold(mixed, torch.bfloat16)
    with torch.no_grad(), plain.disable_adapter(), mixed.disable_adapter():
        expected, got = plain(input_ids=IDS).logits.log_softmax(-1), mixed(input_ids=IDS).logits.log_softmax(-1)
    assert float((got - expected).abs().mean()) < 0.02


def test_what_peft_must_compute_itself_keeps_its_fp32_weights() -> None:
    model = with_lora(make_shape("llama_untied"), lora_dropout=0.1)
    fold(model, torch.bfloat16)
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())


@pytest.mark.parametrize(
    ("able", "does"),
    [
        ({"amx_bf16": True, "avx512_bf16": True}, True),
        ({"cpu_name": "Intel(R) Xeon(R) Platinum", "avx512_bf16": True}, False),
        ({"cpu_name": "AMD EPYC", "avx512_bf16": True}, True),
        ({"cpu_name": "AMD EPYC", "avx512_bf16": False}, False),
        ({"avx512_f": True, "amx_bf16": False}, False),
        ({"architecture": "aarch64"}, False),
    ],
)
def test_bfloat16_is_taken_only_where_the_processor_is_faster_in_it(
    able: dict[str, Any], does: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """AVX-512 BF16 took 1.6 times as long for a step as float32 on Intel's without AMX, and less than half on AMD's."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: able)
    assert multiplies_bfloat16(torch.device("cpu")) is does
    assert not multiplies_bfloat16(torch.device("meta"))
