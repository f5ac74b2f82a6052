"""The score on exchanges written to measure it, and on the replies of somebody's DPO set.

`benchmarks/data/` holds what was written for this project alone: prompts where no emoji belongs, everyday prompts with
a fitting reply, and sentences with the emojis that a reader would accept. Nothing was trained on any of it, and the
sets called blind are measured once before a round of changes and once after it.
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

from orpo.scoring import emoji_name, find_emojis, get_scorer, normalise_emoji, preference, strip_emojis, suggest_emojis

Row = dict[str, Any]
WRITTEN = Path(__file__).with_name("data")


def read_written(name: str) -> list[Row]:
    """Return the rows of one file of `benchmarks/data/`."""
    lines = (WRITTEN / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def measure_restraint(name: str = "grave_and_technical") -> list[Row]:
    """Return for each kind of grave or technical prompt how often the plain reply is above the one with a smile."""
    scorer = get_scorer("tasteful")
    scores: dict[str, list[tuple[float, float]]] = {}
    for row in read_written(name):
        plain, prompt = row["plain_reply"], row["prompt"]
        both = scorer.score(plain, prompt), scorer.score(f"{plain} 😊", prompt)
        scores.setdefault(row["kind"], []).append(both)
    scores["all"] = [both for kind in scores.values() for both in kind]
    return [
        {
            "kind": kind,
            "prompts": len(both),
            "plain_above": _share([plain > smile for plain, smile in both]),
            "mean_plain": sum(plain for plain, _ in both) / len(both),
            "mean_smile": sum(smile for _, smile in both) / len(both),
        }
        for kind, both in scores.items()
    ]


def read_everyday(name: str = "everyday") -> list[tuple[str, str]]:
    """Return (prompt, reply with fitting emojis)."""
    return [(row["prompt"], row["emoji_reply"]) for row in read_written(name)]


def measure_presence(sets: dict[str, list[tuple[str, str]]]) -> list[Row]:
    """Return how often a reply with emojis is above its plain twin, and above itself with others of equal frequency."""
    rows = []
    for name, exchanges in sets.items():
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


def measure_smiles(name: str = "everyday") -> list[Row]:
    """Return how a smile fares where a writer chose an emoji of the topic: its fit beside that of the chosen one."""
    scorer = get_scorer("tasteful")
    ahead, chosen, smiles = [], [], []
    for prompt, reply in read_everyday(name):
        spans = find_emojis(reply)
        if len(spans) == 1 and not is_face(spans[0].text):
            own, smile = (
                scorer.explain(text, prompt).parts["relevance"].value
                for text in (reply, exchange_emojis(reply, ["😊"], random.Random(0)))
            )
            ahead.append(own > smile)
            chosen.append(own)
            smiles.append(smile)
    means = {"mean_relevance": sum(chosen) / len(chosen), "mean_of_smile": sum(smiles) / len(smiles)}
    return [{"replies": len(ahead), "topical_above_smile": _share(ahead), **means}]


def is_face(emoji: str) -> bool:
    """Return whether an emoji is a yellow face."""
    return "face" in emoji_name(emoji).split() and not emoji_name(emoji).startswith(("cat", "dog"))


def measure_suggestions(name: str = "picks") -> list[Row]:
    """Return how often the first suggestion, and one of the first three, is among those that a reader accepts."""
    first, three, faces = [], [], []
    for row in read_written(name):
        accepted = {normalise_emoji(emoji) for emoji in row["accepted"]}
        picked = [pick.emoji for pick in suggest_emojis(row["text"], row["prompt"], 3)]
        right = [normalise_emoji(emoji) in accepted for emoji in picked]
        first.append(any(right[:1]))
        three.append(any(right))
        faces.append(any(map(is_face, picked[:1])))
    return [{"sentences": len(first), "top1": _share(first), "top3": _share(three), "face_first": _share(faces)}]


def measure_calibration(data: Path) -> list[Row]:
    """Return how often a reply is preferred to its plain twin where the two scores say so with some probability."""
    scorer = get_scorer("tasteful")
    judged: list[tuple[float, bool]] = []
    for row in read_written("grave_and_technical"):
        plain = scorer.score(row["plain_reply"], row["prompt"])
        judged.append((preference(scorer.score(f"{row['plain_reply']} 😊", row["prompt"]), plain), False))
    for prompt, reply in read_everyday() + read_gpt_replies(data):
        plain = scorer.score(strip_emojis(reply), prompt)
        judged.append((preference(scorer.score(reply, prompt), plain), True))
    bins = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.01)
    rows = []
    for low, high in pairwise(bins):
        inside = [(probability, won) for probability, won in judged if low <= probability < high]
        if inside:
            said = sum(probability for probability, _ in inside) / len(inside)
            seen = _share([won for _, won in inside])
            rows.append({"said": f"{low:.1f} to {min(high, 1):.1f}", "pairs": len(inside), "mean": said, "seen": seen})
    return rows


def measure_start() -> list[Row]:
    """Return the seconds of a fresh process: until the import is done, until the first score is there, and of CPU."""
    code = (
        "import time; started = time.perf_counter(); import orpo.scoring as scoring; imported = time.perf_counter();"
        "scoring.get_scorer('tasteful').score('Well done! 🎉', 'I passed!');"
        "print(imported - started, time.perf_counter() - started, time.process_time())"
    )
    runs = []
    for _ in range(4):
        started = time.perf_counter()
        done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
        whole = time.perf_counter() - started
        runs.append((*(float(value) for value in done.stdout.split()), whole))
    imported, scored, processor, whole = min(runs[1:], key=lambda run: run[1])
    return [
        {"import": imported, "import_and_first_score": scored, "whole_process": whole, "processor_of_it": processor}
    ]


def measure_blind() -> dict[str, list[Row]]:
    """Return the figures of the blind sets; to be asked for once before a round of changes and once after it."""
    return {
        "blind: plain above a smile": measure_restraint("blind_grave_and_technical"),
        "blind: near misses": measure_presence({"near misses": read_everyday("blind_everyday")}),
        "blind: suggestions": measure_suggestions("blind_picks"),
    }


def _share(values: list[bool]) -> float:
    return sum(values) / len(values)
