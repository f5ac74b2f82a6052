"""A finished run in words, since falling log-probabilities and rising rewards puzzle people."""

from collections.abc import Mapping
from typing import Final, TypedDict


class FirstLast(TypedDict):
    """The first and the last value of one figure."""

    first: float
    last: float


Metrics = Mapping[str, FirstLast]

_LEARNED_SHARE: Final = 0.7  # of evaluation pairs in which the chosen reply is preferred
_LEARNED_GAIN: Final = 0.1  # over the start, in that share or in the share of replies with an emoji
_FORGOTTEN_NATS: Final = 0.5  # a token of chosen replies less likely than before
_FORGOTTEN_ENDINGS: Final = 0.2  # fewer replies that end by themselves
SPAM_MEAN: Final = 4.0  # emojis a reply
_SPAM_MOST: Final = 12.0
_SCORED_MORE: Final = 0.1  # by replies that were sampled from the model in training
_SCORED_SOME: Final = 0.04


def verdict(metrics: Metrics) -> str:
    """Return a line on what the run came to, from first and last values of what was watched."""
    gain = _change(metrics, "eval_rewards/accuracies", "rewards/accuracies") or 0.0
    preferred = _last(metrics, "eval_rewards/accuracies", "rewards/accuracies")
    emojis = abs(_change(metrics, "replies/emoji_rate") or 0.0)
    if (_last(metrics, "replies/mean_emojis") or 0.0) > SPAM_MEAN or (
        _last(metrics, "replies/max_emojis") or 0.0
    ) > _SPAM_MOST:
        return "spam: emojis for their own sake; add pairs whose rejected reply has too many, or train less"
    likelier = _change(metrics, "eval_logps/chosen", "logps/chosen")
    endings = _change(metrics, "replies/finished_share")
    if (likelier is not None and likelier < -_FORGOTTEN_NATS) or (
        endings is not None and endings < -_FORGOTTEN_ENDINGS
    ):
        return (
            "forgetting: good replies became less likely, or fewer of them end; lower the learning rate, take fewer "
            "epochs or a higher beta"
        )
    if "rewards/score" in metrics:
        return _of_scores(metrics)
    is_preferred = preferred is not None and preferred >= _LEARNED_SHARE and gain >= 0
    if is_preferred and (gain >= _LEARNED_GAIN or emojis >= _LEARNED_GAIN):
        return f"learned: the chosen reply is preferred in {preferred:.0%} of the pairs" + (
            "" if gain < _LEARNED_GAIN else f", {gain:.0%} more than at the start"
        )
    if emojis >= _LEARNED_GAIN or (likelier or 0.0) >= _LEARNED_GAIN:
        return (
            "learned in part: replies changed, yet the chosen ones are not clearly preferred; try more pairs or epochs"
        )
    return "barely moved: raise the learning rate, take more epochs, or give more pairs"


def _of_scores(metrics: Metrics) -> str:
    """Judge a run on the scores of its own replies, of those to held-out prompts where there are any."""
    names = "score/total", "rewards/score"
    gain, last = _change(metrics, *names) or 0.0, _last(metrics, *names) or 0.0
    if gain >= _SCORED_MORE:
        return f"learned: sampled replies score {last:.2f}, {gain:.2f} more than at the start"
    if gain >= _SCORED_SOME:
        return f"learned in part: sampled replies score {last:.2f}, {gain:.2f} more than at the start; try more steps"
    same = _last(metrics, "groups/same_score_share") or 0.0
    if same > 0.5:
        return (
            f"barely moved: in {same:.0%} of the groups all replies score alike, which teaches nothing; start from an "
            "adapter that uses emojis, or sample larger groups"
        )
    return "barely moved: raise the learning rate, take more steps or larger groups"


def _last(metrics: Metrics, *names: str) -> float | None:
    return next((float(metrics[name]["last"]) for name in names if name in metrics), None)


def _change(metrics: Metrics, *names: str) -> float | None:
    return next((metrics[name]["last"] - metrics[name]["first"] for name in names if name in metrics), None)
