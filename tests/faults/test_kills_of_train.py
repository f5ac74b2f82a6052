"""Kills of train at any moment: the run that goes on ends with the adapter and the log of one that nobody stopped."""

import random
import shutil
import signal
import time
from pathlib import Path
from typing import Final

import pytest

from tests.faults.forked_commands import ForkedCommands, Running
from tests.faults.small_runs import fingerprint, losses, train_flags, whole_run, write_pairs

COMMANDS: Final = ("train",)
KILLS: Final = 10
STEPS: Final = 20

pytestmark = [pytest.mark.slow, pytest.mark.faults("kills of train", cases=KILLS)]


@pytest.fixture(scope="module")
def undisturbed(commands: ForkedCommands, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a run that nobody stops."""
    folder = tmp_path_factory.mktemp("undisturbed")
    return whole_run(commands, model, folder, steps=STEPS)


def came_to(running: Running, out: Path, step: int) -> bool:
    """Wait until a run has written the checkpoint of a step, at 0 its marker; False where it ended first."""
    sign = out / f"checkpoint-{step}" if step else out / "unfinished.json"
    while not sign.exists() and not running.has_ended():
        time.sleep(0.002)
    return sign.exists()


def assert_same(run: Path, other: Path) -> None:
    """Assert that two runs came to the same adapter and log, to the bit."""
    assert fingerprint(run / "adapter_model.safetensors") == fingerprint(other / "adapter_model.safetensors")
    assert losses(run) == losses(other)


@pytest.mark.parametrize(
    ("seed", "stop"),
    list(enumerate([signal.SIGKILL, signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT])),
)
def test_a_run_that_is_killed_again_and_again_ends_with_the_same_adapter_and_log(
    commands: ForkedCommands, model: Path, undisturbed: Path, tmp_path: Path, seed: int, stop: signal.Signals
) -> None:
    """Dropout, the order of pairs, the log between two checkpoints, the evaluation of step 0: all of it to the bit."""
    moments = random.Random(seed)
    out, data = tmp_path / "out", write_pairs(tmp_path / "pairs.jsonl")
    flags = train_flags(model, data, out, steps=STEPS)
    kills, told = 0, ""
    while kills < KILLS:
        resumes = (out / "unfinished.json").exists()
        running = commands.start("train", *flags, *(["--resume"] if resumes else []))
        # The first kills come before there is any checkpoint, the later ones wherever the run may have come to.
        came_to(running, out, 2 * moments.randint(0, max(0, kills - 3)))
        time.sleep(moments.uniform(0, 0.15))
        running.kill(stop)
        done = running.wait()
        told += done.err
        assert done.code in (-9, 130, 143, 0), done.err
        if done.code == 0:  # faster than the kill: the further ones go to a new run
            assert_same(out, undisturbed)
            shutil.rmtree(out)
        else:
            kills += 1
    done = commands.run("train", *flags, *(["--resume"] if (out / "unfinished.json").exists() else []))
    assert done.code == 0, done.err
    assert "Traceback" not in told and "Exception ignored" not in told, told
    assert_same(out, undisturbed)
    assert not [left.name for left in tmp_path.iterdir() if left.name.startswith(".")]
