"""The program `orpo`: lists the commands, runs them by name, and answers at once."""

import importlib.metadata
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from orpo.command.console import command_names

CODE = "import sys; sys.argv[0] = 'orpo'; from orpo.command.console import main; main()"


def orpo(*arguments: str, code: str = CODE) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=120)


def test_help_lists_every_command_file(repository: Path) -> None:
    files = {file.stem for file in (repository / "orpo").glob("*.py") if file.stem != "__init__"}
    assert set(command_names()) == files and command_names()[:3] == ["generate", "train", "inference"]
    done = orpo("--help")
    assert done.returncode == 0 and all(f"  {name} " in done.stdout for name in files)
    assert orpo().stdout == done.stdout, "nothing is asked for: the same list"


def test_help_imports_no_command_and_nothing_heavy() -> None:
    code = CODE.replace("main()", "import atexit; atexit.register(lambda: print(*sorted(sys.modules))); main()")
    loaded = set(orpo("--help", code=code).stdout.split())
    assert "orpo.command.console" in loaded
    assert not {"torch", "transformers", "rich", "yaml", "numpy", "orpo.train"} & loaded


def test_a_command_runs_by_its_name() -> None:
    done = orpo("score", "--explain", "Well done! 🎉")
    assert done.returncode == 0 and "🎉" in done.stdout, done.stderr
    assert "usage: train.py" in orpo("train", "--help").stdout
    assert orpo("--version").stdout == f"orpo {importlib.metadata.version('orpo')}\n"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [(["trian"], "trian: is no command; the nearest are: train"), (["score", "--nope"], "unknown flag --nope")],
)
def test_a_mistake_is_one_line(arguments: list[str], says: str) -> None:
    done = orpo(*arguments)
    assert done.returncode == 2 and done.stderr.startswith("error: ") and says in done.stderr
    assert done.stderr.count("\n") == 1


def test_the_package_tells_that_it_is_typed(repository: Path) -> None:
    assert (repository / "orpo" / "py.typed").is_file()


HADOLINT = shutil.which("hadolint", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")


@pytest.mark.skipif(HADOLINT is None, reason="hadolint is not installed")
def test_the_dockerfile_has_no_known_mistake(repository: Path) -> None:
    done = subprocess.run([str(HADOLINT), repository / "Dockerfile"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_the_dockerfile_copies_what_is_there(repository: Path) -> None:
    lines = (repository / "Dockerfile").read_text(encoding="utf-8").splitlines()
    copied = [word for line in lines if line.startswith("COPY") for word in line.split()[2:-1]]
    kept = (repository / ".dockerignore").read_text(encoding="utf-8")
    assert copied and all((repository / name).exists() and f"!{name}\n" in kept for name in copied)
