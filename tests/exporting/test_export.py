"""The export command, on small real models: what it writes answers as before, and what cannot be is one line."""

import json
import shutil
from collections import namedtuple
from pathlib import Path

import pytest
import torch
from peft import AutoPeftModelForCausalLM
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from orpo.chat_model.loading import load_model
from orpo.command.errors import ExportError, InputError, ModelError, OutputError, SettingsError
from orpo.export import main
from orpo.exporting import model_folder
from tests import small_models
from tests.exporting.conftest import save_adapter, save_llama

SHORT = ["--device", "cpu", "--check-prompts", "4", "--check-tokens", "8"]


def nothing_in(folder: Path) -> bool:
    """Tell whether no result is there, half or whole; a lock file is no result."""
    return not folder.exists() or all(entry.name.endswith(".lock") for entry in folder.iterdir())


def test_the_newest_adapter_is_merged_and_the_check_is_shown(
    adapter: Path, orpo_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(adapter, orpo_home / "trained" / "first")
    assert main(SHORT) == 0
    folder = orpo_home / "exported" / "first-merged"
    shown = capsys.readouterr().out
    assert "4 of 4" in shown and str(folder) in shown
    record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    assert record["command"] == "export" and record["metrics"]["equal_replies"] == 4
    assert record["facts"]["checked"] and record["facts"]["adapter"].endswith("first")
    assert "4 of 4" in (folder / "README.md").read_text(encoding="utf-8")
    ids = torch.arange(3, 40)[None]
    with torch.no_grad():  # read by transformers and PEFT alone, without anything of ours
        merged = AutoModelForCausalLM.from_pretrained(folder)(input_ids=ids).logits
        apart = AutoPeftModelForCausalLM.from_pretrained(adapter)(input_ids=ids).logits
    torch.testing.assert_close(merged, apart, atol=1e-4, rtol=1e-4)
    assert AutoTokenizer.from_pretrained(folder).chat_template == small_models.CHATML


def test_replies_end_for_other_programs_where_they_end_here(adapter: Path, tmp_path: Path) -> None:
    assert main(["--adapter", str(adapter), "--out", str(tmp_path / "out"), *SHORT]) == 0
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    settings = json.loads((tmp_path / "out" / "generation_config.json").read_text(encoding="utf-8"))
    assert settings["eos_token_id"] == tokenizer.convert_tokens_to_ids("<|im_end|>")


@pytest.mark.parametrize(
    ("given", "kept"), [("keep", torch.bfloat16), ("float32", torch.float32), ("float16", torch.float16)]
)
def test_the_number_format_is_the_bases_or_the_one_asked_for(given: str, kept: torch.dtype, tmp_path: Path) -> None:
    model = save_llama(tmp_path / "base", dtype=torch.bfloat16, tied=True)
    adapter = save_adapter(tmp_path / "adapter", model)
    assert main(["--adapter", str(adapter), "--out", str(tmp_path / "out"), "--dtype", given, *SHORT]) == 0
    weights = load_file(tmp_path / "out" / "model.safetensors")
    assert {weight.dtype for weight in weights.values()} == {kept} and "lm_head.weight" not in weights


def test_an_adapter_is_written_without_what_training_left_beside_it(adapter: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(adapter, tmp_path / "run"))
    (run / "checkpoint-5").mkdir()
    (run / "training_args.bin").write_bytes(b"pickled")
    assert main(["--to", "adapter", "--adapter", str(run), "--out", str(tmp_path / "out"), *SHORT]) == 0
    found = {file.name for file in (tmp_path / "out").iterdir()}
    assert found >= {"adapter_config.json", "adapter_model.safetensors", "tokenizer.json", "README.md", "run.json"}
    assert not {"checkpoint-5", "training_args.bin"} & found
    assert AutoPeftModelForCausalLM.from_pretrained(tmp_path / "out").peft_config["default"].r == 4


def test_an_export_that_answers_otherwise_is_not_kept(
    adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file on the disk is asked, so a weight that is written wrongly shows."""
    write = model_folder.write_model

    def write_wrongly(model: torch.nn.Module, *others: object) -> None:
        write(model, *others)  # type: ignore[arg-type]
        file = others[1] / "model.safetensors"  # type: ignore[operator]
        weights = load_file(file)
        weights["model.layers.1.self_attn.v_proj.weight"].neg_()
        save_file(weights, file, metadata={"format": "pt"})

    monkeypatch.setattr("orpo.exporting.folders.write_model", write_wrongly)
    with pytest.raises(ExportError, match=r"v_proj.*nothing is kept"):
        main(["--adapter", str(adapter), "--out", str(tmp_path / "exports" / "out"), *SHORT])
    assert nothing_in(tmp_path / "exports")


def test_a_merge_that_answers_otherwise_is_not_kept(
    adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "orpo.exporting.folders.merge_adapter", lambda tuned: tuned.unload().eval()
    )  # the base, unmerged
    with pytest.raises(ExportError, match=r"4 of 4 replies differ.*nothing is kept") as caught:
        main(["--adapter", str(adapter), "--out", str(tmp_path / "exports" / "out"), *SHORT])
    assert "\n" not in str(caught.value) and caught.value.exit_code == 1 and nothing_in(tmp_path / "exports")


def test_without_the_check_nothing_is_asked_and_the_record_says_so(
    adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--adapter", str(adapter), "--out", str(tmp_path / "out"), "--no-check", "--device", "cpu"]) == 0
    assert "greedy" not in capsys.readouterr().out
    assert json.loads((tmp_path / "out" / "run.json").read_text(encoding="utf-8"))["facts"]["checked"] is False


def test_a_merged_model_is_not_merged_again(base: Path, adapter: Path, tmp_path: Path) -> None:
    merged = tmp_path / "merged"
    assert main(["--adapter", str(adapter), "--out", str(merged), "--no-check", "--device", "cpu"]) == 0
    with pytest.raises(InputError, match=r"already holds the adapter .*tuned"):
        main(["--adapter", str(adapter), "--model", str(merged), "--out", str(tmp_path / "twice"), *SHORT])
    with pytest.raises(InputError, match="is a model, not an adapter"):
        main(["--adapter", str(merged), *SHORT])
    further = save_adapter(tmp_path / "further", merged)  # trained on the merged model itself
    assert main(["--adapter", str(further), "--out", str(tmp_path / "second"), *SHORT]) == 0


def test_a_base_model_that_is_another_one_is_refused(
    base: Path, adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = save_llama(tmp_path / "other", seed=5)
    with pytest.raises(InputError, match=r"other: .* was trained on .*llama, another model"):
        main(["--adapter", str(adapter), "--model", str(other), *SHORT])
    with pytest.raises(ModelError, match="no such folder"):
        main(["--adapter", str(adapter), "--model", str(tmp_path / "nowhere"), *SHORT])
    copy = Path(shutil.copytree(base, tmp_path / "copy"))
    out = ["--out", str(tmp_path / "out"), "--no-check"]
    assert main(["--adapter", str(adapter), "--model", str(copy), *out, "--device", "cpu"]) == 0
    assert "taking" in capsys.readouterr().err


def change_config(adapter: Path, **changes: object) -> None:
    file = adapter / "adapter_config.json"
    config = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps({**config, **changes}), encoding="utf-8")


def test_an_adapter_that_names_no_base_needs_one(base: Path, adapter: Path, tmp_path: Path) -> None:
    bare = Path(shutil.copytree(adapter, tmp_path / "bare"))
    change_config(bare, base_model_name_or_path=None)
    with pytest.raises(InputError, match="names no base model; name it with `model`") as caught:
        main(["--adapter", str(bare), *SHORT])
    assert "--model" in caught.value.for_command()
    assert main(["--adapter", str(bare), "--model", str(base), "--out", str(tmp_path / "out"), *SHORT]) == 0


def test_what_is_no_lora_adapter_is_refused(adapter: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(adapter, tmp_path / "other"))
    change_config(other, peft_type="IA3")
    with pytest.raises(InputError, match="is a IA3 adapter; only LoRA"):
        main(["--adapter", str(other), *SHORT])
    with pytest.raises(InputError, match="no trained adapter yet"):
        main(SHORT)


def test_a_folder_that_exists_and_a_full_disk_are_found_before_the_work(
    adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match="already exists"):
        main(["--adapter", str(adapter), "--out", str(out), *SHORT])
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**9, 10**9, 1000))
    with pytest.raises(OutputError, match=r"takes about .* GiB and the disk has 0\.00 free"):
        main(["--adapter", str(adapter), "--out", str(tmp_path / "another"), *SHORT])
    assert not (tmp_path / "another").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--to", "adapter", "--dtype", "float16"], "--to adapter does not read it"),
        (["--quantization", "q8_0"], "--to merged does not read it"),
        (["--to", "onnx"], "--to"),
        (["--check-prompts", "0"], "must be at least 1"),
    ],
)
def test_settings_that_a_format_does_not_read_are_refused(arguments: list[str], says: str) -> None:
    with pytest.raises(SettingsError, match=says):
        main(arguments)


def test_the_base_stays_as_it_was(base: Path, adapter: Path, tmp_path: Path) -> None:
    before = load_file(base / "model.safetensors")
    assert main(["--adapter", str(adapter), "--out", str(tmp_path / "out"), *SHORT]) == 0
    after = load_model(str(base), device="cpu", dtype="float32").state_dict()
    assert all(torch.equal(weight, after[name]) for name, weight in before.items())
