"""The record of one run, `run.json`: what was asked, with what, on which data, and what came out."""

import dataclasses
import hashlib
import importlib.metadata
import json
import math
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeAlias

from orpo.command.errors import InputError
from orpo.command.output_folder import RECORD_NAME, write_whole
from orpo.command.paths import checkout_folder
from orpo.command.run_command import command_started
from orpo.command.safe_text import mask_secrets
from orpo.command.settings import is_settings_class, settings_as_dict

_LIBRARIES = ("orpo", "torch", "transformers", "trl", "peft", "accelerate", "datasets", "distilabel", "tokenizers")


JsonValue: TypeAlias = "bool | int | float | str | list[JsonValue] | dict[str, JsonValue] | None"


class RunRecord:
    """Collects the facts of a run from its start; `write` puts them beside its output.

    Attributes:
        metrics: Numbers that the run measured.
        facts: Anything else worth keeping: counts, the model's name, reasons for dropped rows.
        device: Where the run computed, for example `cpu` or `cuda:0`.
        seed: The run's seed; taken from the settings where they have one.
        data_fingerprint: What `fingerprint_rows` says of the data.
    """

    def __init__(self, command: str, settings: object) -> None:
        """Start the clock, a command's with its process; `settings` is a settings dataclass or a mapping."""
        self.command = command
        self.settings = mask_secrets(settings_as_plain(settings))
        self.metrics: dict[str, object] = {}
        self.facts: dict[str, object] = {}
        self.device: str | None = None
        self.seed = self.settings.get("seed")
        self.data_fingerprint: str | None = None
        now, began = time.perf_counter(), command_started()
        self._clock = now if began is None else began
        self._started = datetime.now(UTC) - timedelta(seconds=now - self._clock)
        self._commit = git_state()  # now, since the code may change under a long run

    @property
    def wall_seconds(self) -> float:
        """How long the run has taken so far."""
        return time.perf_counter() - self._clock

    def as_dict(self) -> dict[str, JsonValue]:
        """Return the record as it would be written now."""
        record = {
            "command": self.command,
            "started": self._started.isoformat(timespec="seconds"),
            "finished": datetime.now(UTC).isoformat(timespec="microseconds"),
            "wall_seconds": round(self.wall_seconds, 3),
            "settings": self.settings,
            "seed": self.seed,
            "device": self.device,
            "data_fingerprint": self.data_fingerprint,
            "metrics": self.metrics,
            "facts": self.facts,
            **peak_memory(),
            "platform": {"system": platform.platform(), "machine": platform.machine(), "cpus": os.cpu_count()},
            "versions": library_versions(),
            "code": self._commit,
        }
        plain = as_json_value(record)
        assert isinstance(plain, dict)
        return plain

    def write(self, folder: Path) -> Path:
        """Write `run.json` into the folder, whole or not at all, and return its path."""
        file = folder / RECORD_NAME
        text = json.dumps(self.as_dict(), indent=2, ensure_ascii=False, allow_nan=False)
        write_whole(file, text + "\n")
        return file


def read_run_record(folder: Path) -> dict[str, object]:
    """Read the record that lies in a folder; InputError where there is none or it cannot be read."""
    file = folder / RECORD_NAME
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{folder} holds no {RECORD_NAME}, so it is not the result of a finished run") from None
    except ValueError:
        raise InputError(f"{file} is not JSON; repeat the run that wrote it") from None
    if not isinstance(content, dict):
        raise InputError(f"{file} is not a run record")
    return content


def fingerprint_rows(rows: Iterable[Mapping[str, object]]) -> str:
    """Return a SHA-256 of rows that depends on their values and order, and on nothing else, such as a file's format."""
    digest = hashlib.sha256()
    for row in rows:
        line = json.dumps(as_json_value(dict(row)), sort_keys=True, ensure_ascii=True, separators=(",", ":"))
        digest.update(line.encode("ascii") + b"\n")
    return digest.hexdigest()


def library_versions() -> dict[str, str]:
    """Return the versions of Python and of the libraries a result depends on, without importing them."""
    versions = {"python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def git_state() -> dict[str, str | bool] | None:
    """Return commit and whether tracked files differ from it, or None outside a checkout."""
    folder = checkout_folder()
    if folder is None or not (folder / ".git").exists():
        return None
    try:
        commit = _git(folder, "rev-parse", "HEAD")
        changed = _git(folder, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return None
    return {"commit": commit, "dirty": bool(changed)}


def peak_memory() -> dict[str, float]:
    """Return the most memory this process has held so far, in MB, and the most on its GPU where one was used."""
    found: dict[str, float] = {}
    if sys.platform != "win32":
        import resource

        # Linux counts kilobytes, macOS bytes.
        unit = 1 if sys.platform == "darwin" else 1024
        found["peak_memory_mb"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20, 1)
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        found["peak_gpu_memory_mb"] = round(torch.cuda.max_memory_allocated() / 2**20, 1)
    return found


def settings_as_plain(settings: object) -> dict[str, JsonValue]:
    """Return a settings dataclass, any other dataclass or a mapping as a dict of JSON values."""
    plain = as_json_value(settings_as_dict(settings) if is_settings_class(type(settings)) else settings)
    if not isinstance(plain, dict):
        raise TypeError(f"not settings: {settings!r}")
    return plain


def as_json_value(value: object) -> JsonValue:
    """Return a value as JSON can hold it: paths as text, NaN and infinity as null, array scalars as numbers."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): as_json_value(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [as_json_value(item) for item in value]
    if isinstance(value, set | frozenset):
        return sorted((as_json_value(item) for item in value), key=repr)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: as_json_value(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if hasattr(value, "tolist"):  # numpy and torch: scalars and arrays
        return as_json_value(value.tolist())
    return str(value)


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=10, check=True
    )
    return done.stdout.strip()
