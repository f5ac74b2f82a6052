"""Output folders that appear whole or not at all, and never in place of something that was not asked to go.

`new_folder` writes under a temporary name beside the target and moves the result into place at the end. Replacing an
older result needs `overwrite=True`; the older one is swapped out and removed only after the new one stands.
"""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from orpo.running.errors import OutputError

RECORD_NAME = "run.json"


def check_output_folder(path: Path, *, overwrite: bool) -> Path:
    """Raise OutputError if `path` must not or cannot be written, and return it resolved.

    Commands call this before hours of work, not after.
    """
    target = path.expanduser().resolve()
    if target.exists() or path.is_symlink():
        if not target.is_dir():
            raise OutputError(f"{path} is a file; give a folder to write to")
        if any(target.iterdir()):
            if not overwrite:
                raise OutputError(f"{path} already exists; give --overwrite to replace it, or another folder")
            if not (target / RECORD_NAME).is_file():
                raise OutputError(
                    f"{path} holds files and no {RECORD_NAME}, so it is not an earlier result; it stays as it is, "
                    "give another folder"
                )
    _check_writable(target, path)
    return target


@contextmanager
def new_folder(path: Path, *, overwrite: bool = False, keep: Callable[[Path], bool] | None = None) -> Iterator[Path]:
    """Yield a temporary folder that becomes `path` when the block ends without an exception.

    Args:
        path: The folder to make.
        overwrite: Replace an earlier result of ours (a folder with a run.json).
        keep: Asked after an exception, with the temporary folder: True leaves it there, for what is worth keeping.
    """
    target = check_output_folder(path, overwrite=overwrite)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".partial", dir=target.parent))
    temporary.chmod(0o777 & ~_umask())  # mkdtemp makes it private, a result should be as readable as any other
    try:
        yield temporary
    except BaseException as problem:
        if keep is not None and keep(temporary):
            problem.add_note(f"what was written so far is kept in {temporary}")
        else:
            shutil.rmtree(temporary, ignore_errors=True)
        raise
    _move_into_place(temporary, target, overwrite=overwrite)


def _move_into_place(temporary: Path, target: Path, *, overwrite: bool) -> None:
    old: Path | None = None
    if target.exists():
        if any(target.iterdir()):
            if not overwrite:
                raise OutputError(f"{target} appeared while this run was writing; the result is kept in {temporary}")
            old = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".old", dir=target.parent)) / target.name
            target.rename(old)
        else:
            target.rmdir()
    try:
        temporary.rename(target)
    except OSError:
        if old is not None:
            old.rename(target)
            old.parent.rmdir()
        raise
    if old is not None:
        shutil.rmtree(old.parent, ignore_errors=True)


def _check_writable(target: Path, shown: Path) -> None:
    """Find out now, not after the work, that the nearest existing parent is no folder or may not be written."""
    parent = target.parent
    while not parent.exists():
        parent = parent.parent
    if not parent.is_dir():
        raise OutputError(f"{shown}: {parent} is a file, so no folder can be made in it")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise OutputError(f"{shown}: no permission to write in {parent}; give another folder")


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
