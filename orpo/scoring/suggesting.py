"""Which emojis a person would pick for a text, and the text with them in place.

    suggest_emojis("Your table is booked for eight.", prompt="Can you get us a table at the ramen place?")
    place_emojis("Have a lovely evening!")

The ranking needs numpy and the models, which are loaded when first asked for.
"""

from collections.abc import Collection
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Suggestion:
    """An emoji for a text."""

    emoji: str
    value: float
    """How well it fits, in [0, 1]."""
    reason: str
    position: int
    """Where in the text it belongs: an emoji written there, after a blank, follows the sentence that it fits."""


def suggest_emojis(
    text: str, prompt: str = "", count: int = 5, *, among: Collection[str] | None = None
) -> list[Suggestion]:
    """Return the emojis that suit a text best, best first; none where none is in place.

    `prompt` is what the text answers, and `among` the emojis to choose from. In grief only quiet ones are suggested.
    """
    from orpo.scoring.picking import pick_emojis

    return pick_emojis(text, prompt, count, among)


def place_emojis(text: str, prompt: str = "", count: int = 1, *, among: Collection[str] | None = None) -> str:
    """Return the text with up to `count` fitting emojis at the ends of its sentences, each emoji and place once.

    A text where none is in place comes back unchanged, and so do the emojis that it has. No emoji goes into code.
    """
    picks: list[Suggestion] = []
    taken: set[int] = set()
    candidates = suggest_emojis(text, prompt, count * 4, among=among)
    last = max((pick.position for pick in candidates), default=0)
    for pick in candidates:
        if len(picks) == count:
            break
        if pick.position not in taken:
            picks.append(pick)
            taken.add(pick.position)
    for pick in candidates:  # fewer places than emojis wished: the rest gather at the end
        if len(picks) < min(count, 2) and pick not in picks:
            picks.append(Suggestion(pick.emoji, pick.value, pick.reason, last))
    for pick in sorted(picks, key=lambda pick: -pick.position):
        text = f"{text[: pick.position]} {pick.emoji}{text[pick.position :]}"
    return text
