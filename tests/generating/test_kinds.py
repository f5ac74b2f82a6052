"""What pairs teach: each kind differs from its chosen reply in one thing, and the score sees it."""

import random
from dataclasses import replace
from typing import Literal

import pytest

from orpo.command.errors import SettingsError
from orpo.generating.choosing import PairMaker, kind_by_parts
from orpo.generating.contrasts import misplaced, with_emoji, with_too_many, with_unfitting
from orpo.generating.correcting import better_and_worse
from orpo.generating.mix import DEFAULT_MIX, drawn_kind, parse_mix, stream
from orpo.generating.obedience import put_wishes, with_wish
from orpo.generating.placing import place, strip
from orpo.generating.situations import find_situation, score_reply, seen_situation
from orpo.generating.written import Dropped, WrittenPrompt, WrittenReply
from orpo.records.messages import user_message, with_system
from orpo.records.pairs import PairKind, PreferencePair
from orpo.records.prompts import OUT_OF_PLACE, Prompt, embedded_prompts
from orpo.records.replies import Reply
from orpo.records.shipped import ASKS, FORBIDS, WISHES
from orpo.scoring import contains_emoji, count_emojis, find_emojis, get_scorer, normalise_emoji, strip_emojis
from orpo.scoring.relevance import Place, relevance

SCORER = get_scorer("tasteful")
MESSAGE = "I finally adopted a puppy from the shelter!"
PLAIN = "Congratulations, that is wonderful news. What is the little dog called?"
GOOD = "Congratulations, that is wonderful news. What is the little dog called? 🐶"


def written(prompt: Prompt, emoji: str, plain: str, **changes: object) -> WrittenPrompt:
    conversation = prompt.conversation()
    system = conversation[0]["content"] if conversation[0]["role"] == "system" else ""

    def scored(text: str, writer: str) -> WrittenReply:
        report = SCORER.explain(text, conversation[-1]["content"], system=system)
        return WrittenReply(Reply(text, True, 9), report, writer, writer.upper())

    return replace(WrittenPrompt(prompt, scored(emoji, "emoji"), scored(plain, "plain")), **changes)  # type: ignore[arg-type]


def maker(kind: PairKind = "presence", **changes: object) -> PairMaker:
    return replace(PairMaker("tasteful", {kind: 1.0}, 0.1, seed=0, source="s"), **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["presence", "fit", "excess", "place"])
def test_where_an_emoji_is_in_place_a_pair_is_of_the_drawn_kind_and_differs_in_emojis_alone(kind: PairKind) -> None:
    (made,) = maker(kind).make(written(Prompt("p", MESSAGE), GOOD, PLAIN))
    assert isinstance(made, PreferencePair)
    assert (made.kind, made.chosen_text) == (kind, GOOD)
    assert strip_emojis(made.rejected_text).replace(" ", "") == PLAIN.replace(" ", "")
    assert made.chosen_score - made.rejected_score >= 0.1 and made.rejected_reasons
    counts = {"presence": count_emojis(made.rejected_text) == 0, "excess": count_emojis(made.rejected_text) >= 2}
    assert counts.get(kind, count_emojis(made.rejected_text) == 1)
    assert maker(kind).make(written(Prompt("p", MESSAGE), GOOD, PLAIN)) == [made], "the same again"


@pytest.mark.parametrize(
    ("message", "plain"),
    [
        ("My grandmother died last night.", "I am so sorry for your loss. Would you like to tell me about her?"),
        ("Write a Python function that adds two numbers.", "```python\ndef add(a, b):\n    return a + b\n```"),
        ("Can my landlord evict me without notice?", "Usually not; most places ask for a written notice."),
    ],
)
def test_where_none_is_in_place_the_plain_reply_is_chosen_and_one_with_an_emoji_rejected(
    message: str, plain: str
) -> None:
    """`place` leaves such a reply as it is, so both sides are the same text and the contrast is made."""
    prompt = Prompt("p", message)
    assert place(plain, prompt, scorer="tasteful", rng=random.Random(0)) == plain
    (made,) = maker("fit").make(written(prompt, plain, plain))
    assert isinstance(made, PreferencePair)
    assert (made.kind, made.chosen_text, contains_emoji(made.rejected_text)) == ("restraint", plain, 1.0)
    # A writer's own reply with an emoji is taken before one is made.
    (own,) = maker("fit").make(written(prompt, f"{plain} 🎉", plain))
    assert isinstance(own, PreferencePair)
    assert (own.kind, own.chosen_text, own.rejected_text) == ("restraint", plain, f"{plain} 🎉")
    # And where every writer used one, the better reply without it is chosen.
    (both,) = maker("fit").make(written(prompt, f"{plain} 🎉", f"{plain} 🥳"))
    assert isinstance(both, PreferencePair) and both.chosen_text == plain


