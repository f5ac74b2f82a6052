"""The ORPO loss as pure functions (Hong, Lee & Thorne 2024, arXiv 2403.07691, equations 4 to 7).

With the length-normalised log P(y|x) = (1/|y|) sum_t log p(y_t | x, y_<t) and odds(y|x) = P / (1 - P):

    L = L_NLL(chosen) + beta * L_OR,    L_OR = -log sigmoid(log odds(chosen|x) - log odds(rejected|x))

beta is the paper's lambda. No reference model takes part. Whatever the dtype of the log-probabilities, everything here
is computed in fp32.
"""

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

LOG_HALF: Final = -0.6931471805599453
"""-ln 2: below it log1p(-exp(x)) keeps more digits, above it log(-expm1(x)) does (Maechler 2012)."""

CLOSEST_TO_ZERO: Final = -(2.0**-24)
"""The log-probability nearest to 0 that fp32 can still tell from P = 1; nearer ones are taken for this one."""


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


@dataclass(frozen=True)
class OrpoTerms:
    """The loss of one batch and what is worth logging about it; all but `loss` without a gradient."""

    loss: Tensor  # () nll + beta * odds_ratio_loss
    nll: Tensor  # ()
    odds_ratio_loss: Tensor  # () mean of -log sigmoid(log odds ratio)
    chosen_logps: Tensor  # (pairs,) mean log-probability per token
    rejected_logps: Tensor  # (pairs,)
    log_odds_ratios: Tensor  # (pairs,) log odds(chosen) - log odds(rejected)


def orpo_loss(
    chosen_sum_logps: Tensor,  # (pairs,) sum of log p over the completion's tokens
    chosen_tokens: Tensor,  # (pairs,)
    rejected_sum_logps: Tensor,  # (pairs,)
    rejected_tokens: Tensor,  # (pairs,)
    nll: Tensor,  # () negative log-likelihood of the chosen side, already a mean over its tokens
    beta: float,
    *,
    pairs_in_batch: int | None = None,
) -> OrpoTerms:
    """Compute the ORPO loss.

    Args:
        chosen_sum_logps: Summed log-probabilities of the chosen completions.
        chosen_tokens: How many tokens each of those sums ran over.
        rejected_sum_logps: The same for the rejected completions.
        rejected_tokens: The same for the rejected completions.
        nll: The likelihood term. Its mean may run over prompt and completion (as TRL does) or the completion alone.
        beta: The weight of the odds ratio term (the paper's lambda).
        pairs_in_batch: The pairs of the whole accumulated batch, when these are only some of them; the odds ratio term
            is then this part's share of the whole batch's mean, and the shares add up to it.
    """
    chosen_logps = chosen_sum_logps.float() / chosen_tokens
    rejected_logps = rejected_sum_logps.float() / rejected_tokens
    log_odds_ratios = log_odds(chosen_logps) - log_odds(rejected_logps)
    odds_ratio_loss = -logsigmoid(log_odds_ratios).sum() / (pairs_in_batch or len(log_odds_ratios))
    loss = nll.float() + beta * odds_ratio_loss
    return OrpoTerms(
        loss,
        nll.detach().float(),
        odds_ratio_loss.detach(),
        chosen_logps.detach(),
        rejected_logps.detach(),
        log_odds_ratios.detach(),
    )
