"""The report: tables that show text as it is, and a picture that is well-formed XML whatever a model wrote."""

import json
from collections.abc import Sequence
from io import StringIO
from pathlib import Path
from xml.etree import ElementTree

import pytest
from rich.cells import cell_len
from rich.console import Console

from orpo.comparing.comparison import Comparison, Side, measure_replies
from orpo.comparing.picture import draw_comparison, wrap_text
from orpo.comparing.report import print_side_by_side, print_summary, summary_lines, write_report
from orpo.records.messages import user_message
from orpo.records.prompts import Prompt
from orpo.records.replies import Reply
from orpo.scoring import get_scorer
from orpo.scoring.replies import score_replies

SVG = "{http://www.w3.org/2000/svg}"
WILD = "<b>&amp; [red]bold[/red] :smile: \x02\x00\ufffe ]]> 👨‍👩‍👧‍👦 🇫🇷"


def side(name: str, texts: list[str], perplexity: float | None = None, categories: Sequence[str] = ()) -> Side:
    replies = [Reply(text, True, 5) for text in texts]
    reports = score_replies("tasteful", [user_message("I got the job!") for _ in texts], texts)
    return Side(name, replies, reports, measure_replies(replies, 1.0, perplexity, reports, categories))


@pytest.fixture
def comparison() -> Comparison:
    prompts = [Prompt("a", "I got the job!"), Prompt("b", WILD), Prompt("c", "Say nothing")]
    return Comparison(
        prompts,
        side("base", ["Congratulations.", "Yes.", ""], perplexity=20.0),
        side("tuned", ["Congratulations! 🎉", WILD, "Ok 👍"], perplexity=20.5),
    )


def printed(show: object, *arguments: object, width: int = 120) -> str:
    console = Console(file=StringIO(), width=width, markup=False, emoji=False, highlight=False)
    show(*arguments, console=console)  # type: ignore[operator]
    return console.file.getvalue()  # type: ignore[attr-defined,no-any-return]


def test_replies_stand_side_by_side_as_they_are(comparison: Comparison) -> None:
    text = printed(print_side_by_side, comparison, 2)
    first = next(line for line in text.splitlines() if "I got the job!" in line)
    assert first.index("Congratulations.") < first.index("Congratulations! 🎉")
    assert "[red]bold[/red]" in text and ":smile:" in text and "Say nothing" not in text
    assert "(empty)" in printed(print_side_by_side, comparison, 3)


def test_a_reply_cannot_steer_the_terminal(comparison: Comparison) -> None:
    tricky = Comparison(comparison.prompts, side("base", ["\x1b[2J\x1b]0;title\x07red", "b", "c"]), None)
    assert not {"\x1b", "\x07"} & set(printed(print_side_by_side, tricky, 1))


def test_the_summary_gives_the_rates_and_the_change_of_perplexity(comparison: Comparison) -> None:
    text = printed(print_summary, comparison)
    rate = next(line for line in text.splitlines() if "replies with an emoji" in line)
    assert "0.0 %" in rate and "100.0 %" in rate
    assert "20.50 (+2.5 %)" in text


@pytest.mark.parametrize(
    ("categories", "expected"),
    [
        (["good_news", "code"], ["replies with an emoji", "  where in place", "  where out of place"]),
        (["code", "grief"], ["replies with an emoji", "  where out of place"]),
        (["good_news", ""], ["replies with an emoji", "  where in place"]),
        (["", ""], ["replies with an emoji"]),
    ],
)
def test_the_rates_in_and_out_of_place_stand_below_the_rate(categories: list[str], expected: list[str]) -> None:
    """With out-of-place prompts only, their rate stood below the emojis per reply."""
    names = [name for name, *_ in summary_lines([side("base", ["Yes 🎉", "No"], categories=categories).measures])]
    assert names[1 : len(expected) + 2] == [*expected, "emojis per reply"]


