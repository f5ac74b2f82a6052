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


@pytest.fixture(scope="module")
def completion(tmp_path_factory: pytest.TempPathFactory) -> Path:
    done = orpo("completion", "bash")
    assert done.returncode == 0, done.stderr
    file = tmp_path_factory.mktemp("completion") / "orpo"
    file.write_text(done.stdout, encoding="utf-8")
    return file


COMPLETE = """
source "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMP_LINE="$*"; COMP_POINT=${#COMP_LINE}
function=$(complete -p orpo | sed 's/.*-F \\([^ ]*\\).*/\\1/')
$function orpo "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
@pytest.mark.parametrize(
    ("words", "completed"),
    [
        (["tr"], ["train"]),
        (["train", "--lora-ra"], ["--lora-rank"]),
        (["train", "--method", ""], ["orpo", "sft", "dpo", "ipo", "cpo", "simpo", "kto", "grpo"]),
        (["train", "--epochs", "2", "--method", "k"], ["kto"]),
        (["export", "--to", "gg"], ["gguf", "gguf-adapter"]),
        (["generate", "--no-reuse"], ["--no-reuse-replies"]),
        (["train", "--recipe", "recipes/sim"], ["recipes/simpo.yaml"]),
        (["completion", "b"], ["bash"]),
    ],
)
def test_a_real_bash_completes_commands_flags_choices_and_files(
    completion: Path, repository: Path, words: list[str], completed: list[str]
) -> None:
    command = ["bash", "-c", COMPLETE, "bash", str(completion), "orpo", *words]
    done = subprocess.run(command, capture_output=True, text=True, cwd=repository, timeout=60)
    assert done.stdout.split() == completed, done.stderr


@pytest.mark.parametrize(("arguments", "given"), [([], "nothing"), (["fish"], "fish"), (["bash", "zsh"], "bash zsh")])
def test_a_shell_that_is_not_known_is_one_line(arguments: list[str], given: str) -> None:
    done = orpo("completion", *arguments)
    assert done.returncode == 2 and done.stderr.startswith(f"error: completion {given}: name one shell of bash, zsh")


def test_without_shtab_the_extra_is_named() -> None:
    done = orpo("completion", "bash", code=f"import sys; sys.modules['shtab'] = None; {CODE}")
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and "uv sync --extra completion" in done.stderr


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
