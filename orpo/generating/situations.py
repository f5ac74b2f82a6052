"""Whether an emoji is in place in the reply to a prompt, as the score sees it.

The score is asked with a neutral emoji behind the plain reply, so whatever it knows of contexts and wishes counts here.
"""

from functools import lru_cache
from typing import Final, Literal

from orpo.records.prompts import OUT_OF_PLACE
from orpo.scoring import get_scorer, strip_emojis

Situation = Literal["in place", "out of place", "asked for", "forbidden"]

_NEUTRAL: Final = "🙂"
_WELCOME: Final = 0.7  # what the part `context` gives an emoji where at least some are fine, as beside sums


@lru_cache(maxsize=8192)
def find_situation(scorer: str, reply: str, prompt: str, system: str = "") -> Situation:
    """Return whether a reply to this prompt is to have emojis."""
    judge = get_scorer(scorer)
    plain = strip_emojis(reply).strip() or "Okay."
    without = judge.explain(plain, prompt, system=system).parts
    having = judge.explain(f"{plain} {_NEUTRAL}", prompt, system=system).parts
    if "context" not in having:  # the first score knows none
        return "in place"
    if having["obedience"].value == 0.0:
        return "forbidden"
    if without["obedience"].value < 1.0:
        return "asked for"
    return "in place" if having["context"].value >= _WELCOME else "out of place"


def is_restrained(category: str, scorer: str) -> bool:
    """Return whether the prompts' own category says that no emoji is in place, for a score that knows of places."""
    return category in OUT_OF_PLACE and "context" in get_scorer(scorer).explain("").parts
