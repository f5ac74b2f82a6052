"""Examples that become pairs: three tenths of them restrained, from all over the list."""

from orpo.generating.example_pairs import as_written, choose_examples
from orpo.records.messages import user_message
from orpo.records.shipped import WISHES, Example, shipped_examples
from orpo.scoring import contains_emoji, find_emojis


def test_three_tenths_of_the_chosen_examples_are_restrained_and_none_holds_a_wish_where_wishes_are_put() -> None:
    chosen = choose_examples(shipped_examples(), 88, puts_wishes=True)
    assert len({example.example_id for example in chosen}) == 88
    assert sum(not contains_emoji(example.reply) for example in chosen) == 26
    assert not any(example.category in WISHES for example in chosen)
    kinds = {example.category for example in chosen}
    assert {"good_news", "bad_news", "grief", "code", "legal"} <= kinds, "from all over the list"
    assert any(example.category in WISHES for example in choose_examples(shipped_examples(), 90, puts_wishes=False))


def test_too_few_examples_of_one_kind_are_made_up_for_by_the_other_and_none_is_taken_twice() -> None:
    def example(number: int, reply: str) -> Example:
        return Example(f"x{number}", user_message(f"message {number}"), "", reply)

    warm, plain = [example(n, "Well done! 🎉") for n in range(3)], [example(n + 3, "I see.") for n in range(9)]
    for count, expected in ((6, (3, 3)), (9, (3, 6)), (50, (3, 9)), (0, (0, 0))):
        chosen = choose_examples([*plain, *warm], count, puts_wishes=True)
        assert (len([e for e in chosen if e in warm]), len([e for e in chosen if e in plain])) == expected, count
    assert len(choose_examples(warm, 2, puts_wishes=True)) == 2


def test_an_example_as_an_answered_prompt_keeps_to_the_palette() -> None:
    example = Example("x1", user_message("We won the final!"), "good_news", "What a game! 🏆 Congratulations!")
    (written,) = as_written([example], scorer="tasteful", palette=("🎉", "😊"))
    assert {span.text for span in find_emojis(written.emoji.text)} <= {"🎉", "😊"}
    assert contains_emoji(written.emoji.text) and not contains_emoji(written.plain.text)
    assert not written.is_restrained
