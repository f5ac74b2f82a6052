"""What a profile finds right: how many emojis, how often, and what a reply without any is worth.

A score is the product of its parts, each raised to its weight: score = prod(part ** weight). One bad part cannot be
bought back by the others, and a part of weight 0 does not count.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

WEIGHTS: Final = MappingProxyType(
    {
        "presence": 1.0,
        "obedience": 1.0,
        "context": 1.0,
        "density": 1.0,
        "repetition": 1.0,
        "replacement": 0.6,
        "placement": 0.6,
        "relevance": 0.6,
        "emotion": 0.6,
        "rendering": 0.5,
        "reading": 0.3,
    }
)
"""Exponents. Whether and how many weigh in full; how well each emoji fits weighs less, as it is estimated."""


@dataclass(frozen=True, slots=True)
class Restraint:
    """What follows from a context, such as grief or code."""

    quiet: float
    """What a quiet emoji (such as a dove) does to the score there."""
    other: float
    """What any other emoji does to it."""
    quiet_in_kind: float | None = None
    """What a quiet one does where the user writes emojis too; as `quiet` where nothing is said."""
    outweighs_system: bool = True
    """Whether restraint holds although the system message asks for emojis; the user's own message may lift it."""


RESTRAINTS: Final = MappingProxyType(
    {
        "grief": Restraint(quiet=0.8, other=0.08, quiet_in_kind=1.0),
        "grave_illness": Restraint(quiet=0.7, other=0.1, quiet_in_kind=0.95),
        "crisis": Restraint(quiet=0.2, other=0.05),
        "violence": Restraint(quiet=0.3, other=0.05),
        "legal": Restraint(quiet=0.2, other=0.2, outweighs_system=False),
        "formal": Restraint(quiet=0.2, other=0.2, outweighs_system=False),
        "code": Restraint(quiet=0.2, other=0.2),
        "data": Restraint(quiet=0.05, other=0.05),
    }
)
"""By the labels of `contexts.NAMES`."""
_LOOSER: Final = MappingProxyType(
    {**RESTRAINTS, "formal": Restraint(0.4, 0.4, outweighs_system=False), "code": Restraint(0.4, 0.4)}
)


@dataclass(frozen=True, slots=True)
class Profile:
    """One taste in emojis."""

    name: str
    description: str
    without: float
    """What a reply without any emoji is worth, where emojis are in place."""
    free: float
    """This many emojis are fine in a reply of any length."""
    per_100_words: float
    per_sentence: float
    repeats: tuple[float, ...]
    """The value of the same emoji once, twice, three times; beyond, it falls in proportion."""
    newest_version: float = 15.0
    """Emojis newer than this show as empty boxes on many devices (15.0 came in 2022)."""
    restraints: Mapping[str, Restraint] = field(default_factory=lambda: RESTRAINTS, hash=False)
    """What it makes of each context; a reply without emojis is right in all of them."""


PROFILES: Final = MappingProxyType(
    {
        profile.name: profile
        for profile in (
            Profile(
                name="tasteful",
                description="one or two fitting emojis at natural places",
                without=0.35,
                free=2,
                per_100_words=4,
                per_sentence=1,
                repeats=(1.0, 0.8, 0.5),
            ),
            Profile(
                name="sparing",
                description="at most one, and none is nearly as good",
                without=0.65,
                free=1,
                per_100_words=1.5,
                per_sentence=0.5,
                repeats=(1.0, 0.6, 0.3),
            ),
            Profile(
                name="playful",
                description="several, varied, in most sentences",
                without=0.15,
                free=4,
                per_100_words=10,
                per_sentence=2,
                repeats=(1.0, 0.9, 0.75),
                restraints=_LOOSER,
            ),
            Profile(
                name="none",
                description="no emoji at all",
                without=1.0,
                free=0,
                per_100_words=0,
                per_sentence=0,
                repeats=(1.0, 0.5, 0.3),
            ),
        )
    }
)
