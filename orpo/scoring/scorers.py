"""The scorers by name."""

from functools import cache
from math import prod
from typing import TYPE_CHECKING, Final, Protocol

from orpo.command.errors import SettingsError
from orpo.scoring.finding import contains_emoji, count_emojis, find_emojis
from orpo.scoring.profiles import PROFILES, WEIGHTS, Profile
from orpo.scoring.report import PartScore, ScoreReport

if TYPE_CHECKING:
    from orpo.scoring.contexts import Context
    from orpo.scoring.wishes import Wish


class Scorer(Protocol):
    """Scores a reply's use of emojis in [0, 1]; more is better."""

    name: str

    def score(self, reply: str, prompt: str = "", *, system: str = "") -> float:
        """Return the score of a reply to a prompt; `system` is what the user or operator wished beforehand."""

    def explain(self, reply: str, prompt: str = "", *, system: str = "", wish: "Wish | None" = None) -> ScoreReport:
        """Return the score with its parts and their reasons; a wish that is known is not read from the messages."""


class ContainsEmoji:
    """The first score: S(m) = 1 if the reply contains an emoji, else 0."""

    name = "contains_emoji"

    def score(self, reply: str, prompt: str = "", *, system: str = "") -> float:
        """Return S(reply)."""
        return contains_emoji(reply)

    def explain(self, reply: str, prompt: str = "", *, system: str = "", wish: "Wish | None" = None) -> ScoreReport:
        """Return S(reply) and how many emojis made it so."""
        value = contains_emoji(reply)
        count = count_emojis(reply)
        reason = f"{count} emoji{'' if count == 1 else 's'}"
        emojis = tuple(span.text for span in find_emojis(reply))
        return ScoreReport(self.name, value, {"presence": PartScore(value, reason, 1.0)}, emojis)


class ProfileScorer:
    """Scores how well a reply uses emojis, by one profile's taste: the product of its parts raised to their weights."""

    def __init__(self, profile: Profile) -> None:
        """Score by this profile."""
        self.profile = profile
        self.name = profile.name

    def score(self, reply: str, prompt: str = "", *, system: str = "") -> float:
        """Return the score in [0, 1]."""
        return self.explain(reply, prompt, system=system).score

    def explain(self, reply: str, prompt: str = "", *, system: str = "", wish: "Wish | None" = None) -> ScoreReport:
        """Return the score with every part, its reason and its weight."""
        # The parts need numpy and the models; a user of S(m) alone should not wait for them.
        from orpo.scoring import parts
        from orpo.scoring.contexts import find_context
        from orpo.scoring.surroundings import Reply
        from orpo.scoring.wishes import NO_EMOJI, find_wish

        taken_apart = Reply(reply)
        context = find_context(taken_apart, prompt)
        if self.name == "none":
            wish = NO_EMOJI
        elif wish is None:
            wish = find_wish(prompt, system)
            if wish is not None and not wish.forbids and self._outweighs_system(context):
                wish = find_wish(prompt)
        values = {
            "presence": parts.presence(taken_apart, self.profile, context, wish),
            "obedience": parts.obedience(taken_apart, wish),
            "context": parts.context_part(taken_apart, self.profile, context, wish),
            "density": parts.density(taken_apart, self.profile, wish),
            "repetition": parts.repetition(taken_apart, self.profile),
            "replacement": parts.replacement(taken_apart),
            "placement": parts.placement(taken_apart),
            "relevance": parts.relevance_part(taken_apart, prompt),
            "emotion": parts.emotion_part(taken_apart, prompt),
            "rendering": parts.rendering(taken_apart, self.profile),
            "reading": parts.reading(taken_apart),
        }
        scored = {name: PartScore(value, reason, WEIGHTS[name]) for name, (value, reason) in values.items()}
        score = prod(part.value**part.weight for part in scored.values())
        return ScoreReport(self.name, score, scored, tuple(span.text for span in taken_apart.spans))

    def _outweighs_system(self, context: "Context | None") -> bool:
        surely = context is not None and context.sureness >= 0.5
        return context is not None and surely and self.profile.restraints[context.label].outweighs_system


SCORERS: Final[tuple[str, ...]] = ("contains_emoji", *PROFILES)
"""The names `get_scorer` knows."""

DEFAULT_SCORER: Final = "tasteful"


@cache
def get_scorer(name: str = DEFAULT_SCORER) -> Scorer:
    """Return the scorer of that name; its models are loaded on first use."""
    if name == "contains_emoji":
        return ContainsEmoji()
    if name not in PROFILES:
        raise SettingsError(f"scorer {name!r}: not one of {', '.join(SCORERS)}")
    return ProfileScorer(PROFILES[name])
