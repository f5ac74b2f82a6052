"""Loading: devices, formats, and one clear error for every kind of wrong model or adapter."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file

from orpo.chat_model.adapters import adapter_base_name, attach_adapter, load_with_adapter
from orpo.chat_model.chat_template import PLAIN_TEMPLATE, encode_prompt
from orpo.chat_model.default_model import DEFAULT_MODEL
from orpo.chat_model.generation import clean_reply, generate_replies
from orpo.chat_model.loading import load_model, load_tokenizer, prepare_tokenizer
from orpo.chat_model.options import resolve_device, resolve_dtype
from orpo.command.errors import InputError, ModelError, OrpoError, SettingsError, know_settings
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
    with pytest.raises(SettingsError, match=r"^device gpu: not a device; choose one of auto, cpu"):
        resolve_device("gpu")
    with pytest.raises(SettingsError, match=r"^dtype int8: not one of auto, float32"):
        resolve_dtype("int8", CPU)
    with pytest.raises(SettingsError, match=r"^device cuda:99: this machine has no such CUDA device"):
        resolve_device("cuda:99")


def test_a_saved_model_comes_back_ready_to_answer(model_folder: Path) -> None:
    model, tokenizer = load(model_folder), load_tokenizer(str(model_folder))
    assert not model.training and model.dtype is torch.float32
    assert tokenizer.padding_side == "left" and tokenizer.pad_token_id is not None
    assert generate_replies(model, tokenizer, [user_message("hi")], Sampling(max_new_tokens=4), seed=0)[0].tokens <= 4


def test_loading_prints_nothing(model_folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    load(model_folder)
    assert capfd.readouterr() == ("", "")


def test_the_default_model_loads_by_its_name_and_replies_as_transformers_lets_it(default_model_folder: Path) -> None:
    model, tokenizer = load(DEFAULT_MODEL), load_tokenizer(DEFAULT_MODEL)
    assert len(tokenizer) <= model.get_input_embeddings().weight.shape[0]
    questions = ["What is the capital of France?", "Say hello to my cat.", "Name three colours."]
    greedy = Sampling(temperature=0, max_new_tokens=16)
    replies = generate_replies(model, tokenizer, [user_message(text) for text in questions], greedy, seed=0)
    assert "Paris" in replies[0].text
    for question, reply in zip(questions, replies, strict=True):
        ids = torch.tensor([encode_prompt(tokenizer, user_message(question))])
        output = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=16)
        assert reply.text == clean_reply(str(tokenizer.decode(output[0, ids.shape[1] :], skip_special_tokens=True)))


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


def make_one_weight_nan(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights["model.layers.0.mlp.up_proj.weight"][0, 0] = float("nan")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.faults("model and adapter folders")
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (damage_config, r"config\.json is not JSON; the file is damaged"),
        (damage_weights, r"its model cannot be read \("),
        (pickle_weights, "holds only pickled weights, which can run code when they are read; choose a model with"),
        (lose_a_layer, r"weights do not fit its config\.json \("),
        (change_a_shape, r"do(es)? not fit|cannot be read"),
        (unknown_architecture, "its model cannot be read"),
        (make_one_weight_nan, "holds numbers that are not finite in 1 of its weights, the first model"),
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
    with pytest.raises(ModelError, match=r"^model nobody/no-such-model: .*there is no such folder.*Hub"):
        load("nobody/no-such-model")
    with pytest.raises(ModelError, match=r"^model nobody/no-such-model: .*Hub"):
        load_tokenizer("nobody/no-such-model")
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"")
    with pytest.raises(ModelError, match=r"is a file; name the folder that holds config\.json"):
        load(file)
    with pytest.raises(ModelError, match="is empty; name SmolLM2-135M-Instruct, a folder, a GGUF file or a Hub id"):
        load("")


def test_a_damaged_tokenizer_is_one_clear_error(model_folder: Path, tmp_path: Path) -> None:
    folder = copy_of(model_folder, tmp_path)
    (folder / "tokenizer.json").write_text("{")
    with pytest.raises(ModelError, match="its tokenizer cannot be read"):
        load_tokenizer(str(folder))


def test_a_model_without_a_chat_template_is_asked_in_plain_text_and_says_so(
    model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = copy_of(model_folder, tmp_path)
    (folder / "chat_template.jinja").unlink()
    assert load_tokenizer(str(folder)).chat_template == PLAIN_TEMPLATE
    assert "has no chat template: it is asked in a plain text form" in capsys.readouterr().err
    template = tmp_path / "template.jinja"
    template.write_text("{% for message in messages %}{{ message['content'] }}{% endfor %}")
    assert load_tokenizer(str(folder), chat_template=template).chat_template == template.read_text()
    assert capsys.readouterr().err == ""


def test_a_template_whose_markers_the_tokenizer_lacks_is_told(
    model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    template = tmp_path / "template.jinja"
    template.write_text("{% for message in messages %}<|turn|>{{ message['content'] }}<|over|>{% endfor %}")
    load_tokenizer(str(model_folder), chat_template=template)
    assert "does not know <|turn|>, <|over|> of the chat template" in " ".join(capsys.readouterr().err.split())


def test_a_wrong_template_file_is_named(model_folder: Path, tmp_path: Path) -> None:
    template = tmp_path / "template.jinja"
    cases: list[tuple[bytes, str]] = [
        (b"{% for message in", "is not a Jinja template"),
        (b"\xff\xfe", "is not UTF-8"),
        (b"  ", "is empty"),
    ]
    for content, message in cases:
        template.write_bytes(content)
        with pytest.raises(InputError, match=f"^chat_template .*{message}"):
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
    with pytest.raises(ModelError, match="Python code of its own") as caught:
        load(folder)
    assert not (tmp_path / "ran").exists()
    know_settings(["trust_remote_code"])
    assert "with --trust-remote-code;" in caught.value.for_command()


def test_a_tokenizer_with_code_of_its_own_says_so(model_folder: Path, tmp_path: Path) -> None:
    """The folder was called damaged."""
    file = copy_of(model_folder, tmp_path) / "tokenizer_config.json"
    own = {"auto_map": {"AutoTokenizer": ["own.Own", None]}, "tokenizer_class": "Own"}
    file.write_text(json.dumps(json.loads(file.read_text()) | own))
    with pytest.raises(ModelError, match="Python code of its own"):
        load_tokenizer(str(file.parent))


def test_an_index_that_names_a_file_elsewhere_is_refused(model_folder: Path, tmp_path: Path) -> None:
    """It was followed to wherever it pointed."""
    folder = copy_of(model_folder, tmp_path)
    (folder / "model.safetensors").rename(tmp_path / "outside.safetensors")
    for name in ("../outside.safetensors", str(tmp_path / "outside.safetensors"), "..\\outside.safetensors"):
        index = {"metadata": {}, "weight_map": {"model.norm.weight": name}}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
        with pytest.raises(ModelError, match=r"index\.json names a file outside the folder"):
            load(folder)


def test_an_adapter_finds_its_base_and_switches_off(adapter_folder: Path, model_folder: Path) -> None:
    model, tokenizer = load_with_adapter(None, adapter_folder, device="cpu", dtype="float32")
    assert adapter_base_name(adapter_folder) == str(model_folder)
    sampling, prompt = Sampling(max_new_tokens=8), [user_message("hi")]
    base = generate_replies(load(model_folder), tokenizer, prompt, sampling, seed=0)
    with model.disable_adapter():
        assert generate_replies(model, tokenizer, prompt, sampling, seed=0) == base
    assert generate_replies(model, tokenizer, prompt, sampling, seed=0) != base


def test_an_adapter_trained_on_the_default_model_elsewhere_finds_the_one_here(
    adapter_folder: Path, tmp_path: Path
) -> None:
    folder = copy_of(adapter_folder, tmp_path)
    for elsewhere in (f"/home/me/.cache/orpo/models/{DEFAULT_MODEL}-0123456789abcdef", DEFAULT_MODEL):
        edit_adapter_config(base_model_name_or_path=elsewhere)(folder)
        assert adapter_base_name(folder) == DEFAULT_MODEL


def test_an_adapter_trained_with_added_tokens_resizes_the_base(
    model_folder: Path, tmp_path: Path, tokenizer: Any
) -> None:
    """Loading it said that another model was needed."""
    base = load(model_folder)
    rows = base.get_input_embeddings().weight.shape[0]
    base.resize_token_embeddings(rows + 2, mean_resizing=False)
    config = LoraConfig(r=2, target_modules=["q_proj"], modules_to_save=["embed_tokens", "lm_head"])
    tuned = get_peft_model(base, config)
    with torch.no_grad():
        tuned.get_input_embeddings().weight.normal_()
    tuned.save_pretrained(str(tmp_path / "grown"), save_embedding_layers=True)
    again = attach_adapter(load(model_folder), tmp_path / "grown")
    ids = torch.tensor([[4, rows + 1]])
    with torch.no_grad():
        torch.testing.assert_close(again(input_ids=ids).logits, tuned.eval()(input_ids=ids).logits)


def test_an_adapter_with_numbers_that_are_not_finite_is_refused(adapter_folder: Path, tmp_path: Path) -> None:
    folder = copy_of(adapter_folder, tmp_path)
    weights = load_file(folder / "adapter_model.safetensors")
    name = sorted(weights)[0]
    weights[name][0, 0] = torch.nan
    save_file(weights, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=f"not finite in 1 of its weights, the first {re.escape(name)}"):
        load_with_adapter(None, folder, device="cpu", dtype="float32")


def strip_adapter_weights(folder: Path) -> None:
    (folder / "adapter_model.safetensors").unlink()


def pickle_adapter(folder: Path) -> None:
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")


def edit_adapter_config(**changes: Any) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        config = json.loads((folder / "adapter_config.json").read_text())
        (folder / "adapter_config.json").write_text(json.dumps(config | changes))

    return edit


@pytest.mark.faults("model and adapter folders")
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: shutil.rmtree(folder), r"there is no such folder; `uv run orpo/train\.py` makes an adapter"),
        (lambda folder: (folder / "adapter_config.json").unlink(), r"holds no adapter_config\.json"),
        (lambda folder: (folder / "adapter_config.json").write_text("[]"), "holds no JSON object"),
        (lambda folder: (folder / "adapter_config.json").write_text("{}"), "names no peft_type"),
        (strip_adapter_weights, r"holds no adapter_model\.safetensors; choose an adapter in safetensors"),
        (pickle_adapter, "only pickled weights"),
        (lambda folder: (folder / "adapter_model.safetensors").write_bytes(b"text"), "does not fit .* or is damaged"),
        (edit_adapter_config(r=16), "does not fit the base model or is damaged"),
        (edit_adapter_config(target_modules=["no_such_layer"]), "does not fit the base model or is damaged"),
        (edit_adapter_config(target_modules=["q_proj", "v_proj", "down_proj", "o_proj"]), "its weights are not those"),
        (edit_adapter_config(base_model_name_or_path=None), "names no base model; name it yourself"),
        (edit_adapter_config(base_model_name_or_path="/nowhere/model"), "model /nowhere/model: there is no such"),
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
    with pytest.raises(ModelError, match=r"is an adapter, not a whole model; name it as the adapter"):
        load(adapter_folder)
    base = load(model_folder)
    with pytest.raises(InputError, match="so it is a model, not an adapter"):
        attach_adapter(base, model_folder)
    file = tmp_path / "adapter_model.safetensors"
    file.write_bytes(b"")
    with pytest.raises(InputError, match="is a file; name the folder"):
        attach_adapter(base, file)


@pytest.mark.network
def test_a_model_of_the_hub_is_fetched_and_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    name = "HuggingFaceTB/SmolLM2-135M-Instruct"
    tokenizer, model = load_tokenizer(name), load_model(name, device="cpu", dtype="float32")
    (reply,) = generate_replies(model, tokenizer, [user_message("hi")], Sampling(max_new_tokens=4), seed=0)
    assert reply.tokens > 0
