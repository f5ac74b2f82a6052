"""One export while it is made: what every format's writer works with."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from orpo.exporting.checking import Examination
from orpo.exporting.model_folder import own_dtype
from orpo.exporting.settings import ExportSettings
from orpo.exporting.source import Source

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Export:
    """What the writer of every format works with.

    Attributes:
        settings: What was asked for.
        source: The adapter and its base model.
        model: The base model in float32 with the adapter on.
        tokenizer: The adapter's tokenizer.
        folder: Where to write; it becomes the result's folder when all is well.
        exam: The check; None where it is off.
    """

    settings: ExportSettings
    source: Source
    model: "PeftModel"
    tokenizer: "PreTrainedTokenizerBase"
    folder: Path
    exam: Examination | None


def dtype_of(settings: ExportSettings, source: Source) -> torch.dtype:
    """Return the number format of merged weights: the one asked for, or the base model's."""
    dtype: torch.dtype = own_dtype(source.model) if settings.dtype == "keep" else getattr(torch, settings.dtype)
    return dtype
