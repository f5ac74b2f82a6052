"""chrF: how alike two texts are, letter by letter (Popović 2015, doi 10.18653/v1/W15-3049)."""

from collections import Counter
from typing import Final

_LONGEST: Final = 6
_BETA: Final = 2.0  # recall counts twice as much as precision


def chrf(text: str, reference: str) -> float:
    """Return the F-score of the letter n-grams (n = 1 to 6, blanks left out) that two texts share, in [0, 1].

    As sacrebleu's sentence chrF counts it: a length for which one of the texts is too short does not count.
    """
    ours, theirs = "".join(text.split()), "".join(reference.split())
    precisions, recalls = [], []
    for length in range(1, _LONGEST + 1):
        found, wanted = _ngrams(ours, length), _ngrams(theirs, length)
        if not found or not wanted:
            continue
        shared = (found & wanted).total()
        precisions.append(shared / found.total())
        recalls.append(shared / wanted.total())
    if not precisions:
        return 1.0 if ours == theirs else 0.0
    precision, recall = sum(precisions) / len(precisions), sum(recalls) / len(recalls)
    below = _BETA**2 * precision + recall
    return (1 + _BETA**2) * precision * recall / below if below else 0.0


def _ngrams(text: str, length: int) -> Counter[str]:
    return Counter(text[start : start + length] for start in range(len(text) - length + 1))
