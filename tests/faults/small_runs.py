"""Small runs of generate and train that are killed, starved of disk and resumed; what they leave is compared."""

import hashlib
import json
from pathlib import Path
from typing import Any

from tests.faults.forked_commands import ForkedCommands

PAIRS = 12


def write_pairs(file: Path, count: int = PAIRS) -> Path:
    """Write preference pairs on different prompts."""
    rows = [{"prompt": f"Question {n}?", "chosen": f"Answer {n} 🎉", "rejected": f"Answer {n}"} for n in range(count)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


def train_flags(model: Path, data: Path, out: Path, *, steps: int = 8) -> list[str]:
    """Return the flags of a few small steps with a checkpoint after every second one."""
    flags = ["--model", str(model), "--data", str(data), "--out", str(out), "--trainer", "fast", "--device", "cpu"]
    flags += ["--max-steps", str(steps), "--batch-size", "2", "--save-steps", "2", "--logging-steps", "1"]
    flags += ["--eval-steps", "4", "--eval-prompt-count", "2", "--reward-pairs", "1", "--max-new-tokens", "8"]
    return [*flags, "--dtype", "float32", "--lora-dropout", "0.1"]


def whole_run(commands: ForkedCommands, model: Path, folder: Path, *, steps: int = 8) -> Path:
    """Return the folder of a training run that nobody disturbs."""
    flags = train_flags(model, write_pairs(folder / "pairs.jsonl"), folder / "out", steps=steps)
    done = commands.run("train", *flags)
    assert done.code == 0, done.err
    return folder / "out"


def generate_flags(url: str, prompts: Path, out: Path, *, concurrency: int = 2) -> list[str]:
    """Return the flags of a run whose writers are one endpoint."""
    flags = ["--emoji-model", "openai:one", "--plain-model", "openai:two", "--base-url", url, "--retries", "0"]
    flags += ["--scorer", "contains_emoji", "--prompts", str(prompts), "--concurrency", str(concurrency)]
    return [*flags, "--out", str(out)]


def fingerprint(file: Path) -> str:
    """Return the hash of a file."""
    return hashlib.sha256(file.read_bytes()).hexdigest()


def losses(run: Path) -> list[Any]:
    """Return all that the last checkpoint remembers of a run, but for times and speeds."""
    last = max(run.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]))
    history = json.loads((last / "trainer_state.json").read_text(encoding="utf-8"))["log_history"]
    timed = ("runtime", "per_second", "flos")
    return [{key: entry[key] for key in entry if not any(word in key for word in timed)} for entry in history]
