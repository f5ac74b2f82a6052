"""Whether an emoji is in place in the reply to a prompt: as its category says, or else as the score sees it.

The score is asked with a neutral emoji behind the plain reply, so whatever it knows of contexts and wishes counts here.
"""

from functools import lru_cache
from typing import Final, Literal

from orpo.records.messages import last_message, system_message
from orpo.records.prompts import OUT_OF_PLACE, Prompt
from orpo.records.shipped import ASKS, FORBIDS
from orpo.scoring import ScoreReport, get_scorer, strip_emojis
from orpo.scoring.wishes import NO_EMOJI, SOME_EMOJI, Wish

Situation = Literal["in place", "out of place", "asked for", "forbidden"]

_NEUTRAL: Final = "🙂"
# What the part `context` gives an emoji where at least some are fine, as beside sums. Of held-out prompts answered
# "Okay.", everyday ones in place and others too: 0.7 sees 184 of 194 and 1 of 62, 0.5 190 and 2, 0.3 191 and 6.
_WELCOME: Final = 0.5
_OF_CATEGORY: Final[dict[str, Situation]] = {
    **dict.fromkeys(OUT_OF_PLACE, "out of place"),
    FORBIDS: "forbidden",
    ASKS: "asked for",
}
_WISHES: Final[dict[str, Wish]] = {FORBIDS: NO_EMOJI, ASKS: SOME_EMOJI}


def find_situation(prompt: Prompt, reply: str, scorer: str) -> Situation:
    """Return whether a reply to this prompt is to have emojis; the first score takes them to be in place always."""
    if not _knows_places(scorer):
        return "in place"
    messages = prompt.conversation()
    of_category = _OF_CATEGORY.get(prompt.category)
    return of_category or seen_situation(scorer, reply, last_message(messages), system_message(messages))


def score_reply(prompt: Prompt, reply: str, scorer: str) -> ScoreReport:
    """Return what the score says of a reply; a wish that the prompt's category tells of need not be read."""
    messages = prompt.conversation()
    return get_scorer(scorer).explain(
        reply, last_message(messages), system=system_message(messages), wish=_WISHES.get(prompt.category)
    )


@lru_cache(maxsize=8192)
def seen_situation(scorer: str, reply: str, prompt: str, system: str = "") -> Situation:
    """Return whether a reply to these words is to have emojis, by the score alone."""
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


def _knows_places(scorer: str) -> bool:
    return "context" in get_scorer(scorer).explain("").parts
