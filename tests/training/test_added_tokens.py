"""Chat markers that a base model's tokenizer lacks: added as tokens, trained, saved with the adapter, found again."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file

from orpo.chat_model.adapters import load_with_adapter
from orpo.chat_model.chat_template import encode_prompt, missing_markers, reply_end_ids
from orpo.chat_model.loading import add_markers, load_model, load_tokenizer
from orpo.command.errors import SettingsError
from orpo.records.messages import user_message
from orpo.training.adapter import make_room
from orpo.training.run import train
from tests.small_models import CHATML, make_chat_tokenizer, make_shape
from tests.training.small_models import settings_from

TEMPLATE = CHATML.replace("<|im_start|>", "<|turn|>").replace("<|im_end|>", "<|over|>")


def weight_of(layer: Any) -> torch.Tensor:
    weight: torch.Tensor = layer.weight
    return weight


@pytest.fixture
def template(tmp_path: Path) -> Path:
    file = tmp_path / "other.jinja"
    file.write_text(TEMPLATE, encoding="utf-8")
    return file


def test_the_vectors_of_added_tokens_are_trained_saved_and_found_again(
    tiny_model_folder: Path, pairs_file: Path, template: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """ChatML on a base model: the markers were spelled out, and `<|im_end|>` shown in the replies."""
    common: dict[str, Any] = {
        "data": str(pairs_file), "trainer": "fast", "device": "cpu", "dtype": "float32", "max_steps": 3,
        "batch_size": 2, "eval_share": 0.0, "eval_prompt_count": 0, "learning_rate": 1e-2, "save_steps": 2,
        "logging_steps": 1,
    }  # fmt: skip
    result = train(
        settings_from(
            model=str(tiny_model_folder), out=tmp_path / "run", chat_template=template, add_chat_tokens=True, **common
        )
    )
    said = capsys.readouterr().err
    assert "added as tokens, and trained too: <|turn|>, <|over|>" in said and "does not know" not in said

    model, tokenizer = load_with_adapter(None, result.folder, device="cpu", dtype="float32")
    added = [tokenizer.get_vocab()[text] for text in ("<|turn|>", "<|over|>")]
    assert missing_markers(tokenizer) == [] and added[1] in reply_end_ids(model, tokenizer)
    prompt = encode_prompt(tokenizer, user_message("Hi"))
    assert prompt.count(added[0]) == 2 and prompt.count(added[1]) == 1

    weights = load_file(result.folder / "adapter_model.safetensors")
    ((name, vectors),) = [(name, weight) for name, weight in weights.items() if "lora_" not in name]
    assert name.endswith("trainable_tokens_delta") and vectors.shape[0] == 2, "and no whole embedding"
    plain = load_tokenizer(str(tiny_model_folder), chat_template=template, adds_markers=True)
    base = load_model(str(tiny_model_folder), device="cpu", dtype="float32")
    make_room(base, plain, add_markers(plain))
    started = weight_of(base.get_input_embeddings())[added].detach()
    assert not torch.equal(vectors, started) and float((vectors - started).abs().max()) < 0.2, (
        "they have moved a little"
    )
    assert torch.equal(model.get_input_embeddings()(torch.tensor(added)), vectors)

    merged = PeftModel.from_pretrained(base, str(result.folder)).merge_and_unload()
    ids = torch.tensor([prompt])
    with torch.no_grad():
        torch.testing.assert_close(model(input_ids=ids).logits, merged(input_ids=ids).logits, rtol=1e-4, atol=1e-4)

    # As `kill -9` after the first checkpoint leaves it, and trained further by another run.
    killed = tmp_path / "killed"
    killed.mkdir()
    shutil.copytree(result.folder / "checkpoint-2", killed / "checkpoint-2")
    shutil.copy(result.folder / "settings.json", killed)
    (killed / "unfinished.json").write_text("{}", encoding="utf-8")
    train(
        settings_from(
            model=str(tiny_model_folder),
            out=killed,
            chat_template=template,
            add_chat_tokens=True,
            resume=True,
            **common,
        )
    )
    again = load_file(killed / "adapter_model.safetensors")
    assert all(torch.equal(again[name], weight) for name, weight in weights.items())
    further = train(settings_from(out=tmp_path / "further", from_adapter=result.folder, **common))
    moved = load_file(further.folder / "adapter_model.safetensors")
    assert moved.keys() == weights.keys() and not torch.equal(moved[name], vectors)
    indices = json.loads((further.folder / "adapter_config.json").read_text(encoding="utf-8"))
    assert indices["trainable_token_indices"] == {"embed_tokens": added}


def test_an_added_token_begins_as_the_mean_of_what_spelled_it_out_in_both_layers() -> None:
    from orpo.training.adapter import _vectors_of

    model, tokenizer = make_shape("llama_untied"), make_chat_tokenizer(TEMPLATE)
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    added = add_markers(tokenizer)
    spelled = tokenizer("<|turn|>", split_special_tokens=True, add_special_tokens=False)["input_ids"]
    make_room(model, tokenizer, added)
    for layer in (model.get_input_embeddings(), model.get_output_embeddings()):
        weight = weight_of(layer)
        torch.testing.assert_close(weight[added[0]], weight[spelled].mean(dim=0))
    assert _vectors_of(model, added) == {"embed_tokens": added, "lm_head": added}
    assert add_markers(tokenizer) == []


def test_an_adapter_that_is_trained_further_keeps_its_tokens(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="--add-chat-tokens"):
        settings_from(from_adapter=tmp_path, add_chat_tokens=True)
