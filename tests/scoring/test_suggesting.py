"""What is suggested for a text, and where it is put."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orpo.scoring import find_emojis, normalise_emoji, place_emojis, strip_emojis, suggest_emojis
from orpo.scoring.contexts import QUIET
from orpo.scoring.emoji_table import VS16, emoji_table
from orpo.scoring.sentence_ends import sentence_ends
from orpo.scoring.surroundings import Reply

TEXTS = [
    "Have a lovely evening!",
    "Your pizza is in the oven. It takes ten minutes.",
    'He said "see you tomorrow." Then he left',
    "1. Wake up early\n2. Drink water\n3. Go for a run",
]


@pytest.mark.parametrize("text", TEXTS)
def test_suggestions_are_real_emojis_best_first_each_once(text: str) -> None:
    picks = suggest_emojis(text, count=20)
    assert len(picks) == 20
    assert [pick.value for pick in picks] == sorted((pick.value for pick in picks), reverse=True)
    assert len({pick.emoji for pick in picks}) == 20
    for pick in picks:
        assert emoji_table()[pick.emoji.replace(VS16, "")].text == pick.emoji
        assert 0 <= pick.value <= 1 and pick.reason and 0 < pick.position <= len(text)


@pytest.mark.parametrize(
    ("text", "prompt"),
    [
        ("def f():\n    return 1", "Write a function."),
        ("Please call a helpline right now.", "I want to die."),
        ("Sure, here it is.", "No emojis, please. Say hello."),
        ("", ""),
    ],
)
def test_none_is_suggested_or_placed_where_none_is_in_place(text: str, prompt: str) -> None:
    assert suggest_emojis(text, prompt) == []
    assert place_emojis(text, prompt, 2) == text


def test_grief_gets_only_quiet_ones() -> None:
    """And only somebody who writes emojis."""
    reply = "I'm so sorry for your loss."
    picks = suggest_emojis(reply, "My grandma died yesterday 😢")
    assert picks and {normalise_emoji(pick.emoji) for pick in picks} <= QUIET
    assert suggest_emojis(reply, "My grandma died yesterday.") == []


def test_an_emoji_stands_behind_the_closing_quote_and_never_in_code() -> None:
    assert place_emojis('He said "See you tomorrow."').startswith('He said "See you tomorrow." ')
    text = "Run this to see the cake:\n```\nprint('cake. cake.')\n```\nEnjoy the cake!"
    ends = [end for _, end in sentence_ends(Reply(text))]
    assert ends == [text.index("\n"), len(text)]


def test_abbreviations_and_decimals_end_no_sentence() -> None:
    text = "Add 2.5 cups of fruit, e.g. plums. Then rest."
    assert [text[start:end].strip() for start, end in sentence_ends(Reply(text))] == [
        "Add 2.5 cups of fruit, e.g. plums.",
        "Then rest.",
    ]


@settings(deadline=None, max_examples=60)
@given(words=st.text(alphabet="abc .!?\n\"'`*(){}é", max_size=60), count=st.integers(1, 4))
def test_placing_adds_only_emojis_and_always_the_same(words: str, count: int) -> None:
    placed = place_emojis(words, count=count)
    assert placed == place_emojis(words, count=count)
    assert "".join(strip_emojis(placed).split()) == "".join(words.split())
    assert len(find_emojis(placed)) <= count
    assert all(placed[span.start - 1] == " " for span in find_emojis(placed))
