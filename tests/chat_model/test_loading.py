"""Loading: devices, formats, and one clear error for every kind of wrong model or adapter."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from orpo.chat_model.generation import generate_replies
from orpo.chat_model.loading import (
    EMBEDDED,
    adapter_base_name,
    attach_adapter,
    load_model,
    load_tokenizer,
    load_with_adapter,
    locate_model,
    prepare_tokenizer,
    resolve_device,
    resolve_dtype,
)
from orpo.command.errors import InputError, ModelError, OrpoError, SettingsError
from orpo.records.messages import user_message
from orpo.records.replies import Sampling

CPU = torch.device("cpu")


def load(model: str | Path) -> Any:
    return load_model(str(model), device="cpu", dtype="float32")


def copy_of(folder: Path, to: Path) -> Path:
    return Path(shutil.copytree(folder, to / "copy"))


def test_devices_and_formats_are_resolved_by_name() -> None:
    assert resolve_device("cpu") == CPU
    assert resolve_device("auto").type in ("cpu", "cuda", "mps")
    assert resolve_dtype("auto", CPU) is torch.float32
    assert resolve_dtype("bfloat16", CPU) is torch.bfloat16
    with pytest.raises(SettingsError, match=r"--device gpu: not a device; give one of auto, cpu"):
        resolve_device("gpu")
    with pytest.raises(SettingsError, match="--dtype int8: not one of auto, float32"):
        resolve_dtype("int8", CPU)
    with pytest.raises(SettingsError, match=r"--device cuda:99: this machine has no such CUDA device"):
        resolve_device("cuda:99")


def test_a_saved_model_comes_back_ready_to_answer(model_folder: Path) -> None:
    model, tokenizer = load(model_folder), load_tokenizer(str(model_folder))
    assert not model.training and model.dtype is torch.float32
    assert tokenizer.padding_side == "left" and tokenizer.pad_token_id is not None
    assert generate_replies(model, tokenizer, [user_message("hi")], Sampling(max_new_tokens=4), seed=0)[0].tokens <= 4


def test_loading_prints_nothing(model_folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    load(model_folder)
    assert capfd.readouterr() == ("", "")


def test_the_embedded_model_loads_by_its_name(embedded_model_folder: Path) -> None:
    model, tokenizer = load(EMBEDDED), load_tokenizer(EMBEDDED)
    assert len(tokenizer) <= model.get_input_embeddings().weight.shape[0]
    reply = generate_replies(model, tokenizer, [user_message("Hello!")], Sampling(temperature=0), seed=0)[0]
    assert reply.text and "\ufffd" not in reply.text


def test_a_tokenizer_without_a_pad_token_pads_with_eos(tiny_models: Any) -> None:
    tokenizer = tiny_models.make_tokenizer()
    tokenizer.pad_token = None
    assert prepare_tokenizer(tokenizer, "tiny").pad_token_id == tokenizer.eos_token_id


def damage_config(folder: Path) -> None:
    (folder / "config.json").write_text("<html>not found</html>")


def damage_weights(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"version https://git-lfs.example/spec/v1")


def pickle_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"")


def lose_a_layer(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["num_hidden_layers"] += 1
    (folder / "config.json").write_text(json.dumps(config))


def change_a_shape(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["intermediate_size"] += 1
    (folder / "config.json").write_text(json.dumps(config))


def unknown_architecture(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": "no_such_architecture"}')


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (damage_config, r"config\.json is not JSON; the file is damaged"),
        (damage_weights, r"its model cannot be read \("),
        (pickle_weights, "holds only pickled weights, which can run code when they are read; give a model with"),
        (lose_a_layer, r"weights do not fit its config\.json \("),
        (change_a_shape, r"do(es)? not fit|cannot be read"),
        (unknown_architecture, "its model cannot be read"),
        (lambda folder: (folder / "config.json").unlink(), r"holds no config\.json, so it is not a model"),
        (lambda folder: (folder / "model.safetensors").unlink(), "holds no weights"),
    ],
)
def test_a_damaged_model_folder_is_one_clear_error(
    model_folder: Path, tmp_path: Path, damage: Callable[[Path], None], message: str
) -> None:
    folder = copy_of(model_folder, tmp_path)
    damage(folder)
    with pytest.raises(ModelError, match=message) as caught:
        load(folder)
    assert str(folder) in str(caught.value) and "\n" not in str(caught.value) and len(str(caught.value)) < 500


def test_an_unknown_model_says_where_it_was_looked_for(tmp_path: Path) -> None:
    for path in (str(tmp_path / "nothing"), "./nothing", "~/nothing/here", "a/b/c"):
        with pytest.raises(ModelError, match="there is no such folder"):
            load(path)
    with pytest.raises(ModelError, match=r"--model nobody/no-such-model: .*there is no such folder.*Hub"):
        load("nobody/no-such-model")
    with pytest.raises(ModelError, match=r"--model nobody/no-such-model: .*Hub"):
        load_tokenizer("nobody/no-such-model")
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"")
    with pytest.raises(ModelError, match=r"is a file; give the folder that holds config\.json"):
        load(file)
    with pytest.raises(ModelError, match="give embedded, a folder or a Hub id"):
        load("")


def test_a_damaged_tokenizer_is_one_clear_error(model_folder: Path, tmp_path: Path) -> None:
    folder = copy_of(model_folder, tmp_path)
    (folder / "tokenizer.json").write_text("{")
    with pytest.raises(ModelError, match="its tokenizer cannot be read"):
        load_tokenizer(str(folder))


def test_a_model_without_a_chat_template_asks_for_one(model_folder: Path, tmp_path: Path) -> None:
    folder = copy_of(model_folder, tmp_path)
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(ModelError, match=r"has no chat template; give one with --chat-template FILE"):
        load_tokenizer(str(folder))
    template = tmp_path / "template.jinja"
    template.write_text("{% for message in messages %}{{ message['content'] }}{% endfor %}")
    assert load_tokenizer(str(folder), chat_template=template).chat_template == template.read_text()


def test_a_wrong_template_file_is_named(model_folder: Path, tmp_path: Path) -> None:
    template = tmp_path / "template.jinja"
    cases: list[tuple[bytes, str]] = [
        (b"{% for message in", "is not a Jinja template"),
        (b"\xff\xfe", "is not UTF-8"),
        (b"  ", "is empty"),
    ]
    for content, message in cases:
        template.write_bytes(content)
        with pytest.raises(InputError, match=f"--chat-template .*{message}"):
            load_tokenizer(str(model_folder), chat_template=template)
    with pytest.raises(InputError, match="there is no such file"):
        load_tokenizer(str(model_folder), chat_template=tmp_path / "none")
    with pytest.raises(InputError, match="is a folder"):
        load_tokenizer(str(model_folder), chat_template=tmp_path)


def test_code_that_comes_with_a_model_does_not_run_unless_asked_for(model_folder: Path, tmp_path: Path) -> None:
    folder = copy_of(model_folder, tmp_path)
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "own", "auto_map": {"AutoConfig": "own.Own", "AutoModelForCausalLM": "own.Own"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    with pytest.raises(ModelError):
        load(folder)
    assert not (tmp_path / "ran").exists()


def test_an_adapter_finds_its_base_and_switches_off(adapter_folder: Path, model_folder: Path) -> None:
    model, tokenizer = load_with_adapter(None, adapter_folder, device="cpu", dtype="float32")
    assert adapter_base_name(adapter_folder) == str(model_folder)
    sampling, prompt = Sampling(max_new_tokens=8), [user_message("hi")]
    base = generate_replies(load(model_folder), tokenizer, prompt, sampling, seed=0)
    with model.disable_adapter():
        assert generate_replies(model, tokenizer, prompt, sampling, seed=0) == base
    assert generate_replies(model, tokenizer, prompt, sampling, seed=0) != base


def test_an_adapter_trained_on_the_embedded_model_elsewhere_finds_the_one_here(
    adapter_folder: Path, tmp_path: Path
) -> None:
    folder = copy_of(adapter_folder, tmp_path)
    config = json.loads((folder / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = "/home/somebody/orpo/chat_model/embedded"
    (folder / "adapter_config.json").write_text(json.dumps(config))
    assert adapter_base_name(folder) == EMBEDDED
    assert locate_model_name_is_package_folder("/home/somebody/orpo/chat_model/embedded")


def locate_model_name_is_package_folder(name: str) -> bool:
    try:
        return locate_model(name) == locate_model(EMBEDDED)
    except ModelError as problem:  # where the model is not built yet, that is what it says
        return "embedded base model is missing" in str(problem)


def strip_adapter_weights(folder: Path) -> None:
    (folder / "adapter_model.safetensors").unlink()


def pickle_adapter(folder: Path) -> None:
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")


def edit_adapter_config(**changes: Any) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        config = json.loads((folder / "adapter_config.json").read_text())
        (folder / "adapter_config.json").write_text(json.dumps(config | changes))

    return edit


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: shutil.rmtree(folder), r"there is no such folder; `uv run orpo/train\.py` makes an adapter"),
        (lambda folder: (folder / "adapter_config.json").unlink(), r"holds no adapter_config\.json"),
        (lambda folder: (folder / "adapter_config.json").write_text("[]"), "holds no JSON object"),
        (lambda folder: (folder / "adapter_config.json").write_text("{}"), "names no peft_type"),
        (strip_adapter_weights, r"holds no adapter_model\.safetensors; give an adapter in safetensors"),
        (pickle_adapter, "only pickled weights"),
        (lambda folder: (folder / "adapter_model.safetensors").write_bytes(b"text"), "does not fit .* or is damaged"),
        (edit_adapter_config(r=16), "does not fit the base model or is damaged"),
        (edit_adapter_config(target_modules=["no_such_layer"]), "does not fit the base model or is damaged"),
        (edit_adapter_config(target_modules=["q_proj", "v_proj", "down_proj", "o_proj"]), "its weights are not those"),
        (edit_adapter_config(base_model_name_or_path=None), "names no base model; give it with --model"),
        (edit_adapter_config(base_model_name_or_path="/nowhere/model"), "--model /nowhere/model: there is no such"),
    ],
)
def test_a_wrong_adapter_is_one_clear_error(
    adapter_folder: Path, tmp_path: Path, damage: Callable[[Path], None], message: str
) -> None:
    folder = copy_of(adapter_folder, tmp_path)
    (folder / "run.json").unlink()
    damage(folder)
    with pytest.raises(OrpoError, match=message) as caught:
        load_with_adapter(None, folder, device="cpu", dtype="float32")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500


def test_model_and_adapter_confused_say_so(adapter_folder: Path, model_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(
        ModelError, match=r"is an adapter, not a whole model; `uv run orpo/inference\.py --adapter` takes one"
    ):
        load(adapter_folder)
    with pytest.raises(InputError, match="so it is a model, give it with --model"):
        attach_adapter(None, model_folder)
    file = tmp_path / "adapter_model.safetensors"
    file.write_bytes(b"")
    with pytest.raises(InputError, match="is a file; give the folder"):
        attach_adapter(None, file)
