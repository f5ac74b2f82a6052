"""Finding the checkpoint to go on from, and refusing to go on with another run than the one that stopped."""

import json
import shutil
from pathlib import Path
from typing import Any

from orpo.command.errors import InputError
from orpo.command.output_folder import write_whole
from orpo.command.ranks import is_main_process, process_count
from orpo.command.settings import settings_as_dict
from orpo.training.settings import TrainSettings

SETTINGS_NAME = "settings.json"

# What Trainer needs to go on; trainer_state.json is written last.
_NEEDED = ("adapter_model.safetensors", "optimizer.pt", "scheduler.pt", "trainer_state.json")
# FSDP and DeepSpeed keep weights and optimiser in files and folders of their own.
_OF_SHARDED = ("optimizer.bin", "optimizer_0", "pytorch_model_fsdp*", "global_step*")

# These change nothing that is learnt.
_FREE = frozenset(
    {
        "estimate",
        "eval_prompt_count",
        "eval_prompts",
        "gradient_checkpointing",
        "keep_checkpoints",
        "logging_steps",
        "max_new_tokens",
        "onednn",
        "out",
        "overwrite",
        "resume",
        "reward_pairs",
        "save_steps",
        "scorer",
        "token_budget",
    }
)


def newest_whole_checkpoint(folder: Path) -> Path | None:
    """Return the last checkpoint that was written to its end; remains of a later one, cut off by a crash, are removed.

    Only folders that Trainer named are looked at.
    """
    found = [path for path in folder.glob("checkpoint-*") if path.name.removeprefix("checkpoint-").isdigit()]
    for path in sorted(found, key=lambda path: int(path.name.removeprefix("checkpoint-")), reverse=True):
        if _is_whole(path):
            return path
        if is_main_process():  # Trainer would count it as the newest, and delete a whole one in its stead
            shutil.rmtree(path)
    return None


def remember_settings(folder: Path, settings: TrainSettings, fingerprint: str) -> None:
    """Write what a later `--resume` is compared with."""
    content = {
        "settings": settings_as_dict(settings),
        "data_fingerprint": fingerprint,
        "processes": process_count(),
    }
    write_whole(folder / SETTINGS_NAME, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def check_same_run(folder: Path, settings: TrainSettings, fingerprint: str) -> None:
    """Raise InputError where the unfinished run had other settings or data: going on would mix two runs."""
    remembered = _read_json(folder / SETTINGS_NAME)
    if remembered is None:
        return
    if remembered.get("data_fingerprint") != fingerprint:
        raise InputError(
            f"--resume: {settings.data_source} no longer holds the pairs that the run in {folder} was started with; "
            "bring them back, or start again with --overwrite"
        )
    processes = remembered.get("processes", process_count())
    if processes != process_count():
        raise InputError(
            f"--resume: the run in {folder} was started with {processes} processes (now {process_count()}), which "
            "decide the order of the pairs; start as many, or again with --overwrite"
        )
    then, now = remembered.get("settings", {}), settings_as_dict(settings)
    changed = [name for name in now if name not in _FREE and name in then and then[name] != now[name]]
    if changed:
        told = ", ".join(
            f"--{name.replace('_', '-')} {_shown(then[name])} (now {_shown(now[name])})" for name in changed
        )
        raise InputError(f"--resume: the run in {folder} was started with {told}; give the same, or --overwrite")


def _is_whole(checkpoint: Path) -> bool:
    if not _read_json(checkpoint / _NEEDED[-1]):
        return False
    plain = all((checkpoint / name).is_file() for name in _NEEDED)
    return plain or any(True for pattern in _OF_SHARDED for _ in checkpoint.glob(pattern))


def _read_json(file: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def _shown(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)
