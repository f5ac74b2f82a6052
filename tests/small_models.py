"""Real models and tokenizers made in the test process, for all rooms: none is ever downloaded.

A byte-level tokenizer in which every emoji is several tokens, a small Llama, one that knows replies by heart, adapters,
and models of the usual architectures with random weights.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from tokenizers.processors import TemplateProcessing
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from orpo.chat_model.chat_template import encode_prompt, encode_text
from orpo.chat_model.loading import load_model, prepare_tokenizer
from orpo.records.messages import user_message

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
WITH_BOS = "{{ bos_token }}" + CHATML

# What the tokenizer below cuts to pieces: a joined family, a flag, skin tones, a keycap, a variation selector.
MEMORISED = {
    "family": "All of us 👨‍👩‍👧‍👦 came along!",
    "flag": "Greetings 🇫🇷🇯🇵 from there",
    "hands": "Well done 👍🏽👏🏿",
    "keycap": "Number 1️⃣ of 10",
    "heart": "With love ❤️‍🔥❤️ always",
}


def make_tokenizer(template: str = CHATML, *, adds_bos: bool = False) -> PreTrainedTokenizerBase:
    """Make a ChatML tokenizer, ready to use; `adds_bos` has it write BOS by itself, as Llama's does."""
    specials = ("<|pad|>", "<|im_start|>", "<|im_end|>", "<|bos|>")
    text = ["user assistant system hello how are you today the and is good news thank you"]
    roles = {
        "pad_token": "<|pad|>",
        "eos_token": "<|im_end|>",
        "bos_token": "<|bos|>" if adds_bos else None,
        "additional_special_tokens": ["<|im_start|>"],
    }
    tokenizer = make_chat_tokenizer(template, specials, text, **roles)
    if adds_bos:
        backend: Any = tokenizer.backend_tokenizer
        backend.post_processor = TemplateProcessing(single="<|bos|> $A", special_tokens=[("<|bos|>", 3)])
    return prepare_tokenizer(tokenizer, "tiny")


def make_model(vocabulary: int, *, seed: int = 0, spread: float = 0.3, hidden: int = 32) -> PreTrainedModel:
    """Make a Llama with random weights; `spread` makes its distributions far from flat."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        initializer_range=spread,
        bos_token_id=None,
        eos_token_id=2,
        pad_token_id=0,
    )
    return LlamaForCausalLM(config).eval()


def supervised_batch(rows: Sequence[tuple[list[int], list[int]]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return ids and labels, both (rows, longest), of prompts with the replies to learn."""
    longest = max(len(prompt) + len(reply) for prompt, reply in rows)
    ids = torch.zeros(len(rows), longest, dtype=torch.long)
    labels = torch.full_like(ids, -100)
    for index, (prompt, reply) in enumerate(rows):
        ids[index, : len(prompt) + len(reply)] = torch.tensor(prompt + reply)
        labels[index, len(prompt) : len(prompt) + len(reply)] = torch.tensor(reply)
    return ids, labels


def make_memorised(tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    """Train a model until it gives MEMORISED by heart."""
    model = make_model(len(tokenizer), spread=0.05, hidden=64).train()
    rows: list[tuple[list[int], list[int]]] = []
    for question, answer in MEMORISED.items():
        start = encode_prompt(tokenizer, user_message(question))
        rows.append((start, [*encode_text(tokenizer, answer), tokenizer.eos_token_id]))
    ids, labels = supervised_batch(rows)
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.0)
    for _ in range(200):
        loss = model(input_ids=ids, labels=labels).loss
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        if loss.item() < 0.01:
            break
    assert loss.item() < 0.05
    return model.eval()


def save_model(folder: Path, *, seed: int = 0) -> Path:
    """Write a random model and its tokenizer as a folder that can be loaded."""
    tokenizer = make_tokenizer()
    make_model(len(tokenizer), seed=seed).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def add_adapter(model: PreTrainedModel, *, seed: int = 1, scale: float = 0.2) -> Any:
    """Put a LoRA adapter that changes the model on it."""
    torch.manual_seed(seed)
    tuned = get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj", "v_proj", "down_proj"]))
    with torch.no_grad():
        for name, weight in tuned.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=scale)
    return tuned.eval()


