"""Whole runs of train.py, everything included: this project's trainer and TRL's, on the same pairs, in turns.

    uv run benchmarks/whole_run.py                        # 600 pairs of data/preferences, which generate.py wrote
    uv run benchmarks/whole_run.py --pairs 100 --rounds 2 -- --max-steps 10
    uv run benchmarks/whole_run.py --data pairs.jsonl -- --dtype float32 --batch-size 4

What follows `--` goes to both. A run is a process of its own: imports, loading, steps, evaluations with sampled replies
and saving are all in its wall time. The losses of both are shown beside it, for a faster run that learnt something else
would prove nothing. The last line is JSON.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

COMMAND = Path(__file__).resolve().parents[1] / "orpo" / "train.py"
TRAINERS = ("fast", "trl")
SHOWN = {"eval_loss": "loss of held-out pairs", "replies/emoji_rate": "replies with an emoji"}


def main() -> None:
    """Run both trainers in turns; print the table and the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="data/preferences", help="preference pairs, as train.py takes them")
    parser.add_argument("--pairs", type=int, default=600)
    parser.add_argument("--rounds", type=int, default=1, help="runs of each trainer")
    parser.add_argument("further", nargs="*", help="flags of train.py, after --")
    given = parser.parse_args()
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in TRAINERS}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(given.rounds):
            for name in TRAINERS:
                out = Path(folder) / f"{name}-{number}"
                flags = ["--data", given.data, "--limit", str(given.pairs), "--trainer", name, "--out", str(out)]
                runs[name].append(run_of([*flags, *given.further], out))
                print(f"{name}: {runs[name][-1]['wall_seconds']:.0f} s", file=sys.stderr, flush=True)
    walls = {name: statistics.median(run["wall_seconds"] for run in found) for name, found in runs.items()}
    for name, found in runs.items():
        last = {text: found[-1]["metrics"].get(key, {}).get("last") for key, text in SHOWN.items()}
        print(
            f"{name:5} {walls[name]:7.0f} s {walls['trl'] / walls[name]:5.2f}x {found[-1]['peak_memory_mb']:6.0f} MB  "
            + "  ".join(f"{text} {value:.4f}" for text, value in last.items() if value is not None)
        )
    print(json.dumps({"wall_seconds": walls, "ratio": walls["trl"] / walls["fast"], "runs": runs}))


def run_of(flags: list[str], out: Path) -> dict[str, Any]:
    """Train and return what the run's record says of time, memory and losses."""
    done = subprocess.run([sys.executable, str(COMMAND), *flags], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"train.py {' '.join(flags)} failed:\n{done.stderr[-2000:]}")
    record = json.loads((out / "run.json").read_text(encoding="utf-8"))
    return {name: record[name] for name in ("wall_seconds", "peak_memory_mb", "metrics", "facts")}


if __name__ == "__main__":
    main()
