"""Progress on stderr, results on stdout.

The consoles read no markup and no `:emoji:` codes: what they print is mostly text that a model wrote, and it must come
out as it is. Style with `style=` or a `rich.text.Text`.
"""

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from orpo.command.ranks import is_main_process

console_out: Final = Console(markup=False, emoji=False, highlight=False, quiet=not is_main_process())
"""Results."""

console_err: Final = Console(stderr=True, markup=False, emoji=False, highlight=False, quiet=not is_main_process())
"""Progress, notes and errors."""

_LINE_EVERY_SECONDS = 10.0
# Escape sequences whole; other control characters but tab and newline; what reorders text in sight (bidi controls);
# separators that some terminals take for a line end; half a surrogate pair, which cannot be written.
_UNSAFE = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[\]PX^_][^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)|[ -/]*[0-~])"
    r"|[\x00-\x08\x0b-\x1f\x7f-\x9f]"
    "|[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\u2028\u2029\ud800-\udfff]"
)


def printable(text: str) -> str:
    """Return text that is safe to show: others' text must not move the cursor, recolour or reorder what is seen."""
    return _UNSAFE.sub("\ufffd", text.replace("\r\n", "\n"))


class Advance(Protocol):
    """Moves a progress bar on; keyword arguments are shown beside it, for example `loss=0.31`."""

    def __call__(self, n: int = 1, **stats: object) -> None:
        """Move on by `n`."""


@contextmanager
def progress_bar(description: str, total: int | None) -> Iterator[Advance]:
    """Show progress on stderr: a bar on a terminal, elsewhere a line every ten seconds and one at the end."""
    if console_err.is_terminal:
        with _live_bar(description, total) as advance:
            yield advance
    else:
        lines = _ProgressLines(description, total)
        yield lines.advance
        lines.finish()


@contextmanager
def _live_bar(description: str, total: int | None) -> Iterator[Advance]:
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[stats]}", markup=False),
    )
    with Progress(*columns, console=console_err, transient=False) as progress:
        task = progress.add_task(description, total=total, stats="")

        def advance(n: int = 1, **stats: object) -> None:
            if stats:
                progress.update(task, advance=n, stats=_stats_text(stats))
            else:
                progress.update(task, advance=n)

        yield advance


class _ProgressLines:
    """Progress for logs and pipes, where a redrawn bar would be noise."""

    def __init__(self, description: str, total: int | None) -> None:
        self._description = description
        self._total = total
        self._done = 0
        self._stats = ""
        self._started = self._last_line = time.monotonic()
        self._printed = False

    def advance(self, n: int = 1, **stats: object) -> None:
        self._done += n
        if stats:
            self._stats = _stats_text(stats)
        if time.monotonic() - self._last_line >= _LINE_EVERY_SECONDS:
            self._print()

    def finish(self) -> None:
        """Close with a line, unless the work was too short to have shown any."""
        if self._printed:
            self._print()

    def _print(self) -> None:
        now = time.monotonic()
        total = "" if self._total is None else f"/{self._total}"
        speed = self._done / max(now - self._started, 1e-9)
        text = f"{self._description}: {self._done}{total}, {speed:.3g}/s {self._stats}".rstrip()
        console_err.print(text, soft_wrap=True)
        self._last_line, self._printed = now, True


def _stats_text(stats: dict[str, object]) -> str:
    return "  ".join(
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in stats.items()
    )
