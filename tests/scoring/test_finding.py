"""Emojis are found exactly as Unicode lists them."""

import gzip
import re
from pathlib import Path

import pytest

from orpo.scoring import contains_emoji, count_emojis, find_emojis, normalise_emoji, strip_emojis

EMOJI_TEST = Path(__file__).resolve().parents[3] / "shared" / "data" / "emoji" / "emoji-test.txt.gz"

ONE_EMOJI = {
    "smiley": "\U0001f600",
    "flag": "\U0001f1e9\U0001f1ea",
    "subdivision flag": "\U0001f3f4\U000e0067\U000e0062\U000e0073\U000e0063\U000e0074\U000e007f",
    "keycap": "1\ufe0f\u20e3",
    "unqualified keycap": "#\u20e3",
    "family": "\U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466",
    "skin tone": "\U0001f44d\U0001f3fd",
    "skin tone and joiner": "\U0001f469\U0001f3fe\u200d\u2695\ufe0f",
    "minimally qualified": "\U0001f469\U0001f3fe\u200d\u2695",
    "qualified heart": "\u2764\ufe0f",
    "bare heart": "\u2764",
    "heart on fire": "\u2764\ufe0f\u200d\U0001f525",
    "copyright with VS16": "\u00a9\ufe0f",
    "arrow with VS16": "\u27a1\ufe0f",
    "of emoji version 14": "\U0001fae0",
    "of emoji version 15.1": "\U0001f426\u200d\U0001f525",
}

NO_EMOJI = {
    "nothing": "",
    "digit": "7",
    "digit with VS16 alone": "7\ufe0f",
    "hash": "#",
    "copyright": "\u00a9",
    "registered": "\u00ae",
    "trade mark": "\u2122",
    "arrow": "\u2192",
    "emoji arrow, bare": "\u27a1",
    "heart with VS15": "\u2764\ufe0e",
    "watch with VS15": "\u231a\ufe0e",
    "lone regional indicator": "\U0001f1e9",
    "unknown flag": "\U0001f1fd\U0001f1fd",
    "lone skin tone": "\U0001f3fd",
    "lone VS16": "\ufe0f",
    "quotes and dashes": "“quoted” — and … more",
    "other scripts": "日本語 हिन्दी עברית",
    "replacement character": "\ufffd",
}


@pytest.mark.parametrize("text", ONE_EMOJI.values(), ids=ONE_EMOJI.keys())
def test_one_emoji_is_found_as_one(text: str) -> None:
    inside = f"say {text} now"
    assert [(span.start, span.end, span.text) for span in find_emojis(inside)] == [(4, 4 + len(text), text)]
    assert count_emojis(inside) == 1
    assert contains_emoji(inside) == 1.0


@pytest.mark.parametrize("text", NO_EMOJI.values(), ids=NO_EMOJI.keys())
def test_what_is_no_emoji_is_not_found(text: str) -> None:
    inside = f"say {text} now"
    assert find_emojis(inside) == []
    assert count_emojis(inside) == 0
    assert contains_emoji(inside) == 0.0
    assert strip_emojis(inside) == inside


def test_a_sequence_that_unicode_does_not_list_falls_apart_as_on_screen() -> None:
    assert [span.text for span in find_emojis("\U0001f468\u200d\U0001f525")] == ["\U0001f468", "\U0001f525"]
    assert [span.text for span in find_emojis("\U0001f525\U0001f3fd")] == ["\U0001f525"]


def test_emojis_side_by_side_are_counted_one_by_one() -> None:
    assert count_emojis("".join(ONE_EMOJI.values())) == len(ONE_EMOJI)


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("Hi \U0001f600!", "Hi!"),
        ("Hi \U0001f600 there", "Hi there"),
        ("\U0001f600 Hi", "Hi"),
        ("Hi \U0001f600", "Hi"),
        ("Hi\n\U0001f389\U0001f389\nBye", "Hi\nBye"),
        ("Done \u2764\ufe0f \U0001f44d\U0001f3fd \U0001f1e9\U0001f1ea now", "Done now"),
        ("two  spaces stay", "two  spaces stay"),
        ("\U0001f525\ufe0f\u200d gone", "gone"),
        ("\U0001f1fa\U0001f600\U0001f1f8", ""),
    ],
)
def test_strip_leaves_clean_text(text: str, clean: str) -> None:
    assert strip_emojis(text) == clean


def test_skin_tone_and_variation_selector_do_not_change_the_meaning_key() -> None:
    assert normalise_emoji("\U0001f44d\U0001f3fd") == normalise_emoji("\U0001f44d")
    assert normalise_emoji("\u2764\ufe0f") == normalise_emoji("\u2764")


@pytest.mark.shared_data
@pytest.mark.skipif(not EMOJI_TEST.exists(), reason="needs ../shared/data")
def test_every_sequence_of_unicodes_emoji_test_is_found_as_one() -> None:
    """All but bare text signs (arrows, (c), bullets ...), each of which becomes an emoji with VS16."""
    missed = []
    for line in gzip.decompress(EMOJI_TEST.read_bytes()).decode("utf-8").splitlines():
        match = re.match(r"([0-9A-F ]+?)\s*; ([a-z-]+)", line)
        if match is None or match[2] == "component":
            continue
        sequence = "".join(chr(int(code, 16)) for code in match[1].split())
        found = [span.text for span in find_emojis(f"a {sequence} b")]
        assert count_emojis(sequence) == len(found)
        if found != [sequence]:
            missed.append((sequence, match[2]))
    assert all(status == "unqualified" and len(sequence) == 1 for sequence, status in missed)
    assert all(count_emojis(sequence + "\ufe0f") == 1 for sequence, _ in missed)
    assert len(missed) == 37