@pytest.mark.parametrize(
    ("messages", "chosen_has"),
    [
        ([{"role": "user", "content": "I passed my exam! No emojis please."}], False),
        ([{"role": "system", "content": "Do not use emojis."}, {"role": "user", "content": MESSAGE}], False),
        ([{"role": "system", "content": "Use emojis in every reply."}, {"role": "user", "content": MESSAGE}], True),
        ([{"role": "user", "content": "Explain what a clause in a contract is, with emojis please."}], True),
    ],
)
def test_a_wish_of_the_user_or_the_system_message_is_obeyed(messages: list[dict[str, str]], chosen_has: bool) -> None:
    prompt = Prompt("p", messages[-1]["content"], messages=messages)
    (made,) = maker("fit").make(written(prompt, GOOD, PLAIN))
    assert isinstance(made, PreferencePair)
    assert made.kind == "obedience" and contains_emoji(made.chosen_text) == chosen_has
    assert contains_emoji(made.rejected_text) != chosen_has


def test_an_example_that_a_person_left_plain_stays_plain_whatever_the_score_knows() -> None:
    plain = "Try a mushroom risotto with lemon."
    row = written(Prompt("p", "What shall I cook tonight?"), plain, plain)
    (dropped,) = maker().make(row)
    assert isinstance(dropped, Dropped), "a writer's two equal replies teach nothing"
    (made,) = maker().make(replace(row, is_restrained=True))
    assert isinstance(made, Dropped) or (made.kind == "restraint" and not contains_emoji(made.chosen_text))


def test_contrasts_do_what_they_say_over_many_draws() -> None:
    for draw in range(60):
        rng = random.Random(draw)
        unfit = find_emojis(with_unfitting(GOOD, MESSAGE, rng))
        assert (
            len(unfit) == 1
            and unfit[0].text != "🐶"
            and relevance(normalise_emoji(unfit[0].text), Place(PLAIN, reply=PLAIN, prompt=MESSAGE)) < 0.2
        )
        many = with_too_many(GOOD, rng)
        assert count_emojis(many) >= 4, many
        wrong = misplaced(GOOD, rng)
        assert count_emojis(wrong) == 1 and not wrong.endswith("🐶")
        before = wrong[: wrong.index("🐶")].rstrip()
        assert before[-1].isalpha(), f"neither at a sentence's end nor after a comma: {wrong}"
        assert count_emojis(with_emoji(PLAIN, rng)) == 1
        code = misplaced("Here:\n```python\nx = 1\n```\nDone! 🎉", rng)
        assert "x = 1 🎉\n" in code
        assert count_emojis(misplaced("Hi! 🎉", rng)) == 1


def test_place_writes_fitting_emojis_and_strip_takes_all_away() -> None:
    placed = [place(PLAIN, Prompt("p", MESSAGE), scorer="tasteful", rng=stream(0, str(n), "place")) for n in range(30)]
    assert all(1 <= count_emojis(text) <= 3 and strip(text) == PLAIN for text in placed)
    assert len({count_emojis(text) for text in placed}) > 1, "not always the same number"
    assert min(SCORER.score(text, MESSAGE) for text in placed) > 0.7
    for banned in (Prompt("p", MESSAGE, messages=with_system("No emojis.", user_message(MESSAGE))), wished(FORBIDS)):
        assert place(PLAIN, banned, scorer="tasteful", rng=random.Random(0)) == PLAIN


def test_situations_are_what_the_score_says() -> None:
    assert seen_situation("tasteful", PLAIN, MESSAGE) == "in place"
    assert seen_situation("tasteful", "", "My father passed away on Sunday.") == "out of place"
    assert seen_situation("tasteful", PLAIN, MESSAGE, "Never use emojis.") == "forbidden"
    assert seen_situation("tasteful", PLAIN, MESSAGE, "Please use emojis.") == "asked for"
    assert seen_situation("contains_emoji", "", "My father passed away.") == "in place"


