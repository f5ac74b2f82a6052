"""Prompts: the embedded set and every kind of file, with errors that name the rows."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from orpo.command.errors import InputError
from orpo.records.prompts import Prompt, embedded_prompts, read_prompts


def test_the_embedded_set_is_large_varied_and_split_without_overlap() -> None:
    prompts = embedded_prompts()
    assert len(prompts) >= 500
    assert len({prompt.prompt_id for prompt in prompts}) == len({prompt.text for prompt in prompts}) == len(prompts)
    assert len(Counter(prompt.category for prompt in prompts)) >= 8
    train, held_out = embedded_prompts("train"), embedded_prompts("held_out")
    assert len(train) + len(held_out) == len(prompts) and len(held_out) >= 200
    assert load("embedded", limit=3) == prompts[:3]


def load(source: str, **wanted: Any) -> list[Prompt]:
    return read_prompts(source, **wanted).prompts


def write(path: Path, text: str) -> str:
    path.write_text(text, encoding="utf-8")
    return str(path)


def quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


def test_prompts_come_from_every_usual_file(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    texts = ["Hello there", 'She said "hi", twice', "Zeile\u2028zwei 🎉"]
    rows = [{"prompt": text} for text in texts]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "p.parquet")
    files = [
        write(tmp_path / "p.jsonl", "\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n\n"),
        write(tmp_path / "p.json", json.dumps(rows)),
        write(tmp_path / "p.csv", "id,prompt\n" + "".join(f"1,{quoted(text)}\n" for text in texts)),
        write(tmp_path / "p.txt", "\ufeff" + "\r\n".join(texts)),
        str(tmp_path / "p.parquet"),
    ]  # fmt: skip
    for file in files:
        assert [prompt.text for prompt in load(file)] == texts, file
    assert [prompt.text for prompt in load(files[0], limit=2)] == texts[:2]


def test_prompts_come_from_a_datasets_folder_and_its_splits(tmp_path: Path) -> None:
    from datasets import Dataset, DatasetDict

    data = Dataset.from_list([{"question": "one"}, {"question": "two"}])
    DatasetDict({"train": data, "test": data.select([1])}).save_to_disk(str(tmp_path / "saved"))
    assert len(load(str(tmp_path / "saved"))) == 2
    assert [prompt.text for prompt in load(str(tmp_path / "saved"), split="test")] == ["two"]
    with pytest.raises(InputError, match="no split 'dev'; it has train, test; choose another") as caught:
        load(str(tmp_path / "saved"), split="dev", setting="eval_prompts")
    assert "--" not in str(caught.value) and caught.value.for_command().startswith("--eval-prompts ")


def test_errors_name_no_flags_but_the_one_that_the_command_adds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`train` was told to give --eval-prompts-config and --eval-prompts-column, which it does not have."""

    def refuse(*_: object, **__: object) -> None:
        raise ValueError("Unknown split 'train'.")

    monkeypatch.setattr("datasets.load_dataset", refuse)
    for source in ("some/pairs", write(tmp_path / "p.csv", "ask\na\n")):
        with pytest.raises(InputError, match=r"Unknown split 'train'\.; choose another|call it prompt") as caught:
            load(source, setting="eval_prompts")
        assert "--" not in str(caught.value)
        assert caught.value.for_command().startswith(f"--eval-prompts {source}: ")


def test_a_sharegpt_conversation_is_a_prompt_as_it_is_a_pair(tmp_path: Path) -> None:
    """`from` and `value` were read in preference pairs and refused in prompts."""
    messages = [{"from": "system", "value": "s"}, {"from": "human", "value": "hi"}, {"from": "gpt", "value": "hello"}]
    (prompt,) = load(write(tmp_path / "p.jsonl", json.dumps({"conversations": messages})))
    assert prompt.conversation() == [{"role": "system", "content": "s"}, {"role": "user", "content": "hi"}]


def test_a_conversation_is_a_prompt_up_to_the_last_user_message(tmp_path: Path) -> None:
    roles = ["system", "user", "assistant", "user", "assistant"]
    messages = [{"role": role, "content": f"{role} {number}"} for number, role in enumerate(roles)]
    (prompt,) = load(write(tmp_path / "p.jsonl", json.dumps({"messages": messages})))
    assert prompt.text == "user 3"
    assert prompt.conversation() == messages[:4]


