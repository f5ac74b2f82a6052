"""From the settings of `export` to a folder that other programs read, once it has answered as it should."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from orpo.chat_model.adapters import load_with_adapter
from orpo.chat_model.options import resolve_device
from orpo.command.display import console_err, progress_bar
from orpo.command.output_folder import check_output_folder, new_folder
from orpo.command.paths import default_export_folder, resolve_user_path
from orpo.command.run_record import RunRecord
from orpo.exporting.card import write_card
from orpo.exporting.checking import CheckResult, Examination
from orpo.exporting.folders import export_adapter, export_merged
from orpo.exporting.gguf_exports import export_gguf, export_gguf_adapter, export_ollama
from orpo.exporting.hub import Destination, find_destination, upload
from orpo.exporting.job import Export, dtype_of
from orpo.exporting.llama_cpp import require_llama_cpp
from orpo.exporting.model_folder import check_room, weight_count
from orpo.exporting.settings import GGUF_FORMATS, ExportSettings
from orpo.exporting.source import Source, find_source

if TYPE_CHECKING:
    from peft import PeftModel


@dataclass(frozen=True)
class ExportResult:
    """What was exported.

    Attributes:
        folder: Where it is.
        check: What the check found; None where it was switched off.
        files: The files in the folder, by name, with their size in bytes.
        address: Where it was uploaded to; None where it was not.
    """

    folder: Path
    check: CheckResult | None
    files: dict[str, int]
    address: str | None = None


def run_export(settings: ExportSettings) -> ExportResult:
    """Check what can be checked, write, and ask before and after; the folder appears when the answers are right."""
    record = RunRecord("export", settings)
    device = resolve_device(settings.device)
    if settings.check and settings.to in GGUF_FORMATS:
        require_llama_cpp()
    to = find_destination(settings.push, public=settings.public, yes=settings.yes) if settings.push else None
    source = find_source(settings.adapter, settings.model)
    out = settings.out or default_export_folder() / f"{source.adapter.name}-{settings.to}"
    folder = check_output_folder(resolve_user_path(out), overwrite=settings.overwrite)
    console_err.print(f"loading {source.model} with {source.adapter}", soft_wrap=True)
    model, tokenizer = load_with_adapter(source.model, source.adapter, device=device, dtype="float32")
    check_room(folder, _bytes_needed(settings, source, model))
    write, passes = _WRITERS[settings.to]
    replies = passes * settings.check_prompts if settings.check else 0
    with new_folder(folder, overwrite=settings.overwrite) as written, progress_bar("checking", replies) as advance:
        exam = Examination(settings.check_prompts, settings.check_tokens, advance) if settings.check else None
        check = write(Export(settings, source, model, tokenizer, written, exam))
        record.device = str(device)
        record.metrics = check.as_dict() if check else {}
        record.facts = {
            "model": source.model,
            "adapter": str(source.adapter),
            "adapter_sha256": source.adapter_sha256,
            "checked": check is not None,
        }
        write_card(written, settings, source, check)
        record.write(written)
    files = {str(file.relative_to(folder)): file.stat().st_size for file in sorted(folder.rglob("*")) if file.is_file()}
    return ExportResult(folder, check, files, _uploaded(folder, to, settings.yes) if to else None)


def _uploaded(folder: Path, to: Destination, yes: bool) -> str | None:
    """Upload; whatever comes between, the export is whole, and the user is told where."""
    try:
        return upload(folder, to, yes=yes)
    except BaseException as problem:
        problem.add_note(f"the export is whole and kept in {folder}; `overwrite` makes it anew and uploads it")
        raise


def _bytes_needed(settings: ExportSettings, source: Source, model: "PeftModel") -> int:
    weights = weight_count(model)
    if settings.to == "adapter":
        return sum(file.stat().st_size for file in source.adapter.glob("*.safetensors"))
    if settings.to == "merged":
        return weights * dtype_of(settings, source).itemsize
    size = {"f32": 4.0, "f16": 2.0, "q8_0": 34 / 32}[settings.quantization]
    return int(weights * size)


_Writer = Callable[[Export], CheckResult | None]
_WRITERS: Final[dict[str, tuple[_Writer, int]]] = {
    "merged": (export_merged, 3),
    "adapter": (export_adapter, 2),
    "gguf": (export_gguf, 2),
    "gguf-adapter": (export_gguf_adapter, 2),
    "ollama": (export_ollama, 2),
}
"""Each format's writer, and how often its check asks all prompts."""
