"""What a run minimises: the method's loss over the replies of a row, and what is worth logging about each pair."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from orpo.training.examples import Example, SampledGroup, TokenizedReply
from orpo.training.fast.packing import ReplyGroup
from orpo.training.losses import (
    cpo_losses,
    dpo_losses,
    group_advantages,
    grpo_losses,
    ipo_losses,
    kl_estimates,
    kto_losses,
    log_odds_ratio,
    orpo_losses,
    simpo_losses,
)
from orpo.training.methods import KL_WEIGHT, RATIO_WEIGHT
from orpo.training.settings import MethodSettings

_OF_PAIRS: Final = (
    "rewards/chosen", "rewards/rejected", "rewards/accuracies", "rewards/margins", "logps/chosen", "logps/rejected",
)  # fmt: skip

SAME_SCORE: Final = 0.01
"""Where the scores of a group have a smaller standard deviation, its advantages are 0: divided by the group's own small
deviation, next to nothing, or the log ratio alone, would count as much as a real difference in another group."""


@dataclass(frozen=True)
class TokenLogProbs:
    """The log-probabilities of the sampled replies of a row, token by token, and which reply each token is of."""

    policy: Tensor  # (tokens,) log pi(y_t | x, y_<t), with a gradient
    reference: Tensor  # (tokens,) of the reference
    replies: Tensor  # (tokens,) which reply
    counts: Tensor  # (replies,) tokens of each

    def by_reply(self, values: Tensor) -> Tensor:
        """Sum (tokens,) into (replies,)."""
        return values.new_zeros(len(self.counts)).index_add(0, self.replies, values)


@dataclass(frozen=True)
class StepTotals:
    """How much a whole step holds, over all rows and processes; a row's loss is its share of it."""

    pairs: int  # rows of the data; for grpo groups
    nll_tokens: int
    kl: float = 0.0  # KTO's reference point


@dataclass(frozen=True)
class RowTerms:
    """A row's share of the step's loss, and what is logged of each of its pairs; all but `loss` without a gradient."""

    loss: Tensor  # ()
    nll: Tensor | None  # () share of the negative log-likelihood, whether or not the loss counts it; grpo has none
    # (pairs,) each; of labelled replies, (good ones,) or (bad ones,); of sampled groups, (groups,) or (replies,)
    of_pairs: dict[str, Tensor]