@pytest.mark.parametrize(("split", "missed"), [("train", 0.04), ("held_out", 0.06)])
def test_the_score_sees_everyday_prompts_as_in_place_and_grave_ones_as_not(
    split: Literal["train", "held_out"], missed: float
) -> None:
    """A classifier of contexts that saw violence in "how much is 9 times 7" taught condolences for good news.

    The networks know the training prompts: others saw 1 % of their everyday ones as grave, and 8 % of those held out.
    """
    everyday = {"small_talk", "good_news", "bad_news", "question", "ideas", "how_to", "arithmetic"}
    seen = {True: [], False: []}  # type: dict[bool, list[str]]
    for prompt in embedded_prompts(split):
        if prompt.category in everyday | OUT_OF_PLACE:
            seen[prompt.category in everyday].append(seen_situation("tasteful", "", prompt.text))
    assert seen[True].count("in place") / len(seen[True]) >= 0.975
    assert seen[False].count("in place") / len(seen[False]) <= missed


def test_a_category_tells_the_situation_whatever_the_score_reads_in_the_words() -> None:
    for category, situation in {"code": "out of place", FORBIDS: "forbidden", ASKS: "asked for"}.items():
        assert find_situation(Prompt("p", MESSAGE, category), PLAIN, "tasteful") == situation
        assert find_situation(Prompt("p", MESSAGE, category), PLAIN, "contains_emoji") == "in place"
    assert score_reply(wished(FORBIDS), GOOD, "tasteful").score < score_reply(wished(FORBIDS), PLAIN, "tasteful").score
    assert score_reply(wished(ASKS), GOOD, "tasteful").score > score_reply(wished(ASKS), PLAIN, "tasteful").score


def wished(wish: str) -> Prompt:
    """A wish that only a person reads: its words are no pattern of the score's."""
    return Prompt("p", MESSAGE, wish, messages=with_system("You are a person of letters.", user_message(MESSAGE)))


def test_where_obedience_is_drawn_opposite_wishes_choose_opposite_replies() -> None:
    wordings = set()
    for number in range(60):
        pairs = maker("obedience").make(written(Prompt(f"p{number}", MESSAGE), GOOD, PLAIN))
        for pair, wish, chosen in zip(pairs, WISHES, (GOOD, PLAIN), strict=True):
            assert isinstance(pair, PreferencePair)
            assert (pair.kind, pair.chosen_text) == ("obedience", chosen)
            assert {pair.chosen_text, pair.rejected_text} == {GOOD, PLAIN}
            assert pair.chosen_score - pair.rejected_score >= 0.1
            assert pair.prompt == with_wish(Prompt(f"p{number}", MESSAGE), wish, 0).conversation()
            assert MESSAGE in pair.prompt[-1]["content"] and pair.prompt != user_message(MESSAGE)
            wordings.add(str(pair.prompt))
    assert WISHES == (ASKS, FORBIDS) and len(wordings) > 80, "many wordings of each wish"


def test_a_tuned_model_is_asked_with_wishes_where_none_stands_and_emojis_are_in_place() -> None:
    prompts = [Prompt(f"p{n}", MESSAGE) for n in range(200)]
    grave = Prompt("g", "My father died.", "grief")
    own = Prompt("s", MESSAGE, messages=with_system("You are a pirate.", user_message(MESSAGE)))
    put = put_wishes([*prompts, grave, own], {"obedience": 0.3, "fit": 0.7}, 0, "tasteful")
    assert put[-2:] == [grave, own]
    assert sum(prompt.category in (ASKS, FORBIDS) for prompt in put) / 200 == pytest.approx(0.3, abs=0.1)
    assert [prompt.prompt_id for prompt in put[:200]] == [prompt.prompt_id for prompt in prompts]


