"""What a score says about itself."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

# builds/relevance_model/calibration.py finds 3.8 and 4.1, on exchanges the models have seen; softened for new ones.
_STEEPNESS, _AT_EQUAL = 2.5, 2.5
_LEAST = 1e-4


@dataclass(frozen=True, slots=True)
class PartScore:
    """One part of a score: its value in [0, 1], why, and what it weighs in the whole."""

    value: float
    reason: str
    weight: float


@dataclass(frozen=True, slots=True)
class ScoreReport:
    """A score with the parts it is made of."""

    profile: str
    score: float
    parts: dict[str, PartScore] = field(default_factory=dict)
    emojis: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, object]:
        """Return the report as JSON-able values."""
        return {
            "profile": self.profile,
            "score": round(self.score, 4),
            "emojis": list(self.emojis),
            "parts": {
                name: {"value": round(part.value, 4), "reason": part.reason, "weight": part.weight}
                for name, part in self.parts.items()
            },
        }


def mean_scores(reports: Sequence[ScoreReport]) -> dict[str, float]:
    """Return the mean score of several replies as `total`, and the mean of each part under its name."""
    if not reports:
        return {}
    columns = {"total": [report.score for report in reports]}
    for name in reports[0].parts:
        columns[name] = [report.parts[name].value for report in reports]
    return {name: sum(values) / len(values) for name, values in columns.items()}


def preference(score: float, plain_score: float) -> float:
    """Return the probability that a person prefers a reply with emojis to its plain twin, given both scores."""
    advantage = math.log(max(score, _LEAST) / max(plain_score, _LEAST))
    return 1 / (1 + math.exp(-_STEEPNESS * advantage - _AT_EQUAL))
