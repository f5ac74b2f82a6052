"""Turn the text that a user wrote, on the command line or in a recipe, into the type that a setting declares."""

import contextlib
import math
import types
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, Union, get_args, get_origin

from orpo.command.errors import SettingsError
from orpo.command.safe_text import HALF_CHARACTER

_TRUTH: Final = dict.fromkeys(("true", "yes", "on", "1"), True) | dict.fromkeys(("false", "no", "off", "0"), False)


@dataclass(frozen=True)
class ValueType:
    """A declared type, taken apart: `list[str]` is a list of the item `str`, `int | None` an optional `int`."""

    item: type
    is_list: bool = False
    optional: bool = False
    choices: tuple[str, ...] = ()


def describe_type(declared: object, choices: tuple[str, ...] = ()) -> ValueType:
    """Take a declared type apart; TypeError for a type that settings do not support."""
    members = get_args(declared)
    if get_origin(declared) in (Union, types.UnionType) and len(members) == 2 and types.NoneType in members:
        inner = describe_type(members[members[0] is types.NoneType], choices)
        return ValueType(inner.item, inner.is_list, True, inner.choices)
    if get_origin(declared) is Literal and all(isinstance(name, str) for name in members):
        return ValueType(str, choices=choices or members)
    item = members[0] if get_origin(declared) is list else declared
    if isinstance(item, type) and item in _CONVERTERS:
        return ValueType(item, item is not declared, choices=choices)
    raise TypeError(f"settings cannot have the type {declared!r}")


def convert_value(value: object, wanted: ValueType, origin: str) -> object:
    """Convert one value; `origin` (a flag, or a recipe key with its file) opens the error message.

    It is text, a list of texts, None for a recipe's null, or a truth value that a flag has made already.
    """
    if wanted.optional and (value is None or (wanted.item is not str and value == "none")):
        return None
    if wanted.is_list:
        return [_convert_item(item, wanted, origin) for item in (value if isinstance(value, list) else [value])]
    return _convert_item(value, wanted, origin)


def _convert_item(value: object, wanted: ValueType, origin: str) -> object:
    if isinstance(value, bool):
        return value
    if not isinstance(value, str):
        what = "nothing" if value is None else "several values" if isinstance(value, list) else "a group"
        raise SettingsError(f"{origin}: holds {what} where one value is needed")
    if HALF_CHARACTER.search(value):  # a byte that is no UTF-8 comes from the command line as one, too
        shown = HALF_CHARACTER.sub("\ufffd", value)[:60]
        raise SettingsError(f"{origin}: {shown!r} holds half of a character, so it is not UTF-8 text; type it again")
    try:
        converted = _CONVERTERS[wanted.item](value)
    except (ValueError, OverflowError) as problem:
        raise SettingsError(f"{origin}: {value!r} {problem}") from None
    if wanted.choices and converted not in wanted.choices:
        raise SettingsError(f"{origin}: {value!r} is not one of {', '.join(wanted.choices)}")
    return converted


def _to_path(text: str) -> Path:
    if not text.strip():
        raise ValueError("is empty where a path is needed")
    if "\0" in text:
        raise ValueError("cannot be a path")
    return Path(text).expanduser()


def _to_bool(text: str) -> bool:
    if (truth := _TRUTH.get(text.strip().lower())) is None:
        raise ValueError("is neither true nor false")
    return truth


def _to_int(text: str) -> int:
    with contextlib.suppress(ValueError):
        return int(text)
    with contextlib.suppress(ValueError, OverflowError):
        if (number := float(text)) == int(number):  # `1e3` is a whole number too
            return int(number)
    raise ValueError("is not a whole number")


def _to_float(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        raise ValueError("is not a number") from None
    if not math.isfinite(number):
        raise ValueError("is not a finite number")
    return number


_CONVERTERS: Final[dict[type, Callable[[str], object]]] = {
    str: str, Path: _to_path, bool: _to_bool, int: _to_int, float: _to_float
}  # fmt: skip
