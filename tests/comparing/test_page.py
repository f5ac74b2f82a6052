"""The report's page: what it says, and how it behaves in a real browser, on a phone and on a desk, light and dark."""

import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from orpo.comparing.approaches import Approach
from orpo.comparing.comparison import Comparison
from orpo.comparing.judging import judge_sides
from orpo.comparing.page import ReportFacts, mark_emojis, write_page
from orpo.comparing.plots import draw_plots
from tests.comparing.given_sides import reply, side, whole_comparison

WILD = "<script>alert(1)</script> \x1b[2J\x02\ufffe & 👨‍👩‍👧‍👦 " + "x" * 300


def many_sides() -> Comparison:
    """Five sides; one of them writes what no page should run, and more than four emojis."""
    whole = whole_comparison(times=5)
    texts = {
        "prompting": ["Yes! 🎉🎊🥳🎈🎁", "Morning! ☀️", "sum(x)", "Sorry."],
        "5 examples": [WILD, "Good morning!", "sum(x) 🐍", "I am so sorry."],
        "<b>best</b> of 4": ["Well done! 🎉", "Morning! ☀️", "sum(x)", ""],
    }
    further = [side(Approach(name), [said * 5], whole.held_out) for name, said in texts.items()]
    return Comparison(whole.held_out, [*whole.sides, *further])


def page_of(comparison: Comparison) -> str:
    facts: ReportFacts = {
        "model": "SmolLM2-135M-Instruct",
        "judge": "a judge",
        "seeds": [0],
        "sampling": {"temperature": 0.4},
        "sides": {side.name: side.approach.described() for side in comparison.sides},
        "training": {"trained/x": {"settings": {"base_url": "https://me:secret@host/v1"}}},
    }
    return write_page(comparison, judge_sides(comparison, lambda asked: ["A"] * len(asked)), facts)


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("page") / "report.html"
    file.write_text(page_of(many_sides()), encoding="utf-8")
    return file


def test_the_page_needs_nothing_from_elsewhere_and_runs_nothing_of_a_model(page_file: Path) -> None:
    page = page_file.read_text(encoding="utf-8")
    assert "default-src 'none'" in page and not re.search(r'(?:src|href)="(?!data:|#)', page)
    assert "<script>alert" not in page and "&lt;script&gt;alert(1)&lt;/script&gt;" in page and "<b>best" not in page
    assert not re.search(r"[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe]", page)
    assert "secret" not in page and "***@host" in page, "an address is shown without its password"


def test_emojis_are_marked_whole() -> None:
    assert mark_emojis("Hi 👨‍👩‍👧‍👦 & <b>") == "Hi <mark>👨‍👩‍👧‍👦</mark> &amp; &lt;b&gt;"
    assert mark_emojis("") == ""


def test_the_plots_are_whole_svg_in_the_pages_colours_and_share_no_id() -> None:
    plots = draw_plots(many_sides())
    assert [plot.title for plot in plots] == [
        "In place and out of place",
        "Share against count",
        "Parts of the score",
        "Length",
    ]
    ids: set[str] = set()
    for plot in plots:
        root = ElementTree.fromstring(plot.svg)
        here = {element.attrib["id"] for element in root.iter() if "id" in element.attrib}
        assert here and not here & ids and root.attrib["aria-label"]
        ids |= here
        used = set(re.findall(r'(?:url\(#|href="#)([^")]+)', plot.svg))
        assert used <= here, "what is referred to is there under its new name"
        assert "var(--ink)" in plot.svg and "#010203" not in plot.svg
    assert draw_plots(many_sides()) == plots, "the same figures give the same file"


def test_a_page_of_the_base_alone() -> None:
    whole = whole_comparison(times=1)
    page = page_of(Comparison(whole.held_out, whole.sides[:1]))
    assert "Emojis of 1 approach on" in page and "A judge's preference" not in page
    assert reply("x").tokens == 5


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_in_a_browser(browser: Any, page_file: Path, width: int, scheme: str) -> None:
    """No console errors, no requests, no sideways scroll, text that stands out from its ground."""
    said: list[str] = []
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page.set_default_timeout(120_000)  # machines that run many tests at once are slow
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda problem: said.append(str(problem)))
    page.on(
        "request", lambda request: said.append(request.url) if not request.url.startswith(("file:", "data:")) else None
    )
    page.goto(page_file.as_uri())
    assert not said
    scroll = page.evaluate("[document.documentElement.scrollWidth, window.innerWidth]")
    assert scroll == [width, width]
    dark, ink = page.evaluate(
        "[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.querySelector('svg text')).fill]"
    )
    assert (_lightness(dark) < 60 and _lightness(ink) > 190) if scheme == "dark" else (_lightness(ink) < 60)
    sizes = page.evaluate("[...document.querySelectorAll('svg text')].map(text => text.getBoundingClientRect().height)")
    assert min(sizes) > 9, "the plots' text can be read"
    page.close()


def test_the_filters_find_what_they_name(browser: Any, page_file: Path) -> None:
    """20 prompts: the code ones (5) have misplaced emojis, and the grief ones, the base's; one word finds 5."""
    page = browser.new_page()
    page.set_default_timeout(120_000)
    page.goto(page_file.as_uri())

    def shown() -> int:
        count: int = page.locator("article:visible").count()
        assert page.locator("#found").inner_text() == f"{count} of 20"
        return count

    assert shown() == 20
    page.select_option("#trait", "misplaced")
    assert shown() == 10
    page.select_option("#category", "grief")
    assert shown() == 5
    page.select_option("#trait", "many")
    assert shown() == 0
    page.select_option("#category", "")
    assert shown() == 5
    page.select_option("#trait", "")
    page.fill("#words", "  SUM of a list ")
    assert shown() == 5
    page.close()


def _lightness(colour: str) -> float:
    red, green, blue = map(int, re.findall(r"\d+", colour)[:3])
    return (red + green + blue) / 3
