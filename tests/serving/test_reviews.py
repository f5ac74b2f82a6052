"""Pair review: decisions are kept, the old set is left alone, and the new one says who decided what."""

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from orpo.command.errors import InputError
from orpo.records.pairs import PreferencePair, write_pairs
from orpo.records.read_pairs import read_pairs
from orpo.serving.judgements import JudgementStore
from orpo.serving.reviews import Review
from tests.serving.conftest import Served


def pair(prompt: str, chosen: str, rejected: str) -> PreferencePair:
    return PreferencePair(
        prompt=[{"role": "user", "content": prompt}],
        chosen=[{"role": "assistant", "content": chosen}],
        rejected=[{"role": "assistant", "content": rejected}],
        chosen_score=0.9,
        rejected_score=0.2,
        chosen_model="a",
        rejected_model="b",
        kind="fit",
        chosen_reasons=("good",),
        rejected_reasons=("bad",),
    )


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "pairs"
    folder.mkdir()
    write_pairs(
        folder,
        [
            pair("We won!", "Well done! 🎉", "Well done! 🍕"),
            pair("Hello", "Hi! 👋", "Hi!"),
            pair("  we WON! ", "Great! 🏆", "Great!"),
            pair("We won!", "Well done!  🎉", "Well done! 🍕"),
            pair("Good night", "Hi! 👋", "Night."),
        ],
    )
    return folder


@pytest.fixture
def store(tmp_path: Path) -> Iterator[JudgementStore]:
    store = JudgementStore(tmp_path / "judgements.sqlite")
    yield store
    store.close()


def test_repeats_are_seen_whatever_blanks_and_capitals(source: Path, store: JudgementStore) -> None:
    review = Review(store, str(source))
    first = review.duplicates(1)
    assert (first.pair, first.prompt, first.chosen) == ([4], [3, 4], [])
    assert review.duplicates(2).chosen == [5] and review.duplicates(3).pair == []


def test_a_review_goes_on_where_it_was_and_begins_anew_when_the_data_have_changed(
    source: Path, store: JudgementStore
) -> None:
    review = Review(store, str(source))
    review.decide(1, "keep", "Ada")
    review.decide(2, "drop", "Ada")
    review.decide(2, "flip", "Bob")
    review.decide(3, "drop", "Bob")
    review.undo(3)
    again = Review(store, str(source))
    assert again.id == review.id
    assert {number: (one.decision, one.who) for number, one in again.decisions().items()} == {
        1: ("keep", "Ada"),
        2: ("flip", "Bob"),
    }
    write_pairs(source, [pair("Other", "x", "y")])
    changed = Review(store, str(source))
    assert changed.id != review.id and changed.decisions() == {}


def test_what_makes_no_pair_is_refused(source: Path, store: JudgementStore) -> None:
    review = Review(store, str(source))
    for chosen, rejected, problem in (("", "x", "needs both"), ("same", " same ", "nothing to prefer")):
        with pytest.raises(InputError, match=problem):
            review.decide(1, "edit", "Ada", chosen=chosen, rejected=rejected)
    with pytest.raises(InputError, match="no number 6"):
        review.decide(6, "keep", "Ada")
    assert review.decisions() == {}


@pytest.mark.parametrize("rest", ["keep", "leave out"])
def test_the_reviewed_set_is_new_and_says_who_kept_what(
    source: Path, store: JudgementStore, tmp_path: Path, rest: str
) -> None:
    before = {file: file.read_bytes() for file in source.rglob("*") if file.is_file()}
    review = Review(store, str(source))
    review.decide(1, "keep", "Ada")
    review.decide(2, "flip", "Ada")
    review.decide(3, "edit", "Bob", chosen="Great news! 🏆", rejected="Great!")
    review.decide(4, "drop", "Bob")
    out = tmp_path / "reviewed"
    counts = review.write(out, rest=rest, who="Ada")  # type: ignore[arg-type]
    pairs = read_pairs(str(out)).pairs
    assert counts["pairs"] == len(pairs) == (4 if rest == "keep" else 3)
    kept, flipped, edited = pairs[:3]
    assert kept.as_row() == review.pairs[0].as_row()
    assert (flipped.chosen_text, flipped.rejected_text, flipped.chosen_model) == ("Hi!", "Hi! 👋", "b")
    assert (flipped.chosen_score, flipped.rejected_score, flipped.chosen_reasons) == (0.2, 0.9, ("bad",))
    assert edited.chosen_text == "Great news! 🏆" and edited.chosen_model == "edited by Bob"
    assert edited.rejected_model == "b" and edited.chosen_score not in (0.9, 0.2)
    rows = [json.loads(line) for line in (out / "review.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [(row["row"], row["who"], row["becomes"]) for row in rows] == [
        (1, "Ada", 1), (2, "Ada", 2), (3, "Bob", 3), (4, "Bob", None), (5, None, 4 if rest == "keep" else None),
    ]  # fmt: skip
    assert rows[2]["was"]["chosen"] == "Great! 🏆" and rows[4]["decision"].startswith("undecided")
    assert {file: file.read_bytes() for file in source.rglob("*") if file.is_file()} == before
    assert json.loads((out / "run.json").read_text(encoding="utf-8"))["facts"]["source_fingerprint"]


def test_over_http_only_the_listed_sets_are_read_and_only_new_folders_are_written(
    served: Served, source: Path, orpo_home: Path
) -> None:
    source.rename(orpo_home.parent / "kept")
    (orpo_home / "data").mkdir(parents=True)
    (orpo_home.parent / "kept").rename(orpo_home / "data" / "pairs")
    with httpx.Client(base_url=served.url, timeout=60) as web:
        assert web.get("/api/data").json()["data"] == ["pairs"]
        for name in ("/etc", "../data/pairs", str(source)):
            assert web.post("/api/reviews", json={"data": name}).status_code == 404
        opened = web.post("/api/reviews", json={"data": "pairs"}).json()
        path = f"/api/reviews/{opened['id']}"
        shown = web.get(f"{path}/pairs/1").json()
        assert shown["chosen"]["segments"][-1] == {"text": "🎉", "emoji": True}
        assert "relevance" in shown["chosen"]["parts"] and shown["duplicates"]["pair"] == [4]
        assert web.get(f"{path}/pairs/9").status_code == 400
        decided = {"decision": "keep", "who": "Ada"}
        assert web.post(f"{path}/pairs/1", json=decided).json()["decisions"] == {"1": "keep"}
        assert web.post(f"{path}/pairs/1", json={**decided, "who": ""}).status_code == 400
        for name in ("../out", "a/b", "", ".hidden", "a b", "pairs"):
            answer = web.post(f"{path}/write", json={"name": name, "rest": "leave out", "who": "Ada"})
            assert answer.status_code == 400, name
        done = web.post(f"{path}/write", json={"name": "new", "rest": "leave out", "who": "Ada"}).json()
        assert done["counts"]["pairs"] == 1 and Path(done["folder"]) == orpo_home / "data" / "new"
