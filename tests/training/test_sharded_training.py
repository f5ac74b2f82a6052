"""A model that is cut over two processes (FSDP2 over gloo) learns what a whole one learns, stops and goes on."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from safetensors.torch import load_file

from tests.small_models import save_chat_model
from tests.test_train import losses, make_rows, wait_for, write_rows

pytestmark = pytest.mark.slow
STEPS = 12  # of 99 pairs: an epoch that ends within a step is filled up by accelerate, otherwise for two processes


class Runs:
    """Starts runs of the same pairs and settings, whole or cut up."""

    def __init__(self, folder: Path, repository: Path) -> None:
        self.folder, self._repository = folder, repository
        self._flags = ["--model", str(save_chat_model(folder / "model"))]
        self._flags += ["--data", str(write_rows(folder / "pairs.jsonl", make_rows(110))), "--trainer", "fast"]
        self._flags += ["--device", "cpu", "--max-steps", str(STEPS), "--logging-steps", "1", "--save-steps", "4"]
        self._flags += ["--eval-prompt-count", "2", "--reward-pairs", "2", "--max-new-tokens", "8"]

    def start(self, name: str, *flags: str, processes: int, script: str) -> "subprocess.Popen[str]":
        """Start a run into the folder `name`, eight pairs a step over all processes."""
        launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
        own = ["--out", str(self.folder / name), "--batch-size", str(8 // processes), *flags]
        command = [*launch, str(self._repository / script), *self._flags, *own]
        environment = {**os.environ, "PYTHONPATH": str(self._repository), **(self.fsdp() if processes > 1 else {})}
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)

    def sharded(self, name: str, *flags: str) -> "subprocess.Popen[str]":
        """Start a run whose model is cut over two processes."""
        return self.start(name, *flags, processes=2, script="tests/training/fsdp_on_cpu.py")

    def fsdp(self) -> dict[str, str]:
        """Return what `accelerate launch` makes of recipes/accelerate/fsdp2.yaml."""
        file = self._repository / "recipes" / "accelerate" / "fsdp2.yaml"
        config = yaml.safe_load(file.read_text(encoding="utf-8"))["fsdp_config"]
        told = {name.upper(): str(value) for name, value in config.items()}
        return {"ACCELERATE_USE_FSDP": "true", **told, "FSDP_VERSION": str(config["fsdp_version"])}


def wait(process: "subprocess.Popen[str]") -> tuple[str, str]:
    """Return stdout and stderr of a run that ends well."""
    said = process.communicate(timeout=300)
    assert process.returncode == 0, said[1]
    return said


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Runs:
    """Return what starts runs, with one cut over two processes that is through already, as `sharded`."""
    made = Runs(tmp_path_factory.mktemp("runs"), repository)
    wait(made.sharded("sharded"))
    return made


def test_a_model_in_shards_learns_what_a_whole_one_does(runs: Runs) -> None:
    """Losses, and the adapter that is put together from the shards, within 1e-5."""
    wait(runs.start("whole", processes=1, script="orpo/train.py"))
    sharded, whole = runs.folder / "sharded", runs.folder / "whole"
    assert (sharded / f"checkpoint-{STEPS}" / "pytorch_model_fsdp.bin").is_file(), "it was not cut up"
    assert len(losses(whole)) == STEPS
    assert losses(sharded) == pytest.approx(losses(whole), rel=1e-5)
    ours, theirs = (load_file(folder / "adapter_model.safetensors") for folder in (sharded, whole))
    assert ours.keys() == theirs.keys()
    assert max(float((ours[name] - theirs[name]).abs().max()) for name in theirs) <= 1e-5


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
def test_ctrl_c_stops_both_processes_and_the_run_goes_on_to_the_bit(runs: Runs) -> None:
    stopped = runs.sharded("stopped")
    wait_for(runs.folder / "stopped" / "checkpoint-4" / "trainer_state.json", stopped)
    stopped.send_signal(signal.SIGINT)
    _, said = stopped.communicate(timeout=120)
    assert stopped.returncode != 0 and "--resume goes on" in said
    assert (runs.folder / "stopped" / "unfinished.json").is_file()
    wait_until_gone(str(runs.folder / "stopped"))
    _, said = wait(runs.sharded("stopped", "--resume"))
    assert "going on from checkpoint-" in said
    assert losses(runs.folder / "stopped") == losses(runs.folder / "sharded"), "to the bit"
    files = [runs.folder / name / "adapter_model.safetensors" for name in ("stopped", "sharded")]
    assert files[0].read_bytes() == files[1].read_bytes()


def wait_until_gone(argument: str) -> None:
    """Wait until no process has this argument any more, at most ten seconds."""
    for _ in range(100):
        lines = []
        for file in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                lines.append(file.read_text())
            except OSError:  # gone since
                continue
        if not any(argument in line.split("\0") for line in lines):
            return
        time.sleep(0.1)
    raise AssertionError("a process went on")


def test_shards_that_accelerate_would_not_make_are_refused(runs: Runs) -> None:
    """accelerate kept a whole model in each process, without a word: on CPUs it knows no FSDP."""
    refused = runs.start("refused", processes=2, script="orpo/train.py")
    _, said = refused.communicate(timeout=300)
    assert refused.returncode != 0
    assert "accelerate cuts models over GPUs only" in said and not (runs.folder / "refused" / "run.json").exists()
