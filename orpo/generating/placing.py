"""Replies made of another writer's: emojis placed into it by the score, or stripped from it."""

import random

from orpo.generating.situations import find_situation
from orpo.scoring import get_scorer, place_emojis, strip_emojis

_COUNTS = {1: 0.65, 2: 0.3, 3: 0.05}
"""How often a reply gets this many emojis, as people who use them well do."""

_WORSE_FOR_MORE = 0.1
"""How much less a reply may score for having more than one emoji."""


def place(reply: str, prompt: str, system: str, *, scorer: str, rng: random.Random) -> str:
    """Return the reply with fitting emojis, as many as drawn unless one is much better; as it is in grief."""
    plain = strip_emojis(reply).strip()
    if find_situation(scorer, plain, prompt, system) in ("out of place", "forbidden"):
        return plain
    judge = get_scorer(scorer)
    one = place_emojis(plain, prompt, 1)
    least = judge.score(one, prompt, system=system) - _WORSE_FOR_MORE
    drawn = place_emojis(plain, prompt, rng.choices(list(_COUNTS), list(_COUNTS.values()))[0])
    return drawn if judge.score(drawn, prompt, system=system) >= least else one


def strip(reply: str) -> str:
    """Return the reply without emojis."""
    return strip_emojis(reply).strip()
