"""Which files of a folder are the data set: one file, shards, or the splits and configurations of a download.

A folder that `hf download` made often says so itself, in the `configs` of its README.md; otherwise the split stands in
the files' names (`data/train-00000-of-00002.parquet`, `test.jsonl`).
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from orpo.command.errors import InputError
from orpo.records.file_formats import FILE_SUFFIXES, file_suffix, is_data_file

_SPLIT_NAMES: Final = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "dev", "val"),
    "test": ("test", "testing", "eval", "evaluation"),
}
_NO_DATA: Final = frozenset(
    {"run.json", "dataset_info.json", "dataset_infos.json", "dataset_dict.json", "dropped.jsonl"}
)
_SHARD: Final = re.compile(r"[-_.]?\d+(-of-(?P<count>\d+))?$")


def choose_files(folder: Path, setting: str, config: str | None, split: str) -> list[Path]:
    """Return the files of one configuration and split of a folder, in order; InputError where that cannot be said."""
    named = _files_named_by_card(folder, setting, config, split)
    if named:
        return named
    files = [file for file in sorted(folder.rglob("*")) if _is_candidate(file, folder)]
    if config is not None:
        files = [file for file in files if config in file.relative_to(folder).parts[:-1]]
        if not files:
            raise InputError(f"{folder}: has no data of the configuration {config!r}", setting=setting)
    if not files:
        known = ", ".join(sorted(FILE_SUFFIXES))
        raise InputError(f"{folder}: holds no data file that can be read (one of {known})", setting=setting)
    return _of_split(files, folder, setting, split)


def _is_candidate(file: Path, folder: Path) -> bool:
    parts = file.relative_to(folder).parts
    hidden = any(part.startswith(".") for part in parts)
    return (
        not hidden
        and file.name not in _NO_DATA
        and is_data_file(file)
        and file_suffix(file) != ".txt"
        and file.is_file()
    )


def _of_split(files: Sequence[Path], folder: Path, setting: str, split: str) -> list[Path]:
    split_of = {file: _split_in_name(file.relative_to(folder)) for file in files}
    chosen = [file for file in files if split_of[file] == split or _has_word(file.relative_to(folder), split)]
    if not chosen and any(split_of.values()):
        known = ", ".join(sorted({name for name in split_of.values() if name}))
        raise InputError(f"{folder}: has no split {split!r}; its files are named for {known}", setting=setting)
    chosen = chosen or list(files)
    # Shards of one data set differ in their number only; anything else may be two data sets.
    kinds = {(file.parent, _SHARD.sub("", _stem(file)), file_suffix(file)) for file in chosen}
    if len(kinds) > 1:
        names = ", ".join(str(file.relative_to(folder)) for file in chosen[:6])
        raise InputError(
            f"{folder}: holds several data files that are not shards of one ({names}); name the ones you mean, or a "
            "configuration",
            setting=setting,
        )
    _check_all_there(chosen, folder, setting)
    return sorted(chosen, key=lambda file: (file.parent, _numbers_in(file.name)))


def _check_all_there(shards: Sequence[Path], folder: Path, setting: str) -> None:
    """Raise InputError where shards say how many they are and some are missing, as after a download that broke off."""
    named = [match["count"] for file in shards if (match := _SHARD.search(_stem(file))) and match["count"]]
    if named and len(shards) < int(named[0]):
        raise InputError(
            f"{folder}: holds {len(shards)} of {int(named[0])} shards, such as {shards[0].name}; download it whole, or "
            "name the files",
            setting=setting,
        )


def _numbers_in(name: str) -> list[tuple[int, str]]:
    """Return what sorts `part-10` after `part-2`."""
    return [(int(part), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", name)]


def _stem(file: Path) -> str:
    return file.name.split(".")[0]


def _split_in_name(path: Path) -> str | None:
    for split, words in _SPLIT_NAMES.items():
        if any(_has_word(path, word) for word in words):
            return split
    return None


def _has_word(path: Path, word: str) -> bool:
    return bool(re.search(rf"(?<![a-z0-9]){re.escape(word.lower())}(?![a-z0-9])", path.as_posix().lower()))


def _files_named_by_card(folder: Path, setting: str, config: str | None, split: str) -> list[Path]:
    configs = _configs_of_card(folder)
    if not configs:
        return []
    by_name = {str(entry.get("config_name", "default")): entry for entry in configs}
    if config is None and len(by_name) > 1 and "default" not in by_name:
        marked = [name for name, entry in by_name.items() if entry.get("default")]
        if not marked:
            raise InputError(f"{folder}: has the configurations {', '.join(by_name)}; name one", setting=setting)
        config = marked[0]
    name = config or ("default" if "default" in by_name else next(iter(by_name)))
    if name not in by_name:
        raise InputError(f"{folder}: has no configuration {name!r}; it has {', '.join(by_name)}", setting=setting)
    patterns = _patterns_by_split(by_name[name].get("data_files"))
    if split not in patterns:
        if not patterns:
            return []
        raise InputError(f"{folder}: has no split {split!r}; it has {', '.join(patterns)}", setting=setting)
    found = [file for pattern in patterns[split] for file in sorted(folder.glob(pattern)) if is_data_file(file)]
    if not found:
        raise InputError(
            f"{folder}: its README.md names {', '.join(patterns[split])} for the split {split!r}, and no such file is "
            "there; download it whole",
            setting=setting,
        )
    return found


def _configs_of_card(folder: Path) -> list[Mapping[str, object]]:
    import yaml

    card = folder / "README.md"
    if not card.is_file():
        return []
    header = re.match(r"---\r?\n(.*?)\r?\n---", card.read_text(encoding="utf-8", errors="replace"), re.DOTALL)
    try:
        front = yaml.safe_load(header[1]) if header else None
    except yaml.YAMLError:
        return []
    configs = front.get("configs") if isinstance(front, dict) else None
    return [entry for entry in configs if isinstance(entry, dict)] if isinstance(configs, list) else []


def _patterns_by_split(data_files: object) -> dict[str, list[str]]:
    """Return the patterns of each split; a configuration may give a pattern, a list of them, or splits with paths."""
    if isinstance(data_files, str):
        return {"train": [data_files]} if _is_inside(data_files) else {}
    patterns: dict[str, list[str]] = {}
    for entry in data_files if isinstance(data_files, list) else []:
        split, paths = (entry.get("split", "train"), entry.get("path")) if isinstance(entry, dict) else ("train", entry)
        for path in paths if isinstance(paths, list) else [paths]:
            if isinstance(path, str) and _is_inside(path):
                patterns.setdefault(str(split), []).append(path)
    return patterns


def _is_inside(pattern: str) -> bool:
    """A card must not name files outside its folder."""
    return bool(pattern) and not Path(pattern).is_absolute() and ".." not in Path(pattern).parts
