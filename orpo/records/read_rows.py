"""Read rows from what a user names: JSONL, JSON, CSV, Parquet, text, a `datasets` folder, or a data set on the Hub.

Every row keeps the number under which its owner finds it (line of the file, row of the table), so that an error can say
where to look.
"""

import csv
import io
import json
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from orpo.command.errors import InputError

Row = dict[str, Any]

_HUB_ID: Final = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_JSON_SUFFIXES: Final = frozenset({".jsonl", ".ndjson", ".json"})
FILE_SUFFIXES: Final = _JSON_SUFFIXES | {".csv", ".tsv", ".parquet", ".txt"}
_SHAREGPT_ROLES: Final = {"human": "user", "gpt": "assistant"}  # its other roles have the usual names
PAIRS_FILE: Final = "pairs.jsonl"
DATASET_FOLDER: Final = "dataset"
SAVE_A_FILE: Final = "save the part you want as a JSONL or Parquet file and give that"


class Rows(list[Row]):
    """Rows with where they came from and the number of each there."""

    def __init__(self, rows: list[Row], *, source: str, numbers: list[int], unit: str = "row") -> None:
        """Take rows and their numbers; `unit` is what the numbers count: rows of a table or lines of a file."""
        super().__init__(rows)
        self.source = source
        self.numbers = numbers
        self.unit = unit

    def columns(self) -> list[str]:
        """Return the names of all columns that any row has, in order of appearance."""
        return list(dict.fromkeys(name for row in self for name in row))

    def where(self, index: int) -> str:
        """Return how to name a row in an error: `FILE line 3`."""
        return f"{self.source} {self.unit} {self.numbers[index]}"


def read_rows(
    source: str, *, flag: str, config: str | None = None, split: str = "train", remedy: str = SAVE_A_FILE
) -> Rows:
    """Read all rows of a file, a folder or a Hub data set.

    Raises InputError for what does not exist, is empty or is not what it says it is.

    Args:
        source: The file, folder or Hub id.
        flag: Named in errors, such as `--prompts`.
        config: Configuration of a Hub data set.
        split: Split of a Hub data set, or of a folder that `datasets` saved.
        remedy: What an error about configuration or split says to do; names flags only where the command has them.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        rows = _read_folder(path, flag, split, remedy)
    elif path.exists():
        rows = _read_file(path, flag)
    elif _looks_like_hub_id(source):
        rows = _read_hub(source, flag, config, split, remedy)
    else:
        raise InputError(f"{flag} {source}: there is no such file or folder")
    if not rows:
        raise InputError(f"{flag} {source}: holds no rows")
    return rows


def number_list(numbers: list[int], most: int = 8) -> str:
    """Return `3, 5, 9` of many numbers, cut after a few."""
    shown = ", ".join(map(str, numbers[:most]))
    return f"{shown} and {len(numbers) - most} more" if len(numbers) > most else shown


def role_and_content(entry: Any) -> dict[str, Any] | None:
    """Return a chat message as `role` and `content`, from ShareGPT's `from` and `value` too; None for anything else."""
    if isinstance(entry, Mapping):
        if "role" in entry and "content" in entry:
            return {"role": entry["role"], "content": entry["content"]}
        if "from" in entry and "value" in entry:
            role = entry["from"]
            known = _SHAREGPT_ROLES.get(role, role) if isinstance(role, str) else role
            return {"role": known, "content": entry["value"]}
    return None


def _looks_like_hub_id(source: str) -> bool:
    return Path(source).suffix.lower() not in FILE_SUFFIXES and bool(_HUB_ID.fullmatch(source))


def _read_file(path: Path, flag: str) -> Rows:
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        return _read_parquet(path, flag)
    if suffix not in FILE_SUFFIXES:
        raise InputError(f"{flag} {path}: the name must end in one of {', '.join(sorted(FILE_SUFFIXES))}")
    text = _read_text(path, flag)
    if suffix in _JSON_SUFFIXES:
        return _parse_json(text, path, flag)
    if suffix == ".txt":
        found = [(number, line.strip()) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]
        numbers = [number for number, _ in found]
        return Rows([{"prompt": line} for _, line in found], source=str(path), numbers=numbers, unit="line")
    return _parse_csv(text, path, flag, delimiter="\t" if suffix == ".tsv" else ",")


def _read_text(path: Path, flag: str) -> str:
    try:
        # newline="" keeps line breaks inside quoted CSV cells as they are.
        with path.open(encoding="utf-8-sig", newline="") as stream:
            text = stream.read()
    except UnicodeDecodeError as problem:
        raise InputError(f"{flag} {path}: is not UTF-8 text (byte {problem.start}), so no {path.suffix} file") from None
    if "\0" in text:
        raise InputError(f"{flag} {path}: holds zero bytes, so it is no {path.suffix} file")
    return text


