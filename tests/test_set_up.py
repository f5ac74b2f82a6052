"""The Makefile on a machine with little: each thing that is missing is one line with its remedy."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")

TARGETS = {
    "help",
    "setup",
    "demo",
    "generate",
    "train",
    "inference",
    "serve",
    "tensorboard",
    "check",
    "test",
    "faults",
    "bench",
}


@pytest.fixture
def bare_checkout(repository: Path, tmp_path: Path) -> Path:
    """Return a folder that holds the Makefile and nothing else."""
    folder = tmp_path / "checkout"
    folder.mkdir()
    shutil.copy(repository / "Makefile", folder)
    return folder


def make(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run make as on a machine without uv."""
    environment = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "UV", "ORPO_HOME")}
    command = ["make", "UV=.uv/bin/uv", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60)


def write_python(folder: Path, script: str) -> Path:
    """Write a program that stands in for a Python that lacks something."""
    program = folder / "python"
    program.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    program.chmod(0o755)
    return program


def errors(done: subprocess.CompletedProcess[str]) -> list[str]:
    return [line for line in done.stderr.splitlines() if not line.startswith("make")]


def test_help_is_the_default_and_lists_every_target(bare_checkout: Path) -> None:
    done = make(bare_checkout)
    assert done.returncode == 0
    assert set(re.findall(r"^  make (\S+)", done.stdout, re.MULTILINE)) == TARGETS


def test_without_python_the_remedy_is_named(bare_checkout: Path) -> None:
    done = make(bare_checkout, "setup", "PYTHON=no-such-python")
    assert done.returncode != 0
    assert errors(done) == ["error: no-such-python is not installed; install Python 3.11 or newer"]


def test_an_old_python_is_named(bare_checkout: Path) -> None:
    old = write_python(bare_checkout, "exit 1")
    done = make(bare_checkout, "setup", f"PYTHON={old}")
    assert done.returncode != 0 and len(errors(done)) == 1
    assert "older than 3.11" in errors(done)[0]


def test_a_python_without_ensurepip_is_named(bare_checkout: Path) -> None:
    """Debian and Ubuntu split it off: `python3 -m venv` fails there in many lines."""
    split = write_python(bare_checkout, 'case "$2" in *ensurepip*) exit 1;; esac')
    done = make(bare_checkout, "setup", f"PYTHON={split}")
    assert done.returncode != 0 and len(errors(done)) == 1
    assert "lacks ensurepip" in errors(done)[0] and "python3-venv" in errors(done)[0]


def test_tensorboard_without_a_run_says_how_to_make_one(bare_checkout: Path) -> None:
    for empty in (False, True):
        if empty:
            (bare_checkout / "trained" / "run").mkdir(parents=True)
        done = make(bare_checkout, "tensorboard")
        assert done.returncode != 0
        assert errors(done) == [
            "error: trained/ holds no training run yet; make one first: make demo, or make train",
        ]


def test_the_demo_runs_the_three_commands_in_order(repository: Path) -> None:
    done = make(repository, "--dry-run", "demo")
    assert re.findall(r"run (orpo/\S+\.py.*)", done.stdout) == [
        "orpo/generate.py --limit 400 --batch-size 40 --overwrite",
        "orpo/train.py --recipe recipes/demo.yaml --overwrite",
        "orpo/inference.py --summary",
    ]
    assert "orpo.command.paths" in done.stdout and "make tensorboard" in done.stdout


def test_continuous_integration_runs_the_checks_and_the_tests(repository: Path) -> None:
    script = repository / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert {"make check", "make test"} <= {line.split(" ||")[0] for line in script.read_text().splitlines()}
