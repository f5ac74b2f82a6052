"""A judge's verdicts count only where they hold in both orders."""

from collections.abc import Sequence

import pytest

from orpo.comparing.judging import Judgement, judge_sides, judgements_to_write
from orpo.records.messages import Message, last_message
from tests.comparing.given_sides import comparison, whole_comparison

BASE = ["Congratulations.", "Hello.", "sum(x)", "Sorry."]
TUNED = ["Congratulations! 🎉", "Hello! 🙂", "sum(x)", "Sorry."]


def judged(letters: list[str]) -> Judgement:
    [found] = judge_sides(comparison(BASE, TUNED), lambda asked: letters)
    return found


def test_a_verdict_that_follows_the_order_is_a_tie() -> None:
    """Shown second, then first: BA is a win, AB a loss; AA and BB follow the place, and no letter is none."""
    found = judged(["B", "A", "A", "B", "A", "B", "A", "B"])
    assert (found.wins, found.losses, found.ties) == (1, 1, 2)
    assert found.preferred is not None and found.preferred.value == 0.5


@pytest.mark.parametrize(
    ("text", "counts"),
    [("A", True), ("a.", True), ("**B**", False), ("Reply A", True), ("Answer: A", True), ("Apples", None), ("", None)],
)
def test_the_letter_is_read_out_of_what_small_models_say(text: str, counts: bool | None) -> None:
    """Always answered in the second order with B's opposite: A there is a loss in the first order."""
    found = judged([text] * 4 + ["B"] * 4)
    assert found.losses == (4 if counts else 0)


def test_agreement_is_counted_where_both_decide() -> None:
    """The score prefers the tuned replies of the first two prompts and is even on the rest: one of two agrees."""
    found = judged(["B", "A", "B", "B", "A", "B", "A", "A"])
    assert (found.wins, found.losses) == (3, 1)
    assert found.agreement is not None and (found.agreement.value, found.agreement.prompts) == (0.5, 2)


def test_the_judge_sees_both_replies_in_both_orders() -> None:
    seen: list[str] = []

    def answer(asked: Sequence[Sequence[Message]]) -> list[str]:
        seen.extend(map(last_message, asked))
        return ["A"] * len(asked)

    whole = whole_comparison(times=1)
    judge_sides(whole, answer)
    assert len(seen) == judgements_to_write(whole) == 8
    first, other = seen[0], seen[4]
    assert first.index("Congratulations.") < first.index("Congratulations! 🎉")
    assert other.index("Congratulations! 🎉") < other.index("Congratulations.")
