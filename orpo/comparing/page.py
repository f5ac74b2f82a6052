"""The report as one page: no network, light and dark, as readable on a phone as on a desk."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypedDict

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from orpo.command.safe_text import mask_text, printable
from orpo.comparing.comparison import Comparison
from orpo.comparing.figures import Figures, Measure
from orpo.comparing.judging import Judgement
from orpo.comparing.plots import COLOURS, draw_plots
from orpo.comparing.sides import Side
from orpo.comparing.tables import MARKS, bounds_text, label_of, notes, value_text, with_verdict
from orpo.records.prompts import OUT_OF_PLACE, Prompt
from orpo.records.replies import Reply
from orpo.scoring import ScoreReport, count_emojis, find_emojis
from orpo.scoring.measures import repeats_itself

_TEMPLATE: Final = "page.html.jinja"
_UNPRINTABLE: Final = dict.fromkeys((*range(9), 11, 12, *range(14, 32), 0xFFFE, 0xFFFF), "\ufffd")


class ReportFacts(TypedDict):
    """The models, how each side came about, and how each adapter was trained; no path of this machine is in it."""

    model: str
    judge: str | None
    seeds: list[int]
    sampling: dict[str, float]
    sides: dict[str, dict[str, object]]
    training: dict[str, dict[str, object] | None]


@dataclass(frozen=True)
class Cell:
    """One figure in a table."""

    value: str
    bounds: str
    verdict: str
    mark: str
    difference: str


@dataclass(frozen=True)
class ShownReply:
    """One reply as it stands beside the others."""

    side: str
    colour: str
    text: Markup
    score: str
    facts: str


@dataclass(frozen=True)
class ShownPrompt:
    """A prompt with every side's reply; `traits` are what the page filters by."""

    number: int
    text: str
    category: str
    traits: str
    replies: list[ShownReply]


def write_page(comparison: Comparison, judgements: Sequence[Judgement], facts: ReportFacts) -> str:
    """Return the page's HTML."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    names = [side.name for side in comparison.sides]
    return environment.get_template(_TEMPLATE).render(
        model=facts["model"],
        names=names,
        colours=[COLOURS[number % len(COLOURS)] for number in range(len(names))],
        sentences=[
            _in_words(side, figures, comparison.measures)
            for side, figures in zip(comparison.sides[1:], comparison.figures[1:], strict=True)
        ],
        notes=notes(comparison),
        main=_table(comparison, [measure for measure in comparison.measures if measure.is_main]),
        rest=_table(comparison, [measure for measure in comparison.measures if not measure.is_main]),
        judgements=judgements,
        judge=facts["judge"],
        plots=draw_plots(comparison),
        prompts=[_shown(comparison, number, prompt) for number, prompt in enumerate(comparison.held_out.prompts)],
        categories=sorted({prompt.category for prompt in comparison.held_out.prompts if prompt.category}),
        settings=_settings(facts),
    )


def mark_emojis(text: str) -> Markup:
    """Return text as HTML, each emoji marked."""
    safe = printable(text).translate(_UNPRINTABLE)
    parts, position = [], 0
    for span in find_emojis(safe):
        parts += [escape(safe[position : span.start]), Markup("<mark>{}</mark>").format(span.text)]
        position = span.end
    return Markup("").join([*parts, escape(safe[position:])])


def _table(comparison: Comparison, measures: Sequence[Measure]) -> list[tuple[str, list[Cell]]]:
    return [
        (label_of(measure, comparison), [_cell(measure, figures) for figures in comparison.figures])
        for measure in measures
    ]


def _cell(measure: Measure, figures: Figures) -> Cell:
    figure = figures.get(measure.key)
    if figure is None:
        return Cell("–", "", "", "", "")
    return Cell(
        value_text(measure, figure.interval.value),
        bounds_text(measure, figure.interval),
        figure.verdict if figure.verdict in MARKS else "",
        MARKS.get(figure.verdict, ""),
        with_verdict(measure, figure),
    )


def _in_words(side: Side, figures: Figures, measures: Sequence[Measure]) -> tuple[str, str]:
    """Return a side's name, and what it is better and worse in."""
    found = {
        said: [measure.label.strip() for measure in measures if measure.is_main and _verdict(figures, measure) == said]
        for said in MARKS
    }
    parts = [f"{said} in {', '.join(labels)}" for said, labels in found.items() if labels]
    return side.name, "; ".join(parts) or "no clear difference"


def _verdict(figures: Figures, measure: Measure) -> str:
    figure = figures.get(measure.key)
    return figure.verdict if figure is not None else ""


def _shown(comparison: Comparison, number: int, prompt: Prompt) -> ShownPrompt:
    sides = comparison.sides
    replies = [side.replies[0][number] for side in sides]
    shown = [
        _shown_reply(side, reply, side.reports[0][number], COLOURS[index % len(COLOURS)])
        for index, (side, reply) in enumerate(zip(sides, replies, strict=True))
    ]
    text = printable(prompt.text).translate(_UNPRINTABLE)
    return ShownPrompt(number + 1, text, prompt.category, " ".join(_traits(prompt, replies)), shown)


def _traits(prompt: Prompt, replies: Sequence[Reply]) -> list[str]:
    """Return what is worth finding among many replies."""
    counts = [count_emojis(reply.text) for reply in replies]
    outside = prompt.category in OUT_OF_PLACE
    traits = {
        "misplaced": outside and any(counts),
        "missing": bool(prompt.category) and not outside and not all(counts),
        "many": max(counts) > 4,
        "cut": not all(reply.finished for reply in replies),
        "repeats": any(repeats_itself(reply.text) for reply in replies),
    }
    return [name for name, holds in traits.items() if holds]


def _shown_reply(side: Side, reply: Reply, report: ScoreReport, colour: str) -> ShownReply:
    count = count_emojis(reply.text)
    facts = [f"{count} emoji{'' if count == 1 else 's'}", *([] if reply.finished else ["cut off"])]
    worst = min(report.parts.items(), key=lambda item: item[1].value, default=None)
    if worst is not None and worst[1].value < 0.8:
        facts.append(f"{worst[0]} {worst[1].value:.2f}: {printable(worst[1].reason)}")
    return ShownReply(side.name, colour, mark_emojis(reply.text), f"{report.score:.2f}", "; ".join(facts))


def _settings(facts: ReportFacts) -> list[tuple[str, str]]:
    """Return what each run was told, as titles with JSON."""
    asked = {"model": facts["model"], "judge": facts["judge"], "seeds": facts["seeds"], "sampling": facts["sampling"]}
    shown = [("This report", asked), *((f"{name}: how it was asked", about) for name, about in facts["sides"].items())]
    shown += [(f"{name}: how it was trained", record) for name, record in facts["training"].items() if record]
    return [(title, mask_text(json.dumps(value, indent=1, ensure_ascii=False, default=str))) for title, value in shown]
