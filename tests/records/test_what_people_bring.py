"""Data sets as people really bring them, each taken from a bug report: read rightly, or refused with the row."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from orpo.command.errors import InputError
from orpo.records.columns import PairColumns
from orpo.records.pairs import PreferencePair
from orpo.records.prompts import read_prompts
from orpo.records.read_pairs import read_pairs

YES, NO = "Carrots! 🥕", "Fruit."
TURNS = [("user", "What do horses eat?"), ("assistant", "Hay."), ("user", "And treats?")]


def messages(*turns: tuple[str, str]) -> list[dict[str, str]]:
    return [{"role": role, "content": content} for role, content in turns]


def save(path: Path, *rows: Any) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def read_one(tmp_path: Path, row: dict[str, Any], **wanted: Any) -> PreferencePair:
    (pair,) = read_pairs(save(tmp_path / "pairs.jsonl", row), **wanted).pairs
    return pair


def texts(pair: PreferencePair) -> tuple[list[str], str, str]:
    return [message["content"] for message in pair.prompt], pair.chosen_text, pair.rejected_text


LONG_TALK = {"chosen": messages(*TURNS, ("assistant", YES)), "rejected": messages(*TURNS, ("assistant", NO))}


@pytest.mark.parametrize(
    "prompt",
    [
        "What do horses eat?",
        "What do horses eat?\n",
        "And treats?",
        messages(TURNS[0]),
        messages(*TURNS),
        [{"role": "user", "content": "What do horses eat? "}],
    ],
)
def test_a_prompt_that_the_conversations_hold_is_not_trained_twice(tmp_path: Path, prompt: Any) -> None:
    """The first turn stood twice in the prompt: once from its column, once from the conversations."""
    pair = read_one(tmp_path, {"prompt": prompt, **LONG_TALK})
    assert pair.prompt == messages(*TURNS)
    assert (pair.chosen_text, pair.rejected_text) == (YES, NO)


def test_a_system_message_before_the_shared_beginning_is_kept_once(tmp_path: Path) -> None:
    system = ("system", "You know animals.")
    pair = read_one(tmp_path, {"prompt": messages(system, TURNS[0]), **LONG_TALK})
    assert pair.prompt == messages(system, *TURNS)
    with_system = {name: [*messages(system), *talk] for name, talk in LONG_TALK.items()}
    assert read_one(tmp_path, {"prompt": "What do horses eat?", **with_system}).prompt == messages(system, *TURNS)


def test_a_conversation_that_goes_on_where_the_prompt_ends_is_joined_to_it(tmp_path: Path) -> None:
    row = {
        "prompt": messages(*TURNS[:2]),
        "chosen": messages(TURNS[2], ("assistant", YES)),
        "rejected": messages(TURNS[2], ("assistant", NO)),
    }
    assert read_one(tmp_path, row).prompt == messages(*TURNS)


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"prompt": "Something else", **LONG_TALK}, "begin with a conversation that does not hold prompt in line 1"),
        (
            {"prompt": messages(("user", "a"), ("user", "b")), "chosen": YES, "rejected": NO},
            "prompt has the roles user, user in line 1 .*take turns",
        ),
        (
            {"chosen": messages(*TURNS, ("assistant", YES)), "rejected": messages(("user", "x"), ("assistant", NO))},
            "prompt is empty in line 1",
        ),
        ({"prompt": "Hi", "chosen": "Woohoo \ud83c", "rejected": NO}, r"chosen holds half of a character .* in line 1"),
        ({"prompt": "Hi \udf89", "chosen": YES, "rejected": NO}, r"prompt holds half of a character .* in line 1"),
        (
            {"prompt": [{"role": ["user"], "content": "Hi"}], "chosen": YES, "rejected": NO},
            "prompt has a message whose role is a list in line 1",
        ),
        ({"prompt": [{}], "chosen": YES, "rejected": NO}, "prompt holds a message without role and content in line 1"),
        ({"prompt": {}, "chosen": YES, "rejected": NO}, "prompt holds a message without role and content in line 1"),
        ({"prompt": ["Hi"], "chosen": YES, "rejected": NO}, "a list with text in place of a message in line 1"),
        (
            {"prompt": [{"role": "tool", "content": "Hi"}], "chosen": YES, "rejected": NO},
            "prompt has the role 'tool' in line 1",
        ),
        (
            {
                "prompt": [{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}],
                "chosen": YES,
                "rejected": NO,
            },
            "content is a part of the type 'image_url' in line 1",
        ),
        (
            {"system": "Be kind.", "prompt": messages(("system", "Be rude."), TURNS[0]), "chosen": YES, "rejected": NO},
            "system and prompt hold two system prompts in line 1",
        ),
        ({"prompt": "Hi", "chosen": YES, "rejected": f" {YES}\n"}, "chosen and rejected are the same in line 1"),
        ({"prompt": "Hi", "chosen": "x" * 3_000_000, "rejected": NO}, "chosen has a message of more than 2,000,000"),
        (
            {"prompt": "[{'role': 'user', 'content': Hi}]", "chosen": YES, "rejected": NO},
            "prompt holds chat messages as text that cannot be parsed in line 1",
        ),
    ],
)
def test_what_cannot_be_meant_is_refused_with_its_row(tmp_path: Path, row: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says) as caught:
        read_one(tmp_path, row)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500


@pytest.mark.parametrize(
    ("row", "prompt"),
    [
        ({"system": "You are a pirate.", "prompt": "Say hi"}, ["You are a pirate.", "Say hi"]),
        ({"system": "", "prompt": "Say hi"}, ["Say hi"]),
        ({"system": None, "question": "Say hi"}, ["Say hi"]),
        ({"system_prompt": "Pirate.", "question": "Say hi"}, ["Pirate.", "Say hi"]),
        ({"system": "Pirate.", "prompt": messages(("system", "Pirate."), ("user", "Say hi"))}, ["Pirate.", "Say hi"]),
        ({"prompt": "Translate to French.", "input": "good morning"}, ["Translate to French.\n\ngood morning"]),
        ({"instruction": "Translate.", "input": "good morning"}, ["Translate.\n\ngood morning"]),
        ({"instruction": "Translate.", "input": ""}, ["Translate."]),
        ({"input": "Say hi"}, ["Say hi"]),
        ({"query": "Say hi"}, ["Say hi"]),
        ({"conversations": [{"from": "human", "value": "Say hi"}]}, ["Say hi"]),
        ({"messages": messages(("user", "Say hi"), ("assistant", "an answer of the set's own"))}, ["Say hi"]),
        ({"prompt": [{"role": "user", "content": [{"type": "text", "text": "Say"}, {"type": "text", "text": " hi"}]}]},
         ["Say hi"]),
        ({"prompt": [{"role": "user", "content": [{"type": "text", "text": "Say hi", "image": None}]}]}, ["Say hi"]),
        ({"prompt": [{"role": "Human", "content": "Say hi"}]}, ["Say hi"]),
        ({"prompt": [{"role": "developer", "content": "Be"}, {"role": "user", "content": "Hi"}]}, ["Be", "Hi"]),
        ({"prompt": "[{'content': 'Tell me a joke', 'role': 'user'}]"}, ["Tell me a joke"]),
        ({"prompt": "[{'content': \"it's\", 'role': 'user'}\n {'content': 'Oh', 'role': 'assistant'}\n"
                    " {'content': 'Yes', 'role': 'user'}]"}, ["it's", "Oh", "Yes"]),
        ({"prompt": '[{"role": "user", "content": "Tell me a joke"}]'}, ["Tell me a joke"]),
        ({"prompt": '[{"role": "admin", "name": "Ann"}]'}, ['[{"role": "admin", "name": "Ann"}]']),
        ({"prompt": "[1, 2] is a list, and {'a': 1} is not?"}, ["[1, 2] is a list, and {'a': 1} is not?"]),
    ],
)  # fmt: skip
def test_every_usual_prompt_is_read_whole(tmp_path: Path, row: dict[str, Any], prompt: list[str]) -> None:
    """The system prompt and the input were silently lost, and a list that pandas wrote was trained on as text."""
    pair = read_one(tmp_path, {**row, "chosen": YES, "rejected": NO})
    assert texts(pair) == (prompt, YES, NO)
    assert pair.prompt[-1]["role"] == "user"


@pytest.mark.parametrize(
    ("chosen", "rejected"), [("chosen_response", "rejected_response"), ("response_chosen", "response_rejected")]
)
def test_replies_are_found_under_their_usual_names(tmp_path: Path, chosen: str, rejected: str) -> None:
    pair = read_one(tmp_path, {"instruction": "Hi", chosen: YES, rejected: NO})
    assert texts(pair) == (["Hi"], YES, NO)


def test_dialogues_within_one_text_are_taken_apart(tmp_path: Path) -> None:
    talk = "\n\nHuman: What do horses eat?\n\nAssistant: Hay.\n\nHuman: And treats?\n\nAssistant: "
    pair = read_one(tmp_path, {"chosen": talk + YES, "rejected": talk + NO})
    assert pair.prompt == messages(*TURNS) and (pair.chosen_text, pair.rejected_text) == (YES, NO)
    pair = read_one(tmp_path, {"prompt": talk, "chosen": YES, "rejected": NO})
    assert pair.prompt == messages(*TURNS)


def test_columns_of_any_name_are_read_when_they_are_named(tmp_path: Path) -> None:
    row = {"ask": "Say hi", "prompt": "another", "good": YES, "bad": NO, "who": "Pirate."}
    columns = PairColumns(prompt="ask", chosen="good", rejected="bad", system="who")
    assert texts(read_one(tmp_path, row, columns=columns)) == (["Pirate.", "Say hi"], YES, NO)
    with pytest.raises(InputError, match="has no column 'best'; it has ask, prompt, good, bad, who"):
        read_one(tmp_path, row, columns=PairColumns(chosen="best"))


def test_meaningful_columns_that_are_not_read_are_named(tmp_path: Path) -> None:
    row = {
        "prompt": "Say hi", "chosen": YES, "rejected": NO, "id": "a b", "score": 3, "label": "short",
        "history": [["a question", "an answer"]], "context": "Once upon", "messages": messages(("user", "Say hi")),
    }  # fmt: skip
    (warning,) = read_pairs(save(tmp_path / "p.jsonl", row)).warnings
    assert "not read: history, context;" in warning
    assert read_pairs(save(tmp_path / "p.jsonl", {"prompt": "a", "chosen": YES, "rejected": NO})).warnings == []


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("[" * 100_000, "is nested too deeply in line 2"),
        ('{"prompt": "a", "chosen": ' + "[" * 100_000 + "}", "is nested too deeply in line 2"),
        ('{"prompt": "a", "n": ' + "9" * 6_000 + "}", "holds a number of thousands of digits in line 2"),
        ('{"prompt": "a"', "is not JSON: .* in line 2"),
        ('"text"', "is not a JSON object with columns, but text in line 2"),
    ],
    ids=["deep", "deep within", "digits", "cut off", "text"],
)
def test_a_line_that_nothing_can_read_is_one_short_error(tmp_path: Path, line: str, says: str) -> None:
    good = json.dumps({"prompt": "a", "chosen": YES, "rejected": NO})
    file = tmp_path / "p.jsonl"
    file.write_text(f"{good}\n{line}\n{good}\n", encoding="utf-8")
    for read in (read_pairs, read_prompts):
        with pytest.raises(InputError, match=says) as caught:
            read(str(file))
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 400
    kept = read_pairs(str(file), bad_rows="drop")
    assert [pair.row for pair in kept.pairs] == [1, 3] and [row.place.number for row in kept.left_out] == [2]


def test_a_first_line_that_nothing_can_read_is_named_too(tmp_path: Path) -> None:
    (tmp_path / "p.jsonl").write_text("[" * 100_000 + "\n", encoding="utf-8")
    with pytest.raises(InputError, match="is nested too deeply in line 1"):
        read_pairs(str(tmp_path / "p.jsonl"))


def test_huge_numbers_among_scores_do_no_harm(tmp_path: Path) -> None:
    row = '{"prompt": "a", "chosen": "b", "rejected": "c", "chosen_score": 1e999, "rejected_score": ' + "9" * 4000 + "}"
    (tmp_path / "p.jsonl").write_text(row, encoding="utf-8")
    assert texts(read_pairs(str(tmp_path / "p.jsonl")).pairs[0]) == (["a"], "b", "c")


def test_bad_rows_stop_the_run_or_are_left_out_counted_and_listed(tmp_path: Path) -> None:
    """A tie or a null among thousands of rows stopped everything."""
    good = {"prompt": "a", "chosen": YES, "rejected": NO}
    rows = [good, {**good, "chosen": None}, good, {**good, "rejected": YES}, {**good, "chosen": None}, good]
    file = save(tmp_path / "p.jsonl", *rows)
    with pytest.raises(InputError, match=r"chosen is null in lines 2, 5 \(fill or drop these rows\); .* in line 4"):
        read_pairs(file)
    found = read_pairs(file, bad_rows="drop")
    assert [pair.row for pair in found.pairs] == [1, 3, 6]
    assert [(row.place.number, row.what) for row in found.left_out] == [
        (2, "chosen is null"), (4, "chosen and rejected are the same"), (5, "chosen is null"),
    ]  # fmt: skip
    (warning,) = found.warnings
    assert "left out 3 of 6 rows: chosen is null in lines 2, 5" in warning
    with pytest.raises(InputError, match="no row can be used: chosen is null in line 1"):
        read_pairs(save(tmp_path / "none.jsonl", rows[1]), bad_rows="drop")


def test_a_limit_counts_what_is_used(tmp_path: Path) -> None:
    """It cut before held-out and repeated prompts were left out, so fewer came than were asked for."""
    prompts = [{"prompt": "a", "split": "held_out"}, {"prompt": "b"}, {"prompt": "b"}, {"prompt": "c"}, {"prompt": "d"}]
    found = read_prompts(save(tmp_path / "prompts.jsonl", *prompts), limit=2, for_training=True)
    assert [prompt.text for prompt in found.prompts] == ["b", "c"]
    assert [prompt.text for prompt in found.held_out] == ["a"] and [prompt.text for prompt in found.repeated] == ["b"]
    assert len(read_prompts("embedded", limit=700, for_training=True).prompts) == 700
    good = {"prompt": "a", "chosen": YES, "rejected": NO}
    file = save(tmp_path / "pairs.jsonl", {**good, "chosen": None}, good, good, good)
    assert [pair.row for pair in read_pairs(file, limit=2, bad_rows="drop").pairs] == [2, 3]


def test_ids_that_collide_with_made_ones_stay_unique(tmp_path: Path) -> None:
    """`x`, `x-3`, `x` gave `x-3` twice."""
    rows = [
        {"id": "x", "prompt": "a"},
        {"id": "x-3", "prompt": "b"},
        {"id": "x", "prompt": "c"},
        {"id": {}, "prompt": "d"},
    ]
    found = read_prompts(save(tmp_path / "p.jsonl", *rows)).prompts
    assert [prompt.prompt_id for prompt in found] == ["x", "x-3", "x-4", "r00004"]
    assert read_prompts(save(tmp_path / "p.jsonl", {"id": "\ud83c", "prompt": "a"})).prompts[0].prompt_id == "\ufffd"


def test_prompts_have_system_and_input_columns_too(tmp_path: Path) -> None:
    row = {"system": "Pirate.", "instruction": "Translate.", "input": "hello"}
    (prompt,) = read_prompts(save(tmp_path / "p.jsonl", row)).prompts
    assert prompt.conversation() == messages(("system", "Pirate."), ("user", "Translate.\n\nhello"))


def test_one_row_of_50_mb_is_refused_at_once(tmp_path: Path) -> None:
    """It was tokenized: no end in 260 s, 8.3 GB."""
    file = save(tmp_path / "p.jsonl", {"prompt": "a " * 25_000_000, "chosen": YES, "rejected": NO})
    with pytest.raises(InputError, match="prompt has a message of more than 2,000,000 characters in line 1"):
        read_pairs(file)


PAIRS = [{"prompt": f"question {number}", "chosen": YES, "rejected": NO} for number in range(6)]


def lines(rows: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def asked(source: str | list[str], **wanted: Any) -> list[str]:
    return [pair.prompt[-1]["content"] for pair in read_pairs(source, **wanted).pairs]


def write_parquet(path: Path, rows: list[dict[str, Any]]) -> None:
    import pyarrow
    import pyarrow.parquet

    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)


ALL = [row["prompt"] for row in PAIRS]


def test_packed_and_utf16_files_are_read(tmp_path: Path) -> None:
    (tmp_path / "p.jsonl.gz").write_bytes(gzip.compress(lines(PAIRS).encode()))
    (tmp_path / "marked.jsonl").write_text(lines(PAIRS), encoding="utf-16")
    (tmp_path / "plain.jsonl").write_text(lines(PAIRS), encoding="utf-16-le")
    (tmp_path / "big.jsonl").write_text(lines(PAIRS), encoding="utf-16-be")
    (tmp_path / "p.csv").write_text("prompt,chosen,rejected\nHi,Yes 🎉,No\n", encoding="utf-16")
    for name in ("p.jsonl.gz", "marked.jsonl", "plain.jsonl", "big.jsonl"):
        assert asked(str(tmp_path / name)) == ALL, name
    assert asked(str(tmp_path / "p.csv")) == ["Hi"]
    whole = (tmp_path / "p.jsonl.gz").read_bytes()
    (tmp_path / "p.jsonl.gz").write_bytes(whole[:-12])
    with pytest.raises(InputError, match="is not a gzip file, or it is damaged"):
        read_pairs(str(tmp_path / "p.jsonl.gz"))


def test_several_files_and_globs_are_one_data_set_whose_errors_name_the_file(tmp_path: Path) -> None:
    first, second = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    first.write_text(lines(PAIRS[:2]), encoding="utf-8")
    second.write_text(lines(PAIRS[2:]), encoding="utf-8")
    assert asked([str(first), str(second)]) == asked(str(tmp_path / "*.jsonl")) == ALL
    places = [pair.where for pair in read_pairs([str(first), str(second)]).pairs]
    assert places[1:3] == [f"{first} line 2", f"{second} line 1"]
    second.write_text(lines([{**PAIRS[0], "chosen": None}]), encoding="utf-8")
    with pytest.raises(InputError, match=rf"chosen is null in {second} line 1"):
        read_pairs([str(first), str(second)])


def test_a_downloaded_folder_is_read_split_by_split(tmp_path: Path) -> None:
    """A folder of `hf download` was refused with "name one of them"."""
    write_parquet(tmp_path / "data" / "train-00000-of-00002.parquet", PAIRS[:3])
    write_parquet(tmp_path / "data" / "train-00001-of-00002.parquet", PAIRS[3:5])
    write_parquet(tmp_path / "data" / "test-00000-of-00001.parquet", PAIRS[5:])
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache" / "train.jsonl").write_text("{}", encoding="utf-8")
    assert asked(str(tmp_path)) == ALL[:5]
    assert asked(str(tmp_path), split="test") == ALL[5:]
    with pytest.raises(InputError, match="has no split 'validation'; its files are named for test, train"):
        read_pairs(str(tmp_path), split="validation")


def test_the_card_of_a_downloaded_folder_says_which_files_are_meant(tmp_path: Path) -> None:
    write_parquet(tmp_path / "data" / "train_prefs-00000-of-00001.parquet", PAIRS[:3])
    write_parquet(tmp_path / "data" / "train_sft-00000-of-00001.parquet", PAIRS[3:])
    card = "---\nconfigs:\n- config_name: default\n  data_files:\n"
    for split in ("train_prefs", "train_sft", "outside"):
        path = "../*.parquet" if split == "outside" else f"data/{split}-*"
        card += f"  - split: {split}\n    path: {path}\n"
    (tmp_path / "README.md").write_text(card + "---\n# Card\n", encoding="utf-8")
    assert asked(str(tmp_path), split="train_prefs") == ALL[:3]
    with pytest.raises(InputError, match="has no split 'train'; it has train_prefs, train_sft"):
        read_pairs(str(tmp_path))


def test_configurations_are_named_where_there_are_several(tmp_path: Path) -> None:
    for language, rows in (("en", PAIRS[:3]), ("fr", PAIRS[3:])):
        (tmp_path / language).mkdir()
        (tmp_path / language / "train.jsonl").write_text(lines(rows), encoding="utf-8")
    assert asked(str(tmp_path), config="fr") == ALL[3:]
    with pytest.raises(
        InputError, match=r"not shards of one \(en/train.jsonl, fr/train.jsonl\); name the ones you mean"
    ):
        read_pairs(str(tmp_path))


def test_a_parquet_file_with_a_damaged_page_is_one_line(tmp_path: Path) -> None:
    file = tmp_path / "p.parquet"
    write_parquet(file, PAIRS * 200)
    whole = file.read_bytes()
    for start in range(4, len(whole) - 8, max(1, len(whole) // 25)):
        file.write_bytes(whole[:start] + b"\xff" * 40 + whole[start + 40 :])
        try:
            read_pairs(str(file), bad_rows="drop")
        except InputError as problem:
            assert "\n" not in str(problem) and str(file) in str(problem)


def test_a_table_that_is_one_json_object_is_read(tmp_path: Path) -> None:
    (tmp_path / "p.json").write_text(json.dumps({"data": PAIRS}, indent=1), encoding="utf-8")
    assert asked(str(tmp_path / "p.json")) == ALL
    (tmp_path / "p.json").write_text(lines(PAIRS), encoding="utf-8")
    assert asked(str(tmp_path / "p.json")) == ALL
    (tmp_path / "p.jsonl").write_text(json.dumps(PAIRS), encoding="utf-8")
    assert asked(str(tmp_path / "p.jsonl")) == ALL
