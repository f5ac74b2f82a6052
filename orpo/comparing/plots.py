"""The report's plots, as SVG in the page's own colours: drawn once, readable in light and in dark."""

import io
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from zlib import crc32

import numpy as np

from orpo.comparing.comparison import Comparison
from orpo.comparing.figures import PART, Figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS: Final = ("#7d8699", "#e07b00", "#2f7de1", "#1d9a6c", "#c2489b", "#8b62d9", "#b8901a", "#d1495b", "#2a9fb0")
"""One for each side; all of them can be told from white and from black."""

_MARKERS: Final = "oDs^vPX<>"
# Stand-ins that no plot uses otherwise, and what the page makes of them.
_INK, _GRID = "#010203", "#040506"
_THEME: Final = {_INK: "var(--ink)", _GRID: "var(--line)"}
_STYLE: Final = {
    "svg.fonttype": "none",
    "svg.hashsalt": "report",
    "font.size": 10,
    "axes.edgecolor": _GRID,
    "axes.labelcolor": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": _GRID,
    "grid.linewidth": 0.6,
    "text.color": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "legend.frameon": False,
    "legend.fontsize": 9,
}


@dataclass(frozen=True)
class Plot:
    """A plot, with what it shows in words."""

    title: str
    note: str
    svg: str


def draw_plots(comparison: Comparison) -> list[Plot]:
    """Return the plots for which there is something to show."""
    makers: tuple[Callable[[Comparison], Plot | None], ...] = (_places, _share_and_count, _score_parts, _lengths)
    return [plot for make in makers if (plot := make(comparison)) is not None]


def _places(comparison: Comparison) -> Plot | None:
    """Both ends of the task: emojis where they are in place, none where they are not."""
    return _scatter(
        comparison,
        ("out_of_place", "in_place"),
        ("emoji where out of place, %", "emoji where in place, %"),
        "In place and out of place",
        "The best corner is at the top left. Lines are 95 % intervals.",
    )


def _share_and_count(comparison: Comparison) -> Plot | None:
    key = "in_place" if comparison.figures[0].get("in_place") else "emoji_rate"
    label = "emoji where in place, %" if key == "in_place" else "replies with an emoji, %"
    return _scatter(
        comparison,
        ("mean_emojis", key),
        ("emojis a reply, mean", label),
        "Share against count",
        "A share that is bought with many emojis lies far to the right.",
    )


def _scatter(
    comparison: Comparison, keys: tuple[str, str], labels: tuple[str, str], title: str, note: str
) -> Plot | None:
    points = [(figures.get(keys[0]), figures.get(keys[1])) for figures in comparison.figures]
    if any(x is None or y is None for x, y in points):
        return None
    with _figure(comparison) as (axes, finish):
        for number, (x, y) in enumerate(points):
            assert x is not None and y is not None
            across, up = _scaled(x, keys[0]), _scaled(y, keys[1])
            axes.errorbar(
                [across[0]],
                [up[0]],
                xerr=_whiskers(across),
                yerr=_whiskers(up),
                color=_colour(number),
                marker=_marker(number),
                label=comparison.sides[number].name,
                capsize=2,
                markersize=7,
            )
        axes.set_xlabel(labels[0])
        axes.set_ylabel(labels[1])
        axes.set_ylim(-4, 104)
        if keys[0] != "mean_emojis":
            axes.set_xlim(-4, 104)
        svg = finish(f"{title}: {labels[1]} against {labels[0]}")
    return Plot(title, note, svg)


