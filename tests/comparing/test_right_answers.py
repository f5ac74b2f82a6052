"""Which replies answer a short question, and how alike two texts are."""

import pytest

from orpo.comparing.likeness import chrf
from orpo.comparing.right_answers import is_right


@pytest.mark.parametrize(
    ("reply", "accepted", "right"),
    [
        ("The capital of France is Paris. 🗼", ["paris"], True),
        ("Parisians live there.", ["paris"], False),
        ("It is Bogotá!", ["bogota"], True),
        ("12 + 5 = 17.", ["17"], True),
        ("12 + 5 = 17.5", ["17"], False),
        ("That makes 117.", ["17"], False),
        ("-7", ["7"], False),
        ("It is 5-7=7", ["7"], True),
        ("About 1,000,000 people", ["1000000"], True),
        ("**42**", ["42"], True),
        ("Forty-two", ["42", "forty-two"], True),
        ("New\nYork", ["new york"], True),
        ("8🎂", ["8"], True),
        ("", ["8"], False),
    ],
)
def test_an_answer_counts_as_whole_words(reply: str, accepted: list[str], right: bool) -> None:
    assert is_right(reply, accepted) is right


@pytest.mark.parametrize(
    ("text", "reference", "expected"),
    [
        ("Congratulations on the new job!", "Congratulations on your new job, well done.", 0.5546240716345316),
        ("Hi", "Hello there", 0.05952380952380952),
        ("A", "A B", 0.5555555555555556),
        ("We missed our flight 😕", "We've missed the flight", 0.46975750232736585),
        ("abc", "xyz", 0.0),
        ("the same", "the same", 1.0),
        ("", "", 1.0),
        ("", "word", 0.0),
    ],
)
def test_likeness_is_sacrebleus_chrf(text: str, reference: str, expected: float) -> None:
    """Recorded from sacrebleu 2.6 (`sentence_chrf`, its defaults), but for empty texts."""
    assert chrf(text, reference) == pytest.approx(expected, abs=1e-12)
