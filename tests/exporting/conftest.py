"""Small real models with a context long enough for every held-out prompt, and adapters trained to say something."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from orpo.chat_model.loading import load_model
from tests import small_models

CONTEXT = 2048


@pytest.fixture(autouse=True)
def own_cache(orpo_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORPO_CACHE", str(orpo_home / "cache"))


def save_llama(folder: Path, *, tied: bool = False, seed: int = 0, dtype: torch.dtype = torch.float32) -> Path:
    """Write a random Llama, whose next tokens are far from equally likely, and its tokenizer."""
    tokenizer = small_models.make_tokenizer()
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=CONTEXT,
        initializer_range=0.2,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        tie_word_embeddings=tied,
    )
    model = LlamaForCausalLM(config)
    model.to(dtype)  # type: ignore[arg-type]
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def save_adapter(folder: Path, model: Path, **settings: object) -> Path:
    """Write an adapter with random weights for a saved model, as a finished training run."""
    base = load_model(str(model), device="cpu", dtype="float32")
    tuned = small_models.with_lora(base, seed=1, **settings)
    tuned.save_pretrained(folder)
    small_models.make_tokenizer().save_pretrained(folder)
    record = {"command": "train", "finished": "2026-01-01T00:00:00+00:00"}
    (folder / "run.json").write_text(json.dumps(record), encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_llama(tmp_path_factory.mktemp("models") / "llama")


@pytest.fixture(scope="session")
def adapter(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_adapter(tmp_path_factory.mktemp("adapters") / "tuned", base)


@pytest.fixture
def tokenizer() -> Any:
    return small_models.make_tokenizer()
