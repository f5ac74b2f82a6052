"""What holds of the score for any text at all."""

import math
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orpo.scoring import SCORERS, contains_emoji, count_emojis, find_emojis, get_scorer, strip_emojis
from orpo.scoring.finding import _candidates
from orpo.scoring.meaning import meaning_model
from orpo.scoring.relevance import SMILEYS, Place, relevance, standing
from orpo.scoring.surroundings import Reply

# Pieces that emojis are made of, so that broken and half-built ones come up often.
PIECES = st.sampled_from(
    [
        *'aB 1#*.!?,\n-`~{}[]@"',
        *"\u200d\ufe0f\ufe0e\u20e3\u00a9\u2122\ufffd\u2764\u27a1\u3030\u303d",
        *"\U0001f600\U0001f389\U0001f468\U0001f469\U0001f467\U0001f44d\U0001f525\U0001f622\U0001f3f4\U0001f3fd",
        *"\U0001f1e9\U0001f1ea\U0001f1fa\U0001f1f8\U000e0067\U000e0062\U000e007f",
        "```",
        "https://a.b/",
        "I am so sorry for your loss",
        "no emojis please",
        "python function",
        "- ",
        "1\ufe0f\u20e3",
        "\U0001f468\u200d\U0001f469\u200d\U0001f467",
    ]
)
TEXTS = st.one_of(st.text(max_size=120), st.lists(PIECES, max_size=25).map("".join))
EMOJIS = st.sampled_from(["😀", "🎉", "😢", "❤️", "👍🏽", "🇩🇪", "👩🏾‍⚕️", "🍕", "1️⃣"])
WORDS = st.lists(
    st.sampled_from(["thanks", "so", "happy", "my", "dog", "died", "pizza", "is", "great.", "Oh no!", "code", "\n"]),
    min_size=1,
    max_size=30,
).map(" ".join)
PROFILES = [name for name in SCORERS if name != "contains_emoji"]
SLOW_START = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@SLOW_START
@given(reply=TEXTS, prompt=TEXTS, system=TEXTS)
@pytest.mark.parametrize("name", SCORERS)
def test_any_text_scores_in_zero_to_one_and_twice_the_same(name: str, reply: str, prompt: str, system: str) -> None:
    scorer = get_scorer(name)
    report = scorer.explain(reply, prompt, system=system)
    assert 0.0 <= report.score <= 1.0 and math.isfinite(report.score)
    assert all(0.0 <= part.value <= 1.0 and part.reason for part in report.parts.values())
    assert scorer.score(reply, prompt, system=system) == report.score


@SLOW_START
@given(text=TEXTS)
def test_stripping_twice_equals_once_and_leaves_no_emoji(text: str) -> None:
    once = strip_emojis(text)
    assert strip_emojis(once) == once
    assert count_emojis(once) == 0
    if count_emojis(text) == 0:
        assert once == text


@SLOW_START
@given(text=TEXTS)
def test_finding_counting_and_containing_agree(text: str) -> None:
    spans = find_emojis(text)
    assert len(spans) == count_emojis(text)
    assert contains_emoji(text) == float(bool(spans))
    assert all(text[span.start : span.end] == span.text for span in spans)
    assert all(first.end <= second.start for first, second in pairwise(spans))


@SLOW_START
@given(text=TEXTS)
def test_the_fast_scan_finds_what_the_grammar_finds_in_the_whole_text(text: str) -> None:
    assert find_emojis(text) == list(_candidates(text, 0))


@SLOW_START
@given(words=WORDS, emoji=EMOJIS, place=st.integers(0, 200), own=st.lists(EMOJIS, max_size=3))
@pytest.mark.parametrize("name", PROFILES)
def test_the_same_emoji_ten_more_times_never_raises_the_score(
    name: str, words: str, emoji: str, place: int, own: list[str]
) -> None:
    scorer = get_scorer(name)
    text = f"{words} {''.join(own)}{emoji}"
    cut = min(place, len(words))
    for spam in (text + emoji * 10, f"{text} {' '.join([emoji] * 10)}", words[:cut] + emoji * 10 + text[cut:]):
        assert scorer.score(spam) <= scorer.score(text) + 1e-9


@SLOW_START
@given(words=WORDS, emoji=EMOJIS)
def test_ten_of_one_emoji_score_below_none(words: str, emoji: str) -> None:
    scorer = get_scorer("tasteful")
    assert scorer.score(f"{words} {emoji * 10}") < scorer.score(words)


def test_dots_that_open_a_text_do_not_end_the_copy_before_it() -> None:
    """The copy was read as "I hope not ...", which looked like a crisis: 0.67 for the plain text in place of 0.35."""
    text = "...and I think you just jinxed it. I hope not"
    assert Reply(f"{text} {text}").words == Reply(f"{text} {text} {text} {text}").words == Reply(text).words


@SLOW_START
@given(words=WORDS)
@pytest.mark.parametrize("name", PROFILES)
def test_plain_text_gains_nothing_by_doubling_or_bullets(name: str, words: str) -> None:
    scorer = get_scorer(name)
    plain = scorer.score(words)
    assert abs(scorer.score(f"{words}\n{words}") - plain) < 0.05
    assert abs(scorer.score("\n".join(f"- {line}" for line in words.split("\n"))) - plain) < 0.05


