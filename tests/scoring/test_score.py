"""The score says what a reader would say, part by part."""

import subprocess
import sys
import time

import pytest

from orpo.command.errors import SettingsError
from orpo.scoring import SCORERS, PartScore, get_scorer, mean_scores
from orpo.scoring.profiles import PROFILES, WEIGHTS


def part(name: str, reply: str, prompt: str = "", *, profile: str = "tasteful", system: str = "") -> PartScore:
    return get_scorer(profile).explain(reply, prompt, system=system).parts[name]


def test_a_score_is_the_product_of_its_parts_raised_to_their_weights() -> None:
    report = get_scorer("tasteful").explain("Great 🎉 news, congratulations! 🚽")
    product = 1.0
    for name, found in report.parts.items():
        assert found.weight == WEIGHTS[name]
        product *= found.value**found.weight
    assert report.score == pytest.approx(product)
    assert set(report.parts) == set(WEIGHTS)


def test_means_over_replies_are_those_of_score_and_parts() -> None:
    """Scores 1 and 0 of S(m) -> total and presence 1/2; no reports -> nothing."""
    reports = [get_scorer("contains_emoji").explain(reply) for reply in ("Hi 🎉", "Hi")]
    assert mean_scores(reports) == {"total": 0.5, "presence": 0.5}
    assert mean_scores([]) == {}


def test_contains_emoji_equals_the_first_description() -> None:
    scorer = get_scorer("contains_emoji")
    assert scorer.score("Hi 🎉") == 1.0
    assert scorer.score("Hi © → 1") == 0.0
    assert SCORERS[0] == "contains_emoji"


def test_an_unknown_scorer_is_named_with_those_there_are() -> None:
    with pytest.raises(SettingsError, match=r"tastefull.*tasteful"):
        get_scorer("tastefull")


def test_a_fitting_emoji_beats_none_and_none_beats_spam_and_nonsense() -> None:
    scorer = get_scorer("tasteful")
    prompt, words = "I passed my exam!", "Congratulations, you earned it!"
    fitting, none = scorer.score(f"{words} 🎉", prompt), scorer.score(words, prompt)
    assert fitting > 0.9
    assert none == pytest.approx(PROFILES["tasteful"].without)
    for worse in (f"{words} 😢", f"{words} 🚽", f"{words} {'🎉' * 5}", f"{words} {'🎉' * 20}"):
        assert scorer.score(worse, prompt) < none


@pytest.mark.parametrize(
    ("reply", "fits", "does_not"),
    [
        ("Let's have pizza for dinner tonight!", "🍕", "🚀"),
        ("My dog loves the park.", "🐶", "💻"),
        ("Merry Christmas to all of you!", "🎄", "😡"),
        ("Happy birthday, I hope you get a big cake!", "🎂", "🚗"),
        ("That joke was hilarious, I can't stop laughing!", "😂", "😢"),
        ("I'm so sad, I miss her so much.", "😢", "😂"),
        ("Good night, sleep well.", "🌙", "🍔"),
    ],
)
def test_the_emoji_that_means_what_is_said_scores_higher(reply: str, fits: str, does_not: str) -> None:
    assert part("relevance", f"{reply} {fits}").value > part("relevance", f"{reply} {does_not}").value
    assert get_scorer("tasteful").score(f"{reply} {fits}") > get_scorer("tasteful").score(f"{reply} {does_not}")


def test_skin_tone_does_not_change_the_meaning() -> None:
    assert part("relevance", "Great job! 👍🏿").value == part("relevance", "Great job! 👍").value


def test_sad_words_may_carry_comfort_but_not_glee() -> None:
    words = "I'm so sorry, losing your cat is heartbreaking."
    assert part("emotion", f"{words} 💔").value > 0.8
    assert part("emotion", f"{words} 😢").value > 0.8
    assert part("emotion", f"{words} 😂").value < 0.6


def test_happy_words_with_an_angry_face_clash() -> None:
    assert part("emotion", "What wonderful news, I'm so happy for you! 😡").value < 0.4


