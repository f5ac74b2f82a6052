"""The fast trainer against TRL's, against itself cut differently, and stopped and resumed."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import TrainerCallback

from orpo.training import trl_trainer
from orpo.training.fast import trainer as fast_trainer
from orpo.training.settings import TrainSettings
from orpo.training.trainer_arguments import TrainerParts
from tests.small_models import make_shape, make_word_tokenizer, with_lora
from tests.training.small_models import Pair, copy_of, gradients, largest_relative_difference, make_pairs, settings_from

PAIRS = make_pairs([(9, 7, 5), (4, 2, 6), (12, 3, 4), (3, 5, 4), (6, 11, 13), (8, 8, 2), (5, 4, 9), (7, 6, 3)] * 3)


class KeepGradients(TrainerCallback):
    """Keeps the gradients of the first step."""

    def __init__(self) -> None:
        self.first: dict[str, torch.Tensor] = {}

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        self.first = self.first or {name.removeprefix("module."): g for name, g in gradients(model).items()}


def settings_for(**changes: Any) -> TrainSettings:
    plain = {
        "device": "cpu",
        "dtype": "float32",
        "learning_rate": 1e-2,
        "epochs": 1.0,
        "logging_steps": 1,
        "save_steps": 1000,
    }
    return settings_from(**{**plain, "max_gradient_norm": 0.0, "warmup_share": 0.0, **changes})


def train(
    builder: Any,
    model: Any,
    folder: Path,
    *,
    pairs: Sequence[Pair] = PAIRS,
    eval_pairs: Sequence[Pair] = (),
    resume_from: str | None = None,
    **changes: Any,
) -> tuple[list[dict[str, Any]], dict[str, torch.Tensor]]:
    """Train; return the log and the first step's gradients."""
    keeper = KeepGradients()
    settings = settings_for(**changes)
    rate = settings.optimiser.learning_rate
    parts: Any = (
        model,
        make_word_tokenizer(),
        pairs,
        eval_pairs,
        settings,
        folder,
        [keeper],
        rate,
        resume_from is not None,
    )
    trainer = builder.build_trainer(TrainerParts(*parts))
    trainer.train(resume_from_checkpoint=resume_from)
    return trainer.state.log_history, keeper.first


def series(log: list[dict[str, Any]], name: str = "loss") -> list[float]:
    return [entry[name] for entry in log if name in entry]


@pytest.mark.parametrize("nll", ["completion", "prompt_and_completion"])
@pytest.mark.parametrize("shape", ["llama_untied", "gemma2_softcap", "mistral_sliding"])
def test_it_trains_as_trl_does(shape: str, nll: str, tmp_path: Path) -> None:
    """Same pairs in the same order: first gradients within 1e-4, losses, metrics and weights alike to the end."""
    theirs = with_lora(make_shape(shape))
    ours = copy_of(theirs)
    their_log, their_gradients = train(trl_trainer, theirs, tmp_path / "trl", eval_pairs=PAIRS[:6], nll=nll)
    our_log, our_gradients = train(fast_trainer, ours, tmp_path / "fast", eval_pairs=PAIRS[:6], nll=nll)
    assert largest_relative_difference(our_gradients, their_gradients) <= 1e-4
    assert series(our_log)[0] == pytest.approx(series(their_log)[0], rel=1e-5)
    # Every number that TRL logs, but its mean logits and its clock, and nothing more.
    for our_entry, their_entry in zip(our_log, their_log, strict=True):
        skipped = [name for name in their_entry if "logits/" in name or "runtime" in name or "per_second" in name]
        their_entry = {name: value for name, value in their_entry.items() if name not in [*skipped, "total_flos"]}
        assert their_entry.keys() <= our_entry.keys()
        for name, value in their_entry.items():
            assert our_entry[name] == pytest.approx(value, rel=5e-3, abs=1e-4), name
    # By norm: Adam turns a gradient of almost nothing into a full step either way.
    assert largest_relative_difference(dict(ours.state_dict()), dict(theirs.state_dict())) <= 1e-2


def test_a_batch_of_8_is_1_times_8_whatever_the_token_budget(tmp_path: Path) -> None:
    """Lengths differ, so a mean of means would differ; a step's losses are normalised over the whole step."""
    model = with_lora(make_shape("llama_untied"))
    ways: list[dict[str, Any]] = [
        {"batch_size": 8},
        {"batch_size": 1, "gradient_accumulation_steps": 8},
        {"batch_size": 8, "token_budget": 1},
        {"batch_size": 4, "gradient_accumulation_steps": 2, "token_budget": 60},
    ]
    runs = [train(fast_trainer, copy_of(model), tmp_path / str(i), **way) for i, way in enumerate(ways)]
    reference_log, reference_gradients = runs[0]
    assert len(series(reference_log)) == 3
    for log, first in runs[1:]:
        assert largest_relative_difference(first, reference_gradients) <= 1e-5
        assert series(log) == pytest.approx(series(reference_log), rel=1e-5)
        assert series(log, "nll_loss") == pytest.approx(series(reference_log, "nll_loss"), rel=1e-5)