def save_adapter(folder: Path, model_folder: Path) -> Path:
    """Write an adapter for a saved model, as a finished training run."""
    tuned = add_adapter(load_model(str(model_folder), device="cpu", dtype="float32"))
    tuned.save_pretrained(folder)
    record = {"command": "train", "finished": "2026-01-01T00:00:00+00:00"}
    (folder / "run.json").write_text(json.dumps(record), encoding="utf-8")
    return folder


VOCABULARY = 97
"""Of the models that `make_shape` makes."""

_SMALL = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "initializer_range": 0.3,  # large, so that a wrong mask shows
}

SHAPES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama_untied": ("llama", {"tie_word_embeddings": False}),
    "smollm2_tied": ("llama", {"tie_word_embeddings": True, "num_key_value_heads": 1}),
    "llama_with_biases": ("llama", {"attention_bias": True, "mlp_bias": True}),
    "qwen2": ("qwen2", {"tie_word_embeddings": True}),
    "qwen2_sliding": ("qwen2", {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1}),
    "qwen3": ("qwen3", {"head_dim": 16}),
    "mistral_sliding": ("mistral", {"sliding_window": 6}),
    "gemma": ("gemma", {"head_dim": 16}),
    "gemma2_softcap": (
        "gemma2",
        {"head_dim": 16, "sliding_window": 5, "final_logit_softcapping": 3.0, "attn_logit_softcapping": 5.0},
    ),
    "phi": ("phi", {"partial_rotary_factor": 0.5}),
    "phi3_sliding": ("phi3", {"sliding_window": 7}),
    "granite_scaled": ("granite", {"logits_scaling": 4.0, "embedding_multiplier": 2.0}),
}


def make_shape(shape: str, seed: int = 0) -> PreTrainedModel:
    """Make a model of one of the usual architectures with random weights, biases and norms."""
    kind, changes = SHAPES[shape]
    torch.manual_seed(seed)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **{**_SMALL, **changes}))
    with torch.no_grad():
        for parameter in model.parameters():  # biases and norms start as zeros and ones: make them matter
            if parameter.dim() == 1:
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def with_lora(model: Any, seed: int = 0, **settings: Any) -> Any:
    """Put a LoRA adapter with random weights on a model (B = 0, as it starts, would hide half of the gradients)."""
    settings = {"target_modules": "all-linear", "r": 4, "lora_alpha": 8, "lora_dropout": 0.0, **settings}
    torch.manual_seed(seed)
    peft_model = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **settings))
    with torch.no_grad():
        for name, parameter in peft_model.named_parameters():
            if "lora_" in name:
                parameter.copy_(0.2 * torch.randn_like(parameter))
    return peft_model


def make_word_tokenizer() -> PreTrainedTokenizerBase:
    """A tokenizer of whole words, made here; only its special ids matter to the trainers."""
    words = {word: i for i, word in enumerate(["<pad>", "<s>", "</s>", *(f"w{i}" for i in range(VOCABULARY - 3))])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<pad>"
    )


TOPICS = ("the exam", "my garden", "a new job", "rainy days", "the train", "our cat", "a cake", "the sea", "a song")


def make_chat_tokenizer(
    template: str = CHATML,
    special: tuple[str, ...] = ("<|pad|>", "<|im_start|>", "<|im_end|>"),
    texts: Sequence[str] = (),
    **roles: Any,
) -> PreTrainedTokenizerBase:
    """A byte-level tokenizer of 300 entries with a chat template."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=list(special), initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts or [f"Tell me about {topic} please." for topic in TOPICS], trainer)
    roles = roles or {
        "pad_token": "<|pad|>",
        "eos_token": "<|im_end|>",
        "additional_special_tokens": ["<|im_start|>"],
    }
    made = PreTrainedTokenizerFast(tokenizer_object=tokenizer, padding_side="left", **roles)
    made.chat_template = template
    return made


def save_chat_model(folder: Path) -> Path:
    """Save a random Llama of two layers with its ChatML tokenizer."""
    tokenizer = make_chat_tokenizer()
    sizes = {**_SMALL, "vocab_size": 304, "intermediate_size": 64, "max_position_embeddings": 512}
    ids = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id, "bos_token_id": None}
    sizes.pop("initializer_range")
    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig(**{**sizes, **ids}, tie_word_embeddings=True)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
