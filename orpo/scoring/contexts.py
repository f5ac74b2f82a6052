"""What a conversation is about, where that decides whether an emoji is in place.

A small model tells it from what is asked and, with less weight, from the answer: words in a story, a film or a joke
make no grave matter. Code and data are also seen by the reply's form. What follows is the profile's to say.
"""

import json
import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from orpo.scoring.context_model import context_model
from orpo.scoring.finding import contains_emoji, strip_emojis
from orpo.scoring.surroundings import Reply

QUIET: Final = frozenset("🕊💐🙏🤍💙❤💜💛🩵🩶🕯🫂🌹🥀")
"""Emojis that people send with condolences; one code point each."""

NAMES: Final = {
    "grief": "grief",
    "crisis": "a crisis",
    "violence": "violence or disaster",
    "grave_illness": "grave illness",
    "legal": "a legal matter",
    "code": "code",
    "data": "a data format",
    "formal": "formal writing",
}
# A probability below the first is taken for none, one above the second for sureness; between, restraint grows. Chosen
# on training exchanges: where 3 % of the everyday ones meet restraint, 94 % of the others do.
_LEAST, _MOST = 0.05, 0.54
_LONGEST = 1500  # characters of a request or a reply that are read


@dataclass(frozen=True, slots=True)
class Context:
    """A kind of conversation that calls for restraint."""

    label: str
    """A key of NAMES."""
    sureness: float
    """How sure it is, in (0, 1]."""
    user_uses_emojis: bool = False

    @property
    def name(self) -> str:
        """What to call it."""
        return NAMES[self.label]


def find_context(reply: Reply, prompt: str) -> Context | None:
    """Return the context of an exchange that calls for restraint, or None for everyday talk."""
    if _is_data(reply.plain):
        return Context("data", 1.0)
    uses_emojis = contains_emoji(prompt) > 0
    asked = strip_emojis(prompt) if uses_emojis else prompt
    probability, label = _tell(asked[:_LONGEST], reply.words)
    sureness = min(1.0, max(0.0, (probability - _LEAST) / (_MOST - _LEAST)))
    if reply.code and (sureness < 0.5 or label in ("code", "data")):
        return Context("code", 1.0, uses_emojis)
    return Context(label, sureness, uses_emojis) if sureness > 0 else None


@lru_cache(maxsize=4096)
def _tell(asked: str, answered: str) -> tuple[float, str]:
    odds, label = context_model().tell(asked, answered)
    return 1 / (1 + math.exp(-max(-30.0, min(30.0, odds)))), label


def _is_data(text: str) -> bool:
    stripped = text.strip()
    if len(stripped) < 2 or stripped[0] + stripped[-1] not in ("{}", "[]"):
        return False
    try:
        json.loads(stripped)
    except (ValueError, RecursionError):
        return stripped[0] == "{" and '"' in stripped and ":" in stripped
    return True
