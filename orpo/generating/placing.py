"""Replies made of others: emojis placed by the score, or stripped."""

import random
from collections.abc import Sequence

from orpo.generating.situations import find_situation, score_reply
from orpo.records.messages import last_message
from orpo.records.prompts import Prompt
from orpo.scoring import place_emojis, strip_emojis, suggest_emojis

_COUNTS = {1: 0.65, 2: 0.3, 3: 0.05}
"""How often a reply gets this many emojis, as people who use them well do."""

_OFFERED = 12
"""How many suggestions the score judges in their place."""

_WORSE_FOR_MORE = 0.1
"""How much less a reply may score for having more than one emoji."""


def place(reply: str, prompt: Prompt, *, scorer: str, rng: random.Random, palette: Sequence[str] | None = None) -> str:
    """Return the reply with fitting emojis, as many as drawn unless one is much better; without any in grief.

    Args:
        reply: The reply; emojis that it has are taken away first.
        prompt: What it answers.
        scorer: The score that decides between more emojis and fewer.
        rng: Draws how many.
        palette: The emojis to choose from; all if None.
    """
    plain = strip(reply)
    if find_situation(prompt, plain, scorer) in ("out of place", "forbidden"):
        return plain
    said = last_message(prompt.conversation())

    def with_best_of(emojis: Sequence[str], count: int = 1) -> tuple[float, str]:
        text = place_emojis(plain, said, count, among=emojis)
        return score_reply(prompt, text, scorer).score, text

    offered = [found.emoji for found in suggest_emojis(plain, said, _OFFERED, among=palette)]
    ranked = sorted(offered, key=lambda emoji: -with_best_of([emoji])[0])  # the score that judges also picks
    best, one = with_best_of(ranked[:1])
    count = rng.choices(list(_COUNTS), list(_COUNTS.values()))[0]
    value, drawn = with_best_of(ranked[:count], count)
    return drawn if value >= best - _WORSE_FOR_MORE else one


def strip(reply: str) -> str:
    """Return the reply without emojis."""
    return strip_emojis(reply).strip()