def _score_parts(comparison: Comparison) -> Plot | None:
    parts = [key for key in comparison.figures[0].figures if key.startswith(PART)]
    if not parts:
        return None
    rows = ["score", *parts][::-1]
    with _figure(comparison, height=1.3 + 0.25 * len(rows)) as (axes, finish):
        for number, figures in enumerate(comparison.figures):
            values = [figures.figures[key].interval.value for key in rows]
            axes.plot(
                values,
                range(len(rows)),
                linestyle="",
                color=_colour(number),
                marker=_marker(number),
                label=comparison.sides[number].name,
                markersize=6,
                alpha=0.85,
            )
        axes.set_yticks(range(len(rows)), [key.removeprefix(PART) for key in rows])
        axes.set_xlim(-0.03, 1.03)
        axes.set_xlabel("mean, 1 is best")
        svg = finish("Mean of the score and of each of its parts for every side")
    return Plot("Parts of the score", "A part is 1 where there is no emoji to judge.", svg)


def _lengths(comparison: Comparison) -> Plot | None:
    if not comparison.held_out.prompts:
        return None
    sides = comparison.sides[::-1]
    with _figure(comparison, height=1.1 + 0.3 * len(sides), legend=False) as (axes, finish):
        for row, side in enumerate(sides):
            tokens = [reply.tokens for run in side.replies for reply in run]
            low, first, middle, third, high = np.quantile(tokens, [0.05, 0.25, 0.5, 0.75, 0.95])
            colour = _colour(len(sides) - 1 - row)
            axes.plot([low, high], [row, row], color=colour, linewidth=1.2)
            axes.plot([first, third], [row, row], color=colour, linewidth=7, alpha=0.55, solid_capstyle="butt")
            axes.plot([middle], [row], color=colour, marker="o", markersize=6)
        axes.set_yticks(range(len(sides)), [side.name for side in sides])
        axes.set_ylim(-0.6, len(sides) - 0.4)
        axes.set_xlim(left=0)
        axes.set_xlabel("tokens a reply")
        svg = finish("Tokens a reply of every side")
    return Plot("Length", "Median, middle half (bar) and middle 90 % (line).", svg)


@contextmanager
def _figure(
    comparison: Comparison, *, height: float = 3.4, legend: bool = True
) -> "Iterator[tuple[Axes, Callable[[str], str]]]":
    """Yield axes of a width that a phone shows unscaled, and what makes SVG of them, given what it shows in words."""
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure as Canvas

    with matplotlib.rc_context(_STYLE):  # type: ignore[arg-type]  # its keys are of a Literal
        rows = (len(comparison.sides) + 1) // 2 if legend else 0
        canvas = Canvas(figsize=(4.6, height + 0.22 * rows), layout="constrained")
        FigureCanvasSVG(canvas)
        axes = canvas.add_subplot()

        def finish(words: str) -> str:
            if legend:
                canvas.legend(loc="outside lower left", ncols=2, handletextpad=0.4, columnspacing=1.0)
            written = io.StringIO()
            canvas.savefig(written, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
            return _for_page(written.getvalue(), words)

        yield axes, finish


def _for_page(svg: str, words: str) -> str:
    """Return an SVG that stands in a page: no prolog, no ids that meet those of another plot, the page's colours."""
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    prefix = f"p{crc32(words.encode()):x}"
    svg = re.sub(r'(\bid="|"#|url\(#)', rf"\g<1>{prefix}", svg)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    for stand_in, colour in _THEME.items():
        svg = svg.replace(stand_in, colour)
    return svg.replace("<svg", f'<svg role="img" aria-label="{words}"', 1)


def _colour(number: int) -> str:
    return COLOURS[number % len(COLOURS)]


def _marker(number: int) -> str:
    return _MARKERS[number % len(_MARKERS)]


def _scaled(figure: Figure, key: str) -> tuple[float, float, float]:
    """Return value and bounds, shares in percent."""
    scale = 1.0 if key == "mean_emojis" else 100.0
    found = figure.interval
    low, high = (found.value if bound is None else bound for bound in (found.low, found.high))
    return scale * found.value, scale * low, scale * high


def _whiskers(scaled: Sequence[float]) -> list[list[float]]:
    value, low, high = scaled
    return [[max(0.0, value - low)], [max(0.0, high - value)]]
