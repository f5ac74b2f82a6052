"""Read recipe files: one YAML mapping for one run."""

import difflib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from orpo.command.errors import InputError, SettingsError


def read_recipe(file: Path) -> dict[str, Any]:
    """Read a recipe as YAML gave it; a key that stands twice is an error, since YAML would keep the last in silence."""
    import yaml

    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(f"--recipe {file}: there is no such file (recipes/ holds those that come along)") from None
    except IsADirectoryError:
        raise InputError(f"--recipe {file}: is a folder; give a YAML file") from None
    except UnicodeDecodeError:
        raise InputError(f"--recipe {file}: is not UTF-8 text; give a YAML file") from None
    try:
        tree = yaml.compose(text, Loader=yaml.SafeLoader)
        content = yaml.safe_load(text)
    except yaml.YAMLError as problem:
        raise SettingsError(f"--recipe {file}: is not YAML: {' '.join(str(problem).split())}") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise SettingsError(f"--recipe {file}: must hold `key: value` lines, one for each setting")
    keys = [key.value for key, _ in tree.value] if isinstance(tree, yaml.MappingNode) else []
    for key in keys:
        if keys.count(key) > 1:
            raise SettingsError(f"key {key!r} stands twice in {file}")
    return content


def nearest_names(name: str, names: Iterable[str], count: int = 3) -> list[str]:
    """Return the names most like a mistyped one, best first; never empty unless `names` is."""
    return difflib.get_close_matches(name, list(names), n=count, cutoff=0.0)
