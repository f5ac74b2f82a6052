"""Preference losses as pure functions of the log-probabilities of whole replies, each with its paper and equation.

For a prompt x and a reply y the functions take one of these numbers, of shape (pairs,) and any dtype:

    sum     log pi(y|x) = sum_t log p(y_t | x, y_<t)
    mean    log pi(y|x) / |y|
    ratio   log pi(y|x) - log pi_ref(y|x), where the reference is the model without its adapter

and return the loss of each pair, (pairs,), in fp32. The chosen reply is y_w, the rejected one y_l. `logsigmoid` and the
clamped `log1mexp` keep values and gradients finite for any log-probabilities, up to replies of probability 1. GRPO has
no pairs: it takes the rewards of a group of replies to one prompt, and log-probabilities token by token.
"""

from typing import Final

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

LOG_HALF: Final = -0.6931471805599453
"""-ln 2: below it log1p(-exp(x)) keeps more digits, above it log(-expm1(x)) does (Maechler 2012)."""

CLOSEST_TO_ZERO: Final = -(2.0**-24)
"""The log-probability nearest to 0 that fp32 can still tell from P = 1; nearer ones are taken for this one."""

ADVANTAGE_EPSILON: Final = 1e-4
"""Added to a group's standard deviation, as TRL does, so that equal rewards give advantages of 0."""

CLIP: Final = 0.2
"""How far pi / pi_old counts, GRPO's epsilon: PPO's value (Schulman et al. 2017, arXiv 1707.06347, section 6.1)."""

_LARGEST_LOG: Final = 20.0  # exp of more leaves fp32's range soon


def log1mexp(x: Tensor) -> Tensor:
    """Compute log(1 - exp(x)) for x < 0 without cancellation, with finite gradients up to x = 0.

    `torch.where` alone would not do: the branch not taken has an infinite derivative near 0, and its backward
    multiplies that by zero, which is NaN. So each branch is only ever given arguments that it can take.
    """
    x = x.float().clamp(max=CLOSEST_TO_ZERO)
    is_far = x < LOG_HALF
    far = torch.log1p(-torch.exp(torch.where(is_far, x, LOG_HALF)))
    near = torch.log(-torch.expm1(torch.where(is_far, LOG_HALF, x)))
    return torch.where(is_far, far, near)


def log_odds(mean_log_probs: Tensor) -> Tensor:
    """Return log(P / (1 - P)) from log P (the mean log-probability per token), both of any shape."""
    log_p = mean_log_probs.float()
    return log_p - log1mexp(log_p)


def log_odds_ratio(chosen_mean: Tensor, rejected_mean: Tensor) -> Tensor:
    """Return log(odds(y_w|x) / odds(y_l|x)), ORPO's equation 7 without its sigmoid."""
    return log_odds(chosen_mean) - log_odds(rejected_mean)


def orpo_losses(chosen_mean: Tensor, rejected_mean: Tensor) -> Tensor:
    """Return the odds ratio term of ORPO (Hong, Lee & Thorne 2024, arXiv 2403.07691, equation 7).

    L_OR = -log sigmoid(log odds(y_w|x) - log odds(y_l|x)) with odds = P / (1 - P) and log P = mean. Equation 6 adds it
    to the likelihood term, times the paper's lambda (`beta` here). No reference model takes part.
    """
    return -logsigmoid(log_odds_ratio(chosen_mean, rejected_mean))


def dpo_losses(chosen_ratio: Tensor, rejected_ratio: Tensor, beta: float, label_smoothing: float = 0.0) -> Tensor:
    """Return DPO's loss (Rafailov et al. 2023, arXiv 2305.18290, equation 7).

    -log sigmoid(beta (ratio_w - ratio_l)). With label smoothing e it is the mean over labels that are wrong with
    probability e (Mitchell 2023, "A note on DPO with noisy preferences", equation 3).
    """
    return _smoothed(beta * (chosen_ratio.float() - rejected_ratio.float()), label_smoothing)


def ipo_losses(chosen_mean_ratio: Tensor, rejected_mean_ratio: Tensor, beta: float) -> Tensor:
    """Return IPO's loss (Azar et al. 2023, arXiv 2310.12036, equation 17): (h - 1 / (2 beta))^2, h = ratio_w - ratio_l.

    Here the ratios are per token, as the authors advise (TRL does so too): sums would weigh long replies more.
    """
    return (chosen_mean_ratio.float() - rejected_mean_ratio.float() - 1 / (2 * beta)) ** 2


