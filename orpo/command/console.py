"""The program `orpo`: the same commands as the files in orpo/, by their names.

    orpo train --method dpo        is        uv run orpo/train.py --method dpo

It is there wherever the package is installed; only the command that is asked for is imported.
"""

import ast
import importlib
import importlib.metadata
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn, cast

from orpo.command.errors import SettingsError
from orpo.command.run_command import run_command

_PACKAGE = Path(__file__).resolve().parents[1]
_FLOW = ("generate", "train", "inference", "score", "report", "serve", "export")


def main() -> NoReturn:
    """Run the command that the first word names, or list all of them."""
    name, *arguments = sys.argv[1:] or ["--help"]
    if name in ("-h", "--help", "help"):
        run_command(_list, [])
    if name == "--version":
        run_command(_version, [])
    if name == "completion":
        run_command(_completion, arguments)
    run_command(_command(name), arguments)


def command_names() -> list[str]:
    """Return the commands, in the order of the flow."""
    found = {file.stem for file in _PACKAGE.glob("*.py") if not file.stem.startswith("_")}
    return sorted(found, key=lambda name: (_FLOW.index(name) if name in _FLOW else len(_FLOW), name))


def _command(name: str) -> Callable[[list[str]], int | None]:
    if name not in command_names():
        return lambda _: _refuse(name)
    return cast("Callable[[list[str]], int | None]", importlib.import_module(f"orpo.{name}").main)


def _refuse(name: str) -> int:
    from orpo.command.flags import nearest_names

    near = nearest_names(name, command_names(), count=2)
    raise SettingsError(f"{name}: is no command; the nearest are: {near} (orpo --help lists all)")


def _list(_: list[str]) -> None:
    print("usage: orpo COMMAND [flags]\n\nTeach a chat model to use emojis well.\n")
    for name in command_names():
        print(f"  {name:<11}{_first_line(name)}")
    print("\n`orpo COMMAND --help` lists a command's flags; `orpo completion bash` prints a script for the shell.")


def _completion(arguments: list[str]) -> None:
    from orpo.command.completion import print_completion

    print_completion(arguments, {name: _first_line(name) for name in command_names()})


def _first_line(name: str) -> str:
    """Return the first line of a command's docstring, without importing it."""
    text = (_PACKAGE / f"{name}.py").read_text(encoding="utf-8")
    return (ast.get_docstring(ast.parse(text)) or "").partition("\n")[0]


def _version(_: list[str]) -> None:
    print(f"orpo {importlib.metadata.version('orpo')}")
