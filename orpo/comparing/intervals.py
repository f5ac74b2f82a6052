"""How far a figure may be off: Wilson's interval for shares, a bootstrap over prompts for everything else.

Every measure of replies is a ratio of two sums over prompts: emojis by replies, replies with an emoji by replies, log
probabilities by tokens. So one `Tally` of numerators and denominators, prompt by prompt, serves all of them, and two
tallies over the same prompts give the interval of their difference, each prompt compared with itself.

Wilson 1927 (doi 10.1080/01621459.1927.10502953, the interval there); Efron & Tibshirani 1993, chapter 13 (percentile
bootstrap); Korn & Graubard 1998 (an effective number of replies, where several to one prompt resemble each other).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
Verdict = Literal["better", "worse", "no clear difference", "too few prompts", ""]

FEWEST_PROMPTS: Final = 20
"""With fewer prompts intervals are wide, the bootstrap's are too narrow, and nothing is called better."""

_RESAMPLES: Final = 4000
_Z: Final = 1.959964  # 97.5 % of the normal distribution lie below


@dataclass(frozen=True)
class Interval:
    """A value and where it lies with 95 % confidence; without bounds where there are no grounds for any."""

    value: float
    low: float | None = None
    high: float | None = None
    prompts: int = 0


@dataclass(frozen=True)
class Tally:
    """One measure, prompt by prompt: its value is the sum of the numerators by the sum of the denominators."""

    numerators: FloatArray  # [prompts], summed over the seeds
    denominators: FloatArray  # [prompts]

    @property
    def value(self) -> float | None:
        """Return the measure; None where nothing was counted."""
        total = float(self.denominators.sum())
        return float(self.numerators.sum()) / total if total else None

    @property
    def prompts(self) -> int:
        """Return how many prompts count."""
        return int((self.denominators > 0).sum())


def tally(numerators: Sequence[float] | FloatArray, denominators: Sequence[float] | FloatArray | None = None) -> Tally:
    """Return a tally of values, one a prompt; each counts once unless denominators say otherwise."""
    tops = np.asarray(numerators, dtype=np.float64)
    return Tally(tops, np.ones_like(tops) if denominators is None else np.asarray(denominators, dtype=np.float64))


def share_interval(counted: Tally) -> Interval | None:
    """Return Wilson's interval of a share; None where nothing was counted."""
    share = counted.value
    if share is None:
        return None
    number = _effective_number(counted, share)
    middle = (share + _Z**2 / (2 * number)) / (1 + _Z**2 / number)
    spread = math.sqrt(share * (1 - share) / number + _Z**2 / (4 * number**2)) * _Z / (1 + _Z**2 / number)
    return Interval(share, max(0.0, middle - spread), min(1.0, middle + spread), counted.prompts)


def mean_interval(counted: Tally) -> Interval | None:
    """Return the percentile bootstrap's interval of a ratio; None where nothing was counted."""
    value = counted.value
    if value is None:
        return None
    low, high = _bounds(_resampled(counted))
    return Interval(value, low, high, counted.prompts)


def difference_interval(ours: Tally, theirs: Tally) -> Interval | None:
    """Return ours minus theirs, over the same prompts in the same order; None where one of them counted nothing."""
    if ours.value is None or theirs.value is None:
        return None
    low, high = _bounds(_resampled(ours) - _resampled(theirs))
    return Interval(ours.value - theirs.value, low, high, min(ours.prompts, theirs.prompts))


def verdict(difference: Interval | None, better: Literal["higher", "lower", ""]) -> Verdict:
    """Say what a difference shows; `better` is the direction wished for, if there is one."""
    if not better or difference is None or difference.low is None or difference.high is None:
        return ""
    if difference.prompts < FEWEST_PROMPTS:
        return "too few prompts"
    if difference.low <= 0 <= difference.high:
        return "no clear difference"
    return "better" if (difference.low > 0) == (better == "higher") else "worse"


def _effective_number(counted: Tally, share: float) -> float:
    """Return how many independent replies the replies are worth: one seed's are worth their number.

    With several seeds the replies to one prompt resemble each other. Where all agree nothing tells by how much, and
    each prompt counts once.
    """
    used = counted.denominators > 0
    prompts, replies = int(used.sum()), float(counted.denominators.sum())
    if replies <= prompts or prompts < 2 or share in (0.0, 1.0):
        return float(prompts)
    weights = counted.denominators[used]
    deviations = counted.numerators[used] - share * weights
    variance = float((deviations**2).sum()) * prompts / (prompts - 1) / replies**2
    worth = share * (1 - share) / variance if variance else replies
    return min(max(worth, float(prompts)), replies)


@lru_cache(maxsize=16)
def _resample_counts(prompts: int) -> FloatArray:
    """Return how often each prompt is drawn, [resamples, prompts]: the same draws for every measure and side."""
    draws = np.random.default_rng(0).multinomial(prompts, np.full(prompts, 1 / prompts), size=_RESAMPLES)
    return draws.astype(np.float64)


def _resampled(counted: Tally) -> FloatArray:
    counts = _resample_counts(len(counted.numerators))
    below = counts @ counted.denominators
    return np.divide(counts @ counted.numerators, below, out=np.full_like(below, np.nan), where=below > 0)


def _bounds(values: FloatArray) -> tuple[float | None, float | None]:
    """Return the middle 95 %; no bounds where a tenth of the resamples met nothing to count."""
    known = values[~np.isnan(values)]
    if len(known) < 0.9 * len(values):
        return None, None
    low, high = np.quantile(known, [0.025, 0.975])
    return float(low), float(high)
