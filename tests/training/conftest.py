"""A chat model that is made in the test process: a tokenizer of 300 entries, two random layers, ChatML."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orpo.records.messages import user_message
from orpo.records.pairs import PreferencePair

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
TOPICS = ("the exam", "my garden", "a new job", "rainy days", "the train", "our cat", "a cake", "the sea", "a song")


@pytest.fixture(scope="session")
def make_tokenizer() -> Callable[..., Any]:
    """Return a function that makes a byte-level tokenizer with the given template and special tokens."""

    def make(
        template: str = CHATML, special: tuple[str, ...] = ("<|pad|>", "<|im_start|>", "<|im_end|>"), **roles: str
    ) -> Any:
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
        from transformers import PreTrainedTokenizerFast

        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(
            vocab_size=300, special_tokens=list(special), initial_alphabet=alphabet, show_progress=False
        )
        tokenizer.train_from_iterator([f"Tell me about {topic} please." for topic in TOPICS], trainer)
        roles = roles or {
            "pad_token": "<|pad|>",
            "eos_token": "<|im_end|>",
            "additional_special_tokens": ["<|im_start|>"],
        }
        made = PreTrainedTokenizerFast(tokenizer_object=tokenizer, padding_side="left", **roles)
        made.chat_template = template
        return made

    return make


@pytest.fixture(scope="session")
def tokenizer(make_tokenizer: Callable[..., Any]) -> Any:
    """Return a ChatML tokenizer."""
    return make_tokenizer()


@pytest.fixture(scope="session")
def tiny_model_folder(tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a random Llama of two layers and its tokenizer."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=304,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
    )
    folder = tmp_path_factory.mktemp("tiny") / "model"
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def make_pair(question: str, chosen: str, rejected: str) -> PreferencePair:
    """Return a preference pair as conversations."""
    replies = ([{"role": "assistant", "content": text}] for text in (chosen, rejected))
    return PreferencePair(user_message(question), *replies)


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
