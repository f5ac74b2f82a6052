"""Settings are dataclasses: a field is a flag, a recipe key and a line of `--help` at once.

    @dataclass(kw_only=True)
    class TrainSettings:
        learning_rate: float = setting(2e-4, "peak learning rate")

        def __post_init__(self) -> None:
            require(self.learning_rate > 0, "--learning-rate", self.learning_rate, "must be above 0")

    settings = parse_settings(TrainSettings, argv, prog="train.py", description=__doc__)

Every command also takes `--recipe FILE.yaml`, one YAML file for one run, whose keys are field names; flags win over it.
"""

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from dataclasses import MISSING, Field
from pathlib import Path
from typing import Any, Final, NoReturn, TypeVar, get_type_hints

from orpo.command.conversion import ValueType, convert_value, describe_type
from orpo.command.errors import SettingsError
from orpo.command.recipes import nearest_names, read_recipe

SettingsClass = TypeVar("SettingsClass")

REQUIRED: Final = object()
"""The default of a setting that must be given."""

_KEY = "orpo_setting"


@dataclasses.dataclass(frozen=True)
class _Setting:
    """What a settings field knows beyond its name, type and default."""

    help: str
    choices: tuple[str, ...] = ()
    flag: str | None = None
    short: str | None = None
    positional: bool = False
    secret: bool = False


