"""A comparison on the terminal: replies side by side, and the figures with their intervals."""

import io
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from rich.console import CONSOLE_SVG_FORMAT, Console  # type: ignore[attr-defined]  # not in its __all__
from rich.table import Table
from rich.terminal_theme import SVG_EXPORT_THEME as _THEME
from rich.text import Text

from orpo.command.display import console_out
from orpo.command.safe_text import printable
from orpo.comparing.comparison import Comparison
from orpo.comparing.figures import CATEGORY, PART, Figure, Measure
from orpo.comparing.intervals import FEWEST_PROMPTS, Interval
from orpo.comparing.judging import Judgement
from orpo.scoring import count_emojis

MARKS: Final = {"better": "▲", "worse": "▼"}
_PICTURE_WIDTH: Final = 100
# rich's own format fetches a font from a server; the reader's own fonts do, and an emoji font shows emojis in colour.
_PICTURE_FORMAT: Final = re.sub(r"@font-face \{\{.*?\}\}", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL).replace(
    "Fira Code, monospace", "ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, 'Noto Color Emoji', monospace"
)
# XML allows no control characters, lone surrogates or non-characters, not even escaped; a model may write any.
_NOT_XML: Final = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def print_side_by_side(comparison: Comparison, count: int, *, console: Console | None = None) -> None:
    """Print the first `count` prompts with the replies of each side, how many emojis these hold, and their score."""
    table = Table(show_lines=True, expand=True)
    table.add_column("prompt", ratio=3, overflow="fold")
    for side in comparison.sides:
        table.add_column(side.name, ratio=4, overflow="fold")
        table.add_column("emojis\nscore", justify="right", width=6)
    for index, prompt in enumerate(comparison.held_out.prompts[:count]):
        cells: list[Text] = [Text(printable(prompt.text))]
        for side in comparison.sides:
            text, score = side.replies[0][index].text, side.reports[0][index].score
            cells += [Text(printable(text) or "(empty)"), Text(f"{count_emojis(text)}\n{score:.2f}")]
        table.add_row(*cells)
    (console or console_out).print(table)


def print_summary(comparison: Comparison, *, console: Console | None = None) -> None:
    """Print every figure of every side with its interval, and the difference from the first side."""
    table = Table()
    table.add_column("measure", no_wrap=True)
    for number, side in enumerate(comparison.sides):
        table.add_column(side.name, justify="right", overflow="fold")
        if number:
            table.add_column("difference", justify="right", overflow="fold")
    for measure in comparison.measures:
        cells = []
        for number, figures in enumerate(comparison.figures):
            figure = figures.get(measure.key)
            cells.append(with_interval(measure, figure))
            if number:
                cells.append(with_verdict(measure, figure))
        table.add_row(Text(label_of(measure, comparison)), *map(Text, cells))
    _print_with_notes(table, comparison, console)


def print_main_figures(comparison: Comparison, *, console: Console | None = None) -> None:
    """Print the main figures, a column for each side, marked where they are better or worse than the first side's."""
    table = Table()
    table.add_column("measure", no_wrap=True)
    for side in comparison.sides:
        table.add_column(side.name, justify="right", overflow="fold")
    for measure in comparison.measures:
        if measure.is_main:
            found = [figures.get(measure.key) for figures in comparison.figures]
            table.add_row(Text(label_of(measure, comparison)), *(Text(marked(measure, figure)) for figure in found))
    _print_with_notes(table, comparison, console)


def print_judgements(judgements: Sequence[Judgement], *, console: Console | None = None) -> None:
    """Print what a judge says of each side beside the first one; nothing without a judge."""
    if not judgements:
        return
    table = Table()
    table.add_column("judge", no_wrap=True)
    failed = ["failed"] if any(found.failed for found in judgements) else []
    for name in ("preferred", "wins", "ties", "losses", *failed, "agrees with the score"):
        table.add_column(name, justify="right")
    for found in judgements:
        shares = [_share(found.preferred), _share(found.agreement)]
        counts = [str(found.wins), str(found.ties), str(found.losses), *([str(found.failed)] if failed else [])]
        table.add_row(*map(Text, (found.name, shares[0], *counts, shares[1])))
    (console or console_out).print(table)


def _share(interval: Interval | None) -> str:
    return "-" if interval is None else f"{_percent(interval.value)}\u00a0% {_bounds(interval, _percent)}"


def print_json(comparison: Comparison, facts: Mapping[str, object]) -> None:
    """Print a line of JSON for each prompt, wish and question with every reply, then one with the figures."""
    for row in comparison.rows():
        print(json.dumps(row, ensure_ascii=False))
    print(json.dumps({"summary": comparison.summary(), **facts}, ensure_ascii=False))


