"""What is wished about emojis, read from thousands of wordings that nobody wrote this parser for."""

import importlib.util
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orpo.scoring.wishes import Wish, find_wish


@pytest.fixture(scope="module")
def system_prompts() -> Any:
    """The wordings that the base model is trained on."""
    file = Path(__file__).parents[2] / "recipes" / "base_model" / "system_prompts.py"
    spec = importlib.util.spec_from_file_location("system_prompts", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def is_ask(wish: Wish | None) -> bool:
    return wish is not None and not wish.forbids


def is_ban(wish: Wish | None) -> bool:
    return wish is not None and wish.forbids


@pytest.mark.parametrize(
    ("kind", "right"), [("asking", is_ask), ("forbidding", is_ban), ("neutral", lambda w: w is None)]
)
def test_wordings_of_a_grammar_are_read_right(
    system_prompts: Any, kind: str, right: Callable[[Wish | None], bool]
) -> None:
    """Sixteen of a hundred were misread before: third persons, smileys, "even a single emoji"."""
    rng = random.Random(11)
    wordings = [getattr(system_prompts, kind)(rng) for _ in range(1500)]
    misread = [text for text in wordings if not right(find_wish("", text))]
    assert len(misread) <= 0.01 * len(wordings), misread[:10]


@pytest.mark.parametrize("kind", ["use_emojis", "no_emojis"])
def test_the_measured_wordings_are_read_right(system_prompts: Any, kind: str) -> None:
    for text in system_prompts.MEASURED[kind]:
        assert (is_ask if kind == "use_emojis" else is_ban)(find_wish("", text)), text


@pytest.mark.parametrize(
    "text",
    [
        "What does the second word of this sentence mean?",
        "I have a question about my phone's keyboard.",
        "My sister loves the sea.",
        "Write the text only once.",
    ],
)
def test_what_is_no_wish_stays_none(text: str) -> None:
    assert find_wish(text) is None


def test_a_double_negation_asks() -> None:
    for text in ("Do not forget to add at least one emoji.", "Don't be afraid to write with an emoji."):
        assert is_ask(find_wish(text)), text
    assert is_ban(find_wish("Answer in one to three sentences without emojis."))
