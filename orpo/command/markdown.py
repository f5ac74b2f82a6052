"""Tables and cells of Markdown, for cards and for TensorBoard; what others wrote stays text in them."""

import re
from collections.abc import Sequence
from html import escape

from orpo.command.safe_text import printable


def table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return a Markdown table, or nothing where it would be empty."""
    if not rows:
        return ""
    lines = [map(_cell, columns), ["---"] * len(columns), *(map(_cell, row) for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(value: object) -> str:
    """Return text as Markdown shows it and nothing more: one line, no HTML, no link, no further cell."""
    text = escape(" ".join(printable(str(value)).split()), quote=False)
    return re.sub(r"([|\[\]*`\\])", r"\\\1", text)
