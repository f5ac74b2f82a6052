"""A lock on an output folder, so that two commands never write one result, and what a killed command left is cleared.

The lock is a file beside the folder, `.NAME.lock`. The system releases it with the process, however that ends, so a
lock file that was left behind keeps nobody out.
"""

import atexit
import contextlib
import os
import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from orpo.command.errors import OutputError


@dataclass(frozen=True)
class _Held:
    stream: int
    process: int
    made: tuple[Path, ...]


_held: Final[dict[Path, _Held]] = {}


def lock_folder(target: Path, shown: Path) -> None:
    """Keep a folder for this process until `unlock_folder` or the end of the process; calling it again is harmless.

    It need not exist; `shown` is its path as the user wrote it.
    """
    file = _lock_file(target)
    if _is_ours(file):
        return
    made = tuple(parent for parent in target.parents if not parent.exists())
    target.parent.mkdir(parents=True, exist_ok=True)
    if not _held:
        atexit.register(unlock_folders)
    _held[file] = _Held(_lock(file, shown), os.getpid(), made)
    _clear_leftovers(target)


def unlock_folder(target: Path) -> None:
    """Release the folder."""
    if _is_ours(file := _lock_file(target)):
        _release(file)


def unlock_folders() -> None:
    """Release every folder that this process keeps."""
    for file in filter(_is_ours, list(_held)):
        _release(file)


def _is_ours(file: Path) -> bool:
    held = _held.get(file)
    return held is not None and held.process == os.getpid()  # a forked worker must not release it


def _lock_file(target: Path) -> Path:
    return target.with_name(f".{target.name}.lock")


def _lock(file: Path, shown: Path) -> int:
    while True:
        stream = os.open(file, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o666)
        try:
            if not _try_lock(stream):
                owner = os.read(stream, 32).decode("ascii", "replace").strip() or "another process"
                raise OutputError(f"{shown} is being written by process {owner}; stop it first, or name another folder")
            # Whoever held it may have removed the file since it was opened: then somebody else may hold a new one.
            if file.exists() and os.path.samestat(os.fstat(stream), file.stat()):
                os.ftruncate(stream, 0)
                os.write(stream, f"{os.getpid()}\n".encode("ascii"))
                return stream
        except BaseException:
            os.close(stream)
            raise
        os.close(stream)


def _try_lock(stream: int) -> bool:
    if sys.platform == "win32":
        return True
    import fcntl

    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True  # a network file system that knows no locks
    return True


def _release(file: Path) -> None:
    held = _held.pop(file)
    file.unlink(missing_ok=True)  # while it is still locked: nobody may lock a file that is about to go
    os.close(held.stream)
    with contextlib.suppress(OSError):  # not empty any more
        for folder in held.made:
            folder.rmdir()


def _clear_leftovers(target: Path) -> None:
    """Remove what a killed command left beside the folder; an earlier result that it had moved aside comes back."""
    name = re.compile(rf"\.{re.escape(target.name)}\.[a-z0-9_]{{8}}\.(partial|old)")
    for left in [path for path in target.parent.iterdir() if name.fullmatch(path.name)]:
        if left.suffix == ".old" and not target.exists() and (left / target.name).is_dir():
            (left / target.name).rename(target)
        shutil.rmtree(left, ignore_errors=True)
