"""Each loss against values derived by hand, and finite at the edges; log1mexp against exact arithmetic."""

import math
from collections.abc import Callable
from decimal import Decimal, getcontext

import pytest
import torch

from orpo.training.losses import (
    cpo_losses,
    dpo_losses,
    group_advantages,
    grpo_losses,
    ipo_losses,
    kl_estimates,
    kto_losses,
    log1mexp,
    log_odds,
    log_odds_ratio,
    orpo_losses,
    simpo_losses,
)


def exact_log1mexp(x: float) -> float:
    getcontext().prec = 60
    return float((1 - Decimal(x).exp()).ln())


@pytest.mark.parametrize("x", [-1e-6, -1e-3, -0.1, -0.69, -0.6931471805599453, -0.7, -1.0, -5.0, -15.0, -80.0])
def test_log1mexp_keeps_its_digits_on_both_sides_of_the_branch(x: float) -> None:
    rounded = torch.tensor(x)
    torch.testing.assert_close(log1mexp(rounded).item(), exact_log1mexp(rounded.item()), rtol=3e-7, atol=1e-45)


def test_orpo_is_the_value_derived_by_hand() -> None:
    """Two pairs whose probabilities are simple fractions.

    Pair 1: P(chosen) = 1/2, odds 1; P(rejected) = 1/4, odds 1/3. The odds ratio is 3, sigmoid(log 3) = 3/4, so the term
        is ln(4/3) = 0.2876821.
    Pair 2: P(chosen) = 1/5, odds 1/4; P(rejected) = 1/3, odds 1/2. The ratio is 1/2, sigmoid(log 1/2) = 1/3: ln 3.
    """
    chosen, rejected = torch.tensor([1 / 2, 1 / 5]).log(), torch.tensor([1 / 4, 1 / 3]).log()
    assert log_odds_ratio(chosen, rejected).tolist() == pytest.approx([math.log(3), math.log(1 / 2)], abs=1e-6)
    assert orpo_losses(chosen, rejected).tolist() == pytest.approx([math.log(4 / 3), math.log(3)], abs=1e-6)


def test_orpos_gradient_is_the_papers_delta_times_one_over_one_minus_p() -> None:
    """Equation 8 to 10 for one pair with P(chosen) = 1/2 and P(rejected) = 1/4.

    d L_OR / d log P(chosen) = -sigmoid(-log OR) / (1 - P(chosen)) = -(1/4) / (1/2) = -1/2
    d L_OR / d log P(rejected) = +sigmoid(-log OR) / (1 - P(rejected)) = (1/4) / (3/4) = 1/3
    """
    chosen = torch.tensor([math.log(1 / 2)], requires_grad=True)
    rejected = torch.tensor([math.log(1 / 4)], requires_grad=True)
    orpo_losses(chosen, rejected).sum().backward()
    assert chosen.grad is not None and rejected.grad is not None
    assert chosen.grad.item() == pytest.approx(-1 / 2, abs=1e-6)
    assert rejected.grad.item() == pytest.approx(1 / 3, abs=1e-6)


def test_dpo_is_the_value_derived_by_hand() -> None:
    """Ratios ln 4 and -ln 4 with beta 1/2: the logit is ln 4, sigmoid 4/5, the loss ln(5/4) = 0.2231436.

    With a tenth of the labels wrong: 0.9 ln(5/4) + 0.1 ln 5 = 0.2008292 + 0.1609438 = 0.3617730.
    """
    chosen, rejected = torch.tensor([math.log(4.0)]), torch.tensor([-math.log(4.0)])
    assert dpo_losses(chosen, rejected, 0.5).item() == pytest.approx(math.log(5 / 4), abs=1e-6)
    assert dpo_losses(chosen, rejected, 0.5, 0.1).item() == pytest.approx(0.3617730, abs=1e-6)


def test_ipo_is_the_value_derived_by_hand() -> None:
    """Ratios per token 0.5 and -0.25, beta 1/4: (0.75 - 2)^2 = 1.5625; at 0.75 = 1 / (2 beta) it is 0."""
    chosen, rejected = torch.tensor([0.5]), torch.tensor([-0.25])
    assert ipo_losses(chosen, rejected, 0.25).item() == pytest.approx(1.5625, abs=1e-6)
    assert ipo_losses(chosen, rejected, 2 / 3).item() == pytest.approx(0.0, abs=1e-9)


def test_cpo_is_the_value_derived_by_hand() -> None:
    """Sums -3 and -3 - ln 9 with beta 1/2: the logit is ln 3, sigmoid 3/4, the loss ln(4/3)."""
    chosen, rejected = torch.tensor([-3.0]), torch.tensor([-3.0 - math.log(9.0)])
    assert cpo_losses(chosen, rejected, 0.5).item() == pytest.approx(math.log(4 / 3), abs=1e-6)
    smoothed = 0.8 * math.log(4 / 3) + 0.2 * math.log(4)
    assert cpo_losses(chosen, rejected, 0.5, 0.2).item() == pytest.approx(smoothed, abs=1e-6)


def test_simpo_is_the_value_derived_by_hand() -> None:
    """Means -1 and -2, beta 2, gamma / beta 1/2: the logit is 2 (1 - 1/2) = 1, the loss ln(1 + 1/e) = 0.3132617."""
    chosen, rejected = torch.tensor([-1.0]), torch.tensor([-2.0])
    assert simpo_losses(chosen, rejected, 2.0, 0.5).item() == pytest.approx(0.3132617, abs=1e-6)


