"""Exports for llama.cpp and what is built on it: a whole model, a model and an adapter, an Ollama model."""

from pathlib import Path
from typing import cast

from transformers import PreTrainedModel

from orpo.command.output_folder import write_whole
from orpo.exporting.checking import CheckResult
from orpo.exporting.gguf_check import ask_before, check_in_llama_cpp
from orpo.exporting.gguf_files import write_gguf_adapter, write_gguf_model
from orpo.exporting.job import Export
from orpo.exporting.merging import merge_adapter
from orpo.exporting.ollama import MODELFILE, make_modelfile


def export_gguf(export: Export) -> CheckResult | None:
    """Write the merged model as one GGUF file."""
    return _write_merged(export)[1]


def export_ollama(export: Export) -> CheckResult | None:
    """Write the merged model as one GGUF file, and a Modelfile that names it."""
    file, check = _write_merged(export)
    text = make_modelfile(file.name, export.tokenizer, _name(export))
    write_whole(export.folder / MODELFILE, text)
    return check


def export_gguf_adapter(export: Export) -> CheckResult | None:
    """Write the base model and the adapter as two GGUF files, which llama.cpp puts together."""
    quantization, name = export.settings.quantization, _name(export)
    base_name = Path(export.source.model).stem
    base, adapter = (export.folder / f"{base_name}-{quantization}.gguf", export.folder / f"{name}-adapter.gguf")
    before = ask_before(export.exam, export.model, export.tokenizer) if export.exam else None
    write_gguf_adapter(adapter, name, export.model)
    model = cast(PreTrainedModel, export.model.unload())
    write_gguf_model(base, base_name, model, export.tokenizer, quantization)
    return check_in_llama_cpp(export, before, base, adapter) if before else None


def _write_merged(export: Export) -> tuple[Path, CheckResult | None]:
    quantization, name = export.settings.quantization, _name(export)
    before = ask_before(export.exam, export.model, export.tokenizer) if export.exam else None
    file = export.folder / f"{name}-{quantization}.gguf"
    write_gguf_model(file, name, merge_adapter(export.model), export.tokenizer, quantization)
    return file, check_in_llama_cpp(export, before, file) if before else None


def _name(export: Export) -> str:
    return export.source.adapter.name