def test_the_summary_gives_the_score_and_each_of_its_parts(comparison: Comparison) -> None:
    lines = printed(print_summary, comparison).splitlines()
    report = get_scorer("tasteful").explain("Congratulations! 🎉", "I got the job!")
    for name in ("score (tasteful)", *report.parts):
        assert any(name in line for line in lines), name
    assert f"{report.score:.2f}" in printed(print_side_by_side, comparison, 3)


def test_tables_fit_a_narrow_terminal(comparison: Comparison) -> None:
    for show in ((print_side_by_side, comparison, 3), (print_summary, comparison)):
        assert max(map(cell_len, printed(*show, width=60).splitlines())) <= 60


def test_the_picture_is_well_formed_and_shows_both_sides(comparison: Comparison) -> None:
    svg = draw_comparison(comparison)
    root = ElementTree.fromstring(svg)
    words = " ".join("".join(element.itertext()) for element in root.iter(f"{SVG}text"))
    assert "0.0 %" in words and "100.0 %" in words and "🎉" in words and "👨‍👩‍👧‍👦" in words
    assert "<b>&amp; [red]bold[/red]" in words
    height = float(root.attrib["height"])
    for element in root.iter():
        assert float(element.attrib.get("y", 0)) + float(element.attrib.get("height", 0)) <= height


def svg_words(svg: str) -> list[str]:
    return ["".join(element.itertext()) for element in ElementTree.fromstring(svg).iter(f"{SVG}text")]


def test_the_picture_tells_emojis_in_place_from_those_out_of_place() -> None:
    """In place 1 of 2, then 2 of 2; out of place 1 of 1, then 0 of 1: two bars a side, as long as their rate."""
    prompts = [Prompt(name, name) for name in "abc"]
    base = side("base", ["Yes 🎉", "No", "x = 1 🎉"], categories=["good_news", "small_talk", "code"])
    tuned = side("tuned", ["Yes 🎉", "No 🙂", "x = 1"], categories=["good_news", "small_talk", "code"])
    svg = draw_comparison(Comparison(prompts, base, tuned))
    words = svg_words(svg)
    assert [word for word in words if word.endswith("place")] == ["in place", "out of place"] * 2
    assert [word for word in words if word.endswith(" %")] == ["50.0 %", "100.0 %", "100.0 %", "0.0 %"]
    assert sum("emojis per reply" in word for word in words) == 2
    bars = [float(box.attrib["width"]) for box in ElementTree.fromstring(svg).iter(f"{SVG}rect")][1:9]
    assert [coloured / pale for pale, coloured in zip(bars[::2], bars[1::2], strict=True)] == [0.5, 1.0, 1.0, 0.0]
    title = ElementTree.fromstring(svg).findtext(f"{SVG}title")
    assert title is not None and "base: in place 50.0 %, out of place 100.0 %; tuned" in title


def test_the_picture_shows_one_rate_where_the_prompts_have_no_categories(comparison: Comparison) -> None:
    words = svg_words(draw_comparison(comparison))
    assert [word for word in words if word.endswith(" %")] == ["0.0 %", "100.0 %"]
    assert not any("place" in word for word in words)


def test_the_picture_of_the_base_alone_needs_no_tuned_side(comparison: Comparison) -> None:
    root = ElementTree.fromstring(draw_comparison(Comparison(comparison.prompts, comparison.base, None)))
    assert "tuned" not in "".join(root.itertext())


def test_text_is_wrapped_at_words_and_long_words_are_cut() -> None:
    lines = wrap_text("one two three " + "x" * 200, 120, 15)
    assert lines[0] == "one two three" and all(len(line) <= 16 for line in lines)
    assert "".join(lines[1:]) == "x" * 200
    assert wrap_text("", 120, 15) == [""]


def test_the_report_keeps_every_reply(comparison: Comparison, tmp_path: Path) -> None:
    write_report(tmp_path, comparison, {"adapter": "trained/x"})
    content = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert content["adapter"] == "trained/x" and content["summary"]["tuned"]["emoji_rate"] == 1.0
    assert [row["tuned"]["emojis"] for row in content["replies"]] == [1, 2, 1]
    ElementTree.parse(tmp_path / "report.svg")
