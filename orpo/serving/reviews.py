"""A data set's pairs, judged one by one: kept, flipped, dropped or edited; the result is a new folder.

The data set is read once and never written. Decisions are kept in the store as they are made, under a fingerprint of
the pairs, so a review goes on where it was, and never over pairs that have changed meanwhile.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final, Literal, get_args

from orpo.command.errors import InputError
from orpo.command.markdown import table
from orpo.command.output_folder import new_folder, write_whole
from orpo.command.run_record import RunRecord, fingerprint_rows
from orpo.generating.written import reasons_of
from orpo.records.messages import Message, last_message, system_message
from orpo.records.pairs import PreferencePair, write_pairs
from orpo.records.read_pairs import read_pairs
from orpo.scoring import DEFAULT_SCORER, ScoreReport, get_scorer
from orpo.serving.judgements import JudgementStore, now

Decision = Literal["keep", "flip", "drop", "edit"]
DECISIONS: Final[tuple[Decision, ...]] = get_args(Decision)
Rest = Literal["keep", "leave out"]
REVIEW_FILE: Final = "review.jsonl"


@dataclass(frozen=True)
class Decided:
    """What somebody decided on a pair; the texts are there where they were edited."""

    decision: Decision
    who: str
    when: str
    chosen: str | None = None
    rejected: str | None = None


@dataclass(frozen=True)
class Duplicates:
    """Other pairs, by number from 1, that repeat something of this one."""

    pair: list[int]
    prompt: list[int]
    chosen: list[int]


class Review:
    """One data set under review.

    Attributes:
        source: The data set, as it was named.
        pairs: Its pairs.
        id: The review's number in the store.
    """

    def __init__(self, store: JudgementStore, source: str) -> None:
        """Read the pairs, and go on with the review of just these pairs if there is one."""
        self.source, self._store = source, store
        self.pairs = read_pairs(source, bad_rows="drop").pairs
        self.fingerprint = fingerprint_rows(pair.as_row() for pair in self.pairs)
        store.write(
            "INSERT OR IGNORE INTO reviews (created, data, fingerprint) VALUES (?, ?, ?)",
            now(),
            source,
            self.fingerprint,
        )
        found = store.read("SELECT id FROM reviews WHERE data = ? AND fingerprint = ?", source, self.fingerprint)
        self.id: int = found[0]["id"]
        self._repeats = _find_repeats(self.pairs)

    def decisions(self) -> dict[int, Decided]:
        """Return what was decided so far, by the pair's number from 1."""
        rows = self._store.read("SELECT * FROM decisions WHERE review = ?", self.id)
        return {
            row["row"]: Decided(row["decision"], row["who"], row["decided"], row["chosen"], row["rejected"])
            for row in rows
        }

    def find(self, number: int) -> PreferencePair:
        """Return the pair of this number, from 1; InputError where there is none."""
        if not 1 <= number <= len(self.pairs):
            raise InputError(f"{self.source}: has {len(self.pairs)} pairs and no number {number}")
        return self.pairs[number - 1]

    def decide(
        self, number: int, decision: Decision, who: str, *, chosen: str | None = None, rejected: str | None = None
    ) -> None:
        """Keep a decision, in place of an earlier one; InputError for texts that make no pair."""
        self.find(number)
        texts = (chosen, rejected) if decision == "edit" else (None, None)
        if decision == "edit":
            sides = [text.strip() if text else "" for text in (chosen, rejected)]
            if not all(sides):
                raise InputError("an edited pair needs both replies; drop it, or write something")
            if sides[0] == sides[1]:
                raise InputError(
                    "both replies say the same, so there is nothing to prefer; change one, or drop the pair"
                )
        self._store.write(
            "INSERT OR REPLACE INTO decisions (review, row, decision, chosen, rejected, who, decided) "
            "VALUES (?, ?, ?, ?, ?, ?, ?)",
            self.id,
            number,
            decision,
            *texts,
            who,
            now(),
        )

    def undo(self, number: int) -> None:
        """Forget what was decided on a pair."""
        self._store.change("DELETE FROM decisions WHERE review = ? AND row = ?", self.id, number)

    def duplicates(self, number: int) -> Duplicates:
        """Return which other pairs repeat this one, its prompt, or its chosen reply to another prompt."""
        pair = self.find(number)
        same_pair, same_prompt, same_chosen = (
            [other for other in self._repeats[kind, key] if other != number] for kind, key in _keys(pair).items()
        )
        return Duplicates(same_pair, same_prompt, [other for other in same_chosen if other not in same_prompt])

    def scores(self, number: int) -> tuple[ScoreReport, ScoreReport]:
        """Return the scores of the chosen and the rejected reply, as they are in the data."""
        pair = self.find(number)
        explain = partial(get_scorer(DEFAULT_SCORER).explain, system=system_message(pair.prompt))
        prompt = last_message(pair.prompt)
        return explain(pair.chosen_text, prompt), explain(pair.rejected_text, prompt)

    def write(self, folder: Path, *, rest: Rest, who: str) -> dict[str, int]:
        """Write the reviewed pairs as a new folder, with every decision; return how many there were of each kind.

        `rest` says what becomes of the pairs on which nothing was decided.
        """
        record = RunRecord("serve", {"reviewed": self.source, "undecided": rest, "who": who})
        decisions = self.decisions()
        kept: list[PreferencePair] = []
        lines: list[dict[str, object]] = []
        for number, pair in enumerate(self.pairs, start=1):
            decided = decisions.get(number)
            result = _apply(pair, decided, rest)
            kept += [result] if result is not None else []
            lines.append(_line(number, pair, decided, rest, len(kept) if result is not None else None))
        if not kept:
            raise InputError(f"{self.source}: no pair is left, so there is nothing to write")
        counts = dict(Counter(str(line["decision"]) for line in lines))
        record.metrics = {"pairs": len(kept), "decisions": counts}
        record.facts = {"source_fingerprint": self.fingerprint}
        record.data_fingerprint = fingerprint_rows(pair.as_row() for pair in kept)
        with new_folder(folder) as temporary:
            write_pairs(temporary, kept, card=_card(self.source, len(kept), counts, decisions.values()))
            text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
            write_whole(temporary / REVIEW_FILE, text)
            record.write(temporary)
        return {"pairs": len(kept), **counts}


