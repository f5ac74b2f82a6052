"""The ORPO loss against values derived by hand and against arithmetic in 200 digits' worth of room."""

import math
from decimal import Decimal, getcontext

import pytest
import torch

from orpo.training.losses import log1mexp, log_odds, orpo_loss


def exact_log1mexp(x: float) -> float:
    getcontext().prec = 60
    return float((1 - Decimal(x).exp()).ln())


@pytest.mark.parametrize("x", [-1e-6, -1e-3, -0.1, -0.69, -0.6931471805599453, -0.7, -1.0, -5.0, -15.0, -80.0])
def test_log1mexp_keeps_its_digits_on_both_sides_of_the_branch(x: float) -> None:
    rounded = torch.tensor(x)
    torch.testing.assert_close(log1mexp(rounded).item(), exact_log1mexp(rounded.item()), rtol=3e-7, atol=1e-45)


def test_orpo_loss_is_the_value_derived_by_hand() -> None:
    """Two pairs whose probabilities are simple fractions.

    Pair 1: chosen 2 tokens with P = exp(-2 ln 2 / 2) = 1/2, odds 1; rejected 3 tokens with P = 1/4, odds 1/3.
        The odds ratio is 3, sigmoid(log 3) = 3/4, so L_OR = ln(4/3) = 0.2876821.
    Pair 2: chosen 1 token with P = 1/5, odds 1/4; rejected 4 tokens with P = 1/3, odds 1/2.
        The odds ratio is 1/2, sigmoid(log 1/2) = 1/3, so L_OR = ln 3 = 1.0986123.
    Their mean is (0.2876821 + 1.0986123) / 2 = 0.6931472 (ln(4/3 * 3) / 2 = ln 4 / 2 = ln 2).
    With nll = 0.9 and beta = 0.1 the loss is 0.9 + 0.0693147 = 0.9693147.
    """
    chosen = torch.tensor([2 * math.log(1 / 2), math.log(1 / 5)])
    rejected = torch.tensor([3 * math.log(1 / 4), 4 * math.log(1 / 3)])
    terms = orpo_loss(chosen, torch.tensor([2, 1]), rejected, torch.tensor([3, 4]), torch.tensor(0.9), 0.1)
    assert terms.odds_ratio_loss.item() == pytest.approx(math.log(2), abs=1e-6)
    assert terms.loss.item() == pytest.approx(0.9693147, abs=1e-6)
    assert terms.log_odds_ratios.tolist() == pytest.approx([math.log(3), math.log(1 / 2)], abs=1e-6)
    assert terms.chosen_logps.exp().tolist() == pytest.approx([1 / 2, 1 / 5], abs=1e-6)


def test_the_gradient_is_the_papers_delta_times_one_over_one_minus_p() -> None:
    """Equation 8 to 10 for one pair with P(chosen) = 1/2 and P(rejected) = 1/4.

    d L_OR / d log P(chosen) = -sigmoid(-log OR) / (1 - P(chosen)) = -(1/4) / (1/2) = -1/2
    d L_OR / d log P(rejected) = +sigmoid(-log OR) / (1 - P(rejected)) = (1/4) / (3/4) = 1/3
    """
    chosen = torch.tensor([math.log(1 / 2)], requires_grad=True)
    rejected = torch.tensor([math.log(1 / 4)], requires_grad=True)
    one = torch.ones(1)
    orpo_loss(chosen, one, rejected, one, torch.zeros(()), 1.0).loss.backward()
    assert chosen.grad is not None and rejected.grad is not None
    assert chosen.grad.item() == pytest.approx(-1 / 2, abs=1e-6)
    assert rejected.grad.item() == pytest.approx(1 / 3, abs=1e-6)


@pytest.mark.parametrize("log_p", [0.0, -1e-45, -1e-12, -1e-8, -6e-8, -1e-6, -0.6931472, -50.0, -1e3, -1e6, -3e38])
@pytest.mark.parametrize("other", [-1e-9, -1.0, -1e5])
def test_loss_and_gradients_stay_finite_towards_both_ends(log_p: float, other: float) -> None:
    """A plain `where` over the two branches gives NaN gradients from about log p = -1e-8 on."""
    for chosen_value, rejected_value in [(log_p, other), (other, log_p)]:
        chosen = torch.tensor([chosen_value], requires_grad=True)
        rejected = torch.tensor([rejected_value], requires_grad=True)
        one = torch.ones(1)
        loss = orpo_loss(chosen, one, rejected, one, torch.zeros(()), 0.1).loss
        loss.backward()
        assert torch.isfinite(loss)
        assert chosen.grad is not None and torch.isfinite(chosen.grad).all()
        assert rejected.grad is not None and torch.isfinite(rejected.grad).all()


def test_parts_of_a_batch_add_up_to_the_whole() -> None:
    torch.manual_seed(0)
    chosen, rejected = -5 * torch.rand(8) - 0.1, -5 * torch.rand(8) - 0.1
    tokens = torch.arange(1, 9)
    nll = torch.tensor(0.0)
    whole = orpo_loss(chosen, tokens, rejected, tokens.flip(0), nll, 0.3).loss
    parts = [
        orpo_loss(chosen[i:j], tokens[i:j], rejected[i:j], tokens.flip(0)[i:j], nll, 0.3, pairs_in_batch=8).loss
        for i, j in [(0, 1), (1, 6), (6, 8)]
    ]
    torch.testing.assert_close(sum(parts), whole)


def test_half_precision_inputs_are_summed_in_fp32() -> None:
    log_probs = torch.tensor([-0.01171875, -300.0], dtype=torch.bfloat16)  # both exact in bf16
    assert log_odds(log_probs).dtype == torch.float32
    torch.testing.assert_close(log_odds(log_probs), log_odds(log_probs.float()))
