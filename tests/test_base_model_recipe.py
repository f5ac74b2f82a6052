"""What the embedded base model learns from: written conversations are whole, and none is a held-out prompt."""

import importlib
import random
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from orpo.preferences.prompts import embedded_prompts
from orpo.scoring import contains_emoji

RECIPE = Path(__file__).parents[1] / "recipes" / "base_model"
EQUATION = re.compile(r"(?<![\d.] )(?<!\d)(\d+) ([-+x/]) (\d+) = (\d+)")
COMPUTE = {"+": int.__add__, "-": int.__sub__, "x": int.__mul__, "/": int.__floordiv__}


@pytest.fixture(scope="module")
def recipe() -> Iterator[dict[str, ModuleType]]:
    """The recipe's modules, which are scripts' neighbours and no package."""
    sys.path.insert(0, str(RECIPE))
    try:
        yield {name: importlib.import_module(name) for name in ("arithmetic", "held_out", "written")}
    finally:
        sys.path.remove(str(RECIPE))


def test_every_intent_makes_a_whole_conversation(recipe: dict[str, ModuleType]) -> None:
    """No slot is left open, no reply is empty, and emojis come from the lexicon only."""
    written, rng = recipe["written"], random.Random(0)
    intents = written.load_intents(RECIPE / "intents")
    names = [intent["intent"] for intent in intents]
    assert len(names) == len(set(names)) > 1000
    for intent in intents:
        message, reply = written.expand_intent(intent, rng).turns
        assert message.strip() and reply.strip(), intent["intent"]
        assert not contains_emoji(message + reply), intent["intent"]
        known = set(intent.get("slots") or {}).union(*(intent.get("rows") or [{}])[:1])
        assert not known & set(re.findall(r"\{(\w+)\}", message + reply)), intent["intent"]


def test_every_step_of_an_answer_to_a_sum_is_right(recipe: dict[str, ModuleType]) -> None:
    equations = 0
    for conversation in recipe["arithmetic"].draw_arithmetic(2_000, random.Random(0)):
        for left, sign, right, result in EQUATION.findall(conversation.turns[1]):
            assert COMPUTE[sign](int(left), int(right)) == int(result), conversation.turns
            equations += 1
    assert equations > 2_000


def test_rewordings_of_held_out_prompts_stay_out_of_the_corpus(recipe: dict[str, ModuleType]) -> None:
    """Once only the very same words were left out, and "how do i poach an egg" stood beside "how to poach an egg"."""
    prompts = [prompt.text for prompt in embedded_prompts("held_out")]
    held_out = recipe["held_out"].HeldOutPrompts(prompts)
    assert all(map(held_out.is_near, prompts))
    assert held_out.is_near("Can you tell me how to poach an egg, please?")
    assert held_out.is_near("Nobody came to my poetry reading.")
    assert not held_out.is_near("How long does an egg boil?")
    assert not held_out.is_near("We need coffee for the office.")
    assert not held_out.is_near("")
    train = [prompt.text for prompt in embedded_prompts("train")]
    assert sum(map(held_out.is_near, train)) < 0.05 * len(train)
