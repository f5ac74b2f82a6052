"""Turn what a user wrote, on the command line or in a recipe, into the type that a setting declares.

A recipe's values arrive as YAML read them, which is not always what was meant: `5e-6` is read as text and `no` as a
truth value. So the declared type decides, and a value that does not fit is an error that names its origin.
"""

import contextlib
import math
import types
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from orpo.command.errors import SettingsError

_TRUE = frozenset({"true", "yes", "on", "1"})
_FALSE = frozenset({"false", "no", "off", "0"})


@dataclass(frozen=True)
class ValueType:
    """A declared type, taken apart: `list[str] | None` has item `str`, and is both a list and optional."""

    item: type
    is_list: bool = False
    optional: bool = False
    choices: tuple[str, ...] = ()


def describe_type(declared: Any, choices: tuple[str, ...] = ()) -> ValueType:
    """Take a declared type apart; TypeError for a type that settings do not support."""
    if get_origin(declared) in (Union, types.UnionType):
        members = [member for member in get_args(declared) if member is not type(None)]
        if len(members) == 1 and len(get_args(declared)) == 2:
            inner = describe_type(members[0], choices)
            return ValueType(inner.item, inner.is_list, True, inner.choices)
    elif get_origin(declared) is list:
        inner = describe_type(get_args(declared)[0], choices)
        if not inner.is_list and not inner.optional:
            return ValueType(inner.item, True, False, inner.choices)
    elif get_origin(declared) is Literal:
        names = get_args(declared)
        if all(isinstance(name, str) for name in names):
            return ValueType(str, choices=choices or names)
    elif declared in _CONVERTERS:
        return ValueType(declared, choices=choices)
    raise TypeError(f"settings cannot have the type {declared!r}")


def convert_value(value: Any, wanted: ValueType, origin: str) -> Any:
    """Convert one value; `origin` (a flag, or a recipe key with its file) opens the error message."""
    if wanted.optional and (value is None or (wanted.item is not str and value == "none")):
        return None
    if wanted.is_list:
        values = value if isinstance(value, list) else [value]
        return [_convert_item(item, wanted, origin) for item in values]
    return _convert_item(value, wanted, origin)


def _convert_item(value: Any, wanted: ValueType, origin: str) -> Any:
    try:
        converted = _CONVERTERS[wanted.item](value)
    except (ValueError, OverflowError) as problem:
        raise SettingsError(f"{origin}: {value!r} {problem}") from None
    if wanted.choices and converted not in wanted.choices:
        raise SettingsError(f"{origin}: {value!r} is not one of {', '.join(map(str, wanted.choices))}")
    return converted


def _to_text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    # `no`, `1.10` and `2024-01-01` would come out as False, 1.1 and a date: only the user knows what was meant.
    raise ValueError("was not read as text; put it in quotes")


def _to_path(value: Any) -> Path:
    if isinstance(value, Path):
        return value
    text = _to_text(value)
    if not text.strip():
        raise ValueError("is empty where a path is needed")
    if "\0" in text:
        raise ValueError("cannot be a path")
    return Path(text).expanduser()


def _to_bool(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    word = str(value).strip().lower()
    if word in _TRUE:
        return True
    if word in _FALSE:
        return False
    raise ValueError("is neither true nor false")


def _to_int(value: Any) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    with contextlib.suppress(ValueError):
        return int(str(value))
    with contextlib.suppress(ValueError, OverflowError):
        number = float(str(value))  # `1e3` is a whole number too
        if number == int(number):
            return int(number)
    raise ValueError("is not a whole number")


def _to_float(value: Any) -> float:
    if isinstance(value, bool):
        raise ValueError("is not a number")
    try:
        number = float(value)
    except (ValueError, TypeError):
        raise ValueError("is not a number") from None
    if not math.isfinite(number):
        raise ValueError("is not a finite number")
    return number


_CONVERTERS: dict[type, Callable[[Any], Any]] = {
    str: _to_text,
    Path: _to_path,
    bool: _to_bool,
    int: _to_int,
    float: _to_float,
}
