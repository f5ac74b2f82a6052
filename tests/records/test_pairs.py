"""Preference pairs survive writing and reading, and every usual shape of preference data is read as the same rows."""

import json
from pathlib import Path
from typing import Any

import pytest

from orpo.command.errors import InputError
from orpo.records import pairs as records
from orpo.records.pairs import PreferencePair, write_pairs
from orpo.records.read_pairs import read_pairs

USER = [{"role": "user", "content": "I passed!"}]
CHOSEN = [{"role": "assistant", "content": "Well done 🎉👍🏽"}]
REJECTED = [{"role": "assistant", "content": "Well done."}]
ROW = {"prompt": USER, "chosen": CHOSEN, "rejected": REJECTED}


def save(path: Path, *rows: Any) -> str:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def read(source: str, **wanted: Any) -> list[PreferencePair]:
    return read_pairs(source, **wanted).pairs


def three(pair: PreferencePair) -> dict[str, Any]:
    return {"prompt": pair.prompt, "chosen": pair.chosen, "rejected": pair.rejected}


def test_written_pairs_read_back_the_same_from_folder_dataset_and_lines(tmp_path: Path) -> None:
    pair = PreferencePair(USER, CHOSEN, REJECTED, 1.0, 0.0, "a", "b", "p1", "embedded")
    write_pairs(tmp_path, [pair], card="# Card\n")
    for source in (tmp_path, tmp_path / "dataset", tmp_path / "pairs.jsonl"):
        assert read(str(source)) == [pair], source
    assert (tmp_path / "README.md").read_text(encoding="utf-8") == "# Card\n"


def test_trl_takes_the_written_columns_as_a_conversational_preference(tmp_path: Path) -> None:
    from datasets import load_from_disk

    write_pairs(tmp_path, [PreferencePair(USER, CHOSEN, REJECTED, 1.0, 0.0, "a", "b", "p1", "s")])
    row = load_from_disk(str(tmp_path / "dataset"))[0]
    assert {name: row[name] for name in ROW} == ROW


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "I passed!", "chosen": "Well done 🎉👍🏽", "rejected": "Well done."},
        {"prompt": USER, "chosen": CHOSEN, "rejected": REJECTED},
        {"prompt": "I passed!", "chosen": USER + CHOSEN, "rejected": USER + REJECTED},
        {"prompt": USER, "chosen": USER + CHOSEN, "rejected": USER + REJECTED},
        {"chosen": USER + CHOSEN, "rejected": USER + REJECTED},
        {"prompt": USER[0], "chosen": CHOSEN[0], "rejected": REJECTED[0]},
        {
            "chosen": [{"from": "human", "value": "I passed!"}, {"from": "gpt", "value": "Well done 🎉👍🏽"}],
            "rejected": [{"from": "human", "value": "I passed!"}, {"from": "gpt", "value": "Well done."}],
        },
    ],
    ids=["text", "messages", "text+conversations", "messages+conversations", "conversations", "message", "sharegpt"],
)
def test_every_usual_shape_becomes_the_same_messages(tmp_path: Path, row: dict[str, Any]) -> None:
    (pair,) = read(save(tmp_path / "pairs.jsonl", {**row, "extra": 7}))
    assert three(pair) == ROW
    assert (pair.row, pair.unit) == (1, "line") and pair.file.endswith("pairs.jsonl")


def test_a_conversation_of_several_turns_keeps_them_in_the_prompt(tmp_path: Path) -> None:
    turns = [{"role": "system", "content": "Be kind."}, *USER, *REJECTED, {"role": "user", "content": "Really!"}]
    rows = read(save(tmp_path / "pairs.jsonl", {"chosen": turns + CHOSEN, "rejected": turns + REJECTED}))
    assert three(rows[0]) == {"prompt": turns, "chosen": CHOSEN, "rejected": REJECTED}


def test_csv_and_parquet_hold_pairs_as_text_or_as_json(tmp_path: Path) -> None:
    import csv

    import pyarrow
    import pyarrow.parquet

    with (tmp_path / "p.csv").open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["prompt", "chosen", "rejected"])
        writer.writerow(["I passed!", "Well done 🎉👍🏽", "Well done."])
        writer.writerow([json.dumps(USER), json.dumps(CHOSEN), json.dumps(REJECTED)])
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([ROW, ROW]), tmp_path / "p.parquet")
    for name in ("p.csv", "p.parquet"):
        assert [three(row) for row in read(str(tmp_path / name))] == [ROW, ROW], name


