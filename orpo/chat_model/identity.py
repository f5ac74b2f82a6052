"""What identifies a model among all that could answer, so that a kept reply is found again only by its own."""

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Final

from transformers import PreTrainedModel

from orpo.chat_model.loading import locate_model

if TYPE_CHECKING:
    from peft import PeftModel

_READ_WHOLE_BYTES: Final = 64 * 2**20
_DECIDING_FILES: Final = ("*.json", "*.jinja", "*.model", "*.txt", "*.safetensors")


def identify_model(
    source: str,
    model: "PreTrainedModel | PeftModel",
    *,
    adapter: Path | None = None,
    chat_template: Path | None = None,
) -> str:
    """Return what changes whenever the model could answer differently: by content for local files, by commit else."""
    further = f" {str(next(model.parameters()).dtype).removeprefix('torch.')}"
    further += f" template:{_fingerprint(chat_template)}" if chat_template is not None else ""
    further += f" adapter:{fingerprint_folder(adapter)}" if adapter is not None else ""
    folder = Path(locate_model(source))
    if not folder.is_dir():
        return f"{source}@{getattr(model.config, '_commit_hash', None) or 'unknown'}{further}"
    return f"sha256:{fingerprint_folder(folder)}{further}"


def fingerprint_folder(folder: Path) -> str:
    """Return a hash of the files that decide what a model or an adapter in a folder answers."""
    digest = hashlib.sha256()
    for file in sorted({file for pattern in _DECIDING_FILES for file in folder.glob(pattern)}):
        if file.name == "run.json":  # tells of a run, and decides nothing
            continue
        digest.update(file.name.encode("utf-8", "surrogateescape"))
        digest.update(_fingerprint(file).encode("ascii"))
    return digest.hexdigest()


def _fingerprint(file: Path) -> str:
    """Hash a file; of a large one the size, time and both ends, since reading 15 GB takes longer than many a run."""
    size = file.stat().st_size
    with file.open("rb") as stream:
        if size <= _READ_WHOLE_BYTES:
            return hashlib.file_digest(stream, "sha256").hexdigest()
        digest = hashlib.sha256(f"{size} {file.stat().st_mtime_ns}".encode())
        digest.update(stream.read(2**20))
        stream.seek(-(2**20), 2)
        digest.update(stream.read(2**20))
    return digest.hexdigest()
