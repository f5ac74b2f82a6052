"""Which reply is chosen, and which prompts make no pair."""

from dataclasses import replace

import pytest

from orpo.generating.choosing import PairMaker
from orpo.generating.result import count_reasons, measure_side
from orpo.generating.written import Dropped, WrittenPrompt, WrittenReply
from orpo.records.pairs import PreferencePair
from orpo.records.prompts import Prompt
from orpo.records.replies import Reply
from orpo.scoring import PartScore, ScoreReport

PROMPT = Prompt("p1", "I passed!")


def reply(text: str, score: float, finished: bool = True, failure: str = "") -> WrittenReply:
    report = ScoreReport("contains_emoji", score, {"presence": PartScore(score, "as given", 1.0)})
    return WrittenReply(Reply(text, finished, 3), report, "", "", failure)


def pair(emoji: WrittenReply, plain: WrittenReply, min_margin: float = 0.0) -> PreferencePair | Dropped:
    maker = PairMaker("contains_emoji", {"presence": 1.0}, min_margin, seed=0, source="s")
    emoji, plain = replace(emoji, writer="emoji", model="E"), replace(plain, writer="plain", model="P")
    (made,) = maker.make(WrittenPrompt(PROMPT, emoji, plain))
    return made


def test_the_better_scored_reply_is_chosen_whoever_wrote_it() -> None:
    made = pair(reply("yes 🎉", 1.0), reply("yes", 0.0))
    assert isinstance(made, PreferencePair)
    assert (made.chosen[0]["content"], made.chosen_model, made.rejected_model) == ("yes 🎉", "E", "P")
    turned = pair(reply("yes", 0.2), reply("yes 🎉", 0.9))
    assert isinstance(turned, PreferencePair)
    assert (turned.chosen[0]["content"], turned.chosen_model, turned.rejected_model) == ("yes 🎉", "P", "E")
    assert (turned.chosen_score, turned.rejected_score) == (0.9, 0.2)


@pytest.mark.parametrize(
    ("emoji", "plain", "reason"),
    [
        (reply("a 🎉", 1.0), reply("b 🎉", 1.0), "tie"),
        (reply("a", 0.0), reply("a", 0.0), "same text"),
        (reply(" ", 0.0), reply("a 🎉", 1.0), "emoji writer: empty reply"),
        (reply("a 🎉", 1.0), reply("", 0.0), "plain writer: empty reply"),
        (reply("", 0.0, failure="HTTP 500"), reply("", 0.0), "emoji writer: HTTP 500"),
        (reply("a 🎉", 1.0), reply("", 0.0, failure="timed out"), "plain writer: timed out"),
        (reply("a 🎉", 1.0, finished=False), reply("a", 0.0), "better reply cut off"),
        (reply("I am not sure what to do. " * 3 + "🎉", 1.0), reply("a", 0.0), "better reply repeats itself"),
        (reply("a 🎉", 0.5), reply("a", 0.3), "margin below min_margin"),
    ],
)
def test_what_makes_no_pair_is_dropped_with_its_reason(emoji: WrittenReply, plain: WrittenReply, reason: str) -> None:
    made = pair(emoji, plain, min_margin=0.3)
    assert isinstance(made, Dropped)
    assert made.reason == reason
    assert made.as_row()["plain_reply"] == plain.text


def test_a_cut_off_worse_reply_does_no_harm() -> None:
    assert isinstance(pair(reply("a 🎉", 1.0), reply("a", 0.0, finished=False)), PreferencePair)


def test_sides_are_measured_by_hand_counted_values() -> None:
    side = measure_side(["one two 🎉🎉", "three"], [0.75, 0.25])
    names = ("replies", "emoji_rate", "mean_emojis", "mean_score", "mean_words", "max_words")
    assert [getattr(side, name) for name in names] == [2, 0.5, 1.0, 0.5, 2.0, 3]
    assert measure_side([], []).mean_score == 0.0


def test_refusals_with_one_status_count_as_one_reason() -> None:
    """An endpoint that puts an id into each refusal would else make a line of the table for each prompt."""
    reasons = ["emoji writer: HTTP 400: id 1", "tie", "emoji writer: HTTP 400: id 2", "plain writer: HTTP 400: id 1"]
    dropped = [Dropped(reason, Prompt(str(number), "a")) for number, reason in enumerate(reasons)]
    assert count_reasons(dropped) == {reasons[0]: 2, "tie": 1, reasons[3]: 1}
