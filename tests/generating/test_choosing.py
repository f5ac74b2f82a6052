"""Which reply is chosen, and which prompts make no pair."""

from dataclasses import dataclass

import pytest

from orpo.generating.choosing import Dropped, count_reasons, make_pair, measure_side
from orpo.records.pairs import PreferencePair
from orpo.records.prompts import Prompt

PROMPT = Prompt("p1", "I passed!")


@dataclass(frozen=True)
class Reply:
    text: str
    score: float
    finished: bool = True
    failure: str = ""


def pair(emoji: Reply, plain: Reply, min_margin: float = 0.0) -> PreferencePair | Dropped:
    return make_pair(PROMPT, emoji, plain, emoji_model="E", plain_model="P", source="s", min_margin=min_margin)


def test_the_better_scored_reply_is_chosen_whoever_wrote_it() -> None:
    made = pair(Reply("yes 🎉", 1.0), Reply("yes", 0.0))
    assert isinstance(made, PreferencePair)
    assert (made.chosen[0]["content"], made.chosen_model, made.rejected_model) == ("yes 🎉", "E", "P")
    turned = pair(Reply("yes", 0.2), Reply("yes 🎉", 0.9))
    assert isinstance(turned, PreferencePair)
    assert (turned.chosen[0]["content"], turned.chosen_model, turned.rejected_model) == ("yes 🎉", "P", "E")
    assert (turned.chosen_score, turned.rejected_score) == (0.9, 0.2)


@pytest.mark.parametrize(
    ("emoji", "plain", "reason"),
    [
        (Reply("a 🎉", 1.0), Reply("b 🎉", 1.0), "tie"),
        (Reply("a", 0.0), Reply("a", 0.0), "same text"),
        (Reply(" ", 0.0), Reply("a 🎉", 1.0), "emoji writer: empty reply"),
        (Reply("a 🎉", 1.0), Reply("", 0.0), "plain writer: empty reply"),
        (Reply("", 0.0, failure="HTTP 500"), Reply("", 0.0), "emoji writer: HTTP 500"),
        (Reply("a 🎉", 1.0), Reply("", 0.0, failure="timed out"), "plain writer: timed out"),
        (Reply("a 🎉", 1.0, finished=False), Reply("a", 0.0), "better reply cut off"),
        (Reply("a 🎉", 0.5), Reply("a", 0.3), "margin below --min-margin"),
    ],
)
def test_what_makes_no_pair_is_dropped_with_its_reason(emoji: Reply, plain: Reply, reason: str) -> None:
    made = pair(emoji, plain, min_margin=0.3)
    assert isinstance(made, Dropped)
    assert made.reason == reason
    assert made.as_row()["plain_reply"] == plain.text


def test_a_cut_off_worse_reply_does_no_harm() -> None:
    assert isinstance(pair(Reply("a 🎉", 1.0), Reply("a", 0.0, finished=False)), PreferencePair)


def test_sides_are_measured_by_hand_counted_values() -> None:
    side = measure_side(["one two 🎉🎉", "three"], [0.75, 0.25])
    names = ("replies", "emoji_rate", "mean_emojis", "mean_score", "mean_words", "max_words")
    assert [side[name] for name in names] == [2, 0.5, 1.0, 0.5, 2.0, 3]
    assert measure_side([], [])["mean_score"] == 0.0


def test_refusals_with_one_status_count_as_one_reason() -> None:
    """An endpoint that puts an id into each refusal would else make a line of the table for each prompt."""
    reasons = ["emoji writer: HTTP 400: id 1", "tie", "emoji writer: HTTP 400: id 2", "plain writer: HTTP 400: id 1"]
    dropped = [Dropped(reason, Prompt(str(number), "a")) for number, reason in enumerate(reasons)]
    assert count_reasons(dropped) == {reasons[0]: 2, "tie": 1, reasons[3]: 1}
