"""Examples that writers are shown: near ones, restrained ones where emojis have no place, and a user's own."""

from pathlib import Path

import pytest

from orpo.command.errors import InputError
from orpo.generating.examples import ExampleTurns, read_examples
from orpo.records.messages import user_message
from orpo.records.shipped import shipped_examples
from orpo.scoring import contains_emoji


@pytest.fixture(scope="module")
def nearest() -> ExampleTurns:
    return ExampleTurns(shipped_examples(), choice="nearest", scorer="tasteful")


def test_near_examples_speak_of_the_same_thing_and_end_with_the_nearest(nearest: ExampleTurns) -> None:
    turns = nearest.before(user_message("How do I keep my basil plant alive?"), 4, with_emojis=True)
    assert [turn["role"] for turn in turns] == ["user", "assistant"] * 4
    assert all(contains_emoji(turn["content"]) for turn in turns[1::2])
    said = " ".join(turn["content"].lower() for turn in turns[-2:])
    assert "basil" in said or "plant" in said or "herb" in said, said
    plain = nearest.before(user_message("How do I keep my basil plant alive?"), 4, with_emojis=False)
    assert [turn["content"] for turn in plain[::2]] == [turn["content"] for turn in turns[::2]]
    assert not any(contains_emoji(turn["content"]) for turn in plain)


def test_a_prompt_out_of_place_is_shown_restrained_examples(nearest: ExampleTurns) -> None:
    turns = nearest.before(user_message("My father died on Sunday, what do I tell his friends?"), 3, with_emojis=True)
    assert not any(contains_emoji(turn["content"]) for turn in turns)


def test_a_prompt_that_is_an_example_is_not_shown_its_own_answer(nearest: ExampleTurns) -> None:
    example = next(example for example in shipped_examples() if len(example.prompt) == 1)
    turns = nearest.before(example.prompt, 5, with_emojis=True)
    assert example.prompt[0] not in turns


def test_fixed_examples_are_the_same_for_every_prompt_so_that_their_prefix_is_computed_once() -> None:
    fixed = ExampleTurns(shipped_examples(), choice="fixed", scorer="tasteful")
    first = fixed.before(user_message("I got the job!"), 5, with_emojis=False)
    assert first == fixed.before(user_message("Any ideas for dinner?"), 5, with_emojis=False)
    assert len({turn["content"] for turn in first}) == 10


def test_own_examples_are_read_and_what_is_wrong_with_them_is_one_line(tmp_path: Path) -> None:
    file = tmp_path / "mine.jsonl"
    file.write_text('{"prompt": "Hi", "reply": "Hello! 👋"}\n', encoding="utf-8")
    (example,) = read_examples(file)
    assert (example.prompt, example.reply) == (user_message("Hi"), "Hello! 👋")
    turns = ExampleTurns([example], choice="nearest", scorer="tasteful").before(
        user_message("Hey"), 5, with_emojis=True
    )
    assert len(turns) == 2, "no more than there are"
    for text, says in (
        ('{"question": "Hi", "answer": "Hello"}\n', "has no column 'prompt' and no column 'reply'"),
        ('{"prompt": "Hi", "reply": ""}\n{"prompt": 3, "reply": "x"}\n', "empty or no text in lines 1, 2"),
        ("not json\n", "is not JSON"),
    ):
        file.write_text(text, encoding="utf-8")
        with pytest.raises(InputError, match=says):
            read_examples(file)
    with pytest.raises(InputError, match="there is no such file"):
        read_examples(tmp_path / "nowhere.jsonl")
