"""Scores and suggestions as a reader sees them: on the terminal, or a line of JSON for each text."""

import json
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict
from typing import TypeVar

from rich.text import Text

from orpo.command.display import Advance, console_out, progress_bar
from orpo.command.safe_text import printable
from orpo.scoring.finding import find_emojis
from orpo.scoring.report import ScoreReport
from orpo.scoring.suggesting import Suggestion

Item = TypeVar("Item")

_GOOD, _FAIR = 0.8, 0.5


def print_reports(scored: Iterable[tuple[str, ScoreReport]], count: int, *, with_parts: bool, as_json: bool) -> None:
    """Print each text with its score, its emojis marked, a line for each part where asked, and the mean of several.

    `count` is how many they are, for the progress that is shown where the lines themselves are not.
    """
    scores = []
    with _watching(scored, count) as watched:
        for text, report in watched:
            scores.append(report.score)
            if as_json:
                _print_json({"reply": text, **report.as_dict()})
            else:
                _print_report(text, report, with_parts)
    if len(scores) > 1 and not as_json:
        console_out.print(f"{len(scores)} texts, mean score {sum(scores) / len(scores):.3f}")


def print_suggestions(suggested: Iterable[tuple[str, list[Suggestion]]], count: int, *, as_json: bool) -> None:
    """Print each text with the emojis that would suit it; `count` is how many texts they are."""
    with _watching(suggested, count) as watched:
        for text, picks in watched:
            if as_json:
                _print_json({"text": text, "suggestions": [asdict(pick) for pick in picks]})
                continue
            console_out.print(_marked(text), soft_wrap=True)
            for pick in picks:
                console_out.print(f"  {pick.emoji}  {pick.value:.2f}  {printable(pick.reason)}", soft_wrap=True)
            if not picks:
                console_out.print("  none is in place")


@contextmanager
def _watching(items: Iterable[Item], count: int) -> Iterator[Iterator[Item]]:
    """Yield the items; whoever stops the block learns how many are printed, and who sees no lines sees progress."""
    done = 0

    def counted(advance: Advance | None) -> Iterator[Item]:
        nonlocal done
        for item in items:
            yield item
            done += 1
            if advance is not None:
                advance()

    is_seen = console_out.is_terminal
    progress: AbstractContextManager[Advance | None] = nullcontext() if is_seen else progress_bar("scoring", count)
    try:
        with progress as advance:
            yield counted(advance)
    except KeyboardInterrupt as stop:
        if done:
            stop.add_note(f"{done} of {count} texts are printed; the same command begins with the first one")
        raise


def _print_report(text: str, report: ScoreReport, with_parts: bool) -> None:
    line = Text(f"{report.score:.3f}  ", style=f"bold {_colour(report.score)}")
    console_out.print(line.append_text(_marked(text)), soft_wrap=True)
    width = max(map(len, report.parts), default=0)
    for name, part in report.parts.items() if with_parts else ():
        row = Text(f"  {name:<{width}}  ").append(f"{part.value:.2f}", style=_colour(part.value))
        console_out.print(row.append(f"  ^{part.weight:<3g}  {printable(part.reason)}"), soft_wrap=True)


def _print_json(content: dict[str, object]) -> None:
    print(json.dumps(content, ensure_ascii=False).encode("utf-8", "replace").decode("utf-8"))


def _marked(text: str) -> Text:
    """Return the text with its emojis on a coloured ground."""
    marked = Text(style="default not bold")
    position = 0
    for span in find_emojis(text):
        marked.append(printable(text[position : span.start])).append(span.text, style="black on bright_yellow")
        position = span.end
    return marked.append(printable(text[position:]))


def _colour(value: float) -> str:
    return "green" if value >= _GOOD else "yellow" if value >= _FAIR else "red"
