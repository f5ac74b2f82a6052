"""The page in a real browser: talk, stop, vote, review, reload in the middle; no console error, no sideways scroll."""

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orpo.records.pairs import PreferencePair, write_pairs
from orpo.records.read_pairs import read_pairs
from tests.serving.conftest import Served

WAIT = 120_000  # milliseconds; machines that run many tests at once are slow
PICTURES = os.environ.get("ORPO_PICTURES")  # a folder: what the page looks like in these tests


@pytest.fixture
def page(browser: Any, served: Served) -> Iterator[Any]:
    """A page in a context of its own; at its end nothing may have gone wrong in it, or been asked of elsewhere."""
    context = browser.new_context(viewport={"width": 390, "height": 844}, permissions=["clipboard-write"])
    said: list[str] = []
    page = context.new_page()
    page.set_default_timeout(WAIT)
    page.on("console", lambda message: said.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda problem: said.append(str(problem)))
    page.on("request", lambda asked: None if asked.url.startswith(served.url) else said.append(asked.url))
    page.goto(served.url)
    yield page
    assert not said
    widths = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert widths[0] <= widths[1], "no sideways scroll"
    context.close()


def until(page: Any, expression: str) -> None:
    """Wait until this is true in the page; its policy forbids what playwright's own `wait_for_function` does."""
    deadline = time.monotonic() + WAIT / 1000
    while not page.evaluate(expression):
        assert time.monotonic() < deadline, f"{expression}: {page.inner_text('body')}"
        page.wait_for_timeout(30)


def picture(page: Any, name: str) -> None:
    if PICTURES:
        page.screenshot(path=f"{PICTURES}/{name}.png", full_page=True)


def send(page: Any, text: str) -> None:
    page.fill("#talk-text", text)
    until(page, "!document.querySelector('#talk-send').disabled")  # marks are drawn before it is ready for more
    page.keyboard.press("Enter")


def replies(page: Any) -> list[str]:
    found: list[str] = page.locator("#talk .reply").all_inner_texts()
    return found


def test_base_and_tuned_talk_side_by_side(page: Any) -> None:
    send(page, "hello")
    until(page, "document.querySelectorAll('#talk .facts button').length === 2")
    first = replies(page)
    assert len(first) == 2 and first[0] != first[1]
    until(page, "document.querySelector('#status').innerText === 'both have answered'")
    assert "base" in page.inner_text("#talk-left .facts") and "first" in page.inner_text("#talk-right .facts")
    send(page, "and you")
    until(page, "document.querySelectorAll('#talk .facts button').length === 4")
    page.locator("#talk-right .facts button").last.click()
    line = page.locator("#talk-right .line").last
    line.wait_for()
    assert "conversation.jsonl" in line.inner_text() and "--adapter=" in line.inner_text()
    picture(page, "talk")
    page.click("#talk-new")
    assert replies(page) == []
    send(page, "hello")
    until(page, "document.querySelectorAll('#talk .facts button').length === 2")
    assert replies(page) == first, "the same seed gives the same replies"


def test_a_reply_can_be_stopped_and_a_reload_in_the_middle_loses_nothing(page: Any) -> None:
    page.click("#settings summary")
    page.fill("#max-tokens", "300")
    page.fill("#temperature", "3")
    page.fill("#seed", "5")
    send(page, "hello")
    until(page, "document.querySelector('#talk-left .reply')?.innerText.length > 5")
    page.reload()
    until(page, "document.querySelectorAll('#talk .facts button').length === 2")
    whole = replies(page)
    page.click("#talk-new")
    send(page, "hello")
    until(page, "document.querySelectorAll('#talk .facts button').length === 2")
    assert replies(page) == whole, "what the reload interrupted came out as it would have"
    # Pressed in the page, at the first words: on a busy machine the whole reply may be there before a click from here.
    page.evaluate(
        """new MutationObserver((_, watch) => {
          if (!(document.querySelectorAll('#talk-left .reply')[1]?.innerText.length > 5)) return;
          watch.disconnect();
          document.querySelector('#talk-stop').click();
        }).observe(document.querySelector('#talk-left'), { childList: true, subtree: true, characterData: true })"""
    )
    send(page, "go on")
    until(page, "document.querySelector('#talk-left').innerText.includes('stopped')")
    # Each side ends, and is judged, at its own time.
    until(page, "!document.querySelector('#talk-send').disabled")
    shorter = replies(page)
    page.reload()
    until(page, "document.querySelectorAll('#talk .reply').length === 4")
    assert replies(page) == shorter, "what was stopped stays stopped"


