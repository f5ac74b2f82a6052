"""Blind votes on two replies: kept at once, counted with intervals, and written as preference pairs.

The order is drawn here and told only after the vote. A duel's seed decides both replies, so one that was interrupted is
answered again as it was.
"""

import json
import random
import secrets
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from sqlite3 import Row
from typing import Final, Literal, TypedDict, get_args

from orpo.command.errors import InputError
from orpo.command.markdown import table
from orpo.command.output_folder import new_folder
from orpo.command.run_record import RunRecord, fingerprint_rows
from orpo.comparing.approaches import BASE
from orpo.comparing.intervals import share_interval, tally
from orpo.generating.written import reasons_of
from orpo.records.messages import Message, last_message, system_message
from orpo.records.pairs import PreferencePair, write_pairs
from orpo.records.replies import Sampling
from orpo.scoring import DEFAULT_SCORER, get_scorer
from orpo.serving.judgements import JudgementStore, now

Vote = Literal["left", "right", "both", "neither"]
VOTES: Final[tuple[Vote, ...]] = get_args(Vote)
Side = Literal["left", "right"]
SIDES: Final[tuple[Side, ...]] = get_args(Side)


@dataclass(frozen=True)
class Duel:
    """Two replies to one conversation, by models that are not told.

    Attributes:
        id: Its number.
        messages: The conversation.
        sampling: How tokens are picked, for both.
        seed: For both.
        models: Who answers on the left, and who on the right.
        replies: What they said; None until both are whole.
        vote: What was voted, if anything yet.
    """

    id: int
    messages: list[Message]
    sampling: Sampling
    seed: int
    models: tuple[str, str]
    replies: tuple[str, str] | None
    vote: Vote | None


class TallyRow(TypedDict):
    """What the votes say of two models; the share is the second one's, of the votes for one of them."""

    first: str
    second: str
    first_wins: int
    second_wins: int
    both: int
    neither: int
    share: float | None
    low: float | None
    high: float | None
    is_current: bool


class Votes:
    """The votes in a store."""

    def __init__(self, store: JudgementStore) -> None:
        """Read and write there."""
        self.store = store

    def begin(self, messages: Sequence[Message], sampling: Sampling, models: Sequence[tuple[str, str]]) -> Duel:
        """Keep a new duel of two models, (name, identity) each, in an order that is drawn."""
        (left, left_identity), (right, right_identity) = random.SystemRandom().sample(list(models), 2)
        number = self.store.write(
            "INSERT INTO duels (created, messages, sampling, seed, left_model, right_model, left_identity, "
            "right_identity) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            now(),
            json.dumps(list(messages), ensure_ascii=False),
            json.dumps(asdict(sampling)),
            secrets.randbelow(2**31),
            left,
            right,
            left_identity,
            right_identity,
        )
        return self.find(number)

    def find(self, number: int) -> Duel:
        """Return a duel; InputError where there is none of that number."""
        rows = self.store.read("SELECT * FROM duels WHERE id = ?", number)
        if not rows:
            raise InputError(f"there is no duel {number}")
        return _as_duel(rows[0])

    def find_open(self) -> Duel | None:
        """Return the last duel, if nobody has voted on it yet."""
        rows = self.store.read("SELECT * FROM duels ORDER BY id DESC LIMIT 1")
        return _as_duel(rows[0]) if rows and rows[0]["vote"] is None else None

    def keep_replies(self, number: int, left: str, right: str) -> None:
        """Keep what both said."""
        self.store.change("UPDATE duels SET left_reply = ?, right_reply = ? WHERE id = ?", left, right, number)

    def forget(self, number: int) -> None:
        """Forget a duel that nobody has voted on; a vote stays."""
        self.store.change("DELETE FROM duels WHERE id = ? AND vote IS NULL", number)

    def vote(self, number: int, vote: Vote) -> Duel:
        """Keep a vote; InputError where there are no replies to vote on, or a vote is there already."""
        changed = self.store.change(
            "UPDATE duels SET vote = ?, voted = ? WHERE id = ? AND vote IS NULL AND left_reply IS NOT NULL",
            vote,
            now(),
            number,
        )
        duel = self.find(number)
        if not changed:
            raise InputError(f"duel {number} " + ("has its vote already" if duel.vote else "has no replies yet"))
        return duel

    def tallies(self, identities: dict[str, str]) -> list[TallyRow]:
        """Return what was voted on each two models, the base first; `identities` are those of today by name."""
        counted: dict[tuple[tuple[str, str], tuple[str, str]], list[str]] = {}
        for row in self.store.read("SELECT * FROM duels WHERE vote IS NOT NULL ORDER BY id DESC"):
            models = [(row["left_model"], row["left_identity"]), (row["right_model"], row["right_identity"])]
            first, second = sorted(models, key=lambda model: (model[0] != BASE, model))
            votes = {"left": models[0], "right": models[1]}
            winner = votes.get(row["vote"])
            word = row["vote"] if winner is None else "first" if winner == first else "second"
            counted.setdefault((first, second), []).append(word)
        return [_tally_row(first, second, words, identities) for (first, second), words in counted.items()]


