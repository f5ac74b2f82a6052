"""The comparison on the terminal and as files."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from orpo.command.display import console_out
from orpo.command.safe_text import printable
from orpo.comparing.comparison import Comparison, Measures
from orpo.comparing.picture import draw_comparison
from orpo.scoring import DEFAULT_SCORER, count_emojis

REPORT_NAME: Final = "report.json"
PICTURE_NAME: Final = "report.svg"


def print_side_by_side(comparison: Comparison, count: int, *, console: Console | None = None) -> None:
    """Print the first `count` prompts with the replies of each side, how many emojis these hold, and their score."""
    table = Table(show_lines=True, expand=True)
    table.add_column("prompt", ratio=3, overflow="fold")
    for side in comparison.sides():
        table.add_column(side.name, ratio=4, overflow="fold")
        table.add_column("emojis\nscore", justify="right", width=6)
    for index, prompt in enumerate(comparison.prompts[:count]):
        cells: list[Text] = [Text(printable(prompt.text))]
        for side in comparison.sides():
            text, score = side.replies[index].text, side.reports[index].score
            cells += [Text(printable(text) or "(empty)"), Text(f"{count_emojis(text)}\n{score:.2f}")]
        table.add_row(*cells)
    (console or console_out).print(table)


def print_summary(comparison: Comparison, *, title: str = "", console: Console | None = None) -> None:
    """Print the measures, one line each, one column per side."""
    parts = "a part is 1.00 where there is no emoji to judge" if comparison.base.measures.scores else None
    table = Table(title=title or None, title_justify="left", caption=parts, caption_justify="left")
    table.add_column("measure")
    for side in comparison.sides():
        table.add_column(side.name, justify="right")
    for name, *values in summary_lines([side.measures for side in comparison.sides()], comparison.scorer):
        table.add_row(Text(name), *map(Text, values))
    (console or console_out).print(table)


def summary_lines(measures: Sequence[Measures], scorer: str = DEFAULT_SCORER) -> list[tuple[str, ...]]:
    """Return the lines of the summary: what is measured, then its value for each side as text."""
    lines: list[tuple[str, ...]] = [
        ("replies", *(str(side.replies) for side in measures)),
        ("replies with an emoji", *(_percent(side.emoji_rate) for side in measures)),
        *_placed_rates(measures),
        ("emojis per reply", *(f"{side.mean_emojis:.2f}" for side in measures)),
        ("most emojis in a reply", *(str(side.max_emojis) for side in measures)),
        ("ended by the model", *(_percent(side.finished_share) for side in measures)),
        ("repeat themselves", *(_percent(side.repeated_share) for side in measures)),
        ("different replies", *(_percent(side.distinct_share) for side in measures)),
        ("tokens per reply", *(f"{side.mean_tokens:.1f}" for side in measures)),
        ("tokens per second", *(f"{side.tokens_per_second:.0f}" for side in measures)),
    ]
    if any(side.perplexity is not None for side in measures):
        lines.append(("perplexity on plain text", *(_perplexity(side, measures[0]) for side in measures)))
    for part in measures[0].scores:
        name = f"score ({scorer})" if part == "total" else f"  {part}"
        lines.append((name, *(f"{side.scores[part]:.2f}" for side in measures)))
    return lines


def _placed_rates(measures: Sequence[Measures]) -> list[tuple[str, ...]]:
    """Return the lines that tell the rate apart by whether an emoji is in place, where the prompts say."""
    lines = [
        ("  where in place", [side.in_place_rate for side in measures]),
        ("  where out of place", [side.out_of_place_rate for side in measures]),
    ]
    return [
        (name, *(_percent(rate) for rate in rates if rate is not None)) for name, rates in lines if None not in rates
    ]


def write_report(folder: Path, comparison: Comparison, facts: dict[str, Any]) -> None:
    """Write report.json (facts, measures, every reply) and the picture into a folder."""
    content = {**facts, "scorer": comparison.scorer, "summary": comparison.summary(), "replies": comparison.rows()}
    text = json.dumps(content, indent=2, ensure_ascii=False)
    (folder / REPORT_NAME).write_text(text + "\n", encoding="utf-8")
    (folder / PICTURE_NAME).write_text(draw_comparison(comparison), encoding="utf-8")


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _perplexity(side: Measures, base: Measures) -> str:
    if side.perplexity is None:
        return "-"
    if side is base or not base.perplexity:
        return f"{side.perplexity:.2f}"
    return f"{side.perplexity:.2f} ({100 * (side.perplexity / base.perplexity - 1):+.1f} %)"