def _parse_json(text: str, path: Path, flag: str) -> Rows:
    if text.lstrip().startswith("[") and path.suffix.lower() == ".json":
        try:
            found = list(enumerate(json.loads(text), start=1))
        except ValueError as problem:
            raise InputError(f"{flag} {path}: is not JSON: {problem}") from None
        unit = "row"
    else:
        found, unit = list(_parse_json_lines(text, path, flag)), "line"
    for number, row in found:
        if not isinstance(row, dict):
            raise InputError(f"{flag} {path} {unit} {number}: is not a JSON object with columns, but {_kind(row)}")
    return Rows([row for _, row in found], source=str(path), numbers=[number for number, _ in found], unit=unit)


def _parse_json_lines(text: str, path: Path, flag: str) -> Iterator[tuple[int, Any]]:
    # splitlines() would also break at U+2028, which JSON allows inside a string.
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            yield number, json.loads(line)
        except (ValueError, RecursionError) as problem:
            raise InputError(f"{flag} {path} line {number}: is not JSON: {problem}") from None


def _parse_csv(text: str, path: Path, flag: str, *, delimiter: str) -> Rows:
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    rows: list[Row] = []
    numbers: list[int] = []
    try:
        columns = reader.fieldnames or []
        if len(set(columns)) < len(columns):
            raise InputError(f"{flag} {path}: two columns have the same name in the first line")
        for row in reader:
            if None in row or None in row.values():
                expected = f"{len(columns)} cells as in the first line"
                raise InputError(f"{flag} {path} line {reader.line_num}: has not the {expected}")
            rows.append(row)
            numbers.append(reader.line_num)
    except csv.Error as problem:
        raise InputError(f"{flag} {path} line {reader.reader.line_num}: is not CSV: {problem}") from None
    return Rows(rows, source=str(path), numbers=numbers, unit="line")


def _read_parquet(path: Path, flag: str) -> Rows:
    import pyarrow  # type: ignore[import-untyped]
    import pyarrow.parquet  # type: ignore[import-untyped]

    try:
        rows = pyarrow.parquet.ParquetFile(path).read().to_pylist()
    except (pyarrow.ArrowException, EOFError) as problem:
        reason = str(problem).splitlines()[0][:120]
        raise InputError(f"{flag} {path}: is not a Parquet file, or it is damaged ({reason})") from None
    return Rows(rows, source=str(path), numbers=list(range(1, len(rows) + 1)))


def _read_folder(path: Path, flag: str, split: str, remedy: str) -> Rows:
    """Read our own result, a folder that `datasets` saved, or a folder with a single data file."""
    if (path / PAIRS_FILE).is_file():
        return _read_file(path / PAIRS_FILE, flag)
    if (path / DATASET_FOLDER).is_dir():
        path = path / DATASET_FOLDER
    if (path / "state.json").is_file() or (path / "dataset_dict.json").is_file():
        return _read_saved_dataset(path, flag, split, remedy)
    files = sorted(file for file in path.iterdir() if file.suffix.lower() in FILE_SUFFIXES - {".txt"})
    files = [file for file in files if file.name != "run.json"]
    if len(files) == 1:
        return _read_file(files[0], flag)
    what = "several data files; name one of them" if files else "no data file that can be read"
    raise InputError(f"{flag} {path}: this folder holds {what} (one of {', '.join(sorted(FILE_SUFFIXES))})")


def _read_saved_dataset(path: Path, flag: str, split: str, remedy: str) -> Rows:
    import datasets

    try:
        found = datasets.load_from_disk(str(path))
    except Exception as problem:  # whatever pyarrow, json or datasets say of a damaged folder
        reason = str(problem).splitlines()[0][:120] if str(problem) else type(problem).__name__
        raise InputError(f"{flag} {path}: cannot be read as a data set folder ({reason})") from None
    if isinstance(found, datasets.DatasetDict):
        if split not in found:
            raise InputError(f"{flag} {path}: has no split {split!r}; it has {', '.join(found)}; {remedy}")
        found = found[split]
    rows = found.to_list()
    return Rows(rows, source=str(path), numbers=list(range(1, len(rows) + 1)))


def _read_hub(source: str, flag: str, config: str | None, split: str, remedy: str) -> Rows:
    import datasets
    from huggingface_hub.errors import GatedRepoError

    try:
        found = datasets.load_dataset(source, config, split=split)
    except GatedRepoError:
        raise InputError(f"{flag} {source}: this Hub data set asks for a login; run `hf auth login` first") from None
    except (datasets.exceptions.DatasetNotFoundError, FileNotFoundError, ConnectionError):
        raise InputError(
            f"{flag} {source}: is no file or folder here, and no data set of that name can be reached on the Hub "
            "(check the spelling and the network)"
        ) from None
    except ValueError as problem:  # unknown configuration or split; the message lists those there are
        reason = " ".join(str(problem).split())[:300]
        raise InputError(f"{flag} {source}: {reason}; {remedy}") from None
    except RuntimeError as problem:
        raise InputError(f"{flag} {source}: cannot be loaded: {' '.join(str(problem).split())[:200]}") from None
    rows = found.to_list()
    return Rows(rows, source=source, numbers=list(range(1, len(rows) + 1)))


def _kind(value: object) -> str:
    names = {str: "text", list: "a list", int: "a number", float: "a number", bool: "a truth value", type(None): "null"}
    return names.get(type(value), type(value).__name__)