@pytest.mark.parametrize("builder", [fast_trainer, trl_trainer], ids=["fast", "trl"])
def test_a_resumed_run_logs_what_an_unbroken_one_logs_to_the_bit(builder: Any, tmp_path: Path) -> None:
    """The checkpoint lies between two logs and within an epoch; dropout is on, so random states matter too.

    TRL's own sums were lost there, so its first log after a resume was the mean of fewer steps.
    """
    model = with_lora(make_shape("llama_untied"), lora_dropout=0.1)
    shared: dict[str, Any] = {"batch_size": 4, "epochs": 2.0, "logging_steps": 3, "save_steps": 4, "token_budget": 80}
    whole, _ = train(builder, copy_of(model), tmp_path / "whole", **shared)
    train(builder, copy_of(model), tmp_path / "stopped", **{**shared, "max_steps": 12})
    checkpoint = tmp_path / "stopped" / "checkpoint-8"
    resumed, _ = train(builder, copy_of(model), tmp_path / "resumed", resume_from=str(checkpoint), **shared)
    for name in ("loss", "grad_norm", "rewards/margins", "nll_loss"):
        assert series(resumed, name) == series(whole, name), name


def test_evaluation_does_not_change_training_and_leaves_no_gradients(tmp_path: Path) -> None:
    model = with_lora(make_shape("llama_untied"))
    watched, _ = train(fast_trainer, copy_of(model), tmp_path / "a", eval_pairs=PAIRS[:5], eval_steps=1)
    unwatched, _ = train(fast_trainer, copy_of(model), tmp_path / "b")
    assert series(watched) == series(unwatched)
    assert len(series(watched, "eval_loss")) == 4  # before the first step and after each


def test_tokens_are_counted_as_the_data_has_them(tmp_path: Path) -> None:
    """Packing computes fewer tokens than the pairs hold; tokens per second must not depend on the trainer."""
    for builder in (fast_trainer, trl_trainer):
        model = with_lora(make_shape("llama_untied"))
        parts: Any = (model, make_word_tokenizer(), PAIRS[:3], [], settings_for(), tmp_path, [], 1e-2)
        trainer = builder.build_trainer(TrainerParts(*parts))
        trainer.train()
        expected = sum(2 * len(p.prompt_ids) + len(p.chosen_ids) + len(p.rejected_ids) for p in PAIRS[:3])
        assert trainer.state.num_input_tokens_seen == expected


DATA_PARALLEL = """
import json, sys
from pathlib import Path
from tests.small_models import make_shape, with_lora
from tests.training.fast.test_trainer import PAIRS, train
from orpo.training.fast import trainer as fast_trainer
folder, batch = Path(sys.argv[1]), int(sys.argv[2])
model = with_lora(make_shape("llama_untied"))
log, first = train(fast_trainer, model, folder, batch_size=batch, token_budget=40, pairs=PAIRS[:16])
if fast_trainer.torch.distributed.is_initialized():
    rank = fast_trainer.torch.distributed.get_rank()
else:
    rank = 0
if rank == 0:
    values = {name: value.tolist() for name, value in first.items()}
    (folder / "result.json").write_text(json.dumps({"log": log, "gradients": values}))
"""


@pytest.mark.slow
def test_two_processes_do_what_one_does_with_the_same_global_batch(tmp_path: Path, repository: Path) -> None:
    """Lengths differ, so the processes hold unequal tokens and need unequal numbers of passes."""
    script = tmp_path / "data_parallel.py"
    script.write_text(DATA_PARALLEL, encoding="utf-8")
    results = {}
    for processes, batch in ((1, 8), (2, 4)):
        folder = tmp_path / str(processes)
        folder.mkdir()
        launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
        subprocess.run([*launch, script, folder, str(batch)], check=True, cwd=repository, timeout=300)
        results[processes] = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    one, two = results[1], results[2]
    assert series(two["log"]) == pytest.approx(series(one["log"]), rel=1e-5)
    assert series(two["log"], "rewards/margins") == pytest.approx(series(one["log"], "rewards/margins"), rel=1e-4)
    as_tensors = [{n: torch.tensor(v) for n, v in run["gradients"].items()} for run in (two, one)]
    assert largest_relative_difference(*as_tensors) <= 1e-5
