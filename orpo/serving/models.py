"""The models that are served: one base model in memory, with the adapters on it switched on one at a time, or none."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

from orpo.command.errors import ModelError
from orpo.command.paths import finished_adapters, resolve_user_path
from orpo.comparing.approaches import BASE, adapter_names
from orpo.serving.settings import ServedModelSettings, ServeSettings

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from orpo.chat_model.open_loop import OpenLoop

_MOST_FOUND: Final = 8  # adapters that are loaded because they lie in trained/


@dataclass(frozen=True)
class Catalogue:
    """What there is to be asked, known before anything is loaded.

    Attributes:
        base: The base model, as a user names it.
        adapters: The folder of each adapter by the name that requests call it by, the newest first.
        notes: What the user should know of the choice.
    """

    base: str
    adapters: dict[str, Path]
    notes: tuple[str, ...] = ()

    @property
    def base_id(self) -> str:
        """The name that requests call the base model by."""
        name = Path(self.base).name.removesuffix(".gguf") if Path(self.base).exists() else self.base
        return f"{name}-base" if name in self.adapters else name

    @property
    def ids(self) -> list[str]:
        """Every name, the base's first."""
        return [self.base_id, *self.adapters]

    def find(self, name: str) -> str | None:
        """Return a model's name where there is one of this name; the base goes by `base` too."""
        return self.base_id if name == BASE else name if name in self.ids else None

    def label(self, name: str) -> str:
        """Return what tables and votes call a model."""
        return BASE if name == self.base_id else name

    def identity(self, name: str) -> str:
        """Return what tells an adapter from an earlier one of its name: a hash of its weights; empty for the base."""
        folder = self.adapters.get(name)
        return "" if folder is None else _hash_of_weights(folder)


@lru_cache
def _hash_of_weights(folder: Path) -> str:
    with (folder / "adapter_model.safetensors").open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()[:16]


def find_models(settings: ServeSettings) -> Catalogue:
    """Return the adapters that are named, or else those in trained/ that share a base model, and that base model."""
    from orpo.chat_model.adapters import adapter_base_name
    from orpo.chat_model.default_model import DEFAULT_MODEL

    wanted = settings.base.model
    if settings.base_only:
        return Catalogue(wanted or DEFAULT_MODEL, {})
    if settings.adapter:
        named = list(dict.fromkeys(map(resolve_user_path, settings.adapter)))
        bases = [wanted or adapter_base_name(adapter) for adapter in named]
        for adapter, base in zip(named, bases, strict=True):
            if base != bases[0]:
                raise ModelError(
                    f"{adapter}: was trained on {base}, and {named[0]} on {bases[0]}; serve adapters of one base model",
                    setting="adapter",
                )
        return Catalogue(bases[0], dict(zip(adapter_names(named), named, strict=True)))
    return _found_in_trained(wanted)


def _found_in_trained(wanted: str | None) -> Catalogue:
    from orpo.chat_model.adapters import adapter_base_name
    from orpo.chat_model.default_model import DEFAULT_MODEL

    base, chosen, notes = wanted, list[Path](), list[str]()
    for adapter in finished_adapters():
        try:
            own = adapter_base_name(adapter)
        except ModelError as problem:
            notes.append(f"left out: {problem}")
            continue
        base = base or own
        if own != base:
            notes.append(f"left out: {adapter} was trained on {own}, not on {base}")
        elif len(chosen) == _MOST_FOUND:
            notes.append(f"left out: {adapter}; the {_MOST_FOUND} newest are loaded, `adapter` names others")
        else:
            chosen.append(adapter)
    if not chosen:
        notes.append("there is no adapter to serve yet, so the base answers alone; `uv run orpo/train.py` makes one")
    return Catalogue(base or DEFAULT_MODEL, dict(zip(adapter_names(chosen), chosen, strict=True)), tuple(notes))


class ServedModels:
    """The loaded model, and how each name is answered. Used by one thread alone.

    Attributes:
        catalogue: What there is.
        dtype: The number format that replies are computed in.
    """

    model: "PreTrainedModel | PeftModel"

    def __init__(self, catalogue: Catalogue, settings: ServedModelSettings) -> None:
        """Load the base model, put every adapter on it, and read each one's tokenizer."""
        from orpo.chat_model.adapters import attach_adapter, load_adapter_tokenizer
        from orpo.chat_model.loading import load_model, load_tokenizer

        self.catalogue = catalogue
        remote, template = settings.trust_remote_code, settings.chat_template
        self._tokenizers = {
            catalogue.base_id: load_tokenizer(catalogue.base, trust_remote_code=remote, chat_template=template)
        }
        self.model = load_model(catalogue.base, device=settings.device, dtype=settings.dtype, trust_remote_code=remote)
        self.dtype = str(next(self.model.parameters()).dtype).removeprefix("torch.")
        # Folders have names that torch's modules cannot have, with dots.
        self._peft_names: dict[str, str] = {}
        for number, (name, folder) in enumerate(catalogue.adapters.items()):
            self._peft_names[name] = f"adapter{number}"
            self.model = attach_adapter(self.model, folder, name=f"adapter{number}")
            self._tokenizers[name] = load_adapter_tokenizer(
                catalogue.base, folder, trust_remote_code=remote, chat_template=template
            )

    def tokenizer(self, name: str) -> "PreTrainedTokenizerBase":
        """Return the tokenizer of a model: the adapter's own copy where it has one, as `inference` takes it."""
        return self._tokenizers[name]

    def end_ids(self, name: str) -> list[int]:
        """Return every id that ends a reply of a model."""
        from orpo.chat_model.chat_template import reply_end_ids

        return reply_end_ids(self.model, self._tokenizers[name])

    def open_loop(self, name: str) -> "OpenLoop | None":
        """Return a loop that writes a model's replies; None for an architecture that only transformers drives."""
        from orpo.chat_model.decoder import make_decoder
        from orpo.chat_model.open_loop import OpenLoop

        with self.switched_to(name):
            decoder = make_decoder(self.model, keep=False)
        return None if decoder is None else OpenLoop(decoder, self.end_ids(name))

    @contextmanager
    def switched_to(self, name: str) -> Iterator[None]:
        """Let the model answer as this one in the block."""
        from peft import PeftModel

        if not isinstance(self.model, PeftModel):
            yield
        elif name in self._peft_names:
            self.model.set_adapter(self._peft_names[name])
            yield
        else:
            with self.model.disable_adapter():
                yield