def test_checks_name_the_lines_of_the_file_even_when_some_are_blank(tmp_path: Path) -> None:
    file = save(
        tmp_path / "pairs.jsonl",
        ROW,
        {**ROW, "chosen": None},
        {**ROW, "rejected": "  "},
        {"prompt": "a", "chosen": "same ", "rejected": "same"},
        {**ROW, "prompt": REJECTED},
        {**ROW, "chosen": [{"role": "robot", "content": "x"}]},
        {**ROW, "chosen": [{"role": "assistant", "content": None}]},
        {**ROW, "chosen": None},
        {"prompt": [], "chosen": CHOSEN, "rejected": REJECTED},
    )
    text = Path(file).read_text(encoding="utf-8")
    Path(file).write_text("\n\n" + text, encoding="utf-8")
    with pytest.raises(InputError, match=r"chosen is null in lines 4, 10 \(fill or drop these rows\); ") as caught:
        read(file)
    for problem in (
        "rejected is empty in line 5",
        "chosen and rejected are the same in line 6",
        "prompt ends with the role assistant in line 7",
        "chosen has the role 'robot' in line 8",
        "chosen holds a message without content in line 9",
        "prompt is empty in line 11",
    ):
        assert problem in str(caught.value)
    assert "\n" not in str(caught.value)


def test_equal_conversations_are_reported_as_equal_and_not_as_empty(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="chosen and rejected are the same in line 1"):
        read(save(tmp_path / "p.jsonl", {"chosen": USER + CHOSEN, "rejected": USER + CHOSEN}))


def test_no_pairs_and_many_bad_rows_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"data .*: holds no rows"):
        read(save(tmp_path / "none.jsonl"))
    rows = [{"prompt": USER, "chosen": CHOSEN, "rejected": CHOSEN} for _ in range(30)]
    with pytest.raises(InputError, match="in lines 1, 2, 3, 4, 5, 6, 7, 8 and 22 more"):
        read(save(tmp_path / "many.jsonl", *rows))


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([{"prompt": "a", "chosen": "b"}], "has no column 'rejected'; it has prompt, chosen; name the columns"),
        (
            [{"question": "a", "good": "b", "bad": "c"}],
            "has no column 'chosen' and no column 'rejected'; it has question, good, bad",
        ),
        ([{"chosen": "b", "rejected": "c"}], "there is no prompt, and the replies are plain text in line 1"),
        ([ROW, {**ROW, "chosen": 5}], "chosen holds neither text nor chat messages, but a number in line 2"),
        ([ROW, {**ROW, "chosen": [{"text": "x"}]}], "chosen holds a message without role and content in line 2"),
    ],
)
def test_wrong_columns_are_told_before_anything_is_trained(
    tmp_path: Path, rows: list[dict[str, Any]], says: str
) -> None:
    with pytest.raises(InputError, match=says):
        read(save(tmp_path / "p.jsonl", *rows))


def test_a_damaged_datasets_folder_is_one_clear_line(tmp_path: Path) -> None:
    write_pairs(tmp_path, [PreferencePair(USER, CHOSEN, REJECTED, 1.0, 0.0, "a", "b", "p1", "s")])
    (arrow,) = (tmp_path / "dataset").glob("*.arrow")
    arrow.write_bytes(b"not arrow")
    with pytest.raises(InputError, match="cannot be read as a data set folder"):
        read(str(tmp_path / "dataset"))


def test_many_pairs_are_written_in_parts_as_they_would_be_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = [PreferencePair(USER, CHOSEN, REJECTED, 1.0, 0.0, "a", "b", f"p{number}", "s") for number in range(8)]
    for name, at_once in (("whole", 10), ("parts", 3), ("even", 4)):
        monkeypatch.setattr(records, "ROWS_AT_ONCE", at_once)
        (tmp_path / name).mkdir()
        write_pairs(tmp_path / name, pairs)
        for source in (tmp_path / name / "dataset", tmp_path / name / "pairs.jsonl"):
            assert read(str(source)) == pairs, source
