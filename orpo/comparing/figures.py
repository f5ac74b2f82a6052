"""What is measured of one side, prompt by prompt, and which direction is better."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import exp, expm1
from typing import Final, Literal

from orpo.comparing.intervals import (
    Interval,
    Tally,
    Verdict,
    difference_interval,
    mean_interval,
    share_interval,
    tally,
    verdict,
)
from orpo.comparing.likeness import chrf
from orpo.comparing.right_answers import is_right
from orpo.comparing.sides import HeldOut, Side
from orpo.records.replies import Reply
from orpo.scoring import ScoreReport, count_emojis, strip_emojis
from orpo.scoring.measures import has_stray_symbol, measure_replies, repeats_itself

Better = Literal["higher", "lower", ""]
Kind = Literal["share", "mean", "perplexity", "count"]


@dataclass(frozen=True)
class Measure:
    """One line of the tables."""

    key: str
    label: str
    kind: Kind
    better: Better = ""
    is_main: bool = True
    """Whether it stands in short tables."""


@dataclass(frozen=True)
class Figure:
    """A measure's value, with its interval, and its difference from the first side."""

    interval: Interval
    difference: Interval | None = None
    verdict: Verdict = ""


MEASURES: Final = (
    Measure("in_place", "emoji where in place", "share", "higher"),
    Measure("out_of_place", "emoji where out of place", "share", "lower"),
    Measure("emoji_rate", "replies with an emoji", "share"),
    Measure("relevance", "how well the emojis fit", "mean", "higher"),
    Measure("obeys_forbids", 'obeys "no emojis"', "share", "higher"),
    Measure("obeys_asks", 'obeys "use emojis"', "share", "higher"),
    Measure("mean_emojis", "emojis a reply, mean", "mean"),
    Measure("p95_emojis", "emojis a reply, 95th percentile", "count", is_main=False),
    Measure("max_emojis", "emojis a reply, most", "count"),
    Measure("different_emojis", "different emojis", "count"),
    Measure("commonest_share", "share of the commonest emoji", "share", is_main=False),
    Measure("ended", "ends by itself", "share", "higher"),
    Measure("repeats", "repeats itself", "share", "lower"),
    Measure("stray", "symbols that are no emojis", "share", "lower"),
    Measure("right", "short questions right", "share", "higher"),
    Measure("perplexity", "perplexity of prose", "perplexity", "lower"),
    Measure("likeness", "words like the base's (chrF)", "mean", is_main=False),
    Measure("tokens", "tokens a reply", "mean", is_main=False),
    Measure("seconds", "seconds a reply", "count"),
    Measure("score", "score", "mean", "higher"),
)

CATEGORY: Final = "out_of_place/"
PART: Final = "score/"
# Without bounds: the most and the number of kinds grow with the number of replies, and time depends on the machine.
_COUNTS: Final = ("p95_emojis", "max_emojis", "different_emojis", "commonest_share")
_ReplyValue = Callable[[Reply], float]


def measures_of(sides: "Sequence[Figures]") -> list[Measure]:
    """Return the measures that any side has, in the order of the tables, with the categories and the score's parts."""
    found = {key for side in sides for key in side.figures}
    listed: list[Measure] = []
    for measure in MEASURES:
        if measure.key in found:
            listed.append(measure)
        if measure.key == "out_of_place":
            names = sorted(key for key in found if key.startswith(CATEGORY))
            listed += [
                Measure(key, f"  {key.removeprefix(CATEGORY).replace('_', ' ')}", "share", "lower", is_main=False)
                for key in names
            ]
    parts = [key for side in sides[:1] for key in side.figures if key.startswith(PART)]
    return listed + [_part_measure(key) for key in parts]


def _part_measure(key: str) -> Measure:
    """Return a part of the score; no direction is better, since it is 1 for every reply that has no emoji to judge."""
    return Measure(key, f"  {key.removeprefix(PART)}", "mean", is_main=False)


@dataclass(frozen=True)
class Figures:
    """All figures of one side, by the key of the measure."""

    figures: dict[str, Figure]
    tallies: dict[str, Tally] = field(repr=False, default_factory=dict)

    def get(self, key: str) -> Figure | None:
        """Return one figure, if it was measured."""
        return self.figures.get(key)


def figures_of(side: Side, held_out: HeldOut, base: Side | None = None, compared: Figures | None = None) -> Figures:
    """Return a side's figures, compared with the first side's words and figures where it is not itself the first."""
    tallies = _reply_tallies(side, held_out) | _other_tallies(side, held_out)
    if base is not None:
        tallies["likeness"] = tally(_per_prompt(side, base))
    figures = {}
    kinds = {measure.key: measure for measure in MEASURES}
    for key, counted in tallies.items():
        measure = kinds.get(key) or (kinds["out_of_place"] if key.startswith(CATEGORY) else _part_measure(key))
        figure = _figure(measure, counted, compared.tallies.get(key) if compared else None)
        if figure is not None:
            figures[key] = figure
    return Figures(figures | _count_figures(side), tallies)


