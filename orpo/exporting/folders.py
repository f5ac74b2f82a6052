"""Exports that transformers and PEFT read: the merged model, and the adapter by itself."""

import torch

from orpo.chat_model.adapters import attach_adapter
from orpo.chat_model.loading import load_model, read_tokenizer
from orpo.exporting.checking import CheckResult, require_same_weights
from orpo.exporting.job import Export, dtype_of
from orpo.exporting.merging import merge_adapter
from orpo.exporting.model_folder import write_adapter, write_model


def export_merged(export: Export) -> CheckResult | None:
    """Write the merged model.

    Two things are proved apart: that the merge is right, by the replies in float32, and that the file holds it, bit for
    bit. What rounding to the file's number format changes is then shown.
    """
    settings, folder, exam = export.settings, export.folder, export.exam
    dtype, device = dtype_of(settings, export.source), export.model.device
    before = exam.ask(export.model, export.tokenizer) if exam else []
    merged = merge_adapter(export.model)
    if exam and dtype != torch.float32:
        exam.require_equal(before, exam.ask(merged, export.tokenizer), "the merged model, in float32,")
    write_model(merged, export.tokenizer, folder, dtype)
    if exam is None:
        return None
    require_same_weights(merged, folder)
    del merged
    tokenizer = read_tokenizer(str(folder), "the merged model")
    after = exam.ask(load_model(str(folder), device=device, dtype="float32"), tokenizer)
    if dtype == torch.float32:
        exam.require_equal(before, after, "the merged model")
    return exam.compare(before, after)


def export_adapter(export: Export) -> CheckResult | None:
    """Write the adapter as PEFT reads it, put it on a fresh base model, and ask that."""
    folder, exam, model = export.folder, export.exam, export.source.model
    write_adapter(export.source, export.tokenizer, folder)
    if exam is None:
        return None
    before = exam.ask(export.model, export.tokenizer)
    fresh = load_model(model, device=export.model.device, dtype="float32")
    after = exam.ask(attach_adapter(fresh, folder), read_tokenizer(str(folder), "the adapter"))
    exam.require_equal(before, after, "the copied adapter")
    return exam.compare(before, after)
