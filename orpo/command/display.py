"""What the user sees: progress on stderr, results and tables on stdout.

The consoles read no markup and no `:emoji:` codes: what they print is mostly text that a model wrote, and it must come
out as it is. Style with `style=` or a `rich.text.Text`.
"""

import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from orpo.command.ranks import is_main_process
from orpo.command.safe_text import printable


class SafeConsole(Console):
    """A console through which nobody else's text can steer the terminal."""

    def print(self, *objects: Any, **how: Any) -> None:
        """Print; control characters and their like in texts become a mark."""
        super().print(*(printable(one) if isinstance(one, str) else one for one in objects), **how)


console_out: Final = SafeConsole(markup=False, emoji=False, highlight=False, quiet=not is_main_process())
"""Results."""

console_err: Final = SafeConsole(stderr=True, markup=False, emoji=False, highlight=False, quiet=not is_main_process())
"""Progress, notes and errors."""

_LINE_EVERY_SECONDS = 10.0
_SPEED_LINES = 7  # a minute
_FEW = 10


class Advance(Protocol):
    """Moves a progress bar on; keyword arguments are shown beside it, for example `loss=0.31`."""

    def __call__(self, n: int = 1, **stats: object) -> None:
        """Move on by `n`."""


@contextmanager
def progress_bar(description: str, total: int | None, *, done: int = 0) -> Iterator[Advance]:
    """Show progress and time left on stderr: a bar on a terminal, elsewhere a line every ten seconds and at the end.

    `done` is what an earlier run did already.
    """
    if console_err.is_terminal:
        with _live_bar(description, total, done) as advance:
            yield advance
    else:
        lines = _ProgressLines(description, total, done)
        yield lines.advance
        lines.finish()


@contextmanager
def _live_bar(description: str, total: int | None, done: int) -> Iterator[Advance]:
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[stats]}", markup=False),
    )
    with Progress(*columns, console=console_err, transient=False) as progress:
        task = progress.add_task(description, total=total, completed=done, stats="")

        def advance(n: int = 1, **stats: object) -> None:
            if stats:
                progress.update(task, advance=n, stats=_stats_text(stats))
            else:
                progress.update(task, advance=n)

        yield advance


class _ProgressLines:
    """Progress for logs and pipes, where a redrawn bar would be noise."""

    def __init__(self, description: str, total: int | None, done: int) -> None:
        self._description = description
        self._total = total
        self._done = done
        self._stats = ""
        # When each of the last lines was due, and what was done by then: replies found in a cache come all at once, and
        # must not make those that are written seem fast for long.
        self._lines = deque([(time.monotonic(), done)], maxlen=_SPEED_LINES)

    def advance(self, n: int = 1, **stats: object) -> None:
        self._done += n
        if stats:
            self._stats = _stats_text(stats)
        if time.monotonic() - self._lines[-1][0] >= _LINE_EVERY_SECONDS:
            self._print()

    def finish(self) -> None:
        """Close with a line, unless the work was too short to have shown any."""
        if len(self._lines) > 1:
            self._print()

    def _print(self) -> None:
        now = time.monotonic()
        then, done_then = self._lines[0]
        total = "" if self._total is None else f"/{self._total}"
        fresh = self._done - done_then
        speed = fresh / max(now - then, 1e-9)
        pace = f", {speed:.3g}/s" if speed > 0 else ""
        # Of replies that are written side by side the first one is late, and says little of the others.
        if pace and self._total is not None and self._done < self._total and fresh >= min(_FEW, self._total / 20):
            pace += f", about {duration_text((self._total - self._done) / speed)} left"
        text = f"{self._description}: {self._done}{total}{pace} {self._stats}".rstrip()
        console_err.print(text, soft_wrap=True)
        self._lines.append((now, self._done))


def duration_text(seconds: float) -> str:
    """Return a time as people say it: `40 s`, `12 min`, `3 h 20 min`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def _stats_text(stats: dict[str, object]) -> str:
    return "  ".join(
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in stats.items()
    )


def print_warnings(warnings: Iterable[str]) -> None:
    """Say on stderr what the user should know, a line each."""
    for warning in warnings:
        console_err.print(f"warning: {warning}", soft_wrap=True)


def print_table(
    columns: Sequence[str], rows: Sequence[Sequence[object]], *, title: str = "", console: Console | None = None
) -> None:
    """Print rows under column names; numbers stand right, and cells come out as they are, without any markup."""
    table = Table(title=title or None, title_justify="left")
    for index, column in enumerate(columns):
        numeric = bool(rows) and all(isinstance(row[index], int | float) or row[index] is None for row in rows)
        table.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(_cell_text(cell)) for cell in row))
    (console or console_out).print(table)


def _cell_text(cell: object) -> str:
    if cell is None:
        return "-"
    return f"{cell:.4g}" if isinstance(cell, float) else printable(str(cell))
