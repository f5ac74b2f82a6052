"""GGUF exports, run in a real llama.cpp: the same tokens, the same model, and one line for what is not exported."""

import json
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from orpo.chat_model.chat_template import PLAIN_TEMPLATE, encode_prompt
from orpo.chat_model.loading import prepare_tokenizer, read_tokenizer
from orpo.command.errors import ExportError, SettingsError
from orpo.export import main
from orpo.exporting import gguf_tensors, gguf_tokenizer, llama_cpp
from orpo.exporting.gguf_files import write_gguf_model
from orpo.records.messages import user_message
from tests import small_models
from tests.exporting.conftest import CONTEXT, save_adapter

SHORT = ["--device", "cpu", "--check-prompts", "3", "--check-tokens", "6"]
SIZES = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": CONTEXT,
    "initializer_range": 0.2,
    "bos_token_id": None,
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
SHAPES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {}),
    "llama_tied": ("llama", {"tie_word_embeddings": True}),
    "llama_wide_heads": ("llama", {"head_dim": 32}),
    "llama3_rope": ("llama", {"rope_parameters": LLAMA3}),
    "llama_linear_rope": ("llama", {"rope_parameters": {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0}}),
    "mistral": ("mistral", {"sliding_window": None}),
    "qwen2": ("qwen2", {"use_sliding_window": False, "tie_word_embeddings": True}),
    "qwen3": ("qwen3", {"head_dim": 32, "use_sliding_window": False}),
}


