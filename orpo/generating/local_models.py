"""Models loaded once for all writers of a run, and what identifies them in the reply store."""

import hashlib
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from orpo.chat_model.loading import load_model, load_tokenizer, locate_model, resolve_device, resolve_reply_dtype
from orpo.command.errors import ModelError

_READ_WHOLE_BYTES: Final = 64 * 2**20
_DECIDING_FILES: Final = ("*.json", "*.jinja", "*.model", "*.txt", "*.safetensors")


@dataclass
class LoadedModel:
    """A model ready to answer, and what it is."""

    model: Any
    tokenizer: Any
    identity: str
    lock: threading.Lock = field(default_factory=threading.Lock)


class LoadedModels:
    """Loads every distinct model once, whichever writer asks first."""

    def __init__(
        self,
        *,
        device: str = "auto",
        dtype: str = "auto",
        trust_remote_code: bool = False,
        chat_template: Path | None = None,
    ) -> None:
        """Keep how to load; nothing is loaded yet."""
        self._chat_template = chat_template
        self.device = resolve_device(device)
        self._dtype = resolve_reply_dtype(dtype, self.device)
        self._trust_remote_code = trust_remote_code
        self._loaded: dict[str, LoadedModel] = {}
        self._lock = threading.Lock()

    def load(self, source: str, *, flag: str = "--model") -> LoadedModel:
        """Return the model of this name, loaded now or before; errors name the flag that asked for it."""
        with self._lock:
            if source not in self._loaded:
                self._loaded[source] = self._load(source, flag)
            return self._loaded[source]

    def _load(self, source: str, flag: str) -> LoadedModel:
        from transformers.utils.logging import disable_progress_bar

        # A bar for reading weights from the disk would break into ours.
        disable_progress_bar()  # type: ignore[no-untyped-call]
        trust = self._trust_remote_code
        try:
            tokenizer = load_tokenizer(source, trust_remote_code=trust, chat_template=self._chat_template)
            model = load_model(source, device=self.device, dtype=self._dtype, trust_remote_code=trust)
        except ModelError as problem:
            raise ModelError(str(problem).replace("--model", flag)) from problem.__cause__
        return LoadedModel(model, tokenizer, identify_model(source, model, self._chat_template))


def identify_model(source: str, model: Any, chat_template: Path | None = None) -> str:
    """Return what changes whenever the model could answer differently: by content for local files, by commit else."""
    template = f" template:{_fingerprint(chat_template)}" if chat_template is not None else ""
    folder = Path(locate_model(source))
    if not folder.is_dir():
        return f"{source}@{getattr(model.config, '_commit_hash', None) or 'unknown'}{template}"
    digest = hashlib.sha256()
    for file in sorted({file for pattern in _DECIDING_FILES for file in folder.glob(pattern)}):
        digest.update(file.name.encode("utf-8", "surrogateescape"))
        digest.update(_fingerprint(file).encode("ascii"))
    return f"sha256:{digest.hexdigest()}{template}"


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
