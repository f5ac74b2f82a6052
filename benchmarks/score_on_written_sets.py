"""The score on exchanges written to measure it, and on the replies of somebody's DPO set.

`benchmarks/data/` holds what was written for this project alone: prompts where no emoji belongs, everyday prompts with
a fitting reply, and sentences with the emojis that a reader would accept. Nothing was trained or chosen on any of it.
"""

import gzip
import json
import random
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

from orpo.scoring import find_emojis, get_scorer, normalise_emoji, strip_emojis, suggest_emojis

Row = dict[str, Any]
WRITTEN = Path(__file__).with_name("data")


def read_written(name: str) -> list[Row]:
    """Return the rows of one file of `benchmarks/data/`."""
    lines = (WRITTEN / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def measure_restraint() -> list[Row]:
    """Return for each kind of grave or technical prompt how often the plain reply is above the one with a smile."""
    scorer = get_scorer("tasteful")
    won: dict[str, list[bool]] = {}
    for row in read_written("grave_and_technical"):
        plain, prompt = row["plain_reply"], row["prompt"]
        won.setdefault(row["kind"], []).append(scorer.score(plain, prompt) > scorer.score(f"{plain} 😊", prompt))
    won["all"] = [value for values in won.values() for value in values]
    return [{"kind": kind, "prompts": len(values), "plain_above": _share(values)} for kind, values in won.items()]


def measure_presence(data: Path) -> list[Row]:
    """Return how often a reply with emojis is above its plain twin, and above itself with others of equal frequency."""
    everyday = [(row["prompt"], row["emoji_reply"]) for row in read_written("everyday")]
    rows = []
    for name, exchanges in (("everyday prompts", everyday), ("GPT-written pairs", read_gpt_replies(data))):
        scorer = get_scorer("tasteful")
        pool = [span.text for _, reply in exchanges for span in find_emojis(reply)]
        rng = random.Random(0)
        plain, other = [], []
        for prompt, reply in exchanges:
            score = scorer.score(reply, prompt)
            plain.append(score > scorer.score(strip_emojis(reply), prompt))
            other.append(score > scorer.score(exchange_emojis(reply, pool, rng), prompt))
        rows.append(
            {"replies": name, "count": len(plain), "above_plain": _share(plain), "above_other_emojis": _share(other)}
        )
    return rows


def read_gpt_replies(data: Path) -> list[tuple[str, str]]:
    """Return (prompt, reply with emojis) of the DPO set that GPT wrote."""
    packed = (data / "emoji" / "gpt_written_pairs.jsonl.gz").read_bytes()
    rows = [json.loads(line) for line in gzip.decompress(packed).decode("utf-8").split("\n") if line]
    return [(row["prompt"][-1]["content"], row["chosen"][-1]["content"]) for row in rows]


def exchange_emojis(reply: str, pool: list[str], rng: random.Random) -> str:
    """Return the reply with another emoji, drawn from a pool, in place of each."""
    for span in reversed(find_emojis(reply)):
        own = normalise_emoji(span.text)
        other = rng.choice([emoji for emoji in pool if normalise_emoji(emoji) != own])
        reply = reply[: span.start] + other + reply[span.end :]
    return reply


def measure_suggestions() -> list[Row]:
    """Return how often the first suggestion, and one of the first three, is among those that a reader accepts."""
    first, three = [], []
    for row in read_written("picks"):
        accepted = {normalise_emoji(emoji) for emoji in row["accepted"]}
        picks = [normalise_emoji(pick.emoji) in accepted for pick in suggest_emojis(row["text"], row["prompt"], 3)]
        first.append(any(picks[:1]))
        three.append(any(picks))
    return [{"sentences": len(first), "top1": _share(first), "top3": _share(three)}]


def measure_calibration(data: Path) -> list[Row]:
    """Return, for the advantage of one reply over its twin, how often people's choice is the one ahead.

    The probability that a reply is preferred to its plain twin is read from the two scores: s / (s + plain).
    """
    scorer = get_scorer("tasteful")
    judged: list[tuple[float, bool]] = []
    for row in read_written("grave_and_technical"):
        plain = scorer.score(row["plain_reply"], row["prompt"])
        judged.append((_probability(scorer.score(f"{row['plain_reply']} 😊", row["prompt"]), plain), False))
    for prompt, reply in [(row["prompt"], row["emoji_reply"]) for row in read_written("everyday")] + read_gpt_replies(
        data
    ):
        plain = scorer.score(strip_emojis(reply), prompt)
        judged.append((_probability(scorer.score(reply, prompt), plain), True))
    bins = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.01)
    rows = []
    for low, high in pairwise(bins):
        inside = [(probability, won) for probability, won in judged if low <= probability < high]
        if inside:
            said = sum(probability for probability, _ in inside) / len(inside)
            seen = _share([won for _, won in inside])
            rows.append({"said": f"{low:.1f} to {min(high, 1):.1f}", "pairs": len(inside), "mean": said, "seen": seen})
    return rows


def _probability(score: float, plain: float) -> float:
    return score / max(score + plain, 1e-9)


def measure_start() -> list[Row]:
    """Return the seconds of a fresh process: until the import is done, and until the first score is there."""
    code = (
        "import time; started = time.perf_counter(); import orpo.scoring as scoring; imported = time.perf_counter();"
        "scoring.get_scorer('tasteful').score('Well done! 🎉', 'I passed!');"
        "print(imported - started, time.perf_counter() - started)"
    )
    runs = []
    for _ in range(4):
        started = time.perf_counter()
        done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
        whole = time.perf_counter() - started
        runs.append((*(float(value) for value in done.stdout.split()), whole))
    imported, scored, whole = min(runs[1:], key=lambda run: run[1])
    return [{"import": imported, "import_and_first_score": scored, "whole_process": whole}]


def _share(values: list[bool]) -> float:
    return sum(values) / len(values)
