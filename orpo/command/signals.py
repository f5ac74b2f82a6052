"""Ctrl-C and SIGTERM, from the first line of a command to its last.

Imports come first, and take seconds. A KeyboardInterrupt raised in the midst of one may be swallowed there, or come out
as another error, so while something is being imported the process ends at once, unless it is writing something that
has to be cleaned up. At any other time the signal is an exception, and `with` blocks clean up.
"""

# Nothing but what the interpreter has loaded anyway, and signal: until the handlers stand, Ctrl-C is a traceback.
import os
import signal
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType

EXIT_INTERRUPTED = 130
EXIT_TERMINATED = 143

NOTHING_KEPT = "nothing of this run is kept, and the same command starts it anew"


class Terminated(KeyboardInterrupt):
    """SIGTERM, made an exception so that temporary folders are cleaned up as after Ctrl-C."""


class _State:
    owner = 0
    in_main = False
    writing = 0
    shields = 0
    result = ""


def take_signals() -> None:
    """Handle Ctrl-C and SIGTERM from here on; until `enter_main` both end the process at once."""
    _State.owner = os.getpid()
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # a shell's background job is deaf to Ctrl-C
        _set(signal.SIGINT, _stop)
    _set(signal.SIGTERM, _stop)


def enter_main() -> None:
    """From here on an exception is caught, and said in one line."""
    _State.in_main = True


def leave_main() -> None:
    """The command is over and its exit code known: a signal changes nothing any more."""
    _set(signal.SIGINT, signal.SIG_IGN)
    _set(signal.SIGTERM, signal.SIG_IGN)


def count_writing(change: int) -> None:
    """Count what would have to be cleaned up, or told of, if the command were stopped now."""
    _State.writing += change


class CleaningUp:
    """While a block runs that handles a stop or an error, a second Ctrl-C changes nothing: the block is soon done."""

    def __enter__(self) -> None:
        _State.shields += 1

    def __exit__(self, *_: object) -> None:
        _State.shields -= 1


def note_result(place: object) -> None:
    """From here on the result is whole, and whoever stops the command learns where it is."""
    _State.result = str(place)


def what_is_kept() -> str:
    """Return what a stop says is kept, and how to go on, where no `with` block knows more."""
    return f"the result is whole, in {_State.result}" if _State.result else NOTHING_KEPT


def is_own_command() -> bool:
    """Tell whether the program that runs is one of this package's commands, and not a test or a user's own."""
    file = getattr(sys.modules.get("__main__"), "__file__", None)
    package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    is_program = file is not None and os.path.basename(file) == "orpo"  # as it is installed
    return is_program or (file is not None and os.path.dirname(os.path.abspath(file)) == package)


def _stop(number: int, frame: "FrameType | None") -> None:
    code = EXIT_TERMINATED if number == signal.SIGTERM else EXIT_INTERRUPTED
    if os.getpid() != _State.owner:
        os._exit(code)  # a forked worker: nothing of ours to clean up
    if _State.shields:
        return
    if not _State.in_main or (_is_importing(frame) and not _State.writing):
        try:
            os.write(2, f"stopped; {what_is_kept()}\n".encode("utf-8", "replace"))
            if "orpo.command.locks" in sys.modules:
                sys.modules["orpo.command.locks"].unlock_folders()
        finally:
            os._exit(code)
    raise Terminated if number == signal.SIGTERM else KeyboardInterrupt


def _is_importing(frame: "FrameType | None") -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def _set(number: int, handler: "signal.Handlers | signal._HANDLER") -> None:
    try:  # noqa: SIM105 (contextlib would have to be imported)
        signal.signal(number, handler)
    except ValueError:
        pass  # not the main thread: whoever started this one handles signals