@pytest.mark.parametrize(
    ("prompt", "said", "chosen"),
    [
        (Prompt("p", MESSAGE), PLAIN + " 🦷", GOOD),
        (Prompt("p", MESSAGE, FORBIDS), GOOD, PLAIN),
        (Prompt("p", "My father died.", "grief"), "I am so sorry. 🎉", "I am so sorry."),
    ],
)
def test_a_tuned_model_learns_its_own_reply_corrected(prompt: Prompt, said: str, chosen: str) -> None:
    cut, failed = Reply(f"{said} And", False, 9), WrittenReply(Reply("", False, 0), score_reply(prompt, "", "tasteful"),
                                                              "tuned", "t", "no answer")  # fmt: skip
    own = [WrittenReply(reply, score_reply(prompt, reply.text, "tasteful"), "tuned", "t")
           for reply in (cut, Reply(said, True, 9))]  # fmt: skip
    better, worse = better_and_worse(prompt, [failed, *own], scorer="tasteful", seed=0, min_margin=0.1)
    assert worse is own[1] and strip(better.text) == strip(said) and better.score >= worse.score + 0.1
    assert contains_emoji(better.text) == contains_emoji(chosen)
    (made,) = maker(own_words_only=True).make(WrittenPrompt(prompt, better, worse))
    assert isinstance(made, PreferencePair) and (made.chosen_text, made.rejected_text) == (better.text, said)


def test_a_tuned_models_reply_is_corrected_with_emojis_of_the_palette() -> None:
    prompt = Prompt("p", MESSAGE)
    own = WrittenReply(Reply(PLAIN, True, 9), score_reply(prompt, PLAIN, "tasteful"), "tuned", "t")
    for palette in (("🎉",), ("🐶", "💍")):
        better, _ = better_and_worse(prompt, [own], scorer="tasteful", seed=0, min_margin=0.1, palette=palette)
        assert {span.text for span in find_emojis(better.text)} <= set(palette) and contains_emoji(better.text)


def test_what_a_tuned_model_gets_right_is_left_as_it_is() -> None:
    prompt = Prompt("p", MESSAGE)
    own = [WrittenReply(Reply(text, True, 9), score_reply(prompt, text, "tasteful"), "tuned", "t")
           for text in (GOOD, GOOD.replace("lovely", "fine"))]  # fmt: skip
    better, worse = better_and_worse(prompt, own, scorer="tasteful", seed=0, min_margin=0.5)
    assert {better.text, worse.text} <= {reply.text for reply in own}


def test_a_pair_of_two_replies_is_of_the_kind_that_tells_most_against_the_rejected_one() -> None:
    def kind(chosen: str, rejected: str, message: str = MESSAGE) -> str:
        return kind_by_parts(SCORER.explain(chosen, message), SCORER.explain(rejected, message))

    assert kind(GOOD, PLAIN) == "presence"
    assert kind(GOOD, PLAIN + " 🐶🐶🐶🐶🐶🐶🐶🐶🐶🐶") == "excess"
    assert kind(GOOD, PLAIN.replace("little", "lit🐶tle")) == "place"
    assert kind(GOOD, PLAIN + " 🦷") == "fit"
    assert kind("I am sorry.", "I am sorry. 🎉", "My dad died.") == "restraint"


def test_a_tuned_models_best_and_worst_words_stay_its_own() -> None:
    row = written(Prompt("p", MESSAGE), GOOD, PLAIN + " 🦷🚛🚛")
    (made,) = maker("excess", own_words_only=True).make(row)
    assert isinstance(made, PreferencePair)
    assert (made.chosen_text, made.rejected_text) == (GOOD, PLAIN + " 🦷🚛🚛")
    assert made.kind in ("fit", "excess")


def test_kinds_are_drawn_by_their_shares_and_by_the_prompt_alone() -> None:
    drawn = [drawn_kind(DEFAULT_MIX, 0, f"p{n}") for n in range(2000)]
    for kind, share in DEFAULT_MIX.items():
        assert drawn.count(kind) / 2000 == pytest.approx(share, abs=0.03)
    assert drawn[7] == drawn_kind(DEFAULT_MIX, 0, "p7")
    assert [drawn_kind(DEFAULT_MIX, 1, f"p{n}") for n in range(2000)] != drawn


def test_shares_are_read_as_a_user_writes_them() -> None:
    assert parse_mix("presence=3, fit=1") == {"presence": 0.75, "fit": 0.25}
    for text in ("", "presence", "presence=x", "presence=-1", "restraint=1", "fit=1,fit=2", "fit=0", "fit=nan"):
        with pytest.raises(SettingsError, match=r"KIND=SHARE|all shares"):
            parse_mix(text)