def setting(
    default: Any,
    help: str,
    *,
    choices: Sequence[str] | None = None,
    flag: str | None = None,
    short: str | None = None,
    positional: bool = False,
    secret: bool = False,
) -> Any:
    """Declare one field of a settings dataclass.

    Args:
        default: The value when neither flag nor recipe gives one, or `REQUIRED`. A list is copied for each instance.
        help: What the setting does, in a line; it is the flag's help.
        choices: The values allowed (a `Literal` type says the same).
        flag: The flag, where it is not the field's name with hyphens.
        short: A one-letter flag such as `-p`.
        positional: Given without a flag.
        secret: Masked in run records.
    """
    metadata = {_KEY: _Setting(help, tuple(choices or ()), flag, short, positional, secret)}
    if default is REQUIRED:
        return dataclasses.field(metadata=metadata)
    if isinstance(default, list):
        return dataclasses.field(default_factory=lambda: list(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def require(holds: bool, flag: str, value: object, remedy: str) -> None:
    """Raise a SettingsError naming the flag and the value unless the condition holds."""
    if not holds:
        raise SettingsError(f"{flag} {value}: {remedy}")


def parse_settings(
    cls: type[SettingsClass], argv: Sequence[str], *, prog: str, description: str | None
) -> SettingsClass:
    """Build settings from a command line: defaults, then the recipe, then flags.

    Raises SettingsError for whatever the user got wrong; `--help` prints and exits as argparse does.
    """
    flags = _parse_flags(cls, argv, prog, description)
    recipe = flags.pop("recipe", None)
    values = recipe_values(cls, Path(recipe), command=_command_name(prog)) if recipe else {}
    values.update(flags)
    missing = [_origin(field) for field in settings_fields(cls) if _is_required(field) and field.name not in values]
    if missing:
        raise SettingsError(f"{', '.join(missing)}: must be given (--help shows what it is)")
    return cls(**values)


def recipe_values(cls: type, file: Path, *, command: str | None = None) -> dict[str, Any]:
    """Read a recipe as field values of `cls`; keys may use hyphens, and `command` says which command it is for."""
    raw = read_recipe(file)
    meant_for = raw.pop("command", None)
    if command and meant_for is not None and meant_for != command:
        raise SettingsError(f"--recipe {file}: this recipe is for the command {meant_for!r}, not {command!r}")
    fields = {field.name: field for field in settings_fields(cls)}
    types = _value_types(cls)
    values: dict[str, Any] = {}
    for key, value in raw.items():
        name = str(key).replace("-", "_")
        if name not in fields:
            near = ", ".join(nearest_names(name, fields))
            raise SettingsError(f"unknown key {key!r} in {file}; the nearest valid keys are: {near}")
        if name in values:
            raise SettingsError(f"key {name!r} stands twice in {file}")
        values[name] = convert_value(value, types[name], f"key {key!r} in {file}")
    return values


def settings_as_dict(settings: Any) -> dict[str, Any]:
    """Return settings as plain JSON-able values: paths as text, secrets masked."""
    return {
        field.name: "***" if _metadata(field).secret and value else _plain(value)
        for field in settings_fields(type(settings))
        for value in [getattr(settings, field.name)]
    }


def settings_fields(cls: type) -> list[Field[Any]]:
    """Return the fields of a settings class that a user can set."""
    return [field for field in dataclasses.fields(cls) if field.init]


def is_settings_class(candidate: object) -> bool:
    """Tell whether this is a dataclass made of `setting(...)` fields."""
    return (
        isinstance(candidate, type)
        and dataclasses.is_dataclass(candidate)
        and any(_KEY in field.metadata for field in dataclasses.fields(candidate))
    )


class _Parser(argparse.ArgumentParser):
    """An argument parser whose complaints are exceptions, so that only the command line exits."""

    def error(self, message: str) -> NoReturn:
        raise SettingsError(message.removeprefix("argument ") + " (--help lists the flags)")


class _HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Keeps the docstring's lines and leaves room for long flags."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=30, width=110)


def _build_parser(cls: type, prog: str, description: str | None) -> _Parser:
    parser = _Parser(
        prog=prog, description=(description or "").strip(), formatter_class=_HelpFormatter, allow_abbrev=False
    )
    types = _value_types(cls)
    for field in settings_fields(cls):
        _add_argument(parser, field, types[field.name])
    names = {field.name for field in settings_fields(cls)}
    if "recipe" not in names:
        parser.add_argument(
            "--recipe", metavar="FILE", default=argparse.SUPPRESS, help="read settings from a YAML file; flags win"
        )
    if "verbose" not in names:
        parser.add_argument(
            "--verbose", action="store_true", default=argparse.SUPPRESS, help="show library messages and tracebacks"
        )
    return parser


def _add_argument(parser: _Parser, field: Field[Any], wanted: ValueType) -> None:
    about = _metadata(field)
    keywords: dict[str, Any] = {"default": argparse.SUPPRESS, "help": _help_text(field)}
    if wanted.item is bool and not about.positional and not wanted.is_list:
        keywords["action"] = argparse.BooleanOptionalAction
    else:
        keywords["metavar"] = _metavar(wanted, _origin(field) if about.positional else "")
        if wanted.is_list:
            keywords.update(nargs="*", action="extend")  # given twice, both count
        elif about.positional:
            keywords["nargs"] = "?"  # a recipe may give it, so argparse must not ask for it
    if about.positional:
        parser.add_argument(field.name, **keywords)
    else:
        names = [about.short, _flag(field)] if about.short else [_flag(field)]
        parser.add_argument(*names, dest=field.name, **keywords)


def _parse_flags(cls: type, argv: Sequence[str], prog: str, description: str | None) -> dict[str, Any]:
    parser = _build_parser(cls, prog, description)
    namespace, unknown = parser.parse_known_args(list(argv))
    if unknown:
        raise SettingsError(_unknown_flag_message(unknown[0], parser))
    given = vars(namespace)
    fields = {field.name: field for field in settings_fields(cls)}
    if "verbose" not in fields:
        given.pop("verbose", None)
    types = _value_types(cls)
    return {
        name: convert_value(value, types[name], _origin(fields[name])) if name in fields else value
        for name, value in given.items()
    }


def _unknown_flag_message(word: str, parser: argparse.ArgumentParser) -> str:
    if not word.startswith("-"):
        return f"unexpected argument {word!r} (put a value that holds spaces in quotes; --help lists the flags)"
    flags = [flag for action in parser._actions for flag in action.option_strings]
    near = ", ".join(nearest_names(word.split("=")[0], flags))
    return f"unknown flag {word.split('=')[0]}; the nearest are: {near} (--help lists all)"


def _value_types(cls: type) -> dict[str, ValueType]:
    hints = get_type_hints(cls)
    return {field.name: describe_type(hints[field.name], _metadata(field).choices) for field in settings_fields(cls)}


def _metadata(field: Field[Any]) -> _Setting:
    found = field.metadata.get(_KEY)
    return found if isinstance(found, _Setting) else _Setting(help="")


def _is_required(field: Field[Any]) -> bool:
    return field.default is MISSING and field.default_factory is MISSING


def _flag(field: Field[Any]) -> str:
    return _metadata(field).flag or "--" + field.name.replace("_", "-")


def _origin(field: Field[Any]) -> str:
    return field.name.upper() if _metadata(field).positional else _flag(field)


def _metavar(wanted: ValueType, positional: str) -> str:
    if wanted.choices:
        return "{" + ",".join(wanted.choices) + "}"
    return positional or {str: "TEXT", Path: "PATH", int: "N", float: "X"}.get(wanted.item, "VALUE")


def _help_text(field: Field[Any]) -> str:
    default = field.default
    if default is MISSING and field.default_factory is not MISSING:
        default = " ".join(map(str, field.default_factory()))
    text = _metadata(field).help
    if _is_required(field):
        text += " (required)"
    elif default not in (None, ""):
        text += f" (default: {_shown(default)})"
    return text.replace("%", "%%")


def _shown(default: Any) -> str:
    if isinstance(default, bool):
        return "on" if default else "off"
    return f"{default:g}" if isinstance(default, float) else str(default)


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def _command_name(prog: str) -> str:
    return Path(prog.split()[-1]).stem if prog.split() else Path(sys.argv[0]).stem
