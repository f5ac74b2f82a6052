"""Tables on the terminal."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from orpo.command.display import console_out


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
    return f"{cell:.4g}" if isinstance(cell, float) else str(cell)
