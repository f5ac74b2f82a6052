"""Shell completion of the program `orpo`: its commands, their flags, the values of choices, and files.

    orpo completion bash > ~/.local/share/bash-completion/completions/orpo
    orpo completion zsh > ~/.zfunc/_orpo            a folder of $fpath

shtab writes a script out of the same argparse parsers that read the command line, so completing starts no Python. It is
an extra: `uv sync --extra completion`.
"""

import argparse
import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from orpo.command.errors import OutputError, SettingsError
from orpo.command.flags import build_parser
from orpo.command.settings import Setting, is_settings_class, settings_of

SHELLS: Final = ("bash", "zsh", "tcsh")


def print_completion(arguments: Sequence[str], abouts: Mapping[str, str]) -> None:
    """Print the script for the shell that is named; `abouts` says of each command what it does.

    Raises:
        SettingsError: No shell is named, or one that is not known.
        OutputError: shtab is not installed.
    """
    if len(arguments) != 1 or arguments[0] not in SHELLS:
        given = " ".join(arguments) or "nothing"
        raise SettingsError(f"completion {given}: name one shell of {', '.join(SHELLS)}, as in `orpo completion bash`")
    try:
        import shtab
    except ImportError:
        raise OutputError(
            "completion: needs the package shtab; `uv sync --extra completion` installs it, or `pip install shtab`"
        ) from None
    print(shtab.complete(_program(abouts), arguments[0]))


def _program(abouts: Mapping[str, str]) -> argparse.ArgumentParser:
    """Return a parser of the whole program, with a subparser for each command."""
    program = argparse.ArgumentParser(prog="orpo")
    program.add_argument("--version", action="store_true", help="print the version")
    named = program.add_subparsers(dest="command")
    for name, about in abouts.items():
        known = settings_of(_settings_class(name))
        parser = build_parser(known, f"orpo {name}", None)
        for action in parser._actions:
            _complete_value(action, known.get(action.dest))
        named.add_parser(name, help=about, description=about, parents=[parser], conflict_handler="resolve")
    named.add_parser("completion", help="Print a script that completes in a shell.").add_argument(
        "shell", choices=SHELLS
    )
    return program


def _settings_class(command: str) -> type:
    module = importlib.import_module(f"orpo.{command}")
    found: set[type] = {value for value in vars(module).values() if is_settings_class(value)}
    (settings,) = found
    return settings


def _complete_value(action: argparse.Action, setting: Setting | None) -> None:
    """Tell shtab what a flag's value may be. The command line itself checks choices later, with words of its own."""
    if setting is not None and setting.type.choices:
        action.choices = setting.type.choices
    elif action.dest == "recipe" or (setting is not None and setting.type.item is Path):
        import shtab

        action.complete = shtab.FILE  # type: ignore[attr-defined]  # shtab's own attribute