def _tally_row(
    first: tuple[str, str], second: tuple[str, str], words: list[str], identities: dict[str, str]
) -> TallyRow:
    decided = [float(word == "second") for word in words if word in ("first", "second")]
    interval = share_interval(tally(decided)) if decided else None
    return {
        "first": first[0],
        "second": second[0],
        "first_wins": words.count("first"),
        "second_wins": words.count("second"),
        "both": words.count("both"),
        "neither": words.count("neither"),
        "share": interval.value if interval else None,
        "low": interval.low if interval else None,
        "high": interval.high if interval else None,
        "is_current": all(identities.get(name) == identity for name, identity in (first, second)),
    }


def _as_duel(row: Row) -> Duel:
    left, right = row["left_reply"], row["right_reply"]
    return Duel(
        row["id"],
        json.loads(row["messages"]),
        Sampling(**json.loads(row["sampling"])),
        row["seed"],
        (row["left_model"], row["right_model"]),
        None if left is None or right is None else (left, right),
        row["vote"],
    )


@dataclass(frozen=True)
class ExportedVotes:
    """What became of the votes.

    Attributes:
        folder: Where the pairs are.
        pairs: How many.
        left_out: Votes that are no pair, by reason.
    """

    folder: Path
    pairs: int
    left_out: dict[str, int]


def pairs_of_votes(votes: Votes) -> tuple[list[PreferencePair], dict[str, int]]:
    """Return a pair for each vote for one side, the newest vote on the same replies alone, and why others are none."""
    found: dict[str, PreferencePair] = {}
    left_out = dict.fromkeys(("both", "neither", "an empty reply", "equal replies", "voted on again later"), 0)
    for row in votes.store.read("SELECT * FROM duels WHERE vote IS NOT NULL ORDER BY id"):
        duel = _as_duel(row)
        assert duel.replies is not None and duel.vote is not None
        if duel.vote in ("both", "neither"):
            left_out[duel.vote] += 1
        elif not all(reply.strip() for reply in duel.replies):
            left_out["an empty reply"] += 1
        elif duel.replies[0].strip() == duel.replies[1].strip():
            left_out["equal replies"] += 1
        else:
            key = json.dumps([duel.messages, sorted(duel.replies)])
            left_out["voted on again later"] += key in found
            found[key] = _pair(duel)
    return list(found.values()), {reason: count for reason, count in left_out.items() if count}


def _pair(duel: Duel) -> PreferencePair:
    assert duel.replies is not None
    won = 0 if duel.vote == "left" else 1
    chosen, rejected = duel.replies[won], duel.replies[1 - won]
    scorer = get_scorer(DEFAULT_SCORER)
    prompt, system = last_message(duel.messages), system_message(duel.messages)
    reports = [scorer.explain(reply, prompt, system=system) for reply in (chosen, rejected)]
    return PreferencePair(
        prompt=duel.messages,
        chosen=[{"role": "assistant", "content": chosen}],
        rejected=[{"role": "assistant", "content": rejected}],
        chosen_score=reports[0].score,
        rejected_score=reports[1].score,
        chosen_model=duel.models[won],
        rejected_model=duel.models[1 - won],
        prompt_id=f"vote-{duel.id}",
        source="votes",
        chosen_reasons=reasons_of(reports[0]),
        rejected_reasons=reasons_of(reports[1]),
    )


def export_votes(store: JudgementStore, folder: Path, *, overwrite: bool) -> ExportedVotes:
    """Write the votes as a folder of preference pairs, whole or not at all; InputError where there are none."""
    record = RunRecord("serve", {"export_votes": str(folder), "store": str(store.file)})
    pairs, left_out = pairs_of_votes(Votes(store))
    if not pairs:
        told = ", ".join(f"{reason} {count}" for reason, count in left_out.items()) or "nobody has voted"
        raise InputError(f"{store.file}: holds no vote for one of two replies ({told}); vote on the page first")
    record.metrics = {"pairs": len(pairs), "left_out": left_out}
    record.data_fingerprint = fingerprint_rows(pair.as_row() for pair in pairs)
    with new_folder(folder, overwrite=overwrite) as temporary:
        write_pairs(temporary, pairs, card=_card(pairs, left_out))
        record.write(temporary)
    return ExportedVotes(folder, len(pairs), left_out)


def _card(pairs: Sequence[PreferencePair], left_out: dict[str, int]) -> str:
    wins: dict[str, int] = {}
    for pair in pairs:
        wins[pair.chosen_model] = wins.get(pair.chosen_model, 0) + 1
    parts = [
        "# Preference pairs: blind votes",
        f"{len(pairs)} pairs. `chosen` is the reply that a person preferred without knowing who wrote it; the scores "
        "beside it are the scorer's and decided nothing.",
        table(("chosen reply by", "pairs"), list(wins.items())),
        table(("votes that are no pair", "votes"), list(left_out.items())),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"
