"""What a run is said to have come to."""

from typing import Any

import pytest

from orpo.training.verdict import verdict


def metrics(**changes: tuple[float, float]) -> dict[str, Any]:
    """Return first and last values; two underscores stand for a slash."""
    return {name.replace("__", "/"): {"first": a, "last": b} for name, (a, b) in changes.items()}


@pytest.mark.parametrize(
    ("watched", "word"),
    [
        ({"eval_rewards__accuracies": (0.5, 0.95), "eval_logps__chosen": (-2.0, -1.5)}, "learned:"),
        ({"rewards__accuracies": (0.4, 0.9)}, "learned:"),  # without evaluation pairs
        ({"eval_rewards__accuracies": (0.9, 0.95), "replies__emoji_rate": (0.02, 0.9)}, "learned:"),
        ({"eval_rewards__accuracies": (0.5, 0.55), "replies__emoji_rate": (0.0, 0.4)}, "learned in part"),
        ({"eval_rewards__accuracies": (0.5, 0.52), "replies__emoji_rate": (0.0, 0.03)}, "barely moved"),
        ({}, "barely moved"),
        ({"eval_rewards__accuracies": (0.5, 0.99), "eval_logps__chosen": (-1.0, -1.8)}, "forgetting"),
        ({"eval_rewards__accuracies": (0.5, 0.99), "replies__finished_share": (0.9, 0.5)}, "forgetting"),
        ({"eval_rewards__accuracies": (0.5, 0.99), "replies__mean_emojis": (0.1, 7.0)}, "spam"),
        ({"eval_rewards__accuracies": (0.5, 0.99), "replies__max_emojis": (1.0, 40.0)}, "spam"),
        ({"rewards__score": (0.4, 0.6), "score__total": (0.5, 0.65)}, "learned: sampled replies score 0.65, 0.15 more"),
        ({"rewards__score": (0.4, 0.6)}, "learned: sampled replies score 0.60"),  # without held-out prompts
        ({"rewards__score": (0.4, 0.6), "score__total": (0.5, 0.55)}, "learned in part"),
        ({"rewards__score": (0.4, 0.7), "score__total": (0.5, 0.5)}, "barely moved: raise"),
        ({"rewards__score": (0.4, 0.4), "groups__same_score_share": (0.5, 0.8)}, "barely moved: in 80% of the groups"),
        ({"rewards__score": (0.4, 0.9), "replies__mean_emojis": (0.1, 7.0)}, "spam"),
        ({"rewards__score": (0.4, 0.9), "replies__finished_share": (0.9, 0.5)}, "forgetting"),
    ],
)
def test_the_verdict_follows_what_was_watched(watched: dict[str, tuple[float, float]], word: str) -> None:
    assert verdict(metrics(**watched)).startswith(word)
