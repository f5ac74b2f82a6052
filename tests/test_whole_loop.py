"""The three commands one after the other in one home, each finding what the one before it wrote, on a tiny model."""

import json
from pathlib import Path

import pytest

from orpo.generate import main as generate
from orpo.inference import main as inference
from orpo.train import main as train
from tests.small_models import save_chat_model


def test_prompts_become_pairs_an_adapter_and_replies(
    orpo_home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = str(save_chat_model(tmp_path / "model"))
    writers = ["--plain-model", model, "--emoji-model", "place", "--limit", "4", "--example-pairs", "24"]
    assert generate([*writers, "--examples", "0", "--max-new-tokens", "8"]) == 0
    pairs = (orpo_home / "data" / "preferences" / "pairs.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(pairs) >= 12
    small = ["--max-steps", "4", "--batch-size", "4", "--eval-prompt-count", "2", "--reward-pairs", "2"]
    assert train(["--model", model, *small, "--max-new-tokens", "4", "--device", "cpu"]) == 0
    adapter = orpo_home / "trained" / "model-orpo"
    record = json.loads((adapter / "run.json").read_text(encoding="utf-8"))
    assert record["facts"]["pairs"] == len(pairs) and record["facts"]["steps"] == 4
    capsys.readouterr()
    assert inference(["--prompt", "I got the job!", "--max-new-tokens", "4", "--device", "cpu"]) == 0
    shown = capsys.readouterr().out
    assert "I got the job!" in shown and "tuned" in shown
