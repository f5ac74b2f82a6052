"""Intervals against published values, and against what they promise on data whose truth is known."""

import numpy as np
import pytest

from orpo.comparing.intervals import (
    FEWEST_PROMPTS,
    Interval,
    Tally,
    difference_interval,
    mean_interval,
    share_interval,
    tally,
    verdict,
)


@pytest.mark.parametrize(
    ("yes", "number", "low", "high"),
    [(90, 100, 0.8256, 0.9448), (0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (81, 263, 0.2553, 0.3662)],
)
def test_a_share_has_wilsons_interval(yes: int, number: int, low: float, high: float) -> None:
    """The last one is the worked example of Newcombe 1998, table I: 0.2553 to 0.3662."""
    found = share_interval(tally([1.0] * yes + [0.0] * (number - yes)))
    assert found is not None and found.value == yes / number and found.prompts == number
    assert (found.low, found.high) == pytest.approx((low, high), abs=5e-5)


def test_three_equal_replies_to_a_prompt_are_worth_one() -> None:
    """Three seeds that always agree tell no more than one; three that do not hang together tell three times as much."""
    values = np.array([1.0] * 30 + [0.0] * 20)
    one = share_interval(tally(values))
    agreeing = share_interval(Tally(3 * values, np.full(50, 3.0)))
    independent = np.random.default_rng(0).binomial(3, 0.6, size=50).astype(float)
    mixed = share_interval(Tally(independent, np.full(50, 3.0)))
    more = share_interval(tally([1.0] * 90 + [0.0] * 60))
    assert one is not None and agreeing is not None and mixed is not None and more is not None
    assert agreeing.low is not None and agreeing.high is not None and one.low is not None and one.high is not None
    assert agreeing.high - agreeing.low == pytest.approx(one.high - one.low, rel=0.02)
    assert mixed.low is not None and mixed.high is not None and more.low is not None and more.high is not None
    assert mixed.high - mixed.low == pytest.approx(more.high - more.low, rel=0.15)


def test_95_of_100_intervals_hold_the_truth() -> None:
    """400 draws of 60 skewed values whose mean is 2."""
    random = np.random.default_rng(1)
    held = 0
    for _ in range(400):
        found = mean_interval(tally(random.exponential(2.0, size=60)))
        assert found is not None and found.low is not None and found.high is not None
        held += found.low <= 2.0 <= found.high
    assert 0.90 <= held / 400 <= 0.98


def test_each_prompt_is_compared_with_itself() -> None:
    """Long and short prompts differ by far more than the sides; over pairs the small difference is plain."""
    random = np.random.default_rng(2)
    theirs = random.normal(100, 40, size=80)
    ours = theirs + 3 + random.normal(0, 1, size=80)
    found = difference_interval(tally(ours), tally(theirs))
    assert found is not None and found.low is not None and found.high is not None
    assert found.value == pytest.approx(3, abs=0.5) and 2 < found.low < found.high < 4
    assert verdict(found, "higher") == "better" and verdict(found, "lower") == "worse"


def test_a_ratio_resamples_both_of_its_sums() -> None:
    """Of 40 prompts 10 count, each with one half: the value is 0.5 whatever is drawn, and no zero is divided by."""
    found = mean_interval(tally([0.5] * 10 + [0.0] * 30, [1.0] * 10 + [0.0] * 30))
    assert found == Interval(0.5, 0.5, 0.5, 10)
    assert mean_interval(tally([0.0, 0.0], [0.0, 0.0])) is None
    rare = mean_interval(tally([0.5] + [0.0] * 39, [1.0] + [0.0] * 39))
    assert rare == Interval(0.5, None, None, 1), "a third of the draws leave the only one out"


def test_nothing_is_called_better_without_grounds() -> None:
    wide, clear = Interval(0.1, -0.1, 0.3, 100), Interval(0.1, 0.05, 0.3, 100)
    assert verdict(wide, "higher") == "no clear difference"
    assert verdict(clear, "higher") == "better" and verdict(clear, "") == ""
    assert verdict(Interval(1.0, 1.0, 1.0, FEWEST_PROMPTS - 1), "higher") == "too few prompts"
    assert verdict(Interval(1.0), "higher") == "" and verdict(None, "higher") == ""
    assert verdict(Interval(0.0, 0.0, 0.0, 100), "higher") == "no clear difference"
