"""The tables show text as it is and figures as they are; the picture is well-formed XML whatever a model wrote."""

import re
from collections.abc import Sequence
from io import StringIO
from pathlib import Path
from xml.etree import ElementTree

import pytest
from rich.cells import cell_len
from rich.console import Console

from orpo.comparing.comparison import Comparison
from orpo.comparing.figures import Figure, Measure
from orpo.comparing.intervals import Interval
from orpo.comparing.tables import (
    draw_comparison,
    print_main_figures,
    print_side_by_side,
    print_summary,
    with_interval,
    with_verdict,
    write_picture,
)
from orpo.records.prompts import Prompt
from tests.comparing.given_sides import PROMPTS, comparison, whole_comparison

SVG = "{http://www.w3.org/2000/svg}"
WILD = "<b>&amp; [red]bold[/red] :smile: \x02\x00\ufffe ]]> 👨‍👩‍👧‍👦 🇫🇷"
BASE = ["Congratulations.", "Yes.", "", "Sorry."]
TUNED = ["Congratulations! 🎉", WILD, "Ok 👍", "So sorry."]


def printed(show: object, *arguments: object, width: int = 140) -> str:
    console = Console(file=StringIO(), width=width, markup=False, emoji=False, highlight=False)
    show(*arguments, console=console)  # type: ignore[operator]
    return console.file.getvalue().replace("\xa0", " ")  # type: ignore[attr-defined]


def line_of(text: str, label: str) -> str:
    return next(line for line in text.splitlines() if f" {label} " in line)


def test_replies_stand_side_by_side_as_they_are() -> None:
    text = printed(print_side_by_side, comparison(BASE, TUNED), 2)
    first = next(line for line in text.splitlines() if "I got the job!" in line)
    assert first.index("Congratulations.") < first.index("Congratulations! 🎉")
    assert "[red]bold[/red]" in text and ":smile:" in text and "Sum of a list" not in text
    assert "(empty)" in printed(print_side_by_side, comparison(BASE, TUNED), 3)


def test_a_reply_cannot_steer_the_terminal() -> None:
    prompts = [Prompt("a", "\x1b]0;title\x07a", "good_news")]
    tricky = comparison(["\x1b[2J\x1b]0;title\x07red"], prompts=prompts)
    assert not {"\x1b", "\x07"} & set(printed(print_side_by_side, tricky, 1))


def test_the_summary_gives_intervals_differences_and_verdicts() -> None:
    """In place 0 of 20, then 20 of 20 (Wilson 0 to 16 and 84 to 100), a difference of 100 points in every draw."""
    text = printed(print_summary, whole_comparison())
    place = line_of(text, "emoji where in place")
    assert "0.0 % [0,16]" in place and "100.0 % [84,100]" in place and "▲ +100.0 [+100,+100]" in place
    assert "+10.5 %" in line_of(text, "perplexity of prose")
    assert "40 prompts, 40 replies a side" in text and "fewer than 20" not in text
    assert "code (10)" in text and "grief (10)" in text and "score (tasteful)" in text and "  relevance " in text


def test_with_few_prompts_the_summary_says_that_intervals_are_wide() -> None:
    text = printed(print_summary, comparison(BASE, TUNED))
    assert "fewer than 20 prompts: intervals are wide" in text
    assert not re.search(r"│.*[▲▼].*│", text), "no line carries a mark"


def test_the_main_figures_of_many_sides_fit_a_narrow_terminal() -> None:
    whole = whole_comparison()
    for show in (print_main_figures, print_summary):
        many = Comparison(whole.held_out, [*whole.sides, whole.sides[1]])
        narrow = printed(show, many, width=70)
        assert max(map(cell_len, narrow.splitlines())) <= 70 and "…" not in narrow
    assert "100.0 % ▲" in line_of(printed(print_main_figures, whole), "emoji where in place")


@pytest.mark.parametrize(
    ("measure", "figure", "value", "change"),
    [
        (Measure("in_place", "", "share", "higher"),
         Figure(Interval(0.5, 0.4, 0.6, 99), Interval(0.1, 0.02, 0.2, 99), "better"),
         "50.0 % [40,60]", "▲ +10.0 [+2,+20]"),
        (Measure("score", "", "mean", "higher"),
         Figure(Interval(0.5, 0.25, 0.75), Interval(-0.1, -0.2, 0.1), "no clear difference"),
         "0.50 [0.25,0.75]", "-0.10 [-0.20,+0.10]"),
        (Measure("perplexity", "", "perplexity", "lower"),
         Figure(Interval(65.6, 60, 70), Interval(0.35, 0.3, 0.4), "worse"),
         "65.6 [60.0,70.0]", "▼ +35.0 % [+30,+40]"),
        (Measure("max_emojis", "", "count"), Figure(Interval(4.0)), "4", ""),
        (Measure("seconds", "", "count"), Figure(Interval(0.123)), "0.12", ""),
        (Measure("tokens", "", "mean"), None, "-", ""),
    ],
)  # fmt: skip
def test_figures_read_as_a_reader_expects(measure: Measure, figure: Figure | None, value: str, change: str) -> None:
    texts = (with_interval(measure, figure), with_verdict(measure, figure))
    assert tuple(text.replace("\xa0", " ") for text in texts) == (value, change)


def svg_words(svg: str) -> str:
    """Return the picture's text, with the blanks that rich writes."""
    texts = ElementTree.fromstring(svg).iter(f"{SVG}text")
    return " ".join("".join(element.itertext()) for element in texts).replace("\xa0", " ")


@pytest.mark.parametrize("tuned", [None, TUNED], ids=["base alone", "both"])
def test_the_picture_is_well_formed_and_shows_each_side(tuned: Sequence[str] | None) -> None:
    svg = draw_comparison(comparison(BASE, tuned), 4)
    words = svg_words(svg)
    assert "Congratulations." in words and "emoji where in place" in words and ("tuned" in words) == bool(tuned)
    assert not tuned or ("🎉" in words and "👨‍👩‍👧‍👦" in words and "[red]bold[/red]" in words)
    assert "url(http" not in svg and "href" not in svg and 'url("' not in svg, "nothing is fetched from elsewhere"


def test_the_picture_is_written(tmp_path: Path) -> None:
    file = tmp_path / "picture.svg"
    write_picture(file, comparison(BASE, TUNED), 2)
    ElementTree.parse(file)
    assert PROMPTS[0].text in svg_words(file.read_text(encoding="utf-8"))
