"""Folders that transformers and PEFT read: a whole model in safetensors, or an adapter and nothing beside it."""

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Final

import torch
from torch import nn
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from orpo.chat_model.chat_template import reply_end_ids
from orpo.chat_model.loading import locate_model, no_library_bar
from orpo.chat_model.model_files import ADAPTER_CONFIG, is_offline, read_json
from orpo.command.errors import ExportError, OutputError
from orpo.command.output_folder import write_whole
from orpo.exporting.source import ADAPTER_WEIGHTS

if TYPE_CHECKING:
    from orpo.exporting.source import Source

_SPARE_BYTES: Final = 64 * 2**20  # tokenizer, configuration and the like


def own_dtype(model: str) -> torch.dtype:
    """Return the number format in which a model's weights are kept; float32 where its configuration does not say."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(locate_model(model), local_files_only=is_offline())
    dtype = config.get_text_config().dtype or config.dtype
    return dtype if isinstance(dtype, torch.dtype) else torch.float32


def weight_count(model: nn.Module) -> int:
    """Return how many numbers a model's weights are, shared ones counted once."""
    return sum(weight.numel() for weight in model.parameters())


def check_room(folder: Path, needed: int) -> None:
    """Raise OutputError where the disk has no room for this many bytes in a folder that is there or is to be."""
    parent = next(one for one in (folder, *folder.parents) if one.exists())
    free = shutil.disk_usage(parent).free
    if free < needed + _SPARE_BYTES:
        raise OutputError(
            f"{folder}: the export takes about {needed / 2**30:.2f} GiB and the disk has {free / 2**30:.2f} free; free "
            "some space, or name a folder on another disk with `out`"
        )


def write_model(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path, dtype: torch.dtype) -> None:
    """Write a whole model, brought to `dtype` in place, so that other programs end replies where ours do."""
    model.to(dtype)  # type: ignore[arg-type]
    config = model.generation_config or GenerationConfig()  # type: ignore[no-untyped-call]
    ends = reply_end_ids(model, tokenizer)
    config.eos_token_id = ends[0] if len(ends) == 1 else ends
    config.pad_token_id = tokenizer.pad_token_id
    model.generation_config = config
    try:
        with no_library_bar(str(folder)):
            model.save_pretrained(str(folder))
    except ValueError as problem:  # a generation configuration that contradicts itself
        raise ExportError(f"the model cannot be saved ({' '.join(str(problem).split())[:200]})") from problem
    tokenizer.save_pretrained(str(folder))


def write_adapter(source: "Source", tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write what PEFT reads and no more: weights, configuration, tokenizer with its chat template."""
    shutil.copyfile(source.adapter / ADAPTER_WEIGHTS, folder / ADAPTER_WEIGHTS)
    config = read_json(source.adapter / ADAPTER_CONFIG)
    own = Path(source.model).expanduser()
    config["base_model_name_or_path"] = str(own.resolve()) if own.is_dir() else source.model
    config["inference_mode"] = True
    write_whole(folder / ADAPTER_CONFIG, json.dumps(config, indent=2, ensure_ascii=False) + "\n")
    tokenizer.save_pretrained(str(folder))