def _keys(pair: PreferencePair) -> dict[str, str]:
    prompt = json.dumps([_normal(message) for message in pair.prompt])
    chosen, rejected = " ".join(pair.chosen_text.split()), " ".join(pair.rejected_text.split())
    return {"pair": json.dumps([prompt, chosen, rejected]), "prompt": prompt, "chosen": chosen}


def _normal(message: Message) -> list[str]:
    return [message["role"], " ".join(message["content"].casefold().split())]


def _find_repeats(pairs: Sequence[PreferencePair]) -> dict[tuple[str, str], list[int]]:
    found: dict[tuple[str, str], list[int]] = defaultdict(list)
    for number, pair in enumerate(pairs, start=1):
        for kind, key in _keys(pair).items():
            found[kind, key].append(number)
    return found


def _apply(pair: PreferencePair, decided: Decided | None, rest: Rest) -> PreferencePair | None:
    """Return what becomes of a pair; None where it is left out."""
    if decided is None:
        return pair if rest == "keep" else None
    if decided.decision == "keep":
        return pair
    if decided.decision == "drop":
        return None
    if decided.decision == "flip":
        return replace(
            pair,
            chosen=pair.rejected,
            rejected=pair.chosen,
            chosen_score=pair.rejected_score,
            rejected_score=pair.chosen_score,
            chosen_model=pair.rejected_model,
            rejected_model=pair.chosen_model,
            chosen_reasons=pair.rejected_reasons,
            rejected_reasons=pair.chosen_reasons,
            kind="",
        )
    return _edited(pair, decided)


def _edited(pair: PreferencePair, decided: Decided) -> PreferencePair:
    """Return the pair with the new texts, scored anew; a side that was changed is the editor's."""
    assert decided.chosen is not None and decided.rejected is not None
    explain = partial(get_scorer(DEFAULT_SCORER).explain, system=system_message(pair.prompt))
    prompt = last_message(pair.prompt)
    chosen, rejected = explain(decided.chosen, prompt), explain(decided.rejected, prompt)
    return replace(
        pair,
        chosen=[*pair.chosen[:-1], {"role": "assistant", "content": decided.chosen}],
        rejected=[*pair.rejected[:-1], {"role": "assistant", "content": decided.rejected}],
        chosen_score=chosen.score,
        rejected_score=rejected.score,
        chosen_model=pair.chosen_model if decided.chosen == pair.chosen_text else f"edited by {decided.who}",
        rejected_model=pair.rejected_model if decided.rejected == pair.rejected_text else f"edited by {decided.who}",
        chosen_reasons=reasons_of(chosen),
        rejected_reasons=reasons_of(rejected),
    )


def _line(
    number: int, pair: PreferencePair, decided: Decided | None, rest: Rest, becomes: int | None
) -> dict[str, object]:
    """Return one row of review.jsonl: what was decided on a pair, by whom, and which line of the new data it is."""
    line: dict[str, object] = {
        "row": number,
        "where": pair.where,
        "prompt_id": pair.prompt_id,
        "decision": decided.decision if decided else f"undecided: {'kept' if rest == 'keep' else 'left out'}",
        "who": decided.who if decided else None,
        "when": decided.when if decided else None,
        "becomes": becomes,
    }
    if decided and decided.decision == "edit":
        line |= {"was": {"chosen": pair.chosen_text, "rejected": pair.rejected_text}}
    return line


def _card(source: str, kept: int, counts: dict[str, int], decided: Iterable[Decided]) -> str:
    who = Counter(one.who for one in decided)
    parts = [
        "# Preference pairs, reviewed by hand",
        f"{kept} pairs of `{Path(source).name}`. `{REVIEW_FILE}` holds a row for each pair of that set: what was "
        "decided, by whom and when, and which line of `pairs.jsonl` it became.",
        table(("decision", "pairs"), list(counts.items())),
        table(("decided by", "pairs"), list(who.items())),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"