def test_what_a_reply_says_is_text_and_its_emojis_tell_their_reasons(page: Any, served: Served) -> None:
    """The model is random, so a reply is put in its place; the score and the marks are the server's."""
    evil = '<img src=x onerror="document.title=1"> We won! 🎉🎉'

    def answer(route: Any) -> None:
        chunk = {"choices": [{"index": 0, "delta": {"content": evil}, "finish_reason": "stop"}]}
        body = f"data: {json.dumps(chunk)}\n\ndata: [DONE]\n\n"
        route.fulfill(status=200, content_type="text/event-stream", body=body)

    page.route("**/v1/chat/completions", answer)
    send(page, "We won the cup!")
    until(page, "document.querySelectorAll('#talk button.emoji').length === 4")
    assert replies(page) == [evil, evil] and page.locator("#talk img").count() == 0 and page.title() == "orpo"
    mark = page.locator("#talk button.emoji").first
    mark.hover()
    assert "repetition" in page.inner_text("#parts") and mark.get_attribute("aria-describedby") == "parts"
    picture(page, "parts")
    page.mouse.move(0, 0)
    assert page.is_hidden("#parts")
    mark.click()  # a tap
    assert page.is_visible("#parts")
    page.keyboard.press("Escape")
    assert page.is_hidden("#parts")
    page.keyboard.press("Tab")
    assert page.is_visible("#parts"), "the next mark has the focus, and shows its parts"


def test_votes_are_blind_kept_and_exported(page: Any, served: Served, orpo_home: Path) -> None:
    page.click("#tab-vote")
    for number, key in enumerate("1234"):
        page.fill("#vote-text", f"hello {number}")
        page.click("#vote-ask")
        if number == 1:  # in the middle of the answer, or after it: nothing is lost either way
            until(page, "document.querySelector('#vote-left').innerText.length > 2")
            page.reload()
        page.wait_for_selector("#vote-buttons button:enabled")
        texts = [page.inner_text("#vote-left"), page.inner_text("#vote-right")]
        assert page.inner_text("#vote-left-name") == "Left" and all(texts)
        page.locator("body").press(key)
        until(page, "document.querySelector('#vote-left-name').innerText.startsWith('Left: ')")
        assert page.locator("#vote-buttons button:enabled").count() == 0
    picture(page, "vote")
    rows = served.service.store.read("SELECT * FROM duels")
    assert [row["vote"] for row in rows] == ["left", "right", "both", "neither"]
    assert {rows[0]["left_model"], rows[0]["right_model"]} == {"base", "first"}
    page.wait_for_selector("#tally table")
    assert "first over base" in page.inner_text("#tally")
    page.click("#vote-export")
    until(page, "document.querySelector('#vote-exported').innerText.includes('train.py')")
    pairs = read_pairs(str(orpo_home / "data" / "votes")).pairs
    assert [pair.chosen_text for pair in pairs] == [rows[0]["left_reply"], rows[1]["right_reply"]]
    page.reload()
    page.wait_for_selector("#tally table")
    assert page.inner_text("#vote-left") == "", "a duel with its vote is over"


@pytest.fixture
def pairs_folder(orpo_home: Path) -> Path:
    folder = orpo_home / "data" / "preferences"
    folder.mkdir(parents=True)
    said = ["We won! 🎉", "Good luck! 🍀", "I am sorry.", "We won! 🎉"]
    made = [
        PreferencePair(
            prompt=[{"role": "user", "content": f"message {number % 3}"}],
            chosen=[{"role": "assistant", "content": text}],
            rejected=[{"role": "assistant", "content": f"No {number % 3}. 🍕"}],
            kind="fit",
        )
        for number, text in enumerate(said)
    ]
    write_pairs(folder, made)
    return folder


