"""Real models made in the test process: a byte-level tokenizer, a small Llama, one that knows replies by heart.

Loaded by path, because the tests are no package.
"""

import json
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from orpo.chat_model.chat_template import encode_prompt, encode_text
from orpo.chat_model.loading import prepare_tokenizer
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


def make_tokenizer(template: str = CHATML, *, adds_bos: bool = False) -> Any:
    """Train a tokenizer so small that every emoji is several tokens."""
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    specials = ["<|pad|>", "<|im_start|>", "<|im_end|>", "<|bos|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=specials,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    raw.train_from_iterator(["user assistant system hello how are you today the and is good news thank you"], trainer)
    if adds_bos:
        from tokenizers.processors import TemplateProcessing

        raw.post_processor = TemplateProcessing(single="<|bos|> $A", special_tokens=[("<|bos|>", 3)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw, pad_token="<|pad|>", eos_token="<|im_end|>", bos_token="<|bos|>" if adds_bos else None
    )
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>"]})
    tokenizer.chat_template = template
    return prepare_tokenizer(tokenizer, "tiny")


def make_model(vocabulary: int, *, seed: int = 0, spread: float = 0.3, hidden: int = 32) -> Any:
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


def make_memorised(tokenizer: Any) -> Any:
    """Train a model until it gives MEMORISED by heart."""
    model = make_model(len(tokenizer), spread=0.05, hidden=64).train()
    rows = []
    for prompt, reply in MEMORISED.items():
        start = encode_prompt(tokenizer, user_message(prompt))
        rows.append((start, [*encode_text(tokenizer, reply), tokenizer.eos_token_id]))
    longest = max(len(prompt) + len(reply) for prompt, reply in rows)
    ids = torch.zeros(len(rows), longest, dtype=torch.long)
    labels = torch.full_like(ids, -100)
    for index, (prompt, reply) in enumerate(rows):
        ids[index, : len(prompt) + len(reply)] = torch.tensor(prompt + reply)
        labels[index, len(prompt) : len(prompt) + len(reply)] = torch.tensor(reply)
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


def add_adapter(model: Any, *, seed: int = 1, scale: float = 0.2) -> Any:
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
    from orpo.chat_model.loading import load_model

    tuned = add_adapter(load_model(str(model_folder), device="cpu", dtype="float32"))
    tuned.save_pretrained(folder)
    record = {"command": "train", "finished": "2026-01-01T00:00:00+00:00"}
    (folder / "run.json").write_text(json.dumps(record), encoding="utf-8")
    return folder
