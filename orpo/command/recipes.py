"""Recipes: one YAML file for one run, with the settings' keys; groups may be nested.

Every scalar is taken as the text that stands there, and the setting's type decides what it means: YAML's own reading
makes `5e-6` a text, `no` a truth value and `1.10` the number 1.1.
"""

from collections.abc import Iterator
from pathlib import Path

from orpo.command.errors import InputError, SettingsError
from orpo.command.flags import nearest_names
from orpo.command.settings import groups_of, settings_of


def recipe_values(cls: type, file: Path, *, command: str | None = None) -> dict[str, object]:
    """Return a recipe's values by key; keys may use hyphens, and `command` says which command it is read for."""
    content = _read(file)
    meant_for = content.pop("command", None)
    if command and meant_for is not None and meant_for != command:
        raise SettingsError(f"--recipe {file}: this recipe is for the command {meant_for!r}, not {command!r}")
    known = settings_of(cls)
    values: dict[str, object] = {}
    for written, key, value in _flattened(cls, content):
        if key not in known:
            raise SettingsError(
                f"unknown key {written!r} in {file}; the nearest valid keys are: {nearest_names(key, known)}"
            )
        if key in values:
            raise SettingsError(f"key {written!r} is given twice in {file}")
        values[key] = known[key].convert(value, f"key {written!r} in {file}")
    return values


def _flattened(cls: type, content: dict[str, object]) -> Iterator[tuple[str, str, object]]:
    """Yield each key as it is written, the setting's key that it means, and its value."""
    groups = groups_of(cls)
    for written, value in content.items():
        key = written.replace("-", "_")
        if key in groups and isinstance(value, dict):
            inner = {one.path[-1]: one.key for one in settings_of(cls).values() if one.path[0] == key}
            for name, item in value.items():
                plain = str(name).replace("-", "_")
                yield f"{written}: {name}", inner.get(plain, f"{key}_{plain}"), item
        else:
            yield written, key, value


def _read(file: Path) -> dict[str, object]:
    import yaml

    try:
        tree = yaml.compose(file.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
        content = {} if tree is None else _plain(tree, file)
    except FileNotFoundError:
        raise InputError(f"--recipe {file}: there is no such file (recipes/ holds the ones that ship)") from None
    except IsADirectoryError:
        raise InputError(f"--recipe {file}: is a folder; name a YAML file") from None
    except UnicodeDecodeError:
        raise InputError(f"--recipe {file}: is not UTF-8 text; name a YAML file") from None
    except (yaml.YAMLError, RecursionError) as problem:
        why = " ".join(str(problem).split()) if isinstance(problem, yaml.YAMLError) else "nested too deeply"
        raise SettingsError(f"--recipe {file}: is not YAML: {why}") from None
    if not isinstance(content, dict):
        raise SettingsError(f"--recipe {file}: must hold `key: value` lines, one for each setting")
    return content


def _plain(node: object, file: Path) -> object:
    """Return a YAML node as texts, lists and dicts; a key given twice is an error, YAML would keep the last."""
    import yaml

    if isinstance(node, yaml.SequenceNode):
        return [_plain(item, file) for item in node.value]
    if isinstance(node, yaml.MappingNode):
        mapping: dict[str, object] = {}
        for key, value in node.value:
            if (name := str(key.value)) in mapping:
                raise SettingsError(f"key {name!r} is given twice in {file}")
            mapping[name] = _plain(value, file)
        return mapping
    assert isinstance(node, yaml.ScalarNode)
    return None if node.tag == "tag:yaml.org,2002:null" else str(node.value)