@pytest.mark.parametrize(
    ("reply", "low", "high"),
    [
        ("Well done! 🎉", 0.95, 1.0),
        ("Well done! 🎉 See you soon.", 0.95, 1.0),
        ("Well done 🎉!", 0.9, 1.0),
        ("🎉 Well done!", 0.85, 1.0),
        ("Well 🎉 done!", 0.3, 0.7),
        ("Well do🎉ne!", 0.0, 0.1),
        ("- 🎯 Focus\n- 🔥 Work\n- 🚀 Go", 0.0, 0.5),
    ],
)
def test_placement(reply: str, low: float, high: float) -> None:
    assert low <= part("placement", reply).value <= high


@pytest.mark.parametrize("reply", ["I ate a 🍕 today.", "I ❤️ you all.", "We went to the 🏖️.", "🎉"])
def test_an_emoji_in_place_of_a_word_is_noticed(reply: str) -> None:
    assert part("replacement", reply).value <= 0.5


@pytest.mark.parametrize("reply", ["I ate pizza 🍕 today.", "What a day! 🎉", "We went to the beach 🏖️."])
def test_an_emoji_beside_its_word_replaces_nothing(reply: str) -> None:
    assert part("replacement", reply).value == 1.0


@pytest.mark.parametrize(
    "reply", ["I'm so happy for her 🎉", "I'm proud of his 🎉!", "You should get some 😊", "I don't have any 😅"]
)
def test_a_pronoun_that_ends_a_sentence_misses_no_word(reply: str) -> None:
    """ "I'm so happy for her 🎉" scored 0.16, as if the emoji stood for a noun."""
    assert part("replacement", reply).value == 1.0


def test_repetition_and_density_fall_with_each_emoji() -> None:
    values = [part("repetition", "Well done!" + "🎉" * count).value for count in range(1, 13)]
    assert values == sorted(values, reverse=True) and values[-1] < 0.1
    varied = "😀🎉🔥✨🚀🍕🐶🌈🎄🎁"
    values = [part("density", f"Well done! {varied[:count]}").value for count in range(1, 11)]
    assert values == sorted(values, reverse=True) and values[-1] < 0.2


@pytest.mark.parametrize(
    ("prompt", "system", "reply", "low", "high"),
    [
        ("Please answer without emojis.", "", "Hello! 😊", 0.0, 0.0),
        ("Please answer without emojis.", "", "Hello!", 1.0, 1.0),
        ("Don't use any emoji.", "", "Hello! 😊", 0.0, 0.0),
        ("Hi", "Never use emojis in your replies.", "Hello! 😊", 0.0, 0.0),
        ("Use lots of emojis!", "Never use emojis.", "Hello! 😊", 1.0, 1.0),
        ("Use emojis please.", "", "Hello!", 0.0, 0.0),
        ("Hi", "You are friendly. Use one to three fitting emojis.", "Hello!", 0.0, 0.0),
        ("Hi", "You are friendly. Use one to three fitting emojis.", "Hello! 😊", 1.0, 1.0),
        ("Add exactly two emojis.", "", "Hello! 😊", 0.5, 0.5),
        ("At most one emoji, please.", "", "Hello! 😊🎉", 0.5, 0.5),
        ("Don't hesitate to use emojis.", "", "Hello!", 0.0, 0.0),
        ("Not a single emoji, please.", "", "Hello! 😊", 0.0, 0.0),
        ("Don't use more than 2 emojis.", "", "Hello! 😊", 1.0, 1.0),
        ("Use emojis, but not too many emojis.", "", "Hello! 😊", 1.0, 1.0),
        ("Hi", "emojis off", "Hello! 😊", 0.0, 0.0),
        ("Do you like emojis?", "", "I do, they are fun.", 1.0, 1.0),
        ("What is an emoji?", "", "A small picture in text.", 1.0, 1.0),
        ("Hi", "", "Hello! 😊", 1.0, 1.0),
    ],
)
def test_obedience(prompt: str, system: str, reply: str, low: float, high: float) -> None:
    assert low <= part("obedience", reply, prompt, system=system).value <= high


