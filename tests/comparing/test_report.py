"""The report command, on small real models: what it compares, writes and refuses."""

import json
import re
import shutil
from pathlib import Path

import pytest

from orpo.command.errors import InputError, ModelError, OrpoError, OutputError, SettingsError
from orpo.comparing.report import approaches_of, example_turns
from orpo.comparing.run import collect_held_out
from orpo.comparing.settings import PromptSource, ReportSettings
from orpo.records.prompts import embedded_prompts
from orpo.records.shipped import WISHES, shipped_examples
from orpo.report import main
from orpo.scoring import contains_emoji

SHORT = ["--max-new-tokens", "6", "--device", "cpu", "--measure", "prompts"]


@pytest.fixture(scope="module")
def second_adapter(adapter_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another adapter of the same base, whose run left no record."""
    folder: Path = shutil.copytree(adapter_folder, tmp_path_factory.mktemp("adapters") / "second")
    (folder / "run.json").unlink()
    return folder


def test_every_approach_answers_the_same_prompts(
    trained: Path, second_adapter: Path, model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "report"
    flags = ["--adapter", str(trained), str(second_adapter), "--prompting", "--few-shot", "3", "--best-of", "2"]
    flags += ["--count", "5", "--seeds", "2", "--judge", str(model_folder), "--out", str(out), "--update-cards", *SHORT]
    assert main(flags) == 0
    shown = capsys.readouterr()
    assert {file.name for file in out.iterdir()} == {"report.html", "report.json", "run.json"}
    content = json.loads((out / "report.json").read_text(encoding="utf-8"))
    names = ["base", "prompting", "3 examples", "best of 2", "first", "second"]
    assert list(content["summary"]) == names and content["seeds"] == [0, 1]
    assert all(side["replies"] == 10 for side in content["summary"].values())
    rows = content["replies"]
    assert len(rows) == 10 and all(list(row["replies"]) == names for row in rows)
    assert rows[0]["replies"]["first"] == rows[0]["replies"]["second"], "the same weights"
    assert rows[0]["replies"]["first"] != rows[0]["replies"]["base"]
    assert content["training"]["first"] and content["training"]["second"] is None
    for name in ("report.html", "report.json"):  # to be passed on; they named the adapters' and the model's folders
        text = (out / name).read_text(encoding="utf-8")
        assert not [path for path in (trained, second_adapter, model_folder) if str(path.parent) in text]
    assert f"{second_adapter} holds no run.json" in shown.err and "5 prompts are few: intervals are wide" in shown.err
    assert [found["name"] for found in content["judgements"]] == names[1:]
    assert "emoji where in place" in shown.out and str(out / "report.html") in shown.out
    assert "it goes by the place, not by the reply" in shown.err, "a random model says no letter"
    card = (trained / "README.md").read_text(encoding="utf-8")
    assert card.count("## Beside the base model") == 1 and "| emoji where in place |" in card
    record = json.loads((out / "run.json").read_text(encoding="utf-8"))
    assert record["metrics"]["first"]["replies"] == 10 and record["device"] == "cpu"
    assert main([*flags, "--overwrite"]) == 0, "again, all from the cache"
    assert (trained / "README.md").read_text(encoding="utf-8").count("## Beside the base model") == 1


def pairs_file(folder: Path, prompts: list[str]) -> Path:
    rows = [{"prompt": prompt, "chosen": "Nice! 😊", "rejected": "Nice!"} for prompt in prompts]
    file = folder / "pairs.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


def test_prompts_that_no_pair_says_are_answered_in_place_of_the_standard_ones(tmp_path: Path) -> None:
    """Neither the same, nor a rewording, nor one with a wish added to it; wishes have a part of their own."""
    said, reworded, wished, *others = [prompt for prompt in embedded_prompts() if prompt.category not in WISHES]
    words = reworded.text.split()
    file = pairs_file(
        tmp_path,
        [said.text, " ".join([*words[1:], words[0]]), f"{wished.text} And write three long paragraphs, please."],
    )
    asked = collect_held_out(PromptSource(), ["prompts"], 0, unseen_by=[str(file)]).prompts
    assert {prompt.text for prompt in asked} <= {prompt.text for prompt in others}
    assert len(asked) >= len(others) - 10


def test_pairs_that_say_every_shipped_prompt_leave_nothing_to_ask(tmp_path: Path) -> None:
    file = pairs_file(tmp_path, [prompt.text for prompt in embedded_prompts()])
    with pytest.raises(InputError, match=r"pairs\.jsonl: says every shipped prompt or nearly so"):
        collect_held_out(PromptSource(), ["prompts"], 0, unseen_by=[str(file)])


def test_without_an_adapter_prompting_alone_is_compared(
    model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "report"
    assert main(["--model", str(model_folder), "--prompting", "--count", "2", "--out", str(out), *SHORT]) == 0
    assert list(json.loads((out / "report.json").read_text(encoding="utf-8"))["summary"]) == ["base", "prompting"]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ([], InputError, "holds no trained adapter yet"),
        (["--adapter", "nowhere"], InputError, "--adapter .*nowhere: there is no such folder"),
        (["--prompting", "--few-shot", "5000"], SettingsError, "--few-shot 5000: only [0-9]+ examples ship; take that"),
        (["--best-of", "1"], SettingsError, "--best-of 1: must be 0"),
        (["--best-of", "2", "--temperature", "0"], SettingsError, "--best-of needs replies that differ"),
        (["--seeds", "0"], SettingsError, "--seeds 0: must be at least 1"),
        (["--judge", "./nowhere"], ModelError, r"--judge \./nowhere: there is no such"),
        (["--measure", "nothing"], SettingsError, "--measure: 'nothing' is not one of"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_is_wrong_is_one_clear_line(
    arguments: list[str], error: type[OrpoError], message: str, request: pytest.FixtureRequest
) -> None:
    if "--judge" in arguments:  # checked after the adapters, before any is loaded
        request.getfixturevalue("trained")
    with pytest.raises(error) as caught:
        main(arguments)
    said = caught.value.for_command()
    assert re.search(message, said) and "\n" not in said


def with_base(adapter: Path, folder: Path, name: str) -> Path:
    """Return a copy of an adapter that says it was trained on another base model."""
    copied = Path(shutil.copytree(adapter, folder))
    file = copied / "adapter_config.json"
    config = {**json.loads(file.read_text(encoding="utf-8")), "base_model_name_or_path": name}
    file.write_text(json.dumps(config), encoding="utf-8")
    return copied


def test_adapters_of_different_base_models_are_refused(trained: Path, adapter_folder: Path, tmp_path: Path) -> None:
    other = with_base(adapter_folder, tmp_path / "other", "a/b")
    with pytest.raises(InputError) as caught:
        main(["--adapter", str(trained), str(other)])
    said = caught.value.for_command()
    assert said.startswith(f"--adapter {other}: was trained on a/b, and {trained} on ") and "\n" not in said
    with pytest.raises(InputError, match="is given twice"):
        main(["--adapter", str(trained), str(trained)])


def test_a_base_model_of_ones_own_is_taken_and_told(
    trained: Path, adapter_folder: Path, model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With --model, adapters of different bases were measured on one of them without a word."""
    other = with_base(adapter_folder, tmp_path / "other", "a/b")
    (other / "run.json").write_text("{", encoding="utf-8")
    given = ["--adapter", str(trained), str(other), "--model", str(model_folder), "--count", "2"]
    assert main([*given, "--out", str(tmp_path / "report"), *SHORT]) == 0
    told = capsys.readouterr().err
    assert f"{other} was trained on a/b and is measured on {model_folder}, the base model given" in told
    assert f"{trained} was trained on" not in told
    assert f"{other / 'run.json'} is not JSON" in told and "the report cannot say how it was trained" in told


def test_a_folder_that_exists_stays(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "mine.txt").touch()
    with pytest.raises(OutputError, match="report"):
        main(["--out", str(tmp_path / "report"), *SHORT])
    assert (tmp_path / "report" / "mine.txt").exists()


def test_examples_are_always_the_same_and_a_quarter_of_them_restrained() -> None:
    turns = example_turns(shipped_examples(), 8)
    assert turns == example_turns(shipped_examples(), 8)
    replies = [turn["content"] for turn in turns if turn["role"] == "assistant"]
    assert len(turns) == 16 and sum(not contains_emoji(text) for text in replies) == 2


def test_the_approaches_in_order() -> None:
    settings = ReportSettings(prompting=True, few_shot=2, best_of=4)
    found = approaches_of(settings, [Path("/a/x")])
    assert [approach.name for approach in found] == ["base", "prompting", "2 examples", "best of 4", "x"]
    assert found[0].system is None and all(approach.system for approach in found[1:4]) and found[4].system is None
