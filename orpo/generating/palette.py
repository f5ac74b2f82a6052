"""The few emojis that a small model is taught, chosen so that they serve the replies at hand.

To such a model an emoji is two or three bytes to be learnt one by one: of 291 different ones in 619 uses it learnt
hardly any, and wrote whichever bytes came up.
"""

from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from orpo.scoring import find_emojis, normalise_emoji, place_emojis, strip_emojis, suggest_emojis

_CANDIDATES: Final = 60  # suggestions to look at for each reply
_LEAST_FIT: Final = 0.5


def choose_palette(replies: Iterable[tuple[str, str]], count: int) -> tuple[str, ...]:
    """Return the emojis, one after the other that which makes the best emoji of each reply fit best in the mean.

    Greedy maximisation of sum_i max_e fit(i, e), a submodular function: at least 1 - 1/e of the best choice (Nemhauser,
    Wolsey & Fisher 1978).

    Args:
        replies: (reply, what it answers).
        count: The most emojis to choose; fewer where more would make nothing better.
    """
    suggested = [
        {
            found.emoji: found.value
            for found in suggest_emojis(strip_emojis(reply).strip(), prompt, _CANDIDATES)
            if found.value >= _LEAST_FIT
        }
        for reply, prompt in replies
    ]
    emojis = sorted({emoji for row in suggested for emoji in row})
    fits = np.array([[row.get(emoji, 0.0) for emoji in emojis] for row in suggested], dtype=np.float32)
    return tuple(emojis[number] for number in _cover(fits, count)) if emojis else ()


def _cover(fits: NDArray[np.float32], count: int) -> list[int]:
    best, chosen = np.zeros(len(fits), dtype=np.float32), list[int]()
    while len(chosen) < count:
        gains = np.maximum(fits - best[:, None], 0.0).sum(axis=0)
        number = int(gains.argmax())
        if gains[number] <= 0.0:
            break
        chosen.append(number)
        best = np.maximum(best, fits[:, number])
    return chosen


def keep_to_palette(reply: str, prompt: str, palette: Sequence[str]) -> str:
    """Return a person's reply with emojis of the palette only: its own, or else those of it that fit as well.

    An emoji for which there is no other goes; where none would be left the best of the palette comes in.
    """
    known = set(map(normalise_emoji, palette))
    outside = [span for span in find_emojis(reply) if normalise_emoji(span.text) not in known]
    if not outside:
        return reply
    kept = reply
    for span in reversed(outside):
        kept = kept[: span.start].rstrip(" ") + kept[span.end :]
    if find_emojis(kept):
        return kept.strip()
    return place_emojis(kept.strip(), prompt, 1, among=palette)