def test_kto_is_the_value_derived_by_hand() -> None:
    """Ratios 1 + ln 3 and 1 - ln 3, z = 1, beta 1: both sigmoids are 3/4, so the losses are 1/4 times their weight.

    A reference point below 0 counts as 0: then the chosen one is 1 - sigmoid(1 + ln 3) = 1 / (1 + 3e) = 0.1092...
    """
    chosen, rejected = torch.tensor([1 + math.log(3.0)]), torch.tensor([1 - math.log(3.0)])
    better, worse = kto_losses(chosen, rejected, torch.tensor(1.0), 1.0, 1.0, 1.5)
    assert better.item() == pytest.approx(0.25, abs=1e-6) and worse.item() == pytest.approx(0.375, abs=1e-6)
    better, _ = kto_losses(chosen, rejected, torch.tensor(-5.0), 1.0, 1.0, 1.0)
    assert better.item() == pytest.approx(1 / (1 + 3 * math.e), abs=1e-6)


def test_grpos_advantages_are_the_values_derived_by_hand() -> None:
    """Rewards 1, 2, 3, 6: mean 3, deviations -2, -1, 0, 3, std sqrt(14 / 3) = 2.1602469; equal rewards give 0."""
    found = group_advantages(torch.tensor([[1.0, 2.0, 3.0, 6.0], [0.7, 0.7, 0.7, 0.7]]))
    expected = [value / (2.1602469 + 1e-4) for value in (-2.0, -1.0, 0.0, 3.0)]
    assert found[0].tolist() == pytest.approx(expected, abs=1e-6)
    assert found[1].tolist() == [0.0, 0.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("rho", "advantage", "gain", "slope"),
    [
        (1.0, 2.0, 2.0, 2.0),  # on policy: the plain policy gradient
        (1.1, 2.0, 2.2, 2.2),
        (1.5, 2.0, 2.4, 0.0),  # clipped at 1.2: no more to win
        (0.5, 2.0, 1.0, 1.0),
        (0.5, -2.0, -1.6, 0.0),  # clipped at 0.8
        (1.5, -2.0, -3.0, -3.0),
    ],
)
def test_grpos_gain_is_clipped_as_derived_by_hand(rho: float, advantage: float, gain: float, slope: float) -> None:
    """min(rho A, clip(rho, 0.8, 1.2) A); d/d log pi of rho A is rho A. The reference is pi, so KL is 0."""
    log_probs = torch.tensor([math.log(rho) - 1.0], requires_grad=True)
    loss = grpo_losses(log_probs, torch.tensor([-1.0]), log_probs.detach(), torch.tensor([advantage]), 0.5)
    loss.sum().backward()
    assert loss.item() == pytest.approx(-gain, abs=1e-6)
    assert log_probs.grad is not None and log_probs.grad.item() == pytest.approx(-slope, abs=1e-6)


def test_grpos_distance_is_the_value_derived_by_hand() -> None:
    """pi_ref / pi = 3: 3 - ln 3 - 1 = 0.9013877, slope 1 - 3 = -2; 1 / 2: 1 / 2 + ln 2 - 1 = 0.1931472."""
    log_probs = torch.tensor([-2.0, -2.0], requires_grad=True)
    reference = torch.tensor([-2.0 + math.log(3.0), -2.0 - math.log(2.0)])
    found = kl_estimates(log_probs, reference)
    assert found.tolist() == pytest.approx([0.9013877, 0.1931472], abs=1e-6)
    found.sum().backward()
    assert log_probs.grad is not None and log_probs.grad.tolist() == pytest.approx([-2.0, 0.5], abs=1e-6)


LOSSES: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "orpo": orpo_losses,
    "dpo": lambda a, b: dpo_losses(a, b, 0.1, 0.1),
    "cpo": lambda a, b: cpo_losses(a, b, 0.1),
    "simpo": lambda a, b: simpo_losses(a, b, 2.0, 0.5),
    "grpo": lambda a, b: grpo_losses(a, a.detach(), b, torch.tensor([1.5]), 0.04),
    "grpo off policy": lambda a, b: grpo_losses(a, b, b, torch.tensor([-1.5]), 0.04),
    "grpo far from its reference": lambda a, b: (
        grpo_losses(a, a.detach(), b.detach(), torch.tensor([0.0]), 1.0) + 0 * b
    ),
    "kto": lambda a, b: sum(kto_losses(a, b, torch.tensor(0.3), 0.1, 1.0, 1.0), torch.zeros(1)),
}


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("log_p", [0.0, -1e-45, -1e-12, -1e-8, -6e-8, -1e-6, -0.6931472, -50.0, -1e3, -1e6, -1e38])
@pytest.mark.parametrize("other", [-1e-9, -1.0, -1e5])
def test_losses_and_gradients_stay_finite_towards_both_ends(name: str, log_p: float, other: float) -> None:
    """A plain `where` over the two branches of log1mexp gives NaN gradients from about log p = -1e-8 on."""
    for chosen_value, rejected_value in [(log_p, other), (other, log_p)]:
        chosen = torch.tensor([chosen_value], requires_grad=True)
        rejected = torch.tensor([rejected_value], requires_grad=True)
        loss = LOSSES[name](chosen, rejected).sum()
        loss.backward()
        assert torch.isfinite(loss)
        assert chosen.grad is not None and torch.isfinite(chosen.grad).all()
        assert rejected.grad is not None and torch.isfinite(rejected.grad).all()


def test_half_precision_inputs_are_summed_in_fp32() -> None:
    log_probs = torch.tensor([-0.01171875, -300.0], dtype=torch.bfloat16)  # both exact in bf16
    assert log_odds(log_probs).dtype == torch.float32
    torch.testing.assert_close(log_odds(log_probs), log_odds(log_probs.float()))
