"""Wishes for and against emojis, put to messages that hold none.

The same message with and without a wish, or with the opposite one, asks for different replies. From a few dozen wishes
a small model learns to leave emojis out whenever there is a system prompt.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from orpo.generating.mix import drawn_kind, stream
from orpo.generating.situations import find_situation
from orpo.records.messages import last_message
from orpo.records.pairs import PairKind
from orpo.records.prompts import Prompt
from orpo.records.shipped import FORBIDS, shipped_wishes

_FORBIDS_SHARE: Final = 0.7
"""Of the wishes; a tuned model uses emojis unasked, so that a ban is the harder one to learn."""


def with_wish(prompt: Prompt, seed: int) -> Prompt:
    """Return the prompt with a wish, which stands as its category; seed and id of the prompt decide which."""
    rng = stream(seed, prompt.prompt_id, "wish")
    forbids = rng.random() < _FORBIDS_SHARE
    wish = rng.choice([wish for wish in shipped_wishes() if (wish.wish == FORBIDS) == forbids])
    messages = wish.put_to(prompt.conversation())
    return replace(prompt, text=last_message(messages), messages=messages, category=wish.wish)


def put_wishes(prompts: Sequence[Prompt], mix: Mapping[PairKind, float], seed: int, scorer: str) -> list[Prompt]:
    """Return prompts to ask a tuned model: those whose pair is to teach obedience have a wish."""
    return [
        with_wish(prompt, seed)
        if drawn_kind(mix, seed, prompt.prompt_id) == "obedience"
        and find_situation(prompt, "", scorer) == "in place"
        and prompt.conversation()[0]["role"] == "user"
        else prompt
        for prompt in prompts
    ]
