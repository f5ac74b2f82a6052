"""Twenty steps on a model made here, against the losses recorded when the code was known to be right.

    uv run python -m tests.training.test_golden_losses     # records them anew; refuses where the checkout is not clean

The equality tests hold two ways of today's code together; this one notices when both drift.
"""

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch

from orpo.training.fast.trainer import build_trainer
from orpo.training.trainer_arguments import TrainerParts
from tests.small_models import make_shape, make_word_tokenizer, with_lora
from tests.training.small_models import make_pairs, settings_from

GOLDEN = Path(__file__).with_name("golden_losses.json")
LENGTHS = [(9, 7, 5), (4, 2, 6), (12, 3, 4), (3, 5, 4), (6, 11, 13), (8, 8, 2), (5, 4, 9), (7, 6, 3)]
WAYS: dict[str, dict[str, Any]] = {
    "orpo, 8 x 1": {"batch_size": 8, "beta": 0.1},
    "orpo, 1 x 8": {"batch_size": 1, "gradient_accumulation_steps": 8, "beta": 0.1},
    "dpo, 8 x 1": {"batch_size": 8, "method": "dpo"},
}
LARGEST_DRIFT, MEAN_DRIFT = 1e-3, 2e-4  # relative; another version may add up in another order


def losses_of(way: dict[str, Any], folder: Path) -> list[float]:
    """Train for 20 steps; return the loss of each."""
    values = {"device": "cpu", "dtype": "float32", "max_steps": 20, "logging_steps": 1, "save_steps": 1000, "seed": 7}
    settings = settings_from(**values, **way)
    model, pairs = with_lora(make_shape("llama_untied"), seed=5), make_pairs(LENGTHS * 3, seed=11)
    trainer = build_trainer(TrainerParts(model, make_word_tokenizer(), pairs, [], settings, folder, [], 3e-3))
    trainer.train()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


@pytest.mark.parametrize("way", WAYS)
def test_twenty_losses_are_the_recorded_ones(way: str, tmp_path: Path) -> None:
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
    found = losses_of(WAYS[way], tmp_path)
    expected = golden["losses"][way]
    drift = [abs(ours - theirs) / abs(theirs) for ours, theirs in zip(found, expected, strict=True)]
    assert len(found) == 20
    assert max(drift) <= LARGEST_DRIFT and sum(drift) / len(drift) <= MEAN_DRIFT, (
        f"largest drift {max(drift):.1e}; recorded with {golden['versions']} at {golden['commit'][:12]} on "
        f"{golden['device']}, here torch {torch.__version__}"
    )


def test_the_recorded_losses_of_both_cuts_are_one() -> None:
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))["losses"]
    assert golden["orpo, 8 x 1"] == pytest.approx(golden["orpo, 1 x 8"], rel=1e-5)


def record() -> None:
    """Write the losses with what they were made with."""
    from orpo.command.run_record import git_state, library_versions

    state = git_state()
    if not state or state.get("dirty"):
        raise SystemExit("the checkout is not clean: commit first, so that the losses belong to a commit")
    with tempfile.TemporaryDirectory() as folder:
        losses = {name: losses_of(way, Path(folder) / str(i)) for i, (name, way) in enumerate(WAYS.items())}
    content = {"commit": state["commit"], "device": "cpu", "versions": library_versions(), "losses": losses}
    GOLDEN.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    record()