def draw_comparison(comparison: Comparison, count: int) -> str:
    """Return the tables as an SVG, in a terminal's frame."""
    title = " and ".join(side.name for side in comparison.sides)
    console = Console(
        record=True, file=io.StringIO(), width=_PICTURE_WIDTH, markup=False, emoji=False, highlight=False,
        force_terminal=True, legacy_windows=False, color_system="truecolor",
    )  # fmt: skip
    print_side_by_side(comparison, count, console=console)
    print_main_figures(comparison, console=console)
    return _NOT_XML.sub("\ufffd", console.export_svg(title=title, theme=_THEME, code_format=_PICTURE_FORMAT))


def write_picture(file: Path, comparison: Comparison, count: int) -> None:
    """Write the picture."""
    file.write_text(draw_comparison(comparison, count), encoding="utf-8")


def value_text(measure: Measure, value: float) -> str:
    """Return a value as a reader expects it: shares in percent, the others with as many digits as they deserve."""
    if measure.kind == "share":
        return f"{100 * value:.1f}\u00a0%"
    if measure.key == "seconds":
        return f"{value:.2g}"
    return f"{value:.0f}" if measure.kind == "count" else _plain(value)


def _percent(share: float) -> str:
    return f"{100 * share:.0f}"


def _plain(value: float) -> str:
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def with_interval(measure: Measure, figure: Figure | None) -> str:
    """Return a value with its bounds; a dash where it was not measured."""
    if figure is None:
        return "-"
    return f"{value_text(measure, figure.interval.value)} {bounds_text(measure, figure.interval)}".rstrip()


def bounds_text(measure: Measure, interval: Interval) -> str:
    """Return the bounds of a value; empty where there are none."""
    return _bounds(interval, _percent if measure.kind == "share" else _plain)


def with_verdict(measure: Measure, figure: Figure | None) -> str:
    """Return a difference with its bounds, marked where the interval leaves no doubt."""
    if figure is None or figure.difference is None:
        return ""
    change = figure.difference
    if measure.kind == "mean":
        text = f"{change.value:+.2f} {_bounds(change, '{:+.2f}'.format)}"
    else:  # in points of a percentage; perplexity in percent of the base's
        unit = "\u00a0%" if measure.kind == "perplexity" else ""
        text = f"{100 * change.value:+.1f}{unit} {_bounds(change, lambda bound: f'{100 * bound:+.0f}')}"
    return f"{MARKS.get(figure.verdict, '')} {text}".strip()


def _bounds(interval: Interval, form: Callable[[float], str]) -> str:
    """Return `[40,60]`, in one piece where a line is folded; empty where there are no bounds."""
    if interval.low is None or interval.high is None:
        return ""
    return f"[{form(interval.low)},{form(interval.high)}]"


def marked(measure: Measure, figure: Figure | None) -> str:
    """Return a value, marked where it is better or worse than the first side's."""
    if figure is None:
        return "-"
    return f"{value_text(measure, figure.interval.value)} {MARKS.get(figure.verdict, ' ')}".rstrip()


def notes(comparison: Comparison) -> list[str]:
    """Return what a reader of the figures has to know."""
    prompts = len(comparison.held_out.prompts)
    said = [f"{prompts} prompts, {sum(map(len, comparison.sides[0].replies))} replies a side; intervals hold 95 %"]
    if prompts < FEWEST_PROMPTS:
        said.append(f"fewer than {FEWEST_PROMPTS} prompts: intervals are wide, and nothing is called better or worse")
    elif len(comparison.sides) > 1:
        base = comparison.sides[0].name
        said.append(f"▲ better, ▼ worse than {base}: the interval of the difference, prompt by prompt, does not hold 0")
    if any(key.startswith(PART) for key in comparison.figures[0].figures):
        said.append("a part of the score is 1.00 where there is no emoji to judge")
    if len(comparison.sides) > 1:
        said.append("seconds are those of the run that wrote the replies; another load of the machine changes them")
    return said


def _print_with_notes(table: Table, comparison: Comparison, console: Console | None) -> None:
    shown = console or console_out
    shown.print(table)
    for note in notes(comparison):
        shown.print(Text(note, style="dim"))


def label_of(measure: Measure, comparison: Comparison) -> str:
    """Return a measure's name, with the scorer's or the number of prompts where it matters."""
    if measure.key == "score":
        return f"score ({comparison.scorer})"
    if measure.key.startswith(CATEGORY):
        number = comparison.figures[0].figures[measure.key].interval.prompts
        return f"{measure.label} ({number})"
    return measure.label
