"""A chat model that is made in the test process: a tokenizer of 300 entries, two random layers, ChatML."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orpo.records.messages import user_message
from orpo.records.pairs import PreferencePair
from tests.small_models import TOPICS, make_chat_tokenizer, save_chat_model


@pytest.fixture(scope="session")
def make_tokenizer() -> Callable[..., Any]:
    """Return a function that makes a byte-level tokenizer with the given template and special tokens."""
    return make_chat_tokenizer


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    """Return a ChatML tokenizer."""
    return make_chat_tokenizer()


@pytest.fixture(scope="session")
def tiny_model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a random Llama of two layers and its tokenizer."""
    return save_chat_model(tmp_path_factory.mktemp("tiny") / "model")


def make_pair(question: str, chosen: str, rejected: str) -> PreferencePair:
    """Return a preference pair as conversations."""
    sides = [[{"role": "assistant", "content": text}] for text in (chosen, rejected)]
    return PreferencePair(user_message(question), sides[0], sides[1])


@pytest.fixture(scope="session")
def pair() -> Callable[[str, str, str], PreferencePair]:
    """Return the function that makes a preference pair."""
    return make_pair


@pytest.fixture
def rows() -> list[PreferencePair]:
    """Return 18 pairs on nine prompts, of different lengths."""
    return [
        make_pair(f"Tell me about {topic} please.", f"{opening} {topic} 🎉", f"{opening} {topic} and more of it")
        for topic in TOPICS
        for opening in ("I like", "Here is all that I know of")
    ]


@pytest.fixture
def pairs_file(rows: list[PreferencePair], tmp_path: Path) -> Path:
    """Return a JSONL file of the pairs."""
    file = tmp_path / "pairs.jsonl"
    file.write_text("".join(json.dumps(row.as_row()) + "\n" for row in rows), encoding="utf-8")
    return file
