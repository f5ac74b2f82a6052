"""Output folders that appear whole or not at all, and never in place of something that was not asked to go.

A command asks with `check_output_folder` before its work; from then on the folder is its own, and a second command that
would write there stops at once.

Two ways to write one. A result that is worth nothing until it is whole goes through `new_folder`; a training run, whose
checkpoints and TensorBoard events must be where they belong from the first step on, through `growing_folder`.

`new_folder` writes under a temporary name beside the target and moves the result into place at the end. Replacing an
older result needs `overwrite=True`; the older one is swapped out and removed only after the new one stands.
"""

import json
import os
import platform
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from orpo.command.errors import InputError, OutputError
from orpo.command.locks import lock_folder, unlock_folder
from orpo.command.safe_text import HALF_CHARACTER
from orpo.command.signals import CleaningUp, count_writing, note_result

RECORD_NAME = "run.json"
UNFINISHED_NAME = "unfinished.json"


def check_output_folder(path: Path, *, overwrite: bool) -> Path:
    """Keep `path` for this process and return it resolved; OutputError if it must not or cannot be written.

    Commands call this before hours of work, not after.
    """
    target = path.expanduser().resolve()
    if (target.exists() or path.is_symlink()) and not target.is_dir():
        raise OutputError(f"{path} is a file; name a folder to write to")
    _check_writable(target, path)
    lock_folder(target, path)
    if target.exists() and any(target.iterdir()):
        try:
            _refuse_to_replace(target, path, overwrite)
        except OutputError:
            unlock_folder(target)
            raise
    return target


def check_resumable(path: Path) -> Path:
    """Keep the folder of an unfinished run for this process and return it resolved; an error if it is none."""
    target = path.expanduser().resolve()
    if not (target / UNFINISHED_NAME).is_file():
        state = "is finished" if (target / RECORD_NAME).is_file() else "holds no unfinished run"
        raise InputError(f"{path} {state}, so there is nothing to resume; leave `resume` out")
    lock_folder(target, path)
    return target


def write_whole(file: Path, text: str) -> None:
    """Write a text file whole or not at all, also when the disk is full or the machine stops."""
    temporary = file.with_name(f".{file.name}.partial")
    try:
        # A path that is told may hold bytes that are no UTF-8; `\\udcff` in their place is what JSON has for them.
        with temporary.open("w", encoding="utf-8", errors="backslashreplace") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(file)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def new_folder(path: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Yield a temporary folder that becomes `path` when the block ends without an exception.

    `overwrite` replaces an earlier result of ours (a folder with a run.json).
    """
    with _writing(check_output_folder(path, overwrite=overwrite)) as target:
        temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".partial", dir=target.parent))
        try:
            temporary.chmod(0o777 & ~_umask())  # mkdtemp makes it private, a result should be as readable as any other
            yield temporary
            _move_into_place(temporary, target, overwrite=overwrite)
            note_result(path)
        except BaseException:
            with CleaningUp():
                shutil.rmtree(temporary, ignore_errors=True)
            raise


@contextmanager
def growing_folder(
    path: Path, *, overwrite: bool = False, resume: bool = False, can_resume: Callable[[Path], bool] | None = None
) -> Iterator[Path]:
    """Yield `path` itself, for a run that is watched while it grows and can be resumed; the block writes its run.json.

    Until the block ends the folder holds `unfinished.json`, and an earlier result that it replaces waits beside it.
    After an exception a folder that can be resumed stays; any other goes, and the earlier result returns.

    `can_resume` tells whether a folder holds enough to go on from; without it any checkpoint is enough.
    """
    with _writing(check_resumable(path) if resume else check_output_folder(path, overwrite=overwrite)) as target:
        waiting = target.parent / f".{target.name}.old"
        if not resume:
            _clear_for_new_run(target, waiting)
        target.mkdir(parents=True, exist_ok=True)
        marker = target / UNFINISHED_NAME
        try:
            write_whole(marker, json.dumps({"process": os.getpid(), "host": platform.node()}) + "\n")
            yield target
        except BaseException as problem:
            with CleaningUp():
                if (can_resume or _has_checkpoint)(target):
                    problem.add_note(f"the checkpoints are kept in {path}; `resume` goes on from the last one")
                elif not resume:
                    shutil.rmtree(target, ignore_errors=True)
                    if waiting.exists():
                        waiting.rename(target)
            raise
        marker.unlink()
        note_result(path)
        shutil.rmtree(waiting, ignore_errors=True)


@contextmanager
def _writing(target: Path) -> Iterator[Path]:
    """Write in a locked folder, and unlock it."""
    count_writing(1)
    try:
        yield target
    finally:
        count_writing(-1)
        unlock_folder(target)


def _has_checkpoint(folder: Path) -> bool:
    return any(folder.glob("checkpoint-*"))


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
                kept = temporary.rename(temporary.with_suffix(".kept"))
                raise OutputError(f"{target} appeared while this run was writing; the result is kept in {kept}")
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


def _refuse_to_replace(target: Path, shown: Path, overwrite: bool) -> None:
    finished, unfinished = (target / RECORD_NAME).is_file(), (target / UNFINISHED_NAME).is_file()
    if not overwrite and unfinished:
        raise OutputError(f"{shown} holds an unfinished run; `resume` goes on with it, `overwrite` starts again")
    if not overwrite:
        raise OutputError(f"{shown} already exists; pass `overwrite` to replace it, or name another folder")
    if not finished and not unfinished:
        raise OutputError(
            f"{shown} holds files and no {RECORD_NAME}, so it is not an earlier result; it stays as it is, "
            "name another folder"
        )


def _check_writable(target: Path, shown: Path) -> None:
    """Find out now, not after the work, that the nearest existing parent is not a folder or may not be written."""
    if HALF_CHARACTER.search(str(target)):
        raise OutputError(f"{target}: its path is not UTF-8 text, and not every library can write there; name another")
    parent = target.parent
    while not parent.exists():
        parent = parent.parent
    if not parent.is_dir():
        raise OutputError(f"{shown}: {parent} is a file, so no folder can be made in it")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise OutputError(f"{shown}: no permission to write in {parent}; name another folder")


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
