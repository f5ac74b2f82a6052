"""Models loaded once for all writers of a run."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from orpo.chat_model.adapters import load_chat_model
from orpo.chat_model.generation import context_length
from orpo.chat_model.identity import identify_model
from orpo.chat_model.options import resolve_device
from orpo.chat_model.settings import LocalModelSettings
from orpo.command.errors import ModelError, setting_named

if TYPE_CHECKING:
    from peft import PeftModel


@dataclass(frozen=True)
class ModelFacts:
    """What has to be known of a model to ask it, wherever it is.

    Attributes:
        identity: What `identify_model` says of it.
        parameters: How many numbers it consists of.
        context_length: The most tokens of prompt and reply together; None where it names no limit.
    """

    identity: str
    parameters: int
    context_length: int | None


@dataclass
class LoadedModel:
    """A model ready to answer, and what it is."""

    model: "PreTrainedModel | PeftModel"
    tokenizer: PreTrainedTokenizerBase
    facts: ModelFacts
    lock: threading.Lock = field(default_factory=threading.Lock)


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
        with naming_writer(side, adapter):
            model, tokenizer = load_chat_model(source, adapter, self._settings)
        identity = identify_model(source, model, adapter=adapter, chat_template=self._settings.chat_template)
        parameters = sum(parameter.numel() for parameter in model.parameters())
        return LoadedModel(model, tokenizer, ModelFacts(identity, parameters, context_length(model)))


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