def _figure(measure: Measure, counted: Tally, theirs: Tally | None) -> Figure | None:
    found = share_interval(counted) if measure.kind == "share" else mean_interval(counted)
    if found is None:
        return None
    difference = difference_interval(counted, theirs) if theirs is not None else None
    said = verdict(difference, measure.better)
    if measure.kind == "perplexity":  # tallied as -log p a token; a difference of logarithms is a ratio
        found, difference = _mapped(found, exp), difference and _mapped(difference, expm1)
    return Figure(found, difference, said)


def _mapped(interval: Interval, function: Callable[[float], float]) -> Interval:
    low, high = (None if bound is None else function(bound) for bound in (interval.low, interval.high))
    return Interval(function(interval.value), low, high, interval.prompts)


def _reply_tallies(side: Side, held_out: HeldOut) -> dict[str, Tally]:
    """Tally the replies to the prompts."""
    if not held_out.prompts:
        return {}
    has_emoji = _summed(side, lambda reply: count_emojis(reply.text) > 0)
    number = [float(len(side.replies))] * len(held_out.prompts)
    found = {
        "mean_emojis": tally(_summed(side, lambda reply: count_emojis(reply.text)), number),
        "ended": tally(_summed(side, lambda reply: reply.finished), number),
        "repeats": tally(_summed(side, lambda reply: repeats_itself(reply.text)), number),
        "stray": tally(_summed(side, lambda reply: has_stray_symbol(reply.text)), number),
        "tokens": tally(_summed(side, lambda reply: reply.tokens), number),
        **_score_tallies(side, number),
    }
    places = {key: members for key, members in held_out.places().items() if any(members)}
    for key, members in (places or {"emoji_rate": [True] * len(number)}).items():
        counted = [count if member else 0.0 for count, member in zip(number, members, strict=True)]
        found[key] = tally([has * bool(count) for has, count in zip(has_emoji, counted, strict=True)], counted)
    return found


def _score_tallies(side: Side, number: list[float]) -> dict[str, Tally]:
    found = {"score": tally(_scored(side, lambda report: report.score), number)}
    for part in side.reports[0][0].parts:
        found[f"{PART}{part}"] = tally(_scored(side, _part_value(part)), number)
    if f"{PART}relevance" in found:
        # Of the replies with an emoji alone: a reply without any has nothing that could fit.
        fit = _scored(side, lambda report: report.parts["relevance"].value if report.emojis else 0.0)
        found["relevance"] = tally(fit, _scored(side, lambda report: bool(report.emojis)))
    return found


def _part_value(name: str) -> Callable[[ScoreReport], float]:
    return lambda report: report.parts[name].value


def _other_tallies(side: Side, held_out: HeldOut) -> dict[str, Tally]:
    """Tally obedience, short questions and prose, each over its own prompts."""
    found: dict[str, Tally] = {}
    for wish, key in (("forbids", "obeys_forbids"), ("asks", "obeys_asks")):
        rows = [index for index, case in enumerate(held_out.obedience) if case.wish == wish]
        if rows and side.obedience:
            obeyed = [
                sum((count_emojis(run[row].text) > 0) == (wish == "asks") for run in side.obedience) for row in rows
            ]
            found[key] = tally(obeyed, [float(len(side.obedience))] * len(rows))
    if side.answers:
        pairs = zip(side.answers, held_out.questions, strict=True)
        found["right"] = tally([is_right(reply.text, question.answers) for reply, question in pairs])
    if side.prose:
        found["perplexity"] = tally([-total for total, _ in side.prose], [float(count) for _, count in side.prose])
    return found


def _count_figures(side: Side) -> dict[str, Figure]:
    """Return what has a value and no interval."""
    texts = [reply.text for run in side.replies for reply in run]
    if not texts:
        return {}
    measures = measure_replies(texts)
    values = {key: float(getattr(measures, key)) for key in _COUNTS}
    if side.seconds is not None:
        values["seconds"] = side.seconds / len(texts)
    return {key: Figure(Interval(value, prompts=len(side.replies[0]))) for key, value in values.items()}


def _summed(side: Side, value: _ReplyValue) -> list[float]:
    """Return a value of each prompt's replies, summed over the seeds."""
    return [float(sum(map(value, replies))) for replies in zip(*side.replies, strict=True)]


def _scored(side: Side, value: Callable[[ScoreReport], float]) -> list[float]:
    return [float(sum(map(value, reports))) for reports in zip(*side.reports, strict=True)]


def _per_prompt(side: Side, base: Side) -> list[float]:
    """Return how alike the replies' words are to the base's to the same prompt and seed, emojis left out."""
    runs = zip(side.replies, base.replies, strict=True)
    alike = [
        [chrf(strip_emojis(ours.text), strip_emojis(theirs.text)) for ours, theirs in zip(*run, strict=True)]
        for run in runs
    ]
    return [sum(values) / len(values) for values in zip(*alike, strict=True)]
