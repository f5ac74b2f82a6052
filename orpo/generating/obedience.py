"""Wishes for and against emojis, put to messages that hold none.

A pair with a ban and a pair with the opposite wish are made of one message and one reply, so that nothing but the wish
tells which side is right. With one of the two at each message a small model learns from a few dozen wishes to leave
emojis out whenever there is one, whatever it says (docs/experiments.md).
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from orpo.generating.mix import drawn_kind, stream
from orpo.generating.situations import find_situation
from orpo.records.messages import last_message
from orpo.records.pairs import PairKind
from orpo.records.prompts import Prompt
from orpo.records.shipped import WISHES, WishKind, shipped_wishes


def with_wish(prompt: Prompt, kind: WishKind, seed: int) -> Prompt:
    """Return the prompt with a wish of a kind, which stands as its category; seed and id of the prompt decide which."""
    rng = stream(seed, prompt.prompt_id, kind)
    wish = rng.choice([wish for wish in shipped_wishes() if wish.wish == kind])
    messages = wish.put_to(prompt.conversation())
    return replace(prompt, text=last_message(messages), messages=messages, category=kind)


def put_wishes(prompts: Sequence[Prompt], mix: Mapping[PairKind, float], seed: int, scorer: str) -> list[Prompt]:
    """Return prompts to ask a tuned model: those whose pair is to teach obedience have a wish."""
    return [
        with_wish(prompt, stream(seed, prompt.prompt_id, "wish").choice(WISHES), seed)
        if drawn_kind(mix, seed, prompt.prompt_id) == "obedience"
        and find_situation(prompt, "", scorer) == "in place"
        and prompt.conversation()[0]["role"] == "user"
        else prompt
        for prompt in prompts
    ]
