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
    """Wordings of wishes, from a grammar."""
    file = Path(__file__).with_name("wish_wordings.py")
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


@pytest.mark.parametrize(
    "text",
    [
        "Do not overuse emojis.",
        "Use emojis sparingly. Do not overdo the emojis.",
        "Avoid using too many emojis.",
        "You don't have to use emojis",
        "You do not need to use emojis, but you can",
        "No need to hold back on emojis",
        "Don't be stingy with emojis",
        "Never write a message without an emoji",
        "Don't reply without emojis",
        "Don’t reply without emojis",
        "Use one emoji. Don't put emojis in the middle of a sentence",
        "Never start a reply with an emoji. End with one",
        "Use emojis instead of emoticons",
        "Do not use the skull emoji.",
        "Can you drop a few emojis in?",
        "Drop an emoji now and then",
        "Don't be formal, use emojis.",
    ],
)
def test_restraint_freedom_and_double_negation_ban_nothing(text: str) -> None:
    """All of these were read as bans, so that the reply that follows them scored 0."""
    assert is_ask(find_wish(text)), text


@pytest.mark.parametrize(
    "text", ["Never write a message without an emoji", "Don't reply without emojis", "Don't be stingy with emojis"]
)
def test_a_negated_negation_demands(text: str) -> None:
    assert find_wish(text) == Wish(1, None)


@pytest.mark.parametrize(
    "text",
    [
        "Describe your day in three words only.",
        "I can't find the heart emoji on my keyboard",
        "I don't know what this emoji means",
        "Why do people hate emojis?",
        "How do I type emojis on Windows?",
    ],
)
def test_talk_about_emojis_wishes_nothing(text: str) -> None:
    assert find_wish(text) is None


@pytest.mark.parametrize(
    "text",
    [
        "The user hates emojis",
        "I can't stand emojis, so please do not use them",
        "Don’t use emojis.",
        "Drop the emojis.",
        "Use words instead of emojis.",
        "Use words only.",
        "You may not use emojis.",
        "You can't use emojis.",
        "Don't use emojis, ok?",
        "What is a good caption without emojis?",
        "No hashtags, links or emojis.",
        "Use emojis. No, wait: no emojis.",
        "Never even one emoji.",
    ],
)
def test_bans_are_read_as_bans(text: str) -> None:
    assert is_ban(find_wish(text)), text


@pytest.mark.parametrize(
    "text",
    [
        "You may use emojis where they fit.",
        "Feel free to use emojis",
        "You can use emojis.",
        "Emojis are allowed.",
        "Use emojis where appropriate.",
        "If you like, add emojis.",
    ],
)
def test_a_permission_demands_nothing(text: str) -> None:
    """A plain reply to "you may use emojis" scored 0 for disobedience."""
    assert find_wish(text) == Wish(0, None)


@pytest.mark.parametrize(
    ("text", "least", "most"),
    [
        ("Do not exceed one emoji", 0, 1),
        ("Write 10 captions with emojis", 1, None),
        ("Write two paragraphs using emojis", 1, None),
        ("Use one emoji per sentence", 1, None),
        ("Use one emoji per message", 1, 1),
        ("Use one or more emojis", 1, None),
        ("Use more than three emojis", 4, None),
        ("Don't use more than three emojis", 0, 3),
        ("Use no more than three emojis", 0, 3),
        ("Use no fewer than two emojis", 2, None),
        ("Use less than three emojis", 0, 2),
        ("You may use up to two emojis", 0, 2),
        ("You may use one or two emojis", 0, 2),
        ("Use exactly two fun emojis", 2, 2),
        ("Use 2-3 various emojis", 2, 3),
        ("Don't forget to add two emojis", 2, 2),
    ],
)
def test_counts(text: str, least: int, most: int | None) -> None:
    wish = find_wish(text)
    assert wish is not None and (wish.least, wish.most) == (least, most)
