"""Models loaded once for all writers of a run."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from transformers import PreTrainedModel, PreTrainedTokenizerBase

<<<<<<< HEAD
from orpo.chat_model.adapters import load_chat_model
from orpo.chat_model.identity import identify_model
from orpo.chat_model.options import resolve_device
from orpo.chat_model.settings import LocalModelSettings
from orpo.command.errors import setting_named
=======
from orpo.chat_model.adapters import load_with_adapter
from orpo.chat_model.loading import load_model, load_tokenizer, locate_model
from orpo.chat_model.options import resolve_device, resolve_reply_dtype
from orpo.command.errors import ModelError, setting_named
>>>>>>> 91fee2a (One bad row, one odd byte or a long reply stops nothing: --bad-rows in generate and for pairs that cannot be tokenized, half characters told by their flag, consoles that others' text cannot steer, a score that is linear)

if TYPE_CHECKING:
    from peft import PeftModel


@dataclass
class LoadedModel:
    """A model ready to answer, and what it is."""

    model: "PreTrainedModel | PeftModel"
    tokenizer: PreTrainedTokenizerBase
    identity: str
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def parameters(self) -> int:
        """How many numbers the model consists of."""
        return sum(parameter.numel() for parameter in self.model.parameters())


class LoadedModels:
    """Loads every distinct model once, whichever writer asks first."""

    def __init__(self, settings: LocalModelSettings) -> None:
        self._settings = settings
        self.device = resolve_device(settings.device)
        self._loaded: dict[tuple[str, Path | None], LoadedModel] = {}
        self._lock = threading.Lock()

    def load(self, source: str, *, side: str = "plain", adapter: Path | None = None) -> LoadedModel:
        """Return the model of this name, loaded now or before; errors name the setting of the side that asked."""
        with self._lock:
            if (source, adapter) not in self._loaded:
                self._loaded[source, adapter] = self._load(source, side, adapter)
            return self._loaded[source, adapter]

    def _load(self, source: str, side: str, adapter: Path | None) -> LoadedModel:
        from transformers.utils.logging import disable_progress_bar

        # A bar for reading weights from the disk would break into ours.
        disable_progress_bar()  # type: ignore[no-untyped-call]
<<<<<<< HEAD
        with setting_named(setting, instead_of="model"):
            model, tokenizer = load_chat_model(source, adapter, self._settings)
        template = self._settings.chat_template
        return LoadedModel(model, tokenizer, identify_model(source, model, adapter=adapter, chat_template=template))
=======
        trust, template = self._trust_remote_code, self._chat_template
        with naming_writer(side, adapter):
            if adapter is not None:
                model: PreTrainedModel | PeftModel
                model, tokenizer = load_with_adapter(
                    source, adapter, device=self.device, dtype=self._dtype, trust_remote_code=trust,
                    chat_template=template,
                )  # fmt: skip
            else:
                tokenizer = load_tokenizer(source, trust_remote_code=trust, chat_template=template)
                model = load_model(source, device=self.device, dtype=self._dtype, trust_remote_code=trust)
        return LoadedModel(model, tokenizer, identify_model(source, model, self._dtype, template, adapter))


@contextmanager
def naming_writer(side: str, adapter: Path | None) -> Iterator[None]:
    """Make a model's errors name the setting that asked for it: the side's model, or the adapter of a tuned one."""
    try:
        with setting_named(f"{side}_model", instead_of="model"):
            yield
    except ModelError as problem:
        if adapter is None or problem.setting != f"{side}_model":
            raise
        raise ModelError(f"{adapter}: was trained on {problem.args[0]}", setting="from_adapter") from problem


def identify_model(
    source: str,
    model: "PreTrainedModel | PeftModel",
    dtype: torch.dtype,
    chat_template: Path | None = None,
    adapter: Path | None = None,
) -> str:
    """Return what changes whenever the model could answer differently: by content for local files, by commit else."""
    further = f" {str(dtype).removeprefix('torch.')}"
    further += f" template:{_fingerprint(chat_template)}" if chat_template is not None else ""
    further += f" adapter:{_fingerprint_folder(adapter)}" if adapter is not None else ""
    folder = Path(locate_model(source))
    if not folder.is_dir():
        return f"{source}@{getattr(model.config, '_commit_hash', None) or 'unknown'}{further}"
    return f"sha256:{_fingerprint_folder(folder)}{further}"


def _fingerprint_folder(folder: Path) -> str:
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
>>>>>>> 91fee2a (One bad row, one odd byte or a long reply stops nothing: --bad-rows in generate and for pairs that cannot be tokenized, half characters told by their flag, consoles that others' text cannot steer, a score that is linear)
