"""Measures of many replies, by values counted by hand."""

from orpo.scoring.measures import has_stray_symbol, measure_replies, percentile, repeats_itself, says_things_twice


def test_measures_are_those_counted_by_hand() -> None:
    """Emojis 0, 1, 3, 1: rate 3/4, mean 5/4; 👋 (in two skin tones), a family, a flag and a keycap are four kinds."""
    measures = measure_replies(["Plain text.", "Hi 👋", "👨‍👩‍👧 🇫🇷 1️⃣", "Hi 👋🏽"])
    assert (measures.replies, measures.emoji_rate, measures.mean_emojis, measures.max_emojis) == (4, 0.75, 1.25, 3)
    assert (measures.different_emojis, measures.commonest_emoji, measures.commonest_share) == (4, "👋", 0.4)
    assert (measures.mean_words, measures.max_words, measures.distinct_share) == (2.25, 3, 1.0)


def test_no_replies_measure_as_nothing() -> None:
    measures = measure_replies([])
    assert (measures.replies, measures.emoji_rate, measures.p95_emojis, measures.commonest_share) == (0, 0.0, 0, 0.0)
    assert measure_replies(["", "Yes."]).commonest_emoji == ""


def test_the_percentile_is_the_count_that_95_of_100_replies_keep_to() -> None:
    """Of 20 replies 19 hold one emoji at most: one spammer does not move the 95th percentile, two of 20 do."""
    assert percentile([1] * 19 + [30], 0.95) == 1
    assert percentile([1] * 18 + [30] * 2, 0.95) == 30
    assert percentile([7], 0.95) == 7


def test_repetition_is_four_words_three_times() -> None:
    assert not repeats_itself("you are so kind " * 2)
    assert repeats_itself("you are so kind and " * 3)
    assert repeats_itself("no no no no no no"), "six equal words hold the same four words three times"
    assert not repeats_itself("no no no no no")
    assert not repeats_itself("") and not repeats_itself("one two three")


def test_a_short_reply_that_goes_round_in_circles_is_seen_and_a_list_or_code_is_not() -> None:
    assert says_things_twice("You can use a recipe that is fluffy. You can also use a recipe that is fluffy.")
    assert not says_things_twice("Rinse the rice, use less water, and let it rest for ten minutes.")
    assert not says_things_twice("What a wonderful day for a wonderful walk!")
    assert not says_things_twice("```python\n" + "x = x + 1\n" * 5 + "```")
    assert not says_things_twice("") and not says_things_twice("Hello there")


def test_symbols_that_are_no_emojis_are_seen_and_emojis_letters_and_usual_signs_are_not() -> None:
    for text in ("Well done! ⒒", "Enjoy \ufffd chariot", "Good ㊀ luck", "So ◌⠿ glad"):
        assert has_stray_symbol(text), text
    for text in ("Well done! 🎉", "☀️ and 👩‍🚀 and 🇫🇷", "25 °C, ½ cup, Acme™ ✓", "日本語 привет → café €5", "plain"):
        assert not has_stray_symbol(text), text
    assert measure_replies(["Hi ⒒", "Hi 🎉"]).stray_share == 0.5