def test_pairs_are_reviewed_with_the_keyboard_and_written_anew(page: Any, pairs_folder: Path, orpo_home: Path) -> None:
    before = {file: file.read_bytes() for file in pairs_folder.rglob("*") if file.is_file()}
    page.reload()  # the data set is there now
    page.click("#tab-review")
    until(page, "document.querySelector('#review-data').value === 'preferences'")
    page.fill("#review-who", "Ada")
    page.click("#review-open button")
    until(page, "document.querySelector('#review-where').innerText.includes('Pair 1 of 4')")
    assert "the same pair as 4" in page.inner_text("#review-duplicates")
    picture(page, "review")

    def press(key: str, then: str) -> None:
        page.keyboard.press(key)
        until(page, f"document.querySelector('#review-where').innerText.includes({json.dumps(then)})")

    press("k", "Pair 2 of 4")
    press("f", "Pair 3 of 4")
    page.reload()
    until(page, "document.querySelector('#review-where').innerText.includes('Pair 3 of 4')")
    assert "2 decided" in page.inner_text("#review-where")
    page.locator("#review-where").focus()
    page.keyboard.press("e")
    page.fill("#edit-chosen", "I am so sorry for your loss.")
    press("Control+Enter", "Pair 4 of 4")
    press("d", "4 decided")
    assert "every pair is decided" in page.inner_text("#status")
    press("p", "edit by Ada")
    page.click("#review-write button")
    until(page, "document.querySelector('#review-written').innerText.includes('train.py')")
    written = orpo_home / "data" / "preferences-reviewed"
    pairs = read_pairs(str(written)).pairs
    assert [(pair.chosen_text, pair.rejected_text) for pair in pairs] == [
        ("We won! 🎉", "No 0. 🍕"),
        ("No 1. 🍕", "Good luck! 🍀"),
        ("I am so sorry for your loss.", "No 2. 🍕"),
    ]
    rows = [json.loads(line) for line in (written / "review.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [(row["decision"], row["who"], row["becomes"]) for row in rows] == [
        ("keep", "Ada", 1), ("flip", "Ada", 2), ("edit", "Ada", 3), ("drop", "Ada", None),
    ]  # fmt: skip
    assert {file: file.read_bytes() for file in pairs_folder.rglob("*") if file.is_file()} == before
    assert (written / "run.json").is_file() and not list(written.parent.glob(".*.partial"))


def test_a_text_is_scored_with_its_parts_and_suggestions(page: Any) -> None:
    page.click("#tab-score")
    page.fill("#score-text", "See you at the beach tomorrow! 🎉")
    page.click("#score-form button")
    page.wait_for_selector("#score-result li")
    assert "relevance" in page.inner_text("#score-result table")
    assert page.locator("#score-result button.emoji").count() == 1
    picture(page, "score")


def test_every_control_has_a_name_and_the_tabs_move_with_arrows(page: Any) -> None:
    page.locator("#tab-talk").focus()
    for name in ("vote", "review", "score", "talk"):
        page.keyboard.press("ArrowRight")
        assert page.evaluate("document.activeElement.id") == f"tab-{name}" and page.is_visible(f"#{name}")
        nameless = page.evaluate(
            "[...document.querySelectorAll('main button, main input, main select, main textarea')]"
            ".filter(one => !one.innerText?.trim() && !one.labels?.length && !one.ariaLabel).map(one => one.id)"
        )
        assert nameless == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_text_stands_out_and_nothing_scrolls_sideways(browser: Any, served: Served, scheme: str, width: int) -> None:
    page = browser.new_page(viewport={"width": width, "height": 844}, color_scheme=scheme)
    page.set_default_timeout(WAIT)
    page.goto(served.url)
    page.wait_for_selector("#talk select")
    for name in ("talk", "vote", "review", "score"):
        page.click(f"#tab-{name}")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.inner_text("#status") != "of another tab"
        page.evaluate("document.querySelector('#status').textContent = 'of another tab'")
        picture(page, f"{name}-{scheme}-{width}")
    ink, ground = page.evaluate(
        "[getComputedStyle(document.body).color, getComputedStyle(document.body).backgroundColor]"
    )
    values = [sum(map(int, colour[4:-1].split(","))) / 3 for colour in (ink, ground)]
    assert abs(values[0] - values[1]) > 150 and (values[0] > values[1]) == (scheme == "dark")
    page.close()
