"""Settings as flags: the parser, its help, and what it says of mistakes."""

import argparse
import difflib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from orpo.command.errors import SettingsError

if TYPE_CHECKING:
    from orpo.command.settings import Setting


def parse_flags(
    known: "Mapping[str, Setting]", argv: Sequence[str], prog: str, description: str | None
) -> tuple[dict[str, object], Path | None]:
    """Return the values that flags give, by key, and the recipe."""
    parser = build_parser(known, prog, description)
    namespace, unknown = parser.parse_known_args(list(argv))
    if unknown:
        raise SettingsError(_unknown_flag_message(unknown[0], parser))
    given = vars(namespace)
    recipe = given.get("recipe")
    values = {key: known[key].convert(value, known[key].origin) for key, value in given.items() if key in known}
    return values, Path(recipe) if recipe is not None else None


def nearest_names(name: str, names: Iterable[str], count: int = 3) -> str:
    """Return the names most like a mistyped one, best first; never empty unless `names` is."""
    return ", ".join(difflib.get_close_matches(name, list(names), n=count, cutoff=0.0))


class _Parser(argparse.ArgumentParser):
    """An argument parser whose complaints are exceptions, so that only the command line exits."""

    def error(self, message: str) -> NoReturn:
        raise SettingsError(message.removeprefix("argument ") + " (--help lists the flags)")


class _HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Keeps the docstring's lines, leaves room for long flags, and looks the same in every version of Python."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=30, width=110)

    def _format_action_invocation(self, action: argparse.Action) -> str:
        if not action.option_strings or action.nargs == 0:
            return super()._format_action_invocation(action)
        return f"{', '.join(action.option_strings)} {self._format_args(action, action.dest)}"


def _once(kind: type[argparse.Action]) -> type[argparse.Action]:
    """Return the action that refuses to be given twice: argparse would keep the last in silence."""

    class Once(kind):  # type: ignore[misc, valid-type]
        def __call__(
            self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: object, option: object = None
        ) -> None:
            if hasattr(namespace, self.dest):
                raise argparse.ArgumentError(self, "is given twice; pass it once")
            super().__call__(parser, namespace, values, option)

    return Once


_STORE = _once(argparse._StoreAction)
_SWITCH = _once(argparse.BooleanOptionalAction)


def build_parser(known: "Mapping[str, Setting]", prog: str, description: str | None) -> argparse.ArgumentParser:
    """Return a command's parser; its complaints are SettingsErrors."""
    about = (description or "").strip()
    words = " ".join([prog, "[flags]", *(f"[{one.origin}]" for one in known.values() if one.positional)])
    parser = _Parser(prog=prog, usage=words, description=about, formatter_class=_HelpFormatter, allow_abbrev=False)
    groups: dict[str, argparse._ArgumentGroup] = {}
    for one in known.values():
        place = groups.setdefault(one.group, parser.add_argument_group(one.group)) if one.group else parser
        _add_argument(place, one)
    recipe_help = "read settings from a YAML file; flags win"
    parser.add_argument("--recipe", metavar="FILE", action=_STORE, default=argparse.SUPPRESS, help=recipe_help)
    if "verbose" not in known:
        parser.add_argument("--verbose", action="store_true", help="show library messages and tracebacks")
    return parser


def _add_argument(place: argparse._ActionsContainer, one: "Setting") -> None:
    keywords: dict[str, Any] = {"default": argparse.SUPPRESS, "help": _help_text(one), "action": _STORE}
    if one.type.item is bool:
        keywords["action"] = _SWITCH
    else:
        keywords["metavar"] = _metavar(one)
        if one.type.is_list:
            keywords.update(nargs="*", action="extend")  # given twice, both count
        elif one.positional:
            keywords["nargs"] = "?"  # a recipe may give it, so argparse must not ask for it
    if one.positional:
        place.add_argument(one.key, **keywords)
    else:
        place.add_argument(*filter(None, [one.short, one.flag]), dest=one.key, **keywords)


def _unknown_flag_message(word: str, parser: argparse.ArgumentParser) -> str:
    if not word.startswith("-"):
        return f"unexpected argument {word!r} (put a value that holds spaces in quotes; --help lists the flags)"
    flag = word.split("=")[0]
    flags = [name for action in parser._actions for name in action.option_strings]
    return f"unknown flag {flag}; the nearest are: {nearest_names(flag, flags)} (--help lists all)"


def _metavar(one: "Setting") -> str:
    if one.type.choices:
        return "{" + ",".join(one.type.choices) + "}"
    names = {str: "TEXT", Path: "PATH", int: "N", float: "X"}
    return one.origin if one.positional else names[one.type.item]


def _help_text(one: "Setting") -> str:
    text, default = one.help, one.default
    if isinstance(default, bool):
        text += f" (default: {'on' if default else 'off'})"
    elif default not in (None, "", []):
        shown = " ".join(map(str, default)) if isinstance(default, list) else default
        text += f" (default: {shown:g})" if isinstance(shown, float) else f" (default: {shown})"
    return text.replace("%", "%%")