def test_a_reply_that_disobeys_scores_nothing() -> None:
    assert get_scorer("tasteful").score("Hello! 😊", "No emojis, please.") == 0.0
    assert get_scorer("tasteful").score("Hello!", "No emojis, please.") == 1.0


@pytest.mark.parametrize(
    ("prompt", "reply"),
    [
        ("Write a Python function.", "```python\nprint('🎉')\n```"),
        ("Say it", "Use `git commit 🎉` now"),
        ("Give me JSON", '{"mood": "🎉"}'),
        ("My father died yesterday.", "Let's celebrate his life! 🎉"),
        ("I think I'm having a heart attack", "Call an ambulance now! 🚑"),
    ],
)
def test_emojis_out_of_place_are_held_against_a_reply(prompt: str, reply: str) -> None:
    assert part("context", reply, prompt).value <= 0.35
    assert get_scorer("tasteful").score(reply, prompt) < 0.3


def test_plain_replies_are_right_where_emojis_are_out_of_place() -> None:
    scorer = get_scorer("tasteful")
    assert scorer.score("```python\nprint(1)\n```", "Write a Python function.") == 1.0
    assert scorer.score("The clause limits liability.", "What does this contract clause mean?") == 1.0


def test_broken_characters_and_emojis_too_new_are_noticed() -> None:
    assert part("rendering", "Nice \ufffd 🎉").value < 0.2
    assert part("rendering", "Nice \U0001f3fd 🎉").value < 0.5
    assert part("rendering", "Nice \U0001f1e9 🎉").value < 0.5
    assert part("rendering", "Nice \U0001fae9").value < 1.0  # of emoji version 16
    assert part("rendering", "Nice 🎉").value == 1.0


def test_long_names_cost_a_screen_reader_time() -> None:
    assert part("reading", "Ok 🙋🏽‍♀️🙋🏽‍♀️🙋🏽‍♀️").value < part("reading", "Ok 🔥").value


def test_profiles_differ_in_taste() -> None:
    words = "Thank you so much, you made my day!"
    plain = {name: get_scorer(name).score(words) for name in PROFILES}
    assert plain["playful"] < plain["tasteful"] < plain["sparing"] < plain["none"] == 1.0
    assert get_scorer("none").score(f"{words} 😊") == 0.0
    many = f"{words} 😊 We had fun! 🎉 Bye! 👋"
    assert part("density", many, profile="playful").value > part("density", many, profile="sparing").value


def test_importing_the_score_loads_no_heavy_library() -> None:
    lines = [
        "import sys, time",
        "started = time.process_time()",
        "import orpo.scoring as scoring",
        "scoring.contains_emoji('Hi 🎉')",
        "spent = time.process_time() - started",
        "assert not {'torch', 'numpy'} & set(sys.modules)",
        "assert spent < 0.6, spent",  # 0.05 s on an idle core
        "scoring.get_scorer('tasteful').score('Hi 🎉')",
        "assert not {'torch', 'sklearn', 'scipy'} & set(sys.modules)",
    ]
    subprocess.run([sys.executable, "-c", "\n".join(lines)], check=True)


@pytest.mark.parametrize("unit", ["- x 🎉\n", "word and 🎉 more. ", "🎉", "```py\n🎉\n```\n"])
def test_the_time_of_a_score_grows_with_the_text_and_not_with_its_square(unit: str) -> None:
    """50,000 characters of a list with emojis took 114 s, 8,000 of them 3 s; an endpoint's reply may be as long."""
    score = get_scorer("tasteful").explain
    score("Hello 🎉", "Hi")  # loads what it needs

    def seconds(length: int) -> float:
        text = (unit * (length // len(unit) + 1))[:length]
        started = time.process_time()
        score(text, "I passed my exam!")
        return time.process_time() - started

    short, long = min(seconds(4_000) for _ in range(3)), min(seconds(32_000) for _ in range(2))
    assert long < 24 * short + 0.05, "8 times as long; 64 times the time would be quadratic"
