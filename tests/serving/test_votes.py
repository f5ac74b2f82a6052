"""Votes: blind until given, kept at once, counted with intervals, and pairs that training takes."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from orpo.command.errors import InputError, OutputError
from orpo.comparing.intervals import share_interval, tally
from orpo.records.messages import user_message
from orpo.records.read_pairs import read_pairs
from orpo.records.replies import Sampling
from orpo.serve import main as serve
from orpo.serving.judgements import JudgementStore
from orpo.serving.votes import Votes, export_votes, pairs_of_votes
from orpo.train import main as train
from tests.serving.conftest import Served

MODELS = [("base", ""), ("first", "abc")]
IDENTITIES = dict(MODELS)


@pytest.fixture
def votes(tmp_path: Path) -> Iterator[Votes]:
    store = JudgementStore(tmp_path / "judgements.sqlite")
    yield Votes(store)
    store.close()


def cast(votes: Votes, text: str, winner: str, replies: dict[str, str] | None = None) -> None:
    """Vote for a model, or both, or neither."""
    said = replies or {"base": f"No emoji for {text}.", "first": f"One for {text}! 🎉"}
    duel = votes.begin(user_message(text), Sampling(), MODELS)
    votes.keep_replies(duel.id, *(said[model] for model in duel.models))
    choices: dict[str, Any] = {duel.models[0]: "left", duel.models[1]: "right"}
    votes.vote(duel.id, choices.get(winner, winner))


def test_the_order_is_drawn(votes: Votes) -> None:
    first = [votes.begin(user_message("x"), Sampling(), MODELS).models[0] for _ in range(60)]
    assert 10 < first.count("base") < 50, "by chance this fails once in ten million"


def test_a_tally_counts_wins_on_either_side_and_has_wilsons_interval(votes: Votes) -> None:
    for number in range(7):
        cast(votes, f"a{number}", "first")
    for number in range(3):
        cast(votes, f"b{number}", "base")
    cast(votes, "c", "both")
    cast(votes, "d", "neither")
    (row,) = votes.tallies(IDENTITIES)
    assert (row["first"], row["second"], row["first_wins"], row["second_wins"]) == ("base", "first", 3, 7)
    assert (row["both"], row["neither"], row["share"], row["is_current"]) == (1, 1, 0.7, True)
    # Wilson by hand, z = 1.959964: middle (0.7 + z^2/20) / (1 + z^2/10) = 0.64450, spread 0.24782.
    assert row["low"] == pytest.approx(0.39678, abs=1e-4) and row["high"] == pytest.approx(0.89221, abs=1e-4)
    wanted = share_interval(tally([1.0] * 7 + [0.0] * 3))
    assert wanted is not None and (row["low"], row["high"]) == (wanted.low, wanted.high)


def test_an_adapter_trained_anew_is_counted_apart(votes: Votes) -> None:
    cast(votes, "x", "first")
    assert not votes.tallies({"base": "", "first": "another"})[0]["is_current"]


def test_a_vote_is_on_disk_at_once_and_given_once(votes: Votes) -> None:
    duel = votes.begin(user_message("x"), Sampling(), MODELS)
    with pytest.raises(InputError, match="no replies yet"):
        votes.vote(duel.id, "left")
    votes.keep_replies(duel.id, "a", "b")
    votes.vote(duel.id, "left")
    with sqlite3.connect(votes.store.file) as other:
        assert other.execute("SELECT vote FROM duels").fetchall() == [("left",)]
        assert other.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    with pytest.raises(InputError, match="its vote already"):
        votes.vote(duel.id, "right")
    votes.forget(duel.id)
    assert votes.find(duel.id).vote == "left", "what was voted on is not forgotten"


def test_votes_that_are_no_pair_are_counted(votes: Votes) -> None:
    cast(votes, "a", "first")
    cast(votes, "a", "base")  # the same replies again: the later vote counts
    cast(votes, "b", "both")
    cast(votes, "c", "neither")
    cast(votes, "d", "base", {"base": "same", "first": "same "})
    cast(votes, "e", "base", {"base": "", "first": "x"})
    pairs, left_out = pairs_of_votes(votes)
    assert [(pair.chosen_model, pair.chosen_text) for pair in pairs] == [("base", "No emoji for a.")]
    assert left_out == {"both": 1, "neither": 1, "an empty reply": 1, "equal replies": 1, "voted on again later": 1}


def test_the_command_exports_what_training_takes(
    orpo_home: Path, model_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Votes, export, two steps: the loop that the README promises."""
    with pytest.raises(InputError, match="no votes yet"):
        serve(["--export-votes", str(orpo_home / "votes")])
    store = JudgementStore(orpo_home / "data" / "judgements.sqlite")
    for number in range(6):
        cast(Votes(store), f"message {number}", "first")
    store.close()
    out = orpo_home / "votes"
    assert serve(["--export-votes", str(out)]) == 0
    assert "6 pairs" in capsys.readouterr().out
    pairs = read_pairs(str(out)).pairs
    assert len(pairs) == 6 and all("🎉" in pair.chosen_text and pair.chosen_score > 0 for pair in pairs)
    with pytest.raises(OutputError, match="already exists"):
        serve(["--export-votes", str(out)])
    assert serve(["--export-votes", str(out), "--overwrite"]) == 0
    arguments = ["--model", str(model_folder), "--data", str(out), "--out", str(orpo_home / "trained" / "votes")]
    assert train([*arguments, "--max-steps", "2", "--trainer", "fast", "--report-to", "none"]) == 0
    assert (orpo_home / "trained" / "votes" / "adapter_model.safetensors").is_file()


def test_nothing_is_exported_where_there_is_nothing(votes: Votes, tmp_path: Path) -> None:
    cast(votes, "a", "both")
    with pytest.raises(InputError, match="both 1"):
        export_votes(votes.store, tmp_path / "out", overwrite=False)
    assert not (tmp_path / "out").exists()


def test_over_http_a_duel_says_nobody_who_is_who_before_the_vote(served: Served) -> None:
    with httpx.Client(base_url=served.url, timeout=60) as web:
        asked = {"models": ["base", "second-0.5"], "messages": user_message("hello"), "max_tokens": 20}
        duel = web.post("/api/duels", json=asked).json()
        assert set(duel) == {"id", "messages", "replies"} and duel["replies"] is None
        first = web.post(f"/api/duels/{duel['id']}/replies").text
        assert "base" not in first and "second" not in first and '"done": true' in first
        again = web.get("/api/duels/open").json()["duel"]
        assert again["id"] == duel["id"] and len(again["replies"]) == 2
        told = web.post(f"/api/duels/{duel['id']}/vote", json={"vote": "left"}).json()
        assert set(told["models"].values()) == {"base", "second-0.5"}
        row = served.service.store.read("SELECT * FROM duels WHERE id = ?", duel["id"])[0]
        assert [row["left_reply"], row["right_reply"]] == again["replies"]
        side = told["models"]["right"]
        alone = {"model": side, "messages": user_message("hello"), "max_tokens": 20, "seed": told["seed"]}
        answer = web.post("/v1/chat/completions", json=alone).json()
        assert answer["choices"][0]["message"]["content"] == again["replies"][1], "the reply of that model and seed"
        assert web.post(f"/api/duels/{duel['id']}/vote", json={"vote": "right"}).status_code == 400
        assert web.post("/api/duels", json={**asked, "models": ["base", "base"]}).status_code == 400
        assert web.post("/api/duels/999/vote", json={"vote": "left"}).status_code == 400
