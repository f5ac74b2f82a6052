"""The scorers by name."""

from typing import Final, Protocol

from orpo.running.errors import SettingsError
from orpo.scoring.finding import contains_emoji, count_emojis, find_emojis
from orpo.scoring.report import PartScore, ScoreReport


class Scorer(Protocol):
    """Scores a reply's use of emojis in [0, 1]; more is better."""

    name: str

    def score(self, reply: str, prompt: str = "", *, system: str = "") -> float:
        """Return the score of a reply to a prompt; `system` is what the user or operator wished beforehand."""

    def explain(self, reply: str, prompt: str = "", *, system: str = "") -> ScoreReport:
        """Return the score with its parts and their reasons."""


class ContainsEmoji:
    """The first score: S(m) = 1 if the reply contains an emoji, else 0."""

    name = "contains_emoji"

    def score(self, reply: str, prompt: str = "", *, system: str = "") -> float:
        """Return S(reply)."""
        return contains_emoji(reply)

    def explain(self, reply: str, prompt: str = "", *, system: str = "") -> ScoreReport:
        """Return S(reply) and how many emojis made it so."""
        value = contains_emoji(reply)
        count = count_emojis(reply)
        reason = f"{count} emoji{'' if count == 1 else 's'}"
        emojis = tuple(span.text for span in find_emojis(reply))
        return ScoreReport(self.name, value, {"presence": PartScore(value, reason, 1.0)}, emojis)


_FACTORIES: Final = {"contains_emoji": ContainsEmoji}

SCORERS: Final[tuple[str, ...]] = tuple(_FACTORIES)
"""The names `get_scorer` knows."""


def get_scorer(name: str) -> Scorer:
    """Return the scorer of that name, loaded on first use."""
    if name not in _FACTORIES:
        raise SettingsError(f"scorer {name!r}: not one of {', '.join(SCORERS)}")
    return _FACTORIES[name]()
