"""Folded norms and gated MLPs against the model's own."""

from typing import Any

import pytest
import torch
from torch import nn

from orpo.training.folded_layers import _RmsNorm, _SiluTimes, fold_layers
from orpo.training.folded_lora import fold
from tests.training.small_models import SHAPES, copy_of, gradients, largest_relative_difference, make_model, with_lora

IDS = torch.arange(3, 35).view(2, 16)

# Two layers with two norms each and one at the end, and their MLPs; Qwen3 has norms of heads, Gemma another activation,
# Gemma 2 four norms a layer, Phi none that is an RMS norm, Phi-3 gate and up in one product.
FOLDED = {"qwen3": 11, "gemma": 5, "gemma2_softcap": 9, "phi": 0, "phi3_sliding": 5}


def run(model: Any) -> torch.Tensor:
    model.zero_grad()
    loss: torch.Tensor = model(input_ids=IDS, labels=IDS).loss
    loss.backward()
    return loss


@pytest.mark.parametrize("shape", SHAPES)
def test_loss_and_gradients_are_those_of_plain_layers(shape: str) -> None:
    plain = with_lora(make_model(shape))
    folded = copy_of(plain)
    fold(folded)
    assert fold_layers(folded) == FOLDED.get(shape, 7)
    assert fold_layers(folded) == FOLDED.get(shape, 7)  # a second time changes nothing
    torch.testing.assert_close(run(folded), run(plain), rtol=1e-5, atol=1e-5)
    assert largest_relative_difference(gradients(folded), gradients(plain)) <= 1e-4


def test_the_written_gradients_are_those_of_finite_differences() -> None:
    torch.manual_seed(0)
    x, up = (torch.randn(2, 3, 6, dtype=torch.float64, requires_grad=True) for _ in range(2))
    weight = torch.randn(6, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: _RmsNorm.apply(x, weight, 1e-5), x)
    assert torch.autograd.gradcheck(_SiluTimes.apply, (x, up))


def test_gradient_checkpointing_changes_nothing() -> None:
    plain = with_lora(make_model("qwen3")).train()
    folded = copy_of(plain)
    fold_layers(folded)
    folded.activation_checkpointing_enable({"use_reentrant": False})
    torch.testing.assert_close(run(folded), run(plain), rtol=1e-5, atol=1e-5)
    assert largest_relative_difference(gradients(folded), gradients(plain)) <= 1e-4


def test_trained_norms_and_autocast_run_the_plain_forward() -> None:
    plain = with_lora(make_model("llama_untied"), modules_to_save=["norm"])
    plain.get_base_model().model.layers[0].input_layernorm.weight.requires_grad_()
    folded = copy_of(plain)
    fold_layers(folded)
    torch.testing.assert_close(run(folded), run(plain), rtol=1e-5, atol=1e-5)
    assert largest_relative_difference(gradients(folded), gradients(plain)) <= 1e-4
    for model in (plain, folded):
        model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            model(input_ids=IDS, labels=IDS).loss.backward()
    ours, theirs = gradients(folded), gradients(plain)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_dropout_of_an_adapter_draws_the_same_numbers() -> None:
    plain = with_lora(make_model("llama_untied"), lora_dropout=0.3).train()
    folded = copy_of(plain)
    fold_layers(folded)
    losses = []
    for model in (plain, folded):
        torch.manual_seed(5)
        losses.append(run(model))
    torch.testing.assert_close(*losses, rtol=1e-5, atol=1e-5)


class CentredNorm(nn.Module):
    """Looks like an RMS norm from outside: one weight and an epsilon."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(8), requires_grad=False), 1e-6

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        centred = x - x.mean(-1, keepdim=True)
        return self.weight * centred * torch.rsqrt(centred.square().mean(-1, keepdim=True) + self.eps)


def test_a_module_that_only_looks_like_one_is_left_alone() -> None:
    model = nn.Sequential(CentredNorm(), nn.LayerNorm(8, bias=False), nn.RMSNorm(8))
    assert fold_layers(model) == 0  # nn.RMSNorm without an epsilon of its own takes the type's
    assert fold_layers(nn.RMSNorm(8, eps=1e-6)) == 1


def test_bfloat16_layers_are_left_alone() -> None:
    assert fold_layers(make_model("llama_untied").to(torch.bfloat16)) == 0
