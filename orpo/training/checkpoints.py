"""Sealing checkpoints, finding the one to go on from, and refusing to go on with another run."""

import hashlib
import json
import shutil
from pathlib import Path

from orpo.command.errors import InputError
from orpo.command.output_folder import write_whole
from orpo.command.ranks import is_main_process, process_count
from orpo.command.settings import settings_as_dict
from orpo.training.settings import TrainSettings

SETTINGS_NAME = "settings.json"

_SEAL = "whole.json"

# What Trainer needs to go on; trainer_state.json is written last.
_NEEDED = ("adapter_model.safetensors", "optimizer.pt", "scheduler.pt", "trainer_state.json")
# FSDP and DeepSpeed keep weights and optimiser in files and folders of their own.
_OF_SHARDED = ("optimizer.bin", "optimizer_0", "pytorch_model_fsdp*", "global_step*")

# These change nothing that is learnt, but for grpo those that it samples and scores with.
_FREE = frozenset(
    {"estimate", "eval_prompt_count", "eval_prompts", "gradient_checkpointing", "keep_checkpoints", "logging_steps",
     "max_new_tokens", "out", "overwrite", "report_to", "resume", "reward_beta", "reward_pairs", "save_steps",
     "scorer", "token_budget"}
)  # fmt: skip
_READ_BY_GRPO = frozenset({"max_new_tokens", "scorer"})


def seal_checkpoint(checkpoint: Path) -> None:
    """Write the size and hash of every file: damage that comes later, or a cut file, is then seen."""
    files = {path.relative_to(checkpoint).as_posix(): _mark(path) for path in _files(checkpoint)}
    write_whole(checkpoint / _SEAL, json.dumps(files, indent=2) + "\n")


def newest_whole_checkpoint(folder: Path) -> tuple[Path | None, list[str]]:
    """Return the last checkpoint that is whole, and the names of later ones that are not, which are removed.

    Only folders that Trainer named are looked at.
    """
    found = [path for path in folder.glob("checkpoint-*") if path.name.removeprefix("checkpoint-").isdigit()]
    damaged: list[str] = []
    for path in sorted(found, key=lambda path: int(path.name.removeprefix("checkpoint-")), reverse=True):
        if _is_whole(path):
            return path, damaged
        damaged.append(path.name)
        if is_main_process():  # Trainer would count it as the newest, and delete a whole one in its stead
            shutil.rmtree(path)
    return None, damaged


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
    if not (folder / SETTINGS_NAME).exists():
        return  # stopped before it was written: there is nothing to go on with either
    remembered = _read_json(folder / SETTINGS_NAME)
    if remembered is None:
        raise InputError(
            f"{folder / SETTINGS_NAME} is damaged, so nobody can say whether this is the same run; start again with "
            "`overwrite`"
        )
    if remembered.get("data_fingerprint") != fingerprint:
        raise InputError(
            f"`resume`: {', '.join(settings.data_sources)} no longer holds the pairs that the run in {folder} was "
            "started with; bring them back, or start again with `overwrite`"
        )
    processes = remembered.get("processes", process_count())
    if processes != process_count():
        raise InputError(
            f"`resume`: the run in {folder} was started with {processes} processes (now {process_count()}), which "
            "decide the order of the pairs; start as many, or again with `overwrite`"
        )
    found, now = remembered.get("settings"), settings_as_dict(settings)
    then = found if isinstance(found, dict) else {}
    free = _FREE - _READ_BY_GRPO if settings.objective.method == "grpo" else _FREE
    changed = [name for name in now if name not in free and name in then and then[name] != now[name]]
    if changed:
        told = ", ".join(f"`{name}` {_shown(then[name])} (now {_shown(now[name])})" for name in changed)
        raise InputError(f"`resume`: the run in {folder} was started with {told}; pass the same, or `overwrite`")


def _is_whole(checkpoint: Path) -> bool:
    if (checkpoint / _SEAL).exists():
        sealed = _read_json(checkpoint / _SEAL)
        return bool(sealed) and all(_is_as_sealed(checkpoint / name, mark) for name, mark in (sealed or {}).items())
    # Not sealed yet, by a kill within a second: trainer_state.json is the last thing that Trainer writes.
    if not _read_json(checkpoint / _NEEDED[-1]):
        return False
    plain = all((checkpoint / name).is_file() for name in _NEEDED)
    return plain or any(True for pattern in _OF_SHARDED for _ in checkpoint.glob(pattern))


def _files(checkpoint: Path) -> list[Path]:
    return sorted(path for path in checkpoint.rglob("*") if path.is_file() and path.name != _SEAL)


def _is_as_sealed(file: Path, mark: object) -> bool:
    # The size first: hashing a large file takes long.
    return file.is_file() and isinstance(mark, list) and mark[:1] == [file.stat().st_size] and _mark(file) == mark


def _mark(file: Path) -> list[object]:
    with file.open("rb") as content:
        return [file.stat().st_size, hashlib.file_digest(content, "blake2b").hexdigest()[:32]]


def _read_json(file: Path) -> dict[str, object] | None:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def _shown(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)
