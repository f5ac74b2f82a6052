"""Single replies with labels: TRL's unpaired format as text and as messages, and what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest

from orpo.command.errors import InputError
from orpo.records.columns import USUAL_COLUMNS, has_labels
from orpo.records.labelled import LabelledReply, count_labels, read_labelled
from orpo.records.messages import user_message
from orpo.records.read_rows import Rows, read_rows

REPLY = [{"role": "assistant", "content": "Well done! 🎉"}]
TALK = [*user_message("I passed!"), *REPLY]


def rows_of(tmp_path: Path, *rows: Any) -> Rows:
    file = tmp_path / "labels.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return read_rows(str(file), setting="data")


def read(rows: Rows, bad_rows: Any = "raise") -> list[LabelledReply]:
    return read_labelled(rows, USUAL_COLUMNS, limit=None, bad_rows=bad_rows, setting="data")[0]


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "I passed!", "completion": "Well done! 🎉"},
        {"prompt": user_message("I passed!"), "completion": REPLY},
        {"prompt": "I passed!", "response": "Well done! 🎉"},
        {"completion": TALK},
        {"prompt": user_message("I passed!"), "completion": TALK},
        {"messages": TALK},
    ],
)
def test_prompt_and_reply_are_found_in_every_usual_form(row: dict[str, Any], tmp_path: Path) -> None:
    rows = rows_of(tmp_path, {**row, "label": True})
    assert has_labels(rows, USUAL_COLUMNS)
    (found,) = read(rows)
    assert (found.prompt, found.completion, found.label) == (user_message("I passed!"), REPLY, True)
    assert found.row == 1 and found.file.endswith("labels.jsonl")


@pytest.mark.parametrize(
    ("written", "label"), [(True, True), (False, False), (1, True), (0, False), ("true", True), ("False", False)]
)
def test_labels_are_truth_values_however_they_were_saved(written: Any, label: bool, tmp_path: Path) -> None:
    (found,) = read(rows_of(tmp_path, {"prompt": "Hi", "completion": "Hello", "label": written}))
    assert found.label is label
    assert count_labels([found]) == (int(label), int(not label))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"label": "maybe"}, r"label is 'maybe' in line 2 \(write true for a good reply"),
        ({"label": None}, r"label is null in line 2"),
        ({"completion": " "}, r"completion is empty in line 2"),
        ({"completion": user_message("Hm")}, r"completion does not end with the assistant's message in line 2"),
        ({"prompt": ""}, r"prompt is empty in line 2"),
    ],
)
def test_bad_rows_are_named(change: dict[str, Any], told: str, tmp_path: Path) -> None:
    good = {"prompt": "Hi", "completion": "Hello", "label": True}
    rows = rows_of(tmp_path, good, {**good, **change})
    with pytest.raises(InputError, match=told):
        read(rows)
    assert len(read(rows, "drop")) == 1


def test_a_label_beside_a_pair_is_only_a_column(tmp_path: Path) -> None:
    assert not has_labels(rows_of(tmp_path, {"prompt": "a", "chosen": "b", "rejected": "c", "label": 1}), USUAL_COLUMNS)
