"""A model's weights and sizes as llama.cpp wants them: its names, its order within heads, its number formats."""

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PretrainedConfig, PreTrainedModel

from orpo.command.errors import ExportError

if TYPE_CHECKING:
    import gguf

ARCHITECTURES: Final = {"llama": "llama", "mistral": "llama", "qwen2": "qwen2", "qwen3": "qwen3"}
"""What is exported: transformers' name of an architecture, llama.cpp's name; each is proved by a test in llama.cpp."""

_INTERLEAVED: Final = "llama"
"""llama.cpp turns neighbours of a head in this architecture, and halves in the others, as transformers does in all."""


def architecture_of(model: PreTrainedModel) -> str:
    """Return llama.cpp's name of a model's architecture; ExportError where it is not one that is proved here."""
    config = model.config
    kind = config.model_type
    problem = ""
    if kind not in ARCHITECTURES:
        problem = f"architecture {kind} is not exported to GGUF; {', '.join(ARCHITECTURES)} are"
    elif config.hidden_act != "silu":
        problem = f"activation {config.hidden_act} is not what llama.cpp computes for {kind}"
    elif getattr(config, "use_sliding_window", True) and getattr(config, "sliding_window", None):
        problem = f"a sliding window ({config.sliding_window}) is not exported for {kind}"
    elif (rope := config.rope_parameters.get("rope_type", "default")) not in ("default", "linear", "llama3"):
        problem = f"scaled rotations of the type {rope} are not exported"
    elif config.rope_parameters.get("partial_rotary_factor", 1) != 1:
        problem = "rotations of a part of each head are not exported"
    if problem:
        raise ExportError(f"{problem}; `to` merged makes a folder that llama.cpp's own converter may know")
    return ARCHITECTURES[kind]


def head_size(config: PretrainedConfig) -> int:
    """Return how many numbers each head has."""
    return int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)


def add_sizes(writer: "gguf.GGUFWriter", config: PretrainedConfig) -> None:
    """Write what llama.cpp has to know to lay out the model."""
    import gguf

    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    writer.add_rope_dimension_count(head_size(config))
    writer.add_key_length(head_size(config))
    writer.add_value_length(head_size(config))
    rope = config.rope_parameters
    writer.add_rope_freq_base(rope["rope_theta"])
    if rope.get("rope_type") == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(rope["factor"])


def model_tensors(model: PreTrainedModel) -> Iterator[tuple[str, Tensor]]:
    """Yield (llama.cpp's name, weights in its order) for every weight, shared ones once."""
    names = TensorNames(model)
    seen: set[int] = set()
    for key, weight in model.state_dict().items():
        if weight.data_ptr() not in seen:
            seen.add(weight.data_ptr())
            stem, _, suffix = key.rpartition(".")
            yield f"{names.name_of(stem)}.{suffix}", names.in_order(stem, weight)
    if (factors := _llama3_factors(model.config)) is not None:
        yield "rope_freqs.weight", factors


class TensorNames:
    """llama.cpp's names of a model's layers, and its order of their outputs."""

    def __init__(self, model: PreTrainedModel) -> None:
        """Read the map of names that the package gguf keeps for the architecture."""
        import gguf

        self._config = model.config
        self._architecture = architecture_of(model)
        arch = next(key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == self._architecture)
        self._map = gguf.get_tensor_name_map(arch, model.config.num_hidden_layers)

    def name_of(self, layer: str) -> str:
        """Return the name of a layer such as `model.layers.0.self_attn.q_proj`; ExportError where there is none."""
        name = self._map.get_name(layer)
        if name is None:
            raise ExportError(f"llama.cpp has no name for {layer} in the architecture {self._architecture}")
        return name

    def in_order(self, layer: str, weight: Tensor) -> Tensor:
        """Return a weight [out, ...] with its rows as llama.cpp wants them.

        Rotary embeddings turn pairs. transformers pairs the two halves of a head, row i with row i + d / 2; llama.cpp's
        llama pairs neighbours, so the rows of q and k move there; the scores q k stay the same.
        """
        kind = layer.rpartition(".")[2]
        if self._architecture != _INTERLEAVED or kind not in ("q_proj", "k_proj"):
            return weight
        heads = self._config.num_attention_heads if kind == "q_proj" else self._config.num_key_value_heads
        halves = weight.reshape(heads, 2, weight.shape[0] // heads // 2, *weight.shape[1:])
        return halves.transpose(1, 2).reshape(weight.shape)


def number_format(weight: Tensor, quantization: str) -> "gguf.GGMLQuantizationType":
    """Return the format to keep a weight in: float32 for vectors, as llama.cpp wants them; rows of 32 for q8_0."""
    import gguf

    if weight.dim() == 1 or quantization == "f32":
        return gguf.GGMLQuantizationType.F32
    if quantization == "q8_0" and weight.shape[-1] % 32 == 0:
        return gguf.GGMLQuantizationType.Q8_0
    return gguf.GGMLQuantizationType.F16


def quantize(weight: Tensor, form: "gguf.GGMLQuantizationType", name: str) -> NDArray[np.generic]:
    """Return a weight's numbers in a format; ExportError where one does not fit into it."""
    import gguf

    numbers = weight.detach().float().cpu().contiguous().numpy()
    with np.errstate(over="ignore"):
        kept = gguf.quantize(numbers, form)
    if form == gguf.GGMLQuantizationType.F16 and not np.isfinite(kept).all():
        raise ExportError(
            f"f16: {name} holds numbers above 65504, which it cannot; choose another", setting="quantization"
        )
    return np.asarray(kept)


def _llama3_factors(config: PretrainedConfig) -> Tensor | None:
    """Return by how much each rotation is slowed (Llama 3.1, https://arxiv.org/abs/2407.21783); None where none is.

    Waves longer than the original context over `low_freq_factor` are slowed by `factor`, those shorter than it over
    `high_freq_factor` not at all, and between them the slowing is blended.
    """
    rope = config.rope_parameters
    if rope.get("rope_type") != "llama3":
        return None
    size = head_size(config)
    waves = 2 * math.pi * rope["rope_theta"] ** (torch.arange(0, size, 2, dtype=torch.float64) / size)
    low, high = rope["low_freq_factor"], rope["high_freq_factor"]
    share: Tensor = ((rope["original_max_position_embeddings"] / waves - low) / (high - low)).clamp(0, 1)
    slowing: Tensor = 1 / ((1 - share) / rope["factor"] + share)
    return slowing.float()