def save_shape(folder: Path, shape: str) -> Path:
    """Write a random model of an architecture, with norms and biases that matter."""
    kind, further = SHAPES[shape]
    tokenizer = small_models.make_tokenizer()
    ids = {"vocab_size": len(tokenizer), "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **{**SIZES, **ids, **further}))
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() == 1:
                weight.add_(0.3 * torch.randn_like(weight))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def field(file: Path, key: str) -> Any:
    found = gguf.GGUFReader(file).get_field(key)
    return None if found is None else found.contents()


def gguf_file(folder: Path) -> Path:
    return next(folder.glob("*.gguf"))


def metrics(folder: Path) -> dict[str, float]:
    found: dict[str, float] = json.loads((folder / "run.json").read_text(encoding="utf-8"))["metrics"]
    return found


@pytest.mark.parametrize("shape", SHAPES)
def test_llama_cpp_computes_the_same_model(shape: str, tmp_path: Path) -> None:
    """Prompts of 60 tokens and more, so that rotations which are wrong by a little show."""
    adapter = save_adapter(tmp_path / "tuned", save_shape(tmp_path / "base", shape))
    out = ["--out", str(tmp_path / "out"), "--quantization", "f32"]
    assert main(["--to", "gguf", "--adapter", str(adapter), *out, *SHORT]) == 0
    found = metrics(tmp_path / "out")
    assert found["equal_prompt_ids"] == found["equal_replies"] == found["prompts"] == 3
    assert abs(found["divergence"]) < 1e-5
    assert (tmp_path / "out" / "tuned-f32.gguf").is_file()


@pytest.mark.parametrize("quantization", ["f16", "q8_0"])
def test_fewer_bits_are_near_and_their_difference_is_shown(
    quantization: str, adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ["--out", str(tmp_path / "out"), "--quantization", quantization]
    assert main(["--to", "gguf", "--adapter", str(adapter), *out, *SHORT]) == 0
    shown = capsys.readouterr().out
    assert "prompts with the same token ids" in shown and "nats" in shown and "replies with an emoji" in shown
    kinds = {tensor.name: tensor.tensor_type.name for tensor in gguf.GGUFReader(gguf_file(tmp_path / "out")).tensors}
    assert kinds["blk.0.attn_q.weight"] == quantization.upper() and kinds["blk.0.attn_norm.weight"] == "F32"


def test_an_adapter_beside_its_base_computes_the_same_model(adapter: Path, tmp_path: Path) -> None:
    out = ["--out", str(tmp_path / "out"), "--quantization", "f32"]
    assert main(["--to", "gguf-adapter", "--adapter", str(adapter), *out, *SHORT]) == 0
    found = metrics(tmp_path / "out")
    assert found["equal_replies"] == 3 and abs(found["divergence"]) < 1e-5
    file = tmp_path / "out" / "tuned-adapter.gguf"
    assert field(file, "general.type") == "adapter" and field(file, "adapter.lora.alpha") == 8
    assert (tmp_path / "out" / "llama-f32.gguf").is_file()
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "--model llama-f32.gguf --lora tuned-adapter.gguf" in card


def test_a_scale_of_a_layers_own_is_kept_in_an_adapter(base: Path, tmp_path: Path) -> None:
    """llama.cpp knows one alpha and takes each layer's rank from its shape; PEFT has patterns and another root."""
    settings = {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"down_proj": 3}, "use_rslora": True}
    adapter = save_adapter(tmp_path / "own", base, **settings)
    out = ["--out", str(tmp_path / "out"), "--quantization", "f32"]
    assert main(["--to", "gguf-adapter", "--adapter", str(adapter), *out, *SHORT]) == 0
    assert abs(metrics(tmp_path / "out")["divergence"]) < 1e-5


def test_template_and_end_tokens_are_carried_over(adapter: Path, tmp_path: Path) -> None:
    out = ["--out", str(tmp_path / "out"), "--no-check", "--device", "cpu"]
    assert main(["--to", "gguf", "--adapter", str(adapter), *out]) == 0
    file, tokenizer = gguf_file(tmp_path / "out"), read_tokenizer(str(adapter), "tuned")
    assert field(file, "tokenizer.chat_template") == tokenizer.chat_template
    assert field(file, "tokenizer.ggml.eos_token_id") == field(file, "tokenizer.ggml.eot_token_id") == 2
    kinds = field(file, "tokenizer.ggml.token_type")
    assert [kinds[number] for number in (0, 1, 2, 3)] == [gguf.TokenType.CONTROL] * 4
    assert field(file, "tokenizer.ggml.tokens")[2] == "<|im_end|>"


def test_a_wrong_file_is_not_kept(adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Heads left in transformers' order answer fluently enough to pass unnoticed; the first tokens tell."""
    monkeypatch.setattr(gguf_tensors, "_INTERLEAVED", "none")
    with pytest.raises(ExportError, match=r"nats away from the tuned model's.*nothing is kept"):
        main(["--to", "gguf", "--adapter", str(adapter), "--out", str(tmp_path / "out" / "it"), *SHORT])
    assert not list((tmp_path / "out").glob("it*"))


def test_a_prompt_that_is_read_as_other_tokens_is_not_kept(
    adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A BOS that llama.cpp puts before what the template wrote is one token more."""
    monkeypatch.setattr(gguf_tokenizer, "_adds_bos", lambda _: True)
    with pytest.raises(ExportError, match=r"as other tokens: .* here, .* there, at token 0; nothing is kept"):
        main(["--to", "gguf", "--adapter", str(adapter), "--out", str(tmp_path / "out" / "it"), *SHORT])
    assert not list((tmp_path / "out").glob("it*"))


WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+"
SIGNS = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def split(numbers: str) -> Any:
    cut = pre_tokenizers.Split(Regex(WORDS + numbers + SIGNS), "isolated")
    return pre_tokenizers.Sequence([cut, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


WAYS = {
    "gpt-2": lambda: pre_tokenizers.ByteLevel(add_prefix_space=False),
    "smollm": lambda: pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    ),
    "qwen2": lambda: split(r"|\p{N}"),
    "llama-bpe": lambda: split(r"|\p{N}{1,3}"),
}
TEXTS = [
    "It's 2024, we'LL pay 1234567 or 12.50!",
    "One\n\n  two\r\n\tthree   four ",
    "(yes) #1 -- a_b, 'don't'...",
    "Grüße 👨‍👩‍👧‍👦👍🏽 naïve 東京 ١٢٣٤",
]


@pytest.mark.parametrize("way", WAYS)
def test_text_is_cut_as_each_family_of_models_cuts_it(way: str, tmp_path: Path) -> None:
    """Merges across every border that some family draws, so that a border which is missed shows in the tokens."""
    backend = Tokenizer(models.BPE(ignore_merges=way == "llama-bpe"))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)  # merges across all
    specials, alphabet = ["<|pad|>", "<|im_start|>", "<|im_end|>"], pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=420, special_tokens=specials, initial_alphabet=alphabet, show_progress=False, max_token_length=6
    )
    backend.train_from_iterator([text for text in TEXTS for _ in range(3)], trainer)
    backend.pre_tokenizer = WAYS[way]()
    backend.decoder = decoders.ByteLevel()
    made = PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<|pad|>", eos_token="<|im_end|>", extra_special_tokens=["<|im_start|>"]
    )
    made.chat_template = small_models.CHATML
    tokenizer = prepare_tokenizer(made, "made")
    model = small_models.make_model(len(tokenizer))
    write_gguf_model(tmp_path / "it.gguf", "it", model, tokenizer, "f16")
    assert field(tmp_path / "it.gguf", "tokenizer.ggml.pre") == way
    with llama_cpp.LlamaCpp(tmp_path / "it.gguf", None, context=64, threads=1) as running:
        for text in TEXTS:
            ours, theirs = encode_prompt(tokenizer, user_message(text)), running.prompt_ids(user_message(text))
            assert theirs == ours, text


def test_a_tokenizer_of_another_kind_is_refused(tokenizer: Any) -> None:
    writer = gguf.GGUFWriter(None, "llama")
    with pytest.raises(ExportError, match="byte-level BPE that cuts text as GPT-2"):
        gguf_tokenizer.add_tokenizer(writer, small_models.make_word_tokenizer(), small_models.VOCABULARY)
    tokenizer.chat_template = PLAIN_TEMPLATE
    with pytest.raises(ExportError, match="has no chat template"):
        gguf_tokenizer.add_tokenizer(writer, tokenizer, len(tokenizer))


def test_what_is_not_exported_is_one_line(tmp_path: Path, base: Path) -> None:
    phi = small_models.make_shape("phi3_sliding")
    with pytest.raises(ExportError, match=r"architecture phi3 is not exported to GGUF; llama, mistral"):
        gguf_tensors.architecture_of(phi)
    sliding = small_models.make_shape("mistral_sliding")
    with pytest.raises(ExportError, match=r"a sliding window \(6\)"):
        gguf_tensors.architecture_of(sliding)
    whole = save_adapter(tmp_path / "whole", base, target_modules=["q_proj"], modules_to_save=["lm_head"])
    with pytest.raises(ExportError, match=r"lm_head is trained whole, which llama\.cpp takes in no adapter"):
        main(["--to", "gguf-adapter", "--adapter", str(whole), "--out", str(tmp_path / "out"), *SHORT])
    big = torch.full((4, 4), 1e5)
    with pytest.raises(ExportError, match="above 65504"):
        gguf_tensors.quantize(big, gguf.GGMLQuantizationType.F16, "blk.0.attn_q")


def test_llama_cpps_own_words_are_told(tmp_path: Path) -> None:
    file = tmp_path / "no.gguf"
    file.write_bytes(b"junk of some length")
    with pytest.raises(ExportError, match=r"does not load what was exported \(.*magic.*\)"):
        llama_cpp.LlamaCpp(file, None, context=64, threads=1)


def test_without_llama_cpp_the_remedy_is_named(adapter: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llama_cpp, "find_spec", lambda _: None)
    with pytest.raises(SettingsError, match=r"uv sync --extra gguf.*or switch the check off"):
        main(["--to", "gguf", "--adapter", str(adapter), *SHORT])