class Objective:
    """A method with its settings, and the labels of the training rows where they have some."""

    def __init__(self, settings: MethodSettings, labels: Sequence[bool] = ()) -> None:
        self.settings = settings
        self.label_weights = label_weights(settings, labels)
        self.method = settings.method
        self.beta = settings.strength
        self.nll_on_prompt = settings.nll_on_prompt
        self.needs_reference = settings.about.needs_reference
        self._likelihood = {"orpo": 1.0, "sft": 1.0, "cpo": _given(settings.likelihood_weight, 1.0)}.get(
            self.method, 0.0
        )

    def group_of(self, example: Example | SampledGroup) -> ReplyGroup:
        """Return the replies that the method looks at."""
        if isinstance(example, SampledGroup):
            return ReplyGroup(example.prompt_ids, example.replies)
        if isinstance(example, TokenizedReply):
            return ReplyGroup(example.prompt_ids, (example.reply_ids,))
        replies = (example.chosen_ids,) if self.method == "sft" else (example.chosen_ids, example.rejected_ids)
        return ReplyGroup(example.prompt_ids, replies)

    def terms(
        self,
        sums: Tensor,  # (pairs, replies) log pi(y|x)
        tokens: Tensor,  # (pairs, replies)
        nll: Tensor,  # () this row's share of the mean negative log-likelihood of the step
        totals: StepTotals,
        reference: Tensor | None = None,  # (pairs, replies) log pi_ref(y|x)
        labels: Tensor | None = None,  # (pairs,) whether the one reply is good
    ) -> RowTerms:
        """Compute the loss."""
        if labels is not None:
            assert reference is not None
            return self._labelled_terms(sums[:, 0], tokens[:, 0], nll, totals, reference[:, 0], labels)
        loss = self._likelihood * nll if self._likelihood else torch.zeros_like(nll)
        if self.method == "sft":
            return RowTerms(loss, nll.detach(), {"logps/chosen": (sums / tokens)[:, 0].detach()})
        losses = self._losses(sums, tokens, reference, totals)
        weight = self.beta if self.method == "orpo" else 1.0
        loss = loss + weight * losses.sum() / totals.pairs
        return RowTerms(loss, nll.detach(), self._of_pairs(sums.detach(), tokens, reference))

    def group_terms(self, log_probs: TokenLogProbs, scores: Tensor, totals: StepTotals) -> RowTerms:
        """Compute GRPO's loss of groups of sampled replies with their scores, (groups, replies).

        R(y) = w log(pi / pi_ref) + beta (S(y) - mean S), a number without a gradient. Each group is learnt from once,
        so pi_old is pi.
        """
        policy, s = log_probs.policy, self.settings
        ratios = log_probs.by_reply(policy.detach() - log_probs.reference).view_as(scores)
        gains = scores - scores.mean(1, keepdim=True)
        rewards = _given(s.ratio_weight, RATIO_WEIGHT) * ratios + self.beta * gains
        deviations = scores.std(1)
        teaches = deviations >= SAME_SCORE
        advantages = group_advantages(rewards) * teaches[:, None]
        losses = grpo_losses(
            policy,
            policy.detach(),
            log_probs.reference,
            advantages.flatten()[log_probs.replies],
            _given(s.kl_weight, KL_WEIGHT),
        )
        loss = (log_probs.by_reply(losses) / log_probs.counts).sum() / (totals.pairs * scores.shape[1])
        distances = log_probs.by_reply(kl_estimates(policy.detach(), log_probs.reference)) / log_probs.counts
        shown = {
            "rewards/mean": rewards.flatten(),
            "rewards/std": rewards.std(1),
            "rewards/score": scores.flatten(),
            "rewards/score_std": deviations,
            "rewards/log_ratio": ratios.flatten(),
            "kl": distances,
            "groups/same_score_share": (~teaches).float(),
        }
        return RowTerms(loss, None, shown)

    def _losses(self, sums: Tensor, tokens: Tensor, reference: Tensor | None, totals: StepTotals) -> Tensor:
        """Return the preference term of each pair, (pairs,)."""
        s, beta = self.settings, self.beta
        means = _both(sums / tokens)
        smoothing = s.label_smoothing or 0.0
        match self.method:
            case "orpo":
                return orpo_losses(*means)
            case "cpo":
                return cpo_losses(*_both(sums), beta, smoothing)
            case "simpo":
                return simpo_losses(*means, beta, _given(s.margin, 0.5))
        assert reference is not None
        ratios = sums - reference
        match self.method:
            case "dpo":
                return dpo_losses(*_both(ratios), beta, smoothing)
            case "ipo":
                return ipo_losses(*_both(ratios / tokens), beta)
        better, worse = kto_losses(*_both(ratios), ratios.new_tensor(totals.kl), beta, *self.label_weights)
        return (better + worse) / 2  # a pair is two examples

    def _labelled_terms(
        self,
        sums: Tensor,  # (replies,)
        tokens: Tensor,  # (replies,)
        nll: Tensor,
        totals: StepTotals,
        reference: Tensor,  # (replies,)
        labels: Tensor,  # (replies,)
    ) -> RowTerms:
        """Compute KTO's loss of replies with labels; what is logged has a value for each good or bad one."""
        ratios = sums - reference
        kl = ratios.new_tensor(totals.kl)
        better, worse = kto_losses(ratios[labels], ratios[~labels], kl, self.beta, *self.label_weights)
        loss = (better.sum() + worse.sum()) / totals.pairs
        shown, means = self.beta * ratios.detach(), (sums / tokens).detach()
        of_replies = {
            "rewards/chosen": shown[labels],
            "rewards/rejected": shown[~labels],
            "rewards/accuracies": ((shown > self.beta * kl) == labels).float(),
            "logps/chosen": means[labels],
            "logps/rejected": means[~labels],
        }
        return RowTerms(loss, nll.detach(), of_replies)

    def _of_pairs(self, sums: Tensor, tokens: Tensor, reference: Tensor | None) -> dict[str, Tensor]:
        """Return what is logged: log-probabilities per token, and the reward that the method's loss compares."""
        means = sums / tokens
        if reference is not None:
            compared = (sums - reference) / tokens if self.method == "ipo" else sums - reference
        else:
            compared = sums if self.method == "cpo" else means
        chosen, rejected = (self.beta * compared).unbind(1)
        values = (chosen, rejected, (chosen > rejected).float(), chosen - rejected, *means.unbind(1))
        found = dict(zip(_OF_PAIRS, values, strict=True))
        if self.method == "orpo":
            odds = log_odds_ratio(*means.unbind(1))
            found |= {"log_odds_chosen": odds, "log_odds_ratio": logsigmoid(odds)}
        return found


def label_weights(settings: MethodSettings, labels: Sequence[bool] = ()) -> tuple[float, float]:
    """Return KTO's weights of good and of bad replies: those given, or what the numbers of both ask for.

    The paper (section 4.4) wants the ratio of weight times number, good to bad, between 1 and 4/3. Where the weights 1
    and 1 miss that, the side with fewer replies gets what makes the ratio 1.
    """
    good, bad = sum(labels), len(labels) - sum(labels)
    desirable = undesirable = 1.0
    if good and bad and not bad <= good <= 4 / 3 * bad:
        desirable, undesirable = max(bad / good, 1.0), max(good / bad, 1.0)
    return _given(settings.desirable_weight, desirable), _given(settings.undesirable_weight, undesirable)


def _both(values: Tensor) -> tuple[Tensor, Tensor]:
    """Return (pairs, 2) as chosen and rejected."""
    return values[:, 0], values[:, 1]


def _given(value: float | None, default: float) -> float:
    return default if value is None else value
