"""Read rows from whatever a user names: a file, several, a glob, a folder, or a data set on the Hub."""

import glob
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from orpo.command.errors import InputError
from orpo.records.data_folders import choose_files
from orpo.records.file_formats import ReadRow, is_data_file, read_file, table_rows
from orpo.records.rows import BadRow, Row, RowProblem

if TYPE_CHECKING:
    import datasets

Item = TypeVar("Item")

PAIRS_FILE: Final = "pairs.jsonl"
DATASET_FOLDER: Final = "dataset"

_HUB_ID: Final = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_SAVED_DATASET: Final = ("state.json", "dataset_dict.json")
_REMEDY: Final = "choose another configuration or split, or save the part you want as a JSONL or Parquet file"


@dataclass
class Rows:
    """The rows of one data set, in order, and those that could not be read.

    Attributes:
        source: What the user named.
        rows: The rows.
        bad: What is not a row: broken JSON, a line of CSV with too many cells.
    """

    source: str
    rows: list[Row] = field(default_factory=list)
    bad: list[BadRow] = field(default_factory=list)

    def read_each(self, read: Callable[[Row], Item], limit: int | None = None) -> tuple[list[Item], list[BadRow]]:
        """Return what `read` makes of the rows, up to the limit, and those that are bad, also by its RowProblem."""
        items: list[Item] = []
        bad = list(self.bad)
        for row in self.rows:
            if limit is not None and len(items) >= limit:
                break
            try:
                items.append(read(row))
            except RowProblem as problem:
                bad.append(problem.at(row.place))
        return items, bad

    def columns(self) -> list[str]:
        """Return the names of all columns that any row has, in order of appearance."""
        return list(dict.fromkeys(name for row in self.rows for name in row.columns))


def read_rows(sources: str | Sequence[str], *, setting: str, config: str | None = None, split: str = "train") -> Rows:
    """Read all rows of files, globs, folders or Hub data sets as one data set.

    Raises InputError for what does not exist, is empty or is not what it says it is.

    Args:
        sources: A file, glob, folder or Hub id, or several.
        setting: The setting that named them, such as `prompts`.
        config: Configuration of a Hub data set, or of a folder that holds several.
        split: Split of a Hub data set, or of a folder that holds several.
    """
    names = [sources] if isinstance(sources, str) else list(sources)
    found = Rows(", ".join(names))
    for name in names:
        read = _read_source(name, setting, config, split)
        if not read:
            raise InputError(f"{name}: holds no rows", setting=setting)
        found.rows += [row for row in read if isinstance(row, Row)]
        found.bad += [row for row in read if isinstance(row, BadRow)]
    return found


def _read_source(source: str, setting: str, config: str | None, split: str) -> list[ReadRow]:
    path = Path(source).expanduser()
    if path.is_dir():
        return _read_folder(path, setting, config, split)
    if path.exists():
        return read_file(path, setting)
    matches = [Path(name) for name in sorted(glob.glob(str(path), recursive=True))]
    files = [match for match in matches if match.is_file() and is_data_file(match)]
    if files:
        return [row for file in files for row in read_file(file, setting)]
    if not is_data_file(Path(source)) and _HUB_ID.fullmatch(source):
        return _read_hub(source, setting, config, split)
    raise InputError(f"{source}: there is no such file or folder", setting=setting)


def _read_folder(path: Path, setting: str, config: str | None, split: str) -> list[ReadRow]:
    """Read our own result, a folder that `datasets` saved, or the files of a data set as the Hub hands it out."""
    if (path / PAIRS_FILE).is_file():
        return read_file(path / PAIRS_FILE, setting)
    for folder in (path, path / DATASET_FOLDER):
        if any((folder / name).is_file() for name in _SAVED_DATASET):
            return _read_saved_dataset(folder, setting, split)
    return [row for file in choose_files(path, setting, config, split) for row in read_file(file, setting)]


def _read_saved_dataset(path: Path, setting: str, split: str) -> list[ReadRow]:
    import datasets

    try:
        found = datasets.load_from_disk(str(path))
    except Exception as problem:  # whatever pyarrow, json or datasets say of a damaged folder
        reason = (str(problem).splitlines() or [type(problem).__name__])[0][:120]
        raise InputError(f"{path}: cannot be read as a data set folder ({reason})", setting=setting) from None
    if isinstance(found, datasets.DatasetDict):
        if split not in found:
            known = ", ".join(found)
            raise InputError(f"{path}: has no split {split!r}; it has {known}; {_REMEDY}", setting=setting)
        found = found[split]
    return table_rows(_to_list(found, str(path), setting), str(path))


def _to_list(found: "datasets.Dataset", source: str, setting: str) -> list[dict[str, object]]:
    try:
        rows: list[dict[str, object]] = found.to_list()
    except Exception as problem:  # damaged pages are found only when they are read
        reason = (str(problem).splitlines() or [type(problem).__name__])[0][:120]
        raise InputError(f"{source}: its rows cannot be read ({reason})", setting=setting) from None
    return rows


def _read_hub(source: str, setting: str, config: str | None, split: str) -> list[ReadRow]:
    import datasets
    from huggingface_hub.errors import GatedRepoError

    try:
        found = datasets.load_dataset(source, config, split=split)
    except GatedRepoError:
        what = "this Hub data set asks for a login; run `hf auth login` first"
        raise InputError(f"{source}: {what}", setting=setting) from None
    except (datasets.exceptions.DatasetNotFoundError, FileNotFoundError, ConnectionError):
        what = "is not a file or folder here, and no data set of that name can be reached on the Hub"
        raise InputError(f"{source}: {what} (check the spelling and the network)", setting=setting) from None
    except ValueError as problem:  # unknown configuration or split; the message lists those there are
        reason = " ".join(str(problem).split())[:300]
        raise InputError(f"{source}: {reason}; {_REMEDY}", setting=setting) from None
    except RuntimeError as problem:
        reason = " ".join(str(problem).split())[:200]
        raise InputError(f"{source}: cannot be loaded: {reason}", setting=setting) from None
    return table_rows(_to_list(found, source, setting), source)
