"""A palette holds few emojis, those that serve the replies; what is placed, kept and misused comes from it."""

import random

import pytest

from orpo.command.errors import SettingsError
from orpo.generating.contrasts import with_emoji, with_too_many, with_unfitting
from orpo.generating.palette import choose_palette, keep_to_palette
from orpo.generating.placing import place, strip
from orpo.generating.settings import GenerateSettings
from orpo.records.prompts import Prompt
from orpo.scoring import contains_emoji, find_emojis, get_scorer, place_emojis, suggest_emojis

REPLIES = [
    ("Your dog will love the long walk in the park.", "We adopted a dog!"),
    ("Dogs like a walk before breakfast.", "When should I walk my dog?"),
    ("Bake the cake for forty minutes.", "How long does a sponge cake take?"),
    ("Happy birthday, enjoy the cake!", "It's my birthday today!"),
    ("Congratulations, all that hard work paid off!", "I passed my final exam!"),
]


def test_each_emoji_of_a_palette_serves_some_reply_best_and_more_emojis_serve_better() -> None:
    def served(palette: tuple[str, ...]) -> float:
        fits = [{found.emoji: found.value for found in suggest_emojis(*reply, 60)} for reply in REPLIES]
        return sum(max((row.get(emoji, 0.0) for emoji in palette), default=0.0) for row in fits)

    palettes = [choose_palette(REPLIES, count) for count in (1, 2, 3, 5)]
    values = [served(palette) for palette in palettes]
    assert [len(palette) for palette in palettes] == [1, 2, 3, 5]
    assert values == sorted(set(values)), "each emoji more makes it better"
    assert palettes[-1][:3] == palettes[2], "those chosen first stay"
    for _ in range(50):
        drawn = random.Random(_).sample([found.emoji for reply in REPLIES for found in suggest_emojis(*reply, 20)], 3)
        assert served(tuple(drawn)) <= served(palettes[2]) / (1 - 1 / 2.718)
    assert len(choose_palette(REPLIES, 500)) < 60, "no more than make it better"
    assert choose_palette([], 5) == ()


def test_what_is_placed_comes_from_the_palette() -> None:
    for reply, said in REPLIES:
        for draw in range(10):
            rng = random.Random(draw)
            placed = place(reply, Prompt("p", said), scorer="tasteful", rng=rng, palette=("😊", "🎉", "🐶"))
            found = {span.text for span in find_emojis(placed)}
            assert found and found <= {"😊", "🎉", "🐶"} and strip(placed) == reply


def test_a_persons_reply_keeps_what_the_palette_has_and_gets_one_emoji_where_it_had_others() -> None:
    assert keep_to_palette("Well done! 🎉", "I won!", ("🎉", "😊")) == "Well done! 🎉"
    assert keep_to_palette("Well done! 🎉🦚 Enjoy it. 🦩", "I won!", ("🎉", "😊")) == "Well done! 🎉 Enjoy it."
    changed = keep_to_palette("Well done, enjoy it! 🦩", "I won!", ("🎉", "😊"))
    assert changed.startswith("Well done, enjoy it! ") and changed[-1] in "🎉😊"
    assert keep_to_palette("I am sorry.", "My dog died.", ("🎉",)) == "I am sorry."


def test_what_does_not_fit_is_drawn_from_the_palette_too() -> None:
    palette = ("🎉", "🧼", "⏰", "🚗", "🐶")
    for draw in range(20):
        worse = with_unfitting("What a lovely dog! 🐶", "We adopted a dog!", random.Random(draw), palette)
        assert {span.text for span in find_emojis(worse)} <= set(palette) - {"🐶"} and contains_emoji(worse)


def test_a_palette_is_a_number_or_the_emojis_themselves() -> None:
    assert GenerateSettings().palette_size() == 16
    assert GenerateSettings(palette="0").palette_size() == 0
    assert GenerateSettings(palette="😊 🎉,🐶").palette_size() == ("😊", "🎉", "🐶")
    assert GenerateSettings(plain_model="some/model").palette_size() == 0
    for text in ("", "many", "-3", "😊 and 🎉"):
        with pytest.raises(SettingsError, match="no number and not emojis"):
            GenerateSettings(palette=text)


def test_what_is_held_back_is_what_the_other_pairs_teach() -> None:
    """Grave replies got an emoji in 40 % of cases while the ones rejected there were not those that were taught."""
    palette = ("😊", "🎉", "🧼", "⏰", "🚗", "🐶", "🍳", "💯")
    drawn = [find_emojis(with_emoji("I am so sorry.", random.Random(n), palette))[0].text for n in range(400)]
    assert set(drawn) <= set(palette) and drawn.count("😊") > drawn.count("💯") > 0
    heaps = [with_too_many("Well done! 🎉", random.Random(n), palette) for n in range(60)]
    assert {span.text for heap in heaps for span in find_emojis(heap)} <= set(palette)


def test_the_score_that_judges_replies_picks_among_the_suggestions() -> None:
    scorer = get_scorer("tasteful")
    for reply, said in REPLIES:
        placed = place(
            reply, Prompt("p", said), scorer="tasteful", rng=random.Random(1), palette=("😊", "🎉", "🐶", "🎂")
        )
        others = [place_emojis(reply, said, 1, among=(emoji,)) for emoji in ("😊", "🎉", "🐶", "🎂")]
        best = max(scorer.score(other, said) for other in others)
        assert scorer.score(placed, said) >= best - 0.1 - 1e-9
