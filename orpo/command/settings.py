"""Settings are dataclasses: a field is a flag, a recipe key and a line of `--help` at once.

    @dataclass(kw_only=True)
    class LoraSettings:
        rank: int = setting(16, "rank r of the adapter")

    @dataclass(kw_only=True)
    class TrainSettings:
        learning_rate: float = setting(2e-4, "peak learning rate", above=0)
        lora: LoraSettings = settings_group(LoraSettings, "adapter", prefix="lora")

    settings = parse_settings(TrainSettings, argv, prog="train.py", description=__doc__)

`settings.lora.rank` is the flag `--lora-rank` and the key `lora_rank`, or `rank` under `lora`. Every command also takes
`--recipe FILE.yaml`, one YAML file for one run; flags win over it.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy
from operator import ge, gt, lt
from pathlib import Path
from typing import Final, TypeVar, get_type_hints

from orpo.command.errors import InputError, SettingsError, as_flag, know_settings
from orpo.command.safe_text import mask_secrets
from orpo.command.values import ValueType, convert_value, describe_type

Settings = TypeVar("Settings")
Value = TypeVar("Value")

_KEY: Final = "orpo_setting"
_TEXT: Final = ValueType(str)


@dataclasses.dataclass(frozen=True)
class Setting:
    """One setting that a user can give: what its field declares, then where it stands.

    Attributes:
        key: Its name in a recipe; with hyphens, its flag.
        path: The attributes that lead to it from the settings object.
        group: The title it stands under in the help; empty for the settings without a group.
        default: The value when nobody gives one.
    """

    help: str = ""
    choices: tuple[str, ...] = ()
    short: str | None = None
    positional: bool = False
    secret: bool = False
    file_allowed: bool = False
    at_least: float | None = None
    above: float | None = None
    below: float | None = None
    key: str = ""
    path: tuple[str, ...] = ()
    group: str = ""
    type: ValueType = _TEXT
    default: object = None

    @property
    def flag(self) -> str:
        """Its flag."""
        return as_flag(self.key)

    @property
    def origin(self) -> str:
        """How an error names it: the flag, or the name in capitals of what is given without one."""
        return self.key.upper() if self.positional else self.flag

    def check(self, value: object) -> None:
        """Raise SettingsError for a number out of bounds, naming the flag."""
        if not isinstance(value, int | float):
            return
        named = (("at least", self.at_least, ge), ("above", self.above, gt), ("below", self.below, lt))
        bounds = [(word, bound, holds) for word, bound, holds in named if bound is not None]
        told = " and ".join(f"{word} {bound:g}" for word, bound, _ in bounds)
        told = "0 or above" if told == "at least 0" else told
        require(all(holds(value, bound) for _, bound, holds in bounds), self.flag, value, f"must be {told}")

    def convert(self, value: object, origin: str) -> object:
        """Turn what a user wrote, at the place that `origin` names, into its type."""
        converted = convert_value(value, self.type, origin)
        if self.file_allowed and isinstance(converted, str) and converted.startswith("@"):
            return _read_text(Path(converted[1:]).expanduser(), f"{origin} {converted}")
        return converted


@dataclasses.dataclass(frozen=True)
class _Group:
    title: str
    prefix: str


def setting(
    default: Value,
    help: str,
    *,
    choices: Sequence[str] = (),
    short: str | None = None,
    positional: bool = False,
    secret: bool = False,
    file_allowed: bool = False,
    at_least: float | None = None,
    above: float | None = None,
    below: float | None = None,
) -> Value:
    """Declare one field of a settings dataclass.

    Args:
        default: The value when neither flag nor recipe gives one. A list is copied for each instance.
        help: What the setting does, in a line; it is the flag's help.
        choices: The values allowed (a `Literal` type says the same).
        short: A one-letter flag such as `-p`.
        positional: Given without a flag.
        secret: Masked in run records.
        file_allowed: `@FILE` stands for the text in a file.
        at_least: The smallest number allowed.
        above: What a number must be above.
        below: What a number must be below.
    """
    about = Setting(help, tuple(choices), short, positional, secret, file_allowed, at_least, above, below)
    metadata = {_KEY: about}
    if isinstance(default, list):
        return dataclasses.field(default_factory=lambda: copy(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def settings_group(make: Callable[[], Settings], title: str, *, prefix: str = "") -> Settings:
    """Declare a field that holds a settings dataclass of its own.

    Args:
        make: The class, whose settings all have defaults.
        title: Heads its flags in the help.
        prefix: Stands before its flags and keys: `lora` makes `--lora-rank` of `rank`.
    """
    return dataclasses.field(default_factory=make, metadata={_KEY: _Group(title, prefix)})


def require(holds: bool, flag: str, value: object, remedy: str) -> None:
    """Raise a SettingsError naming the flag and the value unless the condition holds."""
    if not holds:
        raise SettingsError(f"{flag} {value}: {remedy}")


def parse_settings(cls: type[Settings], argv: Sequence[str], *, prog: str, description: str | None) -> Settings:
    """Build settings from a command line: defaults, then the recipe, then flags.

    Raises SettingsError for whatever the user got wrong; `--help` prints and exits as argparse does.
    """
    from orpo.command.flags import parse_flags
    from orpo.command.recipes import recipe_values

    known = settings_of(cls)
    know_settings(known)
    flags, recipe = parse_flags(known, argv, prog, description)
    values = recipe_values(cls, recipe, command=Path(prog).stem) if recipe else {}
    values |= flags
    return build_settings(cls, values)


def build_settings(cls: type[Settings], values: Mapping[str, object]) -> Settings:
    """Return the settings whose values are given by key; the others have their defaults."""
    known = settings_of(cls)
    own: dict[str, object] = {}
    grouped: dict[str, dict[str, object]] = {}
    for key, value in values.items():
        known[key].check(value)
        *group, name = known[key].path
        (grouped.setdefault(group[0], {}) if group else own)[name] = value
    groups = {name: group_class(**grouped.get(name, {})) for name, (group_class, _) in groups_of(cls).items()}
    return cls(**own, **groups)


def settings_as_dict(settings: object) -> dict[str, object]:
    """Return settings by key as plain JSON-able values, which a recipe may hold: paths as text, secrets masked."""
    values: dict[str, object] = {}
    for one in settings_of(type(settings)).values():
        value = settings
        for name in one.path:
            value = getattr(value, name)
        values[one.key] = "***" if one.secret and value else _plain(value)
    return mask_secrets(values)


def is_settings_class(candidate: object) -> bool:
    """Tell whether this is a dataclass made of `setting(...)` fields."""
    return (
        isinstance(candidate, type)
        and dataclasses.is_dataclass(candidate)
        and any(_KEY in field.metadata for field in dataclasses.fields(candidate))
    )


def settings_of(cls: type) -> dict[str, Setting]:
    """Return what a user can set, by key, groups included."""
    found = list(_own_settings(cls))
    for name, (group_class, about) in groups_of(cls).items():
        for one in _own_settings(group_class):
            key = f"{about.prefix}_{one.key}" if about.prefix else one.key
            found.append(dataclasses.replace(one, key=key, path=(name, *one.path), group=about.title))
    by_key = {one.key: one for one in found}
    if len(by_key) < len(found):
        raise TypeError(f"{cls.__name__} has two settings of one name")
    return by_key


def groups_of(cls: type) -> dict[str, tuple[type, _Group]]:
    """Return the fields that hold settings of their own, with their class and what they declare."""
    hints = get_type_hints(cls)
    return {
        field.name: (hints[field.name], about)
        for field in dataclasses.fields(cls)
        if isinstance(about := field.metadata.get(_KEY), _Group)
    }


def _own_settings(cls: type) -> Iterator[Setting]:
    hints = get_type_hints(cls)
    for field in dataclasses.fields(cls):
        about = field.metadata.get(_KEY, Setting())
        if not field.init or isinstance(about, _Group):
            continue
        default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        yield dataclasses.replace(
            about,
            key=field.name,
            path=(field.name,),
            type=describe_type(hints[field.name], about.choices),
            default=default,
        )


def _read_text(file: Path, origin: str) -> str:
    try:
        return file.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        raise InputError(f"{origin}: there is no such file") from None
    except (IsADirectoryError, UnicodeDecodeError):
        raise InputError(f"{origin}: is not a text file in UTF-8") from None


def _plain(value: object) -> object:
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value