def test_ids_stay_unique_and_the_split_of_a_file_is_kept(tmp_path: Path) -> None:
    rows = [{"id": 1, "prompt": "a"}, {"id": 1, "prompt": "b", "split": "held_out"}, {"prompt": "c"}]
    prompts = load(write(tmp_path / "p.jsonl", "\n".join(map(json.dumps, rows))))
    assert [prompt.prompt_id for prompt in prompts] == ["1", "1-2", "r00003"]
    assert [prompt.split for prompt in prompts] == ["train", "held_out", "train"]


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("empty.jsonl", "", "holds no rows"),
        ("empty.txt", "\n \n", "holds no rows"),
        ("header.csv", "prompt\n", "holds no rows"),
        ("broken.jsonl", '{"prompt": "a"}\n\n{"prompt": \n', "is not JSON: .* in line 3"),
        ("list.jsonl", '["a"]\n', "is not a JSON object with columns, but text in row 1"),
        ("columns.csv", "ask,answer\na,b\n", "has none of the columns .*it has ask, answer"),
        ("ragged.csv", "id,prompt\n1,a\n2,b,c\n", "has 3 cells where the first line has 2 in line 3"),
        ("quote.csv", 'id,prompt\n1,"a\n', "line 2: is not CSV"),
        ("twice.csv", "prompt,prompt\na,b\n", "two columns have the same name"),
        ("blank.jsonl", '{"prompt": "a"}\n{"prompt": " "}\n{"prompt": null}\n', "prompt is empty in lines 2, 3"),
        ("number.jsonl", '{"prompt": 3}\n', "prompt holds neither text nor chat messages, but a number in line 1"),
        ("role.jsonl", '{"prompt": [{"role": "robot", "content": "a"}]}\n', "prompt has the role 'robot' in line 1"),
        ("table.parquet", "prompt\na\n", "is not a Parquet file"),
        ("zero.csv", "prompt\na\0\n", "holds zero bytes"),
        ("what.xyz", "prompt\na\n", "its name must end in one of"),
    ],
)  # fmt: skip
def test_a_file_that_is_not_what_it_says_is_named_with_its_line(
    tmp_path: Path, name: str, text: str, says: str
) -> None:
    file = write(tmp_path / name, text)
    with pytest.raises(InputError, match=says) as caught:
        load(file)
    assert file in str(caught.value) and "\n" not in str(caught.value)


def test_a_binary_file_with_a_text_name_is_an_error_not_a_prompt(tmp_path: Path) -> None:
    (tmp_path / "image.csv").write_bytes(b"\x89PNG\r\n\x1a\n\xff\xfe")
    with pytest.raises(InputError, match=r"is not UTF-8 text \(byte 0\)"):
        load(str(tmp_path / "image.csv"))


def test_the_named_column_is_taken_and_a_missing_one_reported(tmp_path: Path) -> None:
    file = write(tmp_path / "p.csv", "prompt,mine\na,b\n")
    assert load(file, column="mine")[0].text == "b"
    with pytest.raises(InputError, match="has no column 'theirs'; it has prompt, mine"):
        load(file, column="theirs")


@pytest.mark.parametrize("source", ["nowhere/at-all", "no_such_set", "missing.jsonl", "./missing", "/missing/folder"])
def test_what_exists_neither_here_nor_on_a_hub_out_of_reach_is_one_clear_line(source: str) -> None:
    with pytest.raises(InputError, match=r"is not a file or folder here|there is no such file or folder"):
        load(source)


def test_a_folder_without_data_says_so(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no data file that can be read"):
        load(str(tmp_path))
    write(tmp_path / "a.jsonl", "{}")
    write(tmp_path / "b.csv", "prompt\n")
    with pytest.raises(InputError, match="several data files that are not shards of one"):
        load(str(tmp_path))


def test_shards_are_read_in_the_order_of_their_numbers_and_a_missing_one_is_told(tmp_path: Path) -> None:
    """Half of a download was taken for the whole set, and `part-10` came before `part-2`."""
    for folder in ("parts", "data"):
        (tmp_path / folder).mkdir()
    for number in (0, 2, 10):
        write(tmp_path / "parts" / f"part-{number}.jsonl", f'{{"prompt": "{number}"}}\n')
    assert [prompt.text for prompt in load(str(tmp_path / "parts"))] == ["0", "2", "10"]
    write(tmp_path / "data" / "train-00000-of-00002.jsonl", '{"prompt": "a"}\n')
    with pytest.raises(InputError, match=r"holds 1 of 2 shards, such as train-00000-of-00002\.jsonl; download"):
        load(str(tmp_path / "data"))
