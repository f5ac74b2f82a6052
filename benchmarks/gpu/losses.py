"""Losses of a small training run on a device beside the CPU's: the same pairs, adapter and steps.

    uv run benchmarks/gpu/losses.py --device cuda
    uv run benchmarks/gpu/losses.py --device cpu --model FOLDER --steps 2

`train.py` runs three times: on the CPU in float32, on the device in float32, and on the device in bfloat16. Exit code 1
where the two in float32 differ by more than a ten-thousandth, or the one in bfloat16 by more than a twentieth. The last
line is JSON.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

FLOAT32_TOLERANCE, BFLOAT16_TOLERANCE = 1e-4, 5e-2
TRAIN = Path(__file__).resolve().parents[2] / "orpo" / "train.py"


def main() -> int:
    """Train three times and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--model", help="another model than the default one")
    parser.add_argument("--steps", type=int, default=8, help="of four pairs each")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_pairs(folder / "pairs.jsonl", 4 * given.steps)
        flags = ["--data", str(folder / "pairs.jsonl"), "--max-steps", str(given.steps)]
        flags += ["--model", given.model] if given.model else []
        reference, same, half = (
            train(folder / f"{device}-{dtype}-{number}", *flags, "--device", device, "--dtype", dtype)
            for number, (device, dtype) in enumerate(
                (("cpu", "float32"), (given.device, "float32"), (given.device, "bfloat16"))
            )
        )
    off = {"float32": largest(same, reference), "bfloat16": largest(half, reference)}
    is_equal = off["float32"] <= FLOAT32_TOLERANCE and off["bfloat16"] <= BFLOAT16_TOLERANCE
    losses = {"reference": reference, "float32": same, "bfloat16": half}
    for name, values in losses.items():
        print(f"{name:9}", *(f"{value:.5f}" for value in values))
    print(json.dumps({"are_equal": is_equal, "largest_relative_difference": off, "losses": losses}))
    return 0 if is_equal else 1


def write_pairs(file: Path, count: int) -> None:
    """Write pairs of the shipped examples: the reply as it stands, and without its emojis."""
    from orpo.generating.placing import strip
    from orpo.records.shipped import shipped_examples

    both = ((example.prompt, example.reply, strip(example.reply)) for example in shipped_examples())
    rows = [
        {"prompt": prompt, **{side: [{"role": "assistant", "content": text}] for side, text in sides.items()}}
        for prompt, reply, plain in both
        if reply != plain
        for sides in [{"chosen": reply, "rejected": plain}]
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows[:count]), encoding="utf-8")


def train(out: Path, *flags: str) -> list[float]:
    """Train with the flags and return the losses."""
    usual = ["--trainer", "fast", "--batch-size", "4", "--logging-steps", "1", "--eval-share", "0"]
    usual += ["--eval-prompt-count", "0", "--out", str(out)]
    done = subprocess.run([sys.executable, TRAIN, *usual, *flags], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"train.py {' '.join(flags)} failed:\n{done.stderr[-2000:]}")
    checkpoint = max(out.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]))
    history = json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))["log_history"]
    return [entry["loss"] for entry in history if "loss" in entry]


def largest(ours: list[float], theirs: list[float]) -> float:
    """Return the largest difference, relative to theirs."""
    return max(abs(own - other) / abs(other) for own, other in zip(ours, theirs, strict=True))


if __name__ == "__main__":
    sys.exit(main())
