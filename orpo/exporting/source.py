"""What is exported: which adapter, on which base model; found and checked before anything is loaded."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from orpo.chat_model.adapters import adapter_base_name, check_adapter_folder
from orpo.chat_model.default_model import DEFAULT_MODEL
from orpo.chat_model.identity import fingerprint_folder
from orpo.chat_model.loading import locate_model
from orpo.command.display import console_err
from orpo.command.errors import InputError
from orpo.command.output_folder import RECORD_NAME
from orpo.command.paths import default_training_folder, newest_adapter, resolve_user_path

ADAPTER_WEIGHTS = "adapter_model.safetensors"


@dataclass(frozen=True)
class Source:
    """An adapter and its base model.

    Attributes:
        adapter: The adapter's folder.
        model: The base model's name, as `locate_model` takes it.
        adapter_sha256: The hash of the adapter's weights.
    """

    adapter: Path
    model: str
    adapter_sha256: str


def find_source(adapter: Path | None, model: str | None) -> Source:
    """Return the adapter that is named, or the newest one, and its base model; an error where they do not fit."""
    folder = newest_adapter() if adapter is None else resolve_user_path(adapter)
    if folder is None:
        raise InputError(
            f"{default_training_folder()} holds no trained adapter yet; `uv run orpo/train.py` makes one, "
            "`adapter` names another"
        )
    config = check_adapter_folder(folder)
    if config["peft_type"] != "LORA":
        raise InputError(f"{folder}: is a {config['peft_type']} adapter; only LoRA is exported", setting="adapter")
    if not config.get("base_model_name_or_path") and model is None:
        raise InputError(f"{folder}: names no base model; name it with `model`", setting="adapter")
    name = adapter_base_name(folder) if model is None else model
    if model is not None:
        locate_model(model)
        _check_base(folder, config, model)
    locate_model(name)
    with (folder / ADAPTER_WEIGHTS).open("rb") as stream:
        return Source(folder, name, hashlib.file_digest(stream, "sha256").hexdigest())


def _check_base(adapter: Path, config: dict[str, object], given: str) -> None:
    """Refuse a base model that is another one than the adapter was trained on, as far as that can be told."""
    trained_on = adapter_base_name(adapter) if config.get("base_model_name_or_path") else None
    if trained_on is None or trained_on == given or _is_same_folder(trained_on, given):
        return
    folder = Path(given).expanduser()
    if (merged := _merged_adapter(folder)) is not None:
        raise InputError(
            f"{given}: already holds the adapter {merged}; merged once more it would count twice, or be another "
            f"model's; name {trained_on}, which {adapter} was trained on",
            setting="model",
        )
    ours, theirs = Path(trained_on).expanduser(), folder
    if ours.is_dir() and theirs.is_dir():
        is_other = fingerprint_folder(ours) != fingerprint_folder(theirs)
    else:  # a folder may be a copy of what has a name on the Hub
        is_other = not theirs.exists() and (trained_on == DEFAULT_MODEL or not _is_path(trained_on))
    if is_other:
        raise InputError(
            f"{given}: {adapter} was trained on {trained_on}, another model; leave this out", setting="model"
        )
    console_err.print(f"taking {given} for {trained_on}, which the adapter was trained on", soft_wrap=True)


def _is_path(name: str) -> bool:
    return name.startswith((".", "/", "~")) or name.count("/") != 1 or "\\" in name


def _is_same_folder(one: str, other: str) -> bool:
    folders = [Path(name).expanduser() for name in (one, other)]
    return all(folder.exists() for folder in folders) and folders[0].resolve() == folders[1].resolve()


def _merged_adapter(folder: Path) -> str | None:
    """Return the adapter that an earlier export merged into this model, if it is one."""
    try:
        record = json.loads((folder / RECORD_NAME).read_text(encoding="utf-8"))
        is_merged = record["command"] == "export" and (folder / "config.json").is_file()
        return str(record["facts"]["adapter"]) if is_merged else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
