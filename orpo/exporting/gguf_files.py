"""GGUF files: a whole model, or a LoRA adapter that llama.cpp adds to one; through the package gguf's own writer."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from orpo.chat_model.head import causal_model_of
from orpo.command.errors import ExportError
from orpo.exporting.gguf_tensors import (
    TensorNames,
    add_sizes,
    architecture_of,
    model_tensors,
    number_format,
    quantize,
)
from orpo.exporting.gguf_tokenizer import add_tokenizer

if TYPE_CHECKING:
    import gguf
    from peft import PeftModel

_FILE_TYPES: Final = {"f32": "ALL_F32", "f16": "MOSTLY_F16", "q8_0": "MOSTLY_Q8_0"}


def write_gguf_model(
    file: Path, name: str, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, quantization: str
) -> None:
    """Write a model with its tokenizer and template; weights are taken one at a time.

    Raises:
        ExportError: An architecture, a tokenizer or a number that is not exported; nothing is written then.
    """
    import gguf

    writer = gguf.GGUFWriter(file, architecture_of(model))
    writer.add_type(gguf.GGUFType.MODEL)
    writer.add_name(name)
    writer.add_file_type(gguf.LlamaFileType[_FILE_TYPES[quantization]])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    add_sizes(writer, model.config)
    add_tokenizer(writer, tokenizer, model.config.vocab_size)
    _write(writer, list(model_tensors(model)), quantization)


def write_gguf_adapter(file: Path, name: str, tuned: "PeftModel") -> None:
    """Write a LoRA adapter as llama.cpp reads it: `NAME.lora_a` [r, in], `NAME.lora_b` [out, r], alpha.

    llama.cpp adds alpha / r times B A, with one alpha for all and r from the shape of B. Where PEFT scales otherwise (a
    rank or alpha of its own for some layers, rank-stabilised LoRA), the difference is put into B.

    Raises:
        ExportError: The adapter changes what llama.cpp cannot: embeddings, whole layers, magnitudes, biases.
    """
    import gguf

    base = causal_model_of(tuned)
    names, tensors = TensorNames(base), []
    alpha = float(tuned.peft_config["default"].lora_alpha)  # type: ignore[attr-defined]
    for layer, (a, b, scaling) in _lora_parts(tuned).items():
        b = b * (scaling * b.shape[1] / alpha)
        tensors += [
            (f"{names.name_of(layer)}.weight.lora_a", a),
            (f"{names.name_of(layer)}.weight.lora_b", names.in_order(layer, b)),
        ]
    writer = gguf.GGUFWriter(file, architecture_of(base))
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_name(name)
    writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
    writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, alpha)
    _write(writer, tensors, "f32")


def _write(writer: "gguf.GGUFWriter", tensors: Sequence[tuple[str, Tensor]], quantization: str) -> None:
    import gguf

    formats = [number_format(weight, quantization) for _, weight in tensors]
    for (name, weight), form in zip(tensors, formats, strict=True):
        block, size = gguf.GGML_QUANT_SIZES[form]
        count = weight.numel() // block * size
        empty = quantize(weight.flatten()[:block], form, name)  # tells the dtype that the numbers will have
        shape = gguf.quant_shape_to_byte_shape(weight.shape, form) if empty.dtype == "uint8" else tuple(weight.shape)
        writer.add_tensor_info(name, shape, empty.dtype, count, raw_dtype=form)
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for (name, weight), form in zip(tensors, formats, strict=True):
            writer.write_tensor_data(quantize(weight, form, name))
    finally:
        writer.close()


def _lora_parts(tuned: "PeftModel") -> dict[str, tuple[Tensor, Tensor, float]]:
    """Return (A, B, scaling) of each layer that the adapter changes."""
    from peft.tuners.lora import Linear as LoraLinear
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils import ModulesToSaveWrapper

    parts = {}
    for name, module in causal_model_of(tuned).named_modules():
        if isinstance(module, ModulesToSaveWrapper):
            raise _refused(name, "is trained whole")
        if not isinstance(module, BaseTunerLayer):
            continue
        if not isinstance(module, LoraLinear) or name.rpartition(".")[2] == "lm_head":
            raise _refused(name, "is no linear layer of a block")
        if module.lora_variant or module.lora_bias.get("default"):
            raise _refused(name, "has more than A and B (DoRA, biases)")
        a, b = (cast(Tensor, part["default"].weight) for part in (module.lora_A, module.lora_B))
        parts[name] = (a.detach(), b.detach(), float(module.scaling["default"]))
    return parts


def _refused(layer: str, reason: str) -> ExportError:
    return ExportError(f"{layer} {reason}, which llama.cpp takes in no adapter; `to` gguf puts it into the weights")