FRIENDLY = [
    ("I got the job!", "Congratulations, that's wonderful news!", "🎉", "🚱"),
    ("What should I cook tonight?", "How about pasta with tomatoes and basil?", "🍝", "🛂"),
    ("hey, how are you?", "Pretty good, thanks! What's new with you?", "😊", "🈳"),
    ("We're off to the beach.", "Have a great day in the sun!", "🏖️", "🉑"),
    ("My dog learned to sit!", "What a clever dog!", "🐶", "🛗"),
]


@pytest.mark.parametrize(("prompt", "plain", "fitting", "rare"), FRIENDLY)
@pytest.mark.parametrize("name", ["tasteful", "playful", "sparing"])
def test_a_fitting_emoji_lowers_no_friendly_reply_and_a_rare_unfitting_one_raises_none(
    name: str, prompt: str, plain: str, fitting: str, rare: str
) -> None:
    scorer = get_scorer(name)
    fits = scorer.score(f"{plain} {fitting}", prompt)
    assert fits >= scorer.score(plain, prompt)
    assert scorer.score(f"{plain} {rare}", prompt) <= fits


@SLOW_START
@given(number=st.integers(0, len(FRIENDLY) - 1), emoji=EMOJIS)
def test_an_emoji_that_fits_less_and_is_rarer_never_scores_higher(number: int, emoji: str) -> None:
    """Fit is the standing of the emoji at its place, with how usual it is."""
    prompt, plain, fitting, _ = FRIENDLY[number]
    model, place = meaning_model(), Place(plain, "", plain, prompt)
    own, other = model.number(fitting), model.number(emoji)
    if own is None or other is None or emoji in SMILEYS:
        return
    fits_less = standing(model, other, place) <= standing(model, own, place)
    if fits_less and model.usualness[other] <= model.usualness[own]:
        assert relevance(emoji, place) <= relevance(fitting, place) + 1e-9


SENTENCES = st.lists(
    st.sampled_from(
        ["What a goal!", "See you at the beach.", "Is the pizza still warm?", "I'm so proud of you", "Thanks."]
    ),
    min_size=1,
    max_size=6,
).map(" ".join)


@SLOW_START
@given(words=SENTENCES, emoji=EMOJIS)
@pytest.mark.parametrize("name", PROFILES)
def test_saying_all_of_it_twice_moves_the_score_of_no_reply(name: str, words: str, emoji: str) -> None:
    """Doubled replies gained or lost up to 0.23, as their halves were read as new sentences."""
    scorer = get_scorer(name)
    assert scorer.score(f"{words} {words}") == pytest.approx(scorer.score(words), abs=0.05)
    once = scorer.score(f"{words} {emoji}")
    assert scorer.score(f"{words}\n{words} {emoji}") == pytest.approx(once, abs=0.05)


GRAVE = [
    ("My father was murdered. The trial begins on Monday.", "I'm so sorry. Is somebody going with you?"),
    ("My mum died this morning.", "I'm so sorry for your loss. I'm here if you want to talk."),
    ("He hit me again last night.", "I'm so sorry. That is never your fault, and there are people who can help."),
    ("I want to die.", "I'm really worried about you. Please call a crisis line now."),
    ("Our house burned down and we lost everything.", "I'm so sorry. Is everybody safe?"),
    ("My sister has been told that her cancer is terminal.", "I'm so sorry to hear that. How is she?"),
]


@pytest.mark.parametrize(("prompt", "plain"), GRAVE)
@pytest.mark.parametrize("smile", SMILEYS)
def test_a_smile_on_grave_words_scores_far_below_the_plain_reply(prompt: str, plain: str, smile: str) -> None:
    for name in ("tasteful", "playful", "sparing"):
        scorer = get_scorer(name)
        assert scorer.score(f"{plain} {smile}", prompt) < 0.3 * scorer.score(plain, prompt)


@pytest.mark.parametrize(("prompt", "plain", "topical", "rare"), [row for row in FRIENDLY if row[2] not in SMILEYS])
@pytest.mark.parametrize("smile", SMILEYS)
def test_a_usual_emoji_of_the_topic_ranks_above_a_smile(
    prompt: str, plain: str, topical: str, rare: str, smile: str
) -> None:
    place = Place(plain, "", plain, prompt)
    assert relevance(topical, place) > relevance(smile, place)


@pytest.mark.parametrize(
    ("prompt", "reply"),
    [
        ("hey, how are you?", "Pretty good, thanks! What's new with you?"),
        ("I finally called her.", "That must have made her day!"),
        ("we're all together this weekend", "That sounds lovely. Enjoy it!"),
    ],
)
def test_a_smile_is_fine_in_small_talk(prompt: str, reply: str) -> None:
    assert relevance("😊", Place(reply, "", reply, prompt)) >= 0.55
    assert get_scorer("tasteful").score(f"{reply} 😊", prompt) > get_scorer("tasteful").score(reply, prompt)