def cpo_losses(chosen_sum: Tensor, rejected_sum: Tensor, beta: float, label_smoothing: float = 0.0) -> Tensor:
    """Return the preference term of CPO (Xu et al. 2024, arXiv 2401.08417, equation 3).

    DPO's with a uniform reference, which cancels out: -log sigmoid(beta (sum_w - sum_l)). The paper's equation 5 adds
    the likelihood of y_w to it.
    """
    return _smoothed(beta * (chosen_sum.float() - rejected_sum.float()), label_smoothing)


def simpo_losses(chosen_mean: Tensor, rejected_mean: Tensor, beta: float, margin: float) -> Tensor:
    """Return SimPO's loss (Meng, Xia & Chen 2024, arXiv 2405.14734, equation 6).

    -log sigmoid(beta (mean_w - mean_l) - gamma); `margin` is gamma / beta, the ratio that the authors tune.
    """
    return -logsigmoid(beta * (chosen_mean.float() - rejected_mean.float() - margin))


def kto_losses(
    chosen_ratio: Tensor, rejected_ratio: Tensor, kl: Tensor, beta: float, desirable: float, undesirable: float
) -> tuple[Tensor, Tensor]:
    """Return KTO's losses of the chosen and of the rejected replies (Ethayarajh et al. 2024, arXiv 2402.01306, eq. 8).

    lambda_D (1 - sigmoid(beta (ratio_w - z))) and lambda_U (1 - sigmoid(beta (z - ratio_l))), where z, `kl` (), is the
    mean ratio of replies to other prompts, at least 0 and without a gradient.
    """
    z = kl.detach().float().clamp(min=0)
    better = desirable * (1 - torch.sigmoid(beta * (chosen_ratio.float() - z)))
    worse = undesirable * (1 - torch.sigmoid(beta * (z - rejected_ratio.float())))
    return better, worse


def group_advantages(rewards: Tensor) -> Tensor:
    """Return GRPO's advantages, (groups, replies), of rewards of that shape (arXiv 2402.03300, section 4.1.2).

    (r - mean) / std within the group; as in TRL the std divides by replies - 1 and has `ADVANTAGE_EPSILON` added.
    """
    rewards = rewards.float()
    return (rewards - rewards.mean(1, keepdim=True)) / (rewards.std(1, keepdim=True) + ADVANTAGE_EPSILON)


def kl_estimates(log_probs: Tensor, reference_log_probs: Tensor) -> Tensor:
    """Return GRPO's estimate of KL(pi || pi_ref) at each sampled token, (tokens,), never below 0 (its equation 4).

    pi_ref / pi - log(pi_ref / pi) - 1, unbiased over tokens that pi sampled (Schulman 2020's k3).
    """
    log_ratio = (reference_log_probs.float() - log_probs.float()).clamp(max=_LARGEST_LOG)
    return torch.exp(log_ratio) - log_ratio - 1


def grpo_losses(
    log_probs: Tensor, old_log_probs: Tensor, reference_log_probs: Tensor, advantages: Tensor, kl_weight: float
) -> Tensor:
    """Return GRPO's loss of each token, (tokens,) (Shao et al. 2024, arXiv 2402.03300, equation 3 with 4).

    -min(rho A, clip(rho, 1 - epsilon, 1 + epsilon) A) + beta_KL KL, where rho = pi / pi_old, A is the advantage of
    the token's reply and KL is `kl_estimates`. Equation 3 takes the mean over a reply's tokens, then over replies.
    All arguments are (tokens,); where each sample is learnt from once, pi_old is pi without its gradient.
    """
    rho = torch.exp((log_probs.float() - old_log_probs.float()).clamp(max=_LARGEST_LOG))
    gain = torch.minimum(rho * advantages, rho.clamp(1 - CLIP, 1 + CLIP) * advantages)
    return kl_weight * kl_estimates(log_probs, reference_log_probs) - gain


def _smoothed(logits: Tensor, label_smoothing: float) -> Tensor:
    if not label_smoothing:
        return -logsigmoid(logits)
    return -(1 - label_smoothing) * logsigmoid(logits) - label_smoothing * logsigmoid(-logits)
