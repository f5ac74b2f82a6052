"""Several data sets with weights: what a name with a weight means, how often rows are seen, what errors name."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from orpo.command.errors import InputError
from orpo.command.settings import parse_settings
from orpo.training.data import TrainingData, prepare_data, read_data_sets
from orpo.training.data_sets import split_weight, weighted
from orpo.training.settings import TrainSettings
from tests.training.small_models import settings_from


@pytest.mark.parametrize(
    ("text", "name", "weight"),
    [
        ("a.jsonl", "a.jsonl", 1.0),
        ("a.jsonl:2", "a.jsonl", 2.0),
        ("some/folder:0.5", "some/folder", 0.5),
        ("owner/set:1e1", "owner/set", 10.0),
        ("C:/data/pairs.jsonl", "C:/data/pairs.jsonl", 1.0),
        (r"C:\data\pairs.jsonl:3", r"C:\data\pairs.jsonl", 3.0),
        ("2024-01-01T10:30/pairs.jsonl", "2024-01-01T10:30/pairs.jsonl", 1.0),
        ("a:b:2", "a:b", 2.0),
        (":2", ":2", 1.0),
    ],
)
def test_a_weight_is_a_number_after_the_last_colon(text: str, name: str, weight: float) -> None:
    assert split_weight(text) == (name, weight)


def test_a_file_that_is_called_so_has_no_weight(tmp_path: Path) -> None:
    (tmp_path / "a:2").touch()
    assert split_weight(str(tmp_path / "a:2")) == (str(tmp_path / "a:2"), 1.0)


@pytest.mark.parametrize("weight", ["0", "-1", "nan", "inf", "101"])
def test_a_weight_out_of_range_is_refused(weight: str) -> None:
    with pytest.raises(InputError, match=rf"data a:{weight}: its weight {weight} must be above 0 and at most 100"):
        split_weight(f"a:{weight}")


def test_weights_count_rows_and_the_seed_chooses_the_fraction() -> None:
    """Ten rows at 2.5: each twice, and the same five a third time for the same seed."""
    seen = Counter(weighted(range(10), 2.5, seed=3))
    assert sorted(seen.values()) == [2] * 5 + [3] * 5
    assert weighted(range(10), 2.5, seed=3) == weighted(range(10), 2.5, seed=3) != weighted(range(10), 2.5, seed=4)
    assert len(weighted(range(10), 0.3, seed=0)) == len(set(weighted(range(10), 0.3, seed=0))) == 3
    assert weighted("abc", 1.0, seed=0) == ["a", "b", "c"]


def write(file: Path, pair: Any, name: str, count: int, **columns: str) -> Path:
    rows = [pair(f"{name} {number}?", f"{name} {number} 🎉", f"{name} {number}").as_row() for number in range(count)]
    rows = [{columns.get(key, key): value for key, value in row.items()} for row in rows]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


def prepared(tokenizer: Any, *sources: str, **changes: Any) -> TrainingData:
    settings = settings_from(data=list(sources), **changes)
    return prepare_data(read_data_sets(settings), tokenizer, settings)


def test_training_sees_each_set_by_its_weight_and_evaluation_every_row_once(
    tokenizer: Any, tmp_path: Path, pair: Any
) -> None:
    """The sets may even call their columns differently."""
    one = write(tmp_path / "one.jsonl", pair, "one", 10)
    two = write(tmp_path / "two.jsonl", pair, "two", 20, chosen="preferred", rejected="dispreferred")
    data = prepared(tokenizer, f"{one}:2", f"{two}:0.5", eval_share=0.2)
    ours, theirs = data.sets
    assert [(s.weight, s.rows) for s in data.sets] == [(2.0, 10), (0.5, 20)]
    assert ours.train + theirs.train + len(data.evaluation) == 30 and len(data.evaluation) == 6
    seen = Counter(example.source.prompt[0]["content"].split()[0] for example in data.train)
    assert seen == {"one": 2 * ours.train, "two": round(0.5 * theirs.train)} == {"one": ours.seen, "two": theirs.seen}
    assert len({id(example) for example in data.evaluation}) == 6
    assert str(ours) == f"{one}: 10 rows, {ours.train} to train on, weight 2: {ours.seen} seen in an epoch"
    again = prepared(tokenizer, f"{one}:2", f"{two}:0.5", eval_share=0.2)
    assert [(e.source.file, e.row) for e in again.train] == [(e.source.file, e.row) for e in data.train]


def test_errors_name_the_set_and_the_row(tokenizer: Any, tmp_path: Path, pair: Any) -> None:
    good = write(tmp_path / "good.jsonl", pair, "good", 3)
    bad = write(tmp_path / "bad.jsonl", pair, "bad", 3)
    with pytest.raises(InputError, match=r"bad\.jsonl: 3 of the pairs cannot be trained on: row 1 has a prompt"):
        prepared(tokenizer, f"{bad}:2", str(good), max_length=12, length_policy="raise")
    with pytest.raises(InputError, match=r"good\.jsonl: with the weight 0\.01 none of its 3 rows is seen"):
        prepared(tokenizer, f"{good}:0.01", str(bad), eval_share=0.0)
    bad.write_text('{"prompt": "Hi", "chosen": "Yes", "rejected": null}\n', encoding="utf-8")
    with pytest.raises(InputError, match=r"bad\.jsonl: rejected is null in line 1"):
        prepared(tokenizer, str(good), str(bad))


def test_the_flag_takes_several_and_a_recipe_too(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("data: [a.jsonl:2, b.jsonl]\n", encoding="utf-8")
    for argv in (["--data", "a.jsonl:2", "b.jsonl"], ["-d", "a.jsonl:2", "-d", "b.jsonl"], ["--recipe", str(recipe)]):
        assert parse_settings(TrainSettings, argv, prog="train.py", description="").data == ["a.jsonl:2", "b.jsonl"]
