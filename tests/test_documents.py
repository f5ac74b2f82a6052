"""What the documents tell a user to type works as it stands, and what they say is there is there."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from orpo.command.settings import parse_settings
from tests.test_structure import COMMANDS, find_settings_class

REPOSITORY = Path(__file__).resolve().parents[1]
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
# These answer within a second or two; the others need a model, so their flags are read and nothing is run.
QUICK = {"score"}


def shell_lines(page: Path) -> list[str]:
    """Return the commands of a page: lines of its code blocks, joined where one goes on, and code in its text."""
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    lines = [line.strip().removeprefix("$ ") for block in blocks for line in block.splitlines()]
    lines += [" ".join(code.split()) for code in re.findall(r"(?<!`)`((?:make|uv run) [^`]+)`", text)]
    return list(dict.fromkeys(line for line in lines if line.startswith(("make ", "uv run "))))


def python_commands(page: Path) -> list[list[str]]:
    """Return a page's `uv run orpo/NAME.py ...` as [NAME, argument, ...]."""
    found = []
    for line in shell_lines(page):
        words = shlex.split(re.split(r"\s{2,}|\s[>|]", line)[0], comments=True)[2:]  # what follows says what it does
        if line.startswith("uv run orpo/") and not any(word in ("...", "…") or word.isupper() for word in words):
            found.append([Path(words[0]).stem, *words[1:]])
    return found


WRITTEN = [(page.name, command) for page in PAGES for command in python_commands(page)]


@pytest.mark.parametrize(("page", "command"), WRITTEN, ids=[f"{page}: {' '.join(c)[:60]}" for page, c in WRITTEN])
def test_a_command_in_a_document_works(
    page: str, command: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    name, *arguments = command
    assert name in {file.stem for file in COMMANDS}, f"{page} names orpo/{name}.py"
    if name in QUICK:
        (tmp_path / "replies.jsonl").write_text('{"reply": "Well done! 🎉"}\n', encoding="utf-8")
        script = REPOSITORY / "orpo" / f"{name}.py"
        done = subprocess.run(
            [sys.executable, script, *arguments], capture_output=True, text=True, cwd=tmp_path, input="A text. 🎉"
        )
        assert done.returncode == 0 and done.stdout, done.stderr
    else:
        monkeypatch.chdir(REPOSITORY)  # recipes are named from there
        parse_settings(find_settings_class(name), arguments, prog=f"{name}.py", description="")


def test_the_documents_hold_commands_to_test() -> None:
    assert {command[0] for page, command in WRITTEN if page == "README.md"} >= {"generate", "train", "inference"}


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_every_make_target_in_a_document_exists() -> None:
    targets = {word for page in PAGES for line in shell_lines(page) for word in re.findall(r"^make ([a-z-]+)", line)}
    assert targets >= {"demo", "test"}
    for target in sorted(targets):
        done = subprocess.run(["make", "--dry-run", target], cwd=REPOSITORY, capture_output=True, text=True)
        assert done.returncode == 0, f"make {target}: {done.stderr}"


def test_what_the_readme_says_is_there_is_there() -> None:
    """The tree named folders that had been renamed."""
    block = next(part for part in README.split("```") if part.strip().startswith("orpo/"))
    named = [line.split()[0] for line in block.strip().splitlines()]
    links = re.findall(r"\]\(((?!https?:)[^)#]+)", README)
    assert len(named) > 8 and not [path for path in named + links if not (REPOSITORY / path).exists()]
    listed = {path.removeprefix("orpo/").rstrip("/") for path in named if path.startswith("orpo/")}
    folders = {file.parent.name for file in (REPOSITORY / "orpo").glob("*/__init__.py")}
    assert folders <= listed and {file.name for file in COMMANDS} <= listed


def test_the_page_of_help_is_what_the_commands_print() -> None:
    script = REPOSITORY / "docs" / "make_help_page.py"
    done = subprocess.run([sys.executable, script, "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_recipes_of_accelerate_are_ones_that_accelerate_knows() -> None:
    """A key that it does not know is dropped in silence where it stands within `fsdp_config` or `deepspeed_config`."""
    from accelerate.commands.config.config_args import load_config_from_file
    from accelerate.commands.launch import launch_command_parser

    known = {action.dest for action in launch_command_parser()._actions}
    recipes = sorted((REPOSITORY / "recipes" / "accelerate").glob("*.yaml"))
    kinds = {}
    for recipe in recipes:
        kinds[recipe.stem] = load_config_from_file(str(recipe)).distributed_type.value
        content = yaml.safe_load(recipe.read_text(encoding="utf-8"))
        inner = {**content.get("fsdp_config", {}), **content.get("deepspeed_config", {})}
        assert not set(inner) - known, recipe.name
    assert kinds == {"ddp": "MULTI_GPU", "fsdp2": "FSDP", "zero2": "DEEPSPEED", "zero3": "DEEPSPEED"}
