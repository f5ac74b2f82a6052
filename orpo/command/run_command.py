"""The one place that turns what happened into an exit code and one line on stderr.

    if __name__ == "__main__":
        run_command(main)

Exit codes: 0 done; 1 input, output, model or training; 2 settings; 70 a mistake of this program;
130 Ctrl-C; 141 the reader of stdout left; 143 terminated.
"""

import contextlib
import errno
import os
import re
import select
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from orpo.command.errors import OrpoError, causes_of, with_flags
from orpo.command.locks import unlock_folders
from orpo.command.safe_text import mask_text, printable
from orpo.command.signals import (
    EXIT_INTERRUPTED,
    EXIT_TERMINATED,
    Terminated,
    enter_main,
    leave_main,
    take_signals,
    what_is_kept,
)

_EXIT_BUG = 70
_EXIT_BROKEN_PIPE = 141

_REMEDIES = {
    errno.ENOSPC: "the disk is full; free some space or write to another disk",
    errno.EFBIG: "the file is larger than may be written here; raise the limit with `ulimit -f` or write elsewhere",
    errno.EDQUOT: "the disk quota is used up; free some space or write to another disk",
    errno.EACCES: "no permission; choose another path or change its permissions",
    errno.EPERM: "not permitted; choose another path or change its permissions",
    errno.EROFS: "the file system is read-only; write to another folder",
    errno.EADDRINUSE: "the port is in use; choose another one with --port",
    errno.ENOENT: "there is no such file or folder",
    errno.ENOTDIR: "a part of this path is a file, not a folder",
    errno.EISDIR: "this is a folder where a file is needed",
    errno.ENAMETOOLONG: "the name is too long",
    errno.EBUSY: "is in use, perhaps as a mount point; name a folder inside it",
    errno.EMFILE: "too many open files; raise the limit with `ulimit -n`",
}

# Of libraries written in Rust or C++, which report a full disk as an exception of their own (the last two are torch's).
_FULL_DISK = re.compile(
    r"No space left on device|os error 28|Disk quota exceeded|os error 122|File too large|os error 27"
    r"|PytorchStreamWriter failed writing|unexpected pos \d+ vs \d+"
)

_QUIET = {
    "TRANSFORMERS_VERBOSITY": "error",
    "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
    "DATASETS_VERBOSITY": "error",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "DIFFUSERS_VERBOSITY": "error",
    "TRL_EXPERIMENTAL_SILENCE": "1",
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "GRPC_VERBOSITY": "ERROR",
}

# On a CPU torch and oneDNN keep the code and buffers of the last 1,024 shapes that they multiplied, and every packed
# row has a shape of its own: 150 steps took 5.7 GB, and with the last 16 kept 3.2 GB in the same time
# (docs/training_speed.md).
_SMALL_CACHES = {"LRU_CACHE_CAPACITY": "16", "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "16"}

_NO_TELEMETRY = {
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
    "ARGILLA_ENABLE_TELEMETRY": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "GRADIO_ANALYTICS_ENABLED": "False",
}


_started: float | None = None


def run_command(main: Callable[[list[str]], int | None], argv: Sequence[str] | None = None) -> NoReturn:
    """Run a command's `main(argv)` and exit: 0 or its own code, else one line on stderr and a code above 0."""
    global _started
    take_signals()
    _started = time.perf_counter() - _process_seconds()
    arguments = list(sys.argv[1:] if argv is None else argv)
    verbose = "--verbose" in arguments or os.environ.get("ORPO_DEBUG", "") not in ("", "0")
    prepare_process(verbose=verbose)
    code = _run(main, arguments, verbose)
    leave_main()
    if code:
        # At once: a thread in the midst of torch's code would abort the process once the interpreter goes from under
        # it, a lock that Ctrl-C left taken would hold it up for ever, and its last garbage collection takes a second.
        unlock_folders()
        _flush_streams()
        os._exit(code)
    sys.exit(code)


def _flush_streams() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()


def command_started() -> float | None:
    """Return when the process of this command began, on the clock `time.perf_counter`; None outside a command."""
    return _started


def _process_seconds() -> float:
    """Return how long this process has run; 0 where the system does not say."""
    try:
        ticks = Path("/proc/self/stat").read_text(encoding="ascii").rpartition(")")[2].split()[19]
        return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - int(ticks) / os.sysconf("SC_CLK_TCK"))
    except (OSError, ValueError, AttributeError):  # not Linux
        return 0.0


def prepare_process(*, verbose: bool = False) -> None:
    """Switch telemetry off, quieten libraries, and make the standard streams able to print emojis."""
    for name, value in _NO_TELEMETRY.items():
        os.environ.setdefault(name, value)
    for name, value in _SMALL_CACHES.items():
        os.environ.setdefault(name, value)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # else a warning after every fork
    if not verbose:
        for name, value in _QUIET.items():
            os.environ.setdefault(name, value)
        warnings.simplefilter("ignore")
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            # A terminal knows its own encoding; a pipe or file gets UTF-8 everywhere. What cannot be shown becomes `?`.
            stream.reconfigure(encoding=None if stream.isatty() else "utf-8", errors="replace")
    _forget_script_folder()
    if not verbose:
        sys.unraisablehook = _ignore_unraisable


