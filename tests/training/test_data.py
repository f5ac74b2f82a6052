"""Data are checked before a model is needed, and evaluation never meets a training prompt."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orpo.command.errors import InputError
from orpo.records.messages import user_message
from orpo.records.pairs import PreferencePair
from orpo.training.data import (
    held_out_conversations,
    prepare_data,
    prompt_key,
    read_data_sets,
    split_by_prompt,
)
from orpo.training.examples import TokenizedPair
from tests.training.small_models import settings_from


def test_no_prompt_is_on_both_sides_and_none_is_lost(tokenizer: Any, pairs_file: Path) -> None:
    settings = settings_from(data=str(pairs_file), eval_share=0.3)
    data = prepare_data(read_data_sets(settings), tokenizer, settings)
    keys = [{prompt_key(one.source.prompt) for one in side} for side in (data.train, data.evaluation)]
    assert keys[0] and keys[1] and not keys[0] & keys[1]
    assert len(data.train) + len(data.evaluation) == 18
    again = prepare_data(read_data_sets(settings), tokenizer, settings)
    assert [pair.row for pair in again.evaluation] == [pair.row for pair in data.evaluation]


def tokenized_pairs() -> list[TokenizedPair]:
    """Return four pairs of which only the row differs."""
    made = PreferencePair(user_message("Hi"), user_message("Yes"), user_message("No"))
    return [TokenizedPair([1], [2], [3], made, row) for row in range(1, 5)]


@pytest.mark.parametrize(("share", "expected"), [(0.0, 0), (0.01, 1), (0.5, 2), (0.99, 3)])
def test_a_small_share_keeps_one_prompt_and_a_large_one_leaves_one(share: float, expected: int) -> None:
    pairs = tokenized_pairs()
    train, evaluation = split_by_prompt(pairs, ["a", "b", "c", "d"], share, 0)
    assert len(evaluation) == expected
    assert len(train) == 4 - expected


def test_one_prompt_leaves_nothing_to_evaluate() -> None:
    pairs = tokenized_pairs()
    assert split_by_prompt(pairs, ["a"] * 4, 0.5, 0) == (pairs, [])


def test_wrong_rows_are_told_before_a_model_is_named(tmp_path: Path, pair: Callable[..., PreferencePair]) -> None:
    file = tmp_path / "pairs.jsonl"
    rows = [pair("Hi", "Yes 🎉", "Yes"), pair("Hi", "same", "same"), pair("Hi", "", "Yes")]
    file.write_text("".join(json.dumps(row.as_row()) + "\n" for row in rows), encoding="utf-8")
    with pytest.raises(InputError, match=r"the same in line 2 .*empty in line 3"):
        read_data_sets(settings_from(data=str(file), model="no/such-model"))


def test_columns_and_bad_rows_are_settings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "pairs.jsonl"
    rows = [{"ask": "Hi", "good": "Yes 🎉", "bad": "No", "who": "Pirate.", "history": ["once upon a time"]}] * 2
    file.write_text("".join(json.dumps(row) + "\n" for row in (*rows, {**rows[0], "bad": None})), encoding="utf-8")
    names = {"prompt_column": "ask", "chosen_column": "good", "rejected_column": "bad", "system_column": "who"}
    with pytest.raises(InputError, match="bad is null in line 3"):
        read_data_sets(settings_from(data=str(file), **names))
    (data_set,) = read_data_sets(settings_from(data=str(file), bad_rows="drop", **names))
    found = data_set.rows
    assert [pair.row for pair in found] == [1, 2]
    assert found[0].prompt == [{"role": "system", "content": "Pirate."}, {"role": "user", "content": "Hi"}]
    told = capsys.readouterr().err
    assert "left out 1 of 3 rows: bad is null in line 3" in told and "not read: history" in told


def test_without_data_the_command_that_makes_some_is_named() -> None:
    with pytest.raises(InputError, match=r"uv run orpo/generate\.py"):
        read_data_sets(settings_from())


def test_prompts_to_answer_are_never_among_the_pairs(tmp_path: Path, pair: Callable[..., PreferencePair]) -> None:
    file = tmp_path / "prompts.txt"
    file.write_text("How are you?\nTell me a joke\n", encoding="utf-8")
    settings = settings_from(eval_prompts=str(file))
    found = held_out_conversations(settings, [pair("how  are YOU?", "Fine 😊", "Fine")])
    assert found == [[{"role": "user", "content": "Tell me a joke"}]]
    with pytest.raises(InputError, match=r"eval_prompts .*contain every one"):
        held_out_conversations(settings, [pair("how are you?", "a", "b"), pair("tell me a joke", "a", "b")])


def test_embedded_prompts_are_the_held_out_ones() -> None:
    from orpo.records.prompts import embedded_prompts

    held_out = {prompt.text for prompt in embedded_prompts("held_out")}
    found = held_out_conversations(settings_from(eval_prompt_count=10), [])
    assert len(found) == 10 and {talk[-1]["content"] for talk in found} <= held_out
    assert held_out_conversations(settings_from(eval_prompt_count=0), []) == []


def test_labels_and_methods_that_do_not_go_together_are_one_line(tmp_path: Path, pairs_file: Path) -> None:
    labels, texts = tmp_path / "labels.jsonl", tmp_path / "texts.jsonl"
    labels.write_text('{"prompt": "Hi", "completion": "Hello", "label": true}\n', encoding="utf-8")
    texts.write_text('{"prompt": "Hi", "completion": "Hello"}\n', encoding="utf-8")
    with pytest.raises(InputError, match=r"holds single replies with labels, which `method` dpo cannot learn from"):
        read_data_sets(settings_from(data=str(labels), method="dpo"))
    with pytest.raises(InputError, match=r"has no column 'chosen' and no column 'rejected'.*or, for kto, labels"):
        read_data_sets(settings_from(data=str(texts), method="kto"))
    with pytest.raises(InputError, match=r"labels\.jsonl: holds single replies with labels, and .*pairs\.jsonl holds"):
        read_data_sets(settings_from(data=[str(labels), str(pairs_file)], method="kto"))
    (found,) = read_data_sets(settings_from(data=str(labels), method="kto"))
    assert len(found.rows) == 1 and found.rows[0].prompt == user_message("Hi")


def test_labelled_replies_become_the_same_ids_as_those_of_a_pair(tokenizer: Any, pair: Any) -> None:
    from orpo.records.labelled import LabelledReply
    from orpo.training.tokenization import tokenize_pairs, tokenize_rows

    made = pair("Hi there", "Hello 🎉", "Hello")
    (both,) = tokenize_pairs([made], tokenizer, 64).pairs
    replies = [LabelledReply(made.prompt, reply, True) for reply in (made.chosen, made.rejected)]
    found = tokenize_rows(replies, tokenizer, 64, None, "drop", "raise").pairs
    assert [one.prompt_ids for one in found] == [both.prompt_ids] * 2
    assert tuple(one.replies[0] for one in found) == both.replies
