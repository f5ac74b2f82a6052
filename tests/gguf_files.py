"""Writes GGUF files of small random models, the way llama.cpp's converter does."""

import json
from pathlib import Path

import gguf
import numpy as np
import torch
from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

SENTENCEPIECE = [
    *("<pad>", "<eos>", "<bos>", "<unk>"),
    *(f"<0x{byte:02X}>" for byte in range(256)),
    *("\u2581", *"abcdefghijklmnopqrstuvwxyz.,!", "he", "ll", "hell", "hello", "\u2581y"),
]
"""A small vocabulary in the way of Gemma's."""

_NORM_PLUS_ONE = {"gemma2", "gemma3"}  # llama.cpp keeps w + 1, which is what these models multiply with


def write_gguf(
    file: Path,
    architecture: str,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase | None,
    *,
    rope_factor: float = 0,
) -> Path:
    """Write a model and its tokenizer in 32-bit floats.

    Args:
        file: Where to.
        architecture: llama.cpp's name of it.
        model: A model of that architecture.
        tokenizer: A byte-level tokenizer; None writes SENTENCEPIECE.
        rope_factor: Llama 3's scaled rotations, if above 0.
    """
    config = model.config
    writer = gguf.GGUFWriter(file, architecture)
    _add_sizes(writer, config)
    if tokenizer is None:
        _add_sentencepiece(writer)
    else:
        _add_tokenizer(writer, tokenizer)
    names = gguf.get_tensor_name_map(_architecture(architecture), config.num_hidden_layers)
    written = set()
    for key, tensor in model.state_dict().items():
        if tensor.data_ptr() in written:
            continue
        written.add(tensor.data_ptr())
        stem, _, suffix = key.rpartition(".")
        name = names.get_name(stem)
        assert name is not None, key
        values = tensor.float().numpy()
        if architecture == "llama" and (".q_proj" in key or ".k_proj" in key):
            values = _interleave(values, config.num_attention_heads if ".q_" in key else config.num_key_value_heads)
        if architecture in _NORM_PLUS_ONE and "norm" in key:
            values = values + 1
        writer.add_tensor(f"{name}.{suffix}", np.ascontiguousarray(values))
    if rope_factor:
        half = config.head_dim // 2
        writer.add_tensor("rope_freqs.weight", np.linspace(1, rope_factor, half, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def _add_sizes(writer: gguf.GGUFWriter, config: PretrainedConfig) -> None:
    writer.add_name("tiny")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    head_size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    writer.add_rope_dimension_count(head_size)
    writer.add_key_length(head_size)
    writer.add_value_length(head_size)
    writer.add_vocab_size(config.vocab_size)
    if theta := (config.rope_parameters or {}).get("rope_theta"):
        writer.add_rope_freq_base(theta)
    if window := getattr(config, "sliding_window", None):
        writer.add_sliding_window(window)


def _add_tokenizer(writer: gguf.GGUFWriter, tokenizer: PreTrainedTokenizerBase) -> None:
    model = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    vocabulary = tokenizer.get_vocab()
    tokens = sorted(vocabulary, key=lambda token: vocabulary[token])
    special = set(tokenizer.all_special_ids) | set(tokenizer.added_tokens_decoder)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_types([3 if vocabulary[token] in special else 1 for token in tokens])
    writer.add_token_merges([" ".join(pair) for pair in model["merges"]])
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_pad_token_id(tokenizer.pad_token_id)
    assert isinstance(tokenizer.chat_template, str)
    writer.add_chat_template(tokenizer.chat_template)


def _add_sentencepiece(writer: gguf.GGUFWriter) -> None:
    """Write a vocabulary as Gemma's is kept: scores and no merges, bytes as tokens of their own."""
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(SENTENCEPIECE)
    writer.add_token_scores([-float(place) for place in range(len(SENTENCEPIECE))])
    writer.add_token_types([3] * 4 + [6] * 256 + [1] * (len(SENTENCEPIECE) - 260))
    writer.add_bos_token_id(2)
    writer.add_eos_token_id(1)
    writer.add_unk_token_id(3)
    writer.add_pad_token_id(0)
    writer.add_chat_template("{{ bos_token }}{% for message in messages %}{{ message['content'] }}{% endfor %}")


def _architecture(name: str) -> "gguf.MODEL_ARCH":
    return next((key for key, value in gguf.MODEL_ARCH_NAMES.items() if value == name), gguf.MODEL_ARCH.LLAMA)


def _interleave(weights: np.ndarray, heads: int) -> np.ndarray:
    """Put the two halves of each head's rotation beside each other, as llama.cpp wants them."""
    halves = weights.reshape(heads, 2, weights.shape[0] // heads // 2, *weights.shape[1:])
    return halves.swapaxes(1, 2).reshape(weights.shape)


def in_bfloat16(model: PreTrainedModel) -> PreTrainedModel:
    """Round the weights as the conversion will, so that both models can be equal."""
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(weight.bfloat16())
    return model