def _run(main: Callable[[list[str]], int | None], arguments: list[str], verbose: bool) -> int:
    try:
        enter_main()
        code = main(arguments) or 0
        sys.stdout.flush()
        return code
    except KeyboardInterrupt as stop:
        return _say_stopped(stop)
    except OrpoError as problem:
        if verbose:
            _print_traceback(problem)
        _say(f"error: {problem.for_command()}", problem)
        return problem.exit_code
    except BrokenPipeError as problem:
        if _stdout_is_closed():
            return _EXIT_BROKEN_PIPE
        return _report_failure(problem, verbose)
    except Exception as problem:
        return _report_failure(problem, verbose)


def _report_failure(problem: Exception, verbose: bool) -> int:
    """Say what the system refused in one line; anything else is a mistake of ours, and its traceback is kept."""
    if verbose:
        _print_traceback(problem)
    link = problem.__cause__ or problem.__context__
    while link is not None and not isinstance(link, KeyboardInterrupt):
        link = link.__cause__ or link.__context__
    if link is not None:  # a library made another error of Ctrl-C
        for note in getattr(problem, "__notes__", []):
            link.add_note(note)
        return _say_stopped(link)
    known = describe_failure(problem)
    if known is not None:
        _say(f"error: {known}", problem)
        return 1
    where = "" if verbose else f" (a mistake in this program; traceback: {_save_traceback(problem)})"
    _say(f"error: unexpected {type(problem).__name__}: {problem}{where}", problem)
    return _EXIT_BUG


def _say_stopped(stop: KeyboardInterrupt) -> int:
    """Say what is kept and how to go on, as the blocks that were left have noted it on the exception."""
    leave_main()  # an impatient second Ctrl-C
    # An impatient second Ctrl-C is another exception, raised while the first one was on its way.
    notes = [note for link in causes_of(stop) for note in getattr(link, "__notes__", [])]
    kept = "; ".join(dict.fromkeys(notes)) or what_is_kept()
    _say_lines([f"stopped; {with_flags(kept)}"])
    return EXIT_TERMINATED if isinstance(stop, Terminated) else EXIT_INTERRUPTED


def describe_failure(problem: BaseException) -> str | None:
    """Return a line for failures of the system (disk, permission, port, memory), or None for any other exception."""
    for link in causes_of(problem):
        if isinstance(link, OSError) and link.errno in _REMEDIES:
            name = f"{link.filename}: " if link.filename else ""
            return f"{name}{_REMEDIES[link.errno]}"
        if isinstance(link, UnicodeEncodeError) and "surrogates" in link.reason:
            return "a text or a path holds half of a character, so it is not UTF-8 text; write or name it again"
        if _FULL_DISK.search(str(link)):
            return _REMEDIES[errno.ENOSPC]
        if isinstance(link, MemoryError) or type(link).__name__ == "OutOfMemoryError":
            return "out of memory; use a smaller batch (train.py: --token-budget), shorter lengths or a smaller model"
    return None


def _say(line: str, problem: BaseException) -> None:
    """Print one line, then the notes that outer layers added, such as where unfinished work is kept."""
    _say_lines([" ".join(line.split()), *map(with_flags, getattr(problem, "__notes__", []))])


def _say_lines(lines: Sequence[str]) -> None:
    with contextlib.suppress(OSError):  # stderr itself may be gone: the exit code has to do then
        print(*map(_safe, lines), sep="\n", file=sys.stderr, flush=True)


def _safe(text: str) -> str:
    return printable(mask_text(text))


def _print_traceback(problem: BaseException) -> None:
    sys.stderr.writelines(map(_safe, traceback.format_exception(problem)))


def _save_traceback(problem: BaseException) -> str:
    try:
        with tempfile.NamedTemporaryFile("w", prefix="orpo-", suffix=".txt", delete=False, encoding="utf-8") as file:
            file.writelines(map(_safe, traceback.format_exception(problem)))
        return file.name
    except OSError:
        return "not saved; --verbose prints it"


def _stdout_is_closed() -> bool:
    """Tell whether the reader of our output has left (`| head`), or some other connection broke."""
    try:
        output = sys.stdout.fileno()
        if hasattr(select, "poll"):
            watch = select.poll()
            watch.register(output, 0)
            if not any(state & (select.POLLERR | select.POLLHUP) for _, state in watch.poll(0)):
                return False
        # The interpreter flushes once more on its way out, and must not fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), output)
    except (OSError, ValueError):
        return False
    return True


def _forget_script_folder() -> None:
    """Drop the script's own folder from the import path, so no file beside the commands can hide a library."""
    package = Path(__file__).resolve().parents[1]
    sys.path[:] = [entry for entry in sys.path if not entry or Path(entry).resolve() != package]


def _ignore_unraisable(_: "sys.UnraisableHookArgs") -> None:
    """Keep silent about what fails while objects are thrown away: the failure itself is told in its one line."""
