"""Output folders that appear whole or not at all, and never in place of something that was not asked to go.

Two ways to write one. A result that is worth nothing until it is whole goes through `new_folder`; a training run, whose
checkpoints and TensorBoard events must be where they belong from the first step on, through `growing_folder`.

`new_folder` writes under a temporary name beside the target and moves the result into place at the end. Replacing an
older result needs `overwrite=True`; the older one is swapped out and removed only after the new one stands.
"""

import json
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from orpo.command.errors import InputError, OutputError

RECORD_NAME = "run.json"
UNFINISHED_NAME = "unfinished.json"


def check_output_folder(path: Path, *, overwrite: bool) -> Path:
    """Raise OutputError if `path` must not or cannot be written, and return it resolved.

    Commands call this before hours of work, not after.
    """
    target = path.expanduser().resolve()
    if target.exists() or path.is_symlink():
        if not target.is_dir():
            raise OutputError(f"{path} is a file; give a folder to write to")
        if any(target.iterdir()):
            _check_replaceable(target, path, overwrite)
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


@contextmanager
def growing_folder(path: Path, *, overwrite: bool = False, resume: bool = False) -> Iterator[Path]:
    """Yield `path` itself, for a run that is watched while it grows and can be resumed; the block writes its run.json.

    Until the block ends the folder holds `unfinished.json`, and an earlier result that it replaces waits beside it.
    After an exception a folder with checkpoints stays, ready for `resume`; one without goes, and the earlier result
    returns.
    """
    target = path.expanduser().resolve()
    waiting = target.parent / f".{target.name}.old"
    if resume:
        _check_resumable(target, path)
    else:
        check_output_folder(path, overwrite=overwrite)
        _refuse_if_running(target, path)
        _clear_for_new_run(target, waiting)
    target.mkdir(parents=True, exist_ok=True)
    marker = target / UNFINISHED_NAME
    marker.write_text(json.dumps({"process": os.getpid(), "host": platform.node()}) + "\n", encoding="utf-8")
    try:
        yield target
    except BaseException as problem:
        if any(target.glob("checkpoint-*")):
            problem.add_note(f"the checkpoints are kept in {path}; --resume goes on from the last one")
        else:
            shutil.rmtree(target, ignore_errors=True)
            if waiting.exists():
                waiting.rename(target)
        raise
    marker.unlink()
    shutil.rmtree(waiting, ignore_errors=True)


def _check_resumable(target: Path, shown: Path) -> None:
    if not (target / UNFINISHED_NAME).is_file():
        state = "is finished" if (target / RECORD_NAME).is_file() else "holds no unfinished run"
        raise InputError(f"{shown} {state}, so there is nothing to resume; leave --resume out")
    _refuse_if_running(target, shown)


def _refuse_if_running(target: Path, shown: Path) -> None:
    """Two processes must not write one run; the marker says who does, as far as this machine can tell."""
    marker = target / UNFINISHED_NAME
    try:
        owner = json.loads(marker.read_text(encoding="utf-8"))
        process, host = int(owner["process"]), str(owner["host"])
    except (OSError, ValueError, TypeError, KeyError):
        return  # no marker, or one that was cut off by a full disk
    if host == platform.node() and process != os.getpid() and _is_alive(process):
        raise OutputError(f"{shown} is being written by process {process}; stop it first (or delete {marker})")


def _is_alive(process: int) -> bool:
    if sys.platform == "win32":
        return False  # signal 0 would be Ctrl-C there
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _clear_for_new_run(target: Path, waiting: Path) -> None:
    """Let a finished result wait beside the new run; whoever overwrites an unfinished one has given it up."""
    if not target.exists():
        return
    if (target / RECORD_NAME).is_file() and not (target / UNFINISHED_NAME).is_file():
        shutil.rmtree(waiting, ignore_errors=True)
        target.rename(waiting)
    else:
        shutil.rmtree(target)


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


def _check_replaceable(target: Path, shown: Path, overwrite: bool) -> None:
    finished, unfinished = (target / RECORD_NAME).is_file(), (target / UNFINISHED_NAME).is_file()
    if not overwrite and unfinished:
        raise OutputError(f"{shown} holds an unfinished run; --resume goes on with it, --overwrite starts again")
    if not overwrite:
        raise OutputError(f"{shown} already exists; give --overwrite to replace it, or another folder")
    if not finished and not unfinished:
        raise OutputError(
            f"{shown} holds files and no {RECORD_NAME}, so it is not an earlier result; it stays as it is, "
            "give another folder"
        )


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
