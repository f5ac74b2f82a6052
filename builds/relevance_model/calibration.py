"""Fit how two scores read as a probability, on exchanges written for this project.

    uv run --group builds python -m builds.relevance_model.calibration

Everyday replies are preferred with their emojis, the others without a smile. Prints the two constants of
`orpo.scoring.report.preference`.
"""

import math

import numpy as np
from sklearn.linear_model import LogisticRegression

from builds.relevance_model.sources import read_written_replies
from orpo.scoring import find_emojis, get_scorer, strip_emojis

LEAST = 1e-4


def main() -> None:
    """Fit and print."""
    scorer = get_scorer("tasteful")
    advantages, preferred = [], []
    for written in read_written_replies():
        plain = strip_emojis(written.text)
        everyday = written.label == "everyday"
        if everyday and not find_emojis(written.text):
            continue
        reply = written.text if everyday else f"{plain} 😊"
        scores = (max(scorer.score(text, written.prompt), LEAST) for text in (reply, plain))
        advantages.append(math.log(next(scores)) - math.log(next(scores)))
        preferred.append(everyday)
    model = LogisticRegression(C=1.0).fit(np.array(advantages)[:, None], preferred)
    print(f"steepness {model.coef_[0, 0]:.2f}, at equal {model.intercept_[0]:.2f}, {len(preferred)} exchanges")


if __name__ == "__main__":
    main()
