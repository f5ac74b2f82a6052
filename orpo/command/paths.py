"""Where the commands read and write when nothing is said."""

import json
import os
import re
from pathlib import Path
from typing import Final

from orpo.command.output_folder import RECORD_NAME, UNFINISHED_NAME

_PACKAGE_FOLDER = Path(__file__).resolve().parents[1]
# An absolute path that is not there: of another machine, or gone. A system prompt may begin with a slash (`/no_think`).
_OTHER_PATH: Final = re.compile(r"(?:~|[A-Za-z]:)?[\\/][^\\/\n]*[\\/]\S*")


def project_folder() -> Path:
    """Return the folder that holds `data/` and `trained/`.

    That is $ORPO_HOME where it is set, the checkout when the package runs from one, and otherwise the working folder,
    so an installed package never writes beside itself.
    """
    if home := os.environ.get("ORPO_HOME"):
        return Path(home).expanduser().resolve()
    return checkout_folder() or Path.cwd()


def checkout_folder() -> Path | None:
    """Return the source checkout that the package runs from, or None for an installed package."""
    checkout = _PACKAGE_FOLDER.parent
    return checkout if (checkout / "pyproject.toml").is_file() else None


def data_folder() -> Path:
    """Return the folder whose subfolders are data sets."""
    return project_folder() / "data"


def default_data_folder() -> Path:
    """Return where `generate` writes preference pairs and `train` looks for them."""
    return data_folder() / "preferences"


def default_training_folder() -> Path:
    """Return the folder whose subfolders are training runs."""
    return project_folder() / "trained"


def default_export_folder() -> Path:
    """Return the folder whose subfolders are exported models."""
    return project_folder() / "exported"


def cache_folder() -> Path:
    """Return the folder for what can be made again: $ORPO_CACHE, else under $ORPO_HOME, else the user's cache."""
    if cache := os.environ.get("ORPO_CACHE"):
        return Path(cache).expanduser().resolve()
    if home := os.environ.get("ORPO_HOME"):
        return Path(home).expanduser().resolve() / "cache"
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base).expanduser() / "orpo"


def newest_adapter(folder: Path | None = None) -> Path | None:
    """Return the training run that finished last and holds an adapter, or None."""
    return next(iter(finished_adapters(folder)), None)


def finished_adapters(folder: Path | None = None) -> list[Path]:
    """Return the finished training runs that hold an adapter, the newest first."""
    runs = default_training_folder() if folder is None else folder
    if not runs.is_dir():
        return []
    finished = [run for run in [runs, *runs.iterdir()] if not run.name.startswith(".") and _is_finished_run(run)]
    return sorted(finished, key=_finished_at, reverse=True)


def resolve_user_path(text: str | Path) -> Path:
    """Return a path the user wrote as an absolute one: `~` is home, and the rest is relative to the working folder."""
    return Path(text).expanduser().absolute()


def public_name(name: str) -> str:
    """Return a model's or file's name without the folders of this machine, since what holds it may be passed on."""
    path = Path(name).expanduser()
    try:
        is_there = path.exists()
    except (OSError, ValueError):  # a text too long for a name, or with a null byte
        return name
    if is_there:
        return path.resolve().name
    return re.split(r"[\\/]", name)[-1] if _OTHER_PATH.fullmatch(name) else name


def without_folders(value: object) -> object:
    """Return JSON-able values in which paths of this machine, and absolute ones of another, have become names."""
    if isinstance(value, dict):
        return {key: without_folders(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_folders(item) for item in value]
    is_path = isinstance(value, Path) or (isinstance(value, str) and ("/" in value or "\\" in value))
    return public_name(str(value)) if is_path else value


def _is_finished_run(run: Path) -> bool:
    whole = (run / RECORD_NAME).is_file() and (run / "adapter_model.safetensors").is_file()
    return whole and not (run / UNFINISHED_NAME).exists()


def _finished_at(run: Path) -> tuple[str, float]:
    """Order runs by the time in their record; a copied folder's file times say nothing."""
    record_file = run / RECORD_NAME
    try:
        finished = str(json.loads(record_file.read_text(encoding="utf-8")).get("finished", ""))
    except (ValueError, OSError, AttributeError):
        finished = ""
    return finished, record_file.stat().st_mtime


def main(argv: list[str]) -> int:
    """Print where the data and the newest adapter are; `make demo` ends with it."""
    adapter = newest_adapter()
    print(f"data:        {default_data_folder()}")
    print(f"adapter:     {adapter or 'none yet'}")
    return 0


if __name__ == "__main__":
    from orpo.command.run_command import run_command

    run_command(main)
