"""The rows of one file: JSON lines, JSON, CSV, TSV, Parquet, or text with a prompt a line; packed with gzip or not."""

import csv
import gzip
import io
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final

from orpo.command.errors import InputError
from orpo.records.json_text import kind_of_value, parse_json_entries, parse_json_lines
from orpo.records.rows import BadRow, Place, Row, RowProblem

ReadRow = Row | BadRow

_PACKED: Final = ".gz"
_BYTE_ORDER_MARKS: Final = {
    b"\xef\xbb\xbf": "utf-8-sig",
    b"\xff\xfe\x00\x00": "utf-32",
    b"\x00\x00\xfe\xff": "utf-32",
    b"\xff\xfe": "utf-16",
    b"\xfe\xff": "utf-16",
}
_NO_VALUE: Final = frozenset({"nan", "NaN", "<NA>", "NULL", "null"})
"""What pandas and data bases write into a table's cell that holds nothing."""

_ONLY_OBJECTS: Final = 'each row is an object of columns, such as {"prompt": ..., "chosen": ..., "rejected": ...}'


def file_suffix(path: Path) -> str:
    """Return what a file's name says of its format, whether or not it is packed: `.jsonl` for `a.jsonl.gz`."""
    name = path.with_suffix("") if path.suffix.lower() == _PACKED else path
    return name.suffix.lower()


def is_data_file(path: Path) -> bool:
    """Tell whether a file's name says that it holds rows."""
    return file_suffix(path) in FILE_SUFFIXES


def read_file(path: Path, setting: str) -> list[ReadRow]:
    """Return the rows of a file, and those of its rows that cannot be read; InputError for a file that is not whole."""
    reader = _READERS.get(file_suffix(path))
    if reader is None:
        known = ", ".join(sorted(FILE_SUFFIXES))
        raise InputError(f"{path}: its name must end in one of {known}, or that with {_PACKED}", setting=setting)
    return list(reader(path, setting))


def table_rows(rows: Iterable[dict[str, object]], source: str) -> list[ReadRow]:
    """Return rows of a table with their numbers."""
    return [Row(row, Place(source, number, "row")) for number, row in enumerate(rows, start=1)]


def decode_text(data: bytes, name: str, setting: str) -> str:
    """Return bytes as text: UTF-8, or what a byte order mark or the zero bytes of plain UTF-16 say."""
    encoding = next((encoding for mark, encoding in _BYTE_ORDER_MARKS.items() if data.startswith(mark)), "utf-8")
    if encoding == "utf-8" and len(data) >= 2 and b"\0" in data[:2] and data[:2] != b"\0\0":
        encoding = "utf-16-be" if data[0] == 0 else "utf-16-le"
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as problem:
        told = encoding.removesuffix("-sig").upper()
        raise InputError(
            f"{name}: is not {told} text (byte {problem.start}); save it as UTF-8", setting=setting
        ) from None
    if "\0" in text:
        raise InputError(f"{name}: holds zero bytes, so it is not a text file", setting=setting)
    return text


def _read_bytes(path: Path, setting: str) -> bytes:
    if path.suffix.lower() != _PACKED:
        return path.read_bytes()
    try:
        with gzip.open(path) as stream:
            return stream.read()
    except (gzip.BadGzipFile, EOFError, zlib.error) as problem:
        raise InputError(f"{path}: is not a gzip file, or it is damaged ({problem})", setting=setting) from None


def _read_text(path: Path, setting: str) -> str:
    return decode_text(_read_bytes(path, setting), str(path), setting)


def _read_json(path: Path, setting: str) -> Iterator[ReadRow]:
    """Yield the rows of JSON lines or of one JSON value, whatever the file's name says."""
    text = _read_text(path, setting)
    try:
        entries = parse_json_entries(text) if file_suffix(path) == ".json" or text.lstrip()[:1] == "[" else None
    except RowProblem as problem:
        if file_suffix(path) == ".json":
            raise InputError(f"{path}: {problem.what}", setting=setting) from None
        entries = None  # lines, and the first is at fault
    unit = "line" if entries is None else "row"
    found = parse_json_lines(text) if entries is None else enumerate(_rows_within(entries), start=1)
    for number, value in found:
        place = Place(str(path), number, unit)
        if isinstance(value, RowProblem):
            yield value.at(place)
        elif isinstance(value, dict):
            yield Row(value, place)
        else:
            yield BadRow(place, f"is not a JSON object with columns, but {kind_of_value(value)}", _ONLY_OBJECTS)


def _rows_within(entries: list[object]) -> list[object]:
    """Return the rows of `{"data": [...]}` too, as some tools write tables."""
    if len(entries) == 1 and isinstance(entries[0], dict) and len(entries[0]) == 1:
        (value,) = entries[0].values()
        if isinstance(value, list) and value and all(isinstance(row, dict) for row in value):
            return value
    return entries


def _read_lines(path: Path, setting: str) -> Iterator[ReadRow]:
    for number, line in enumerate(_read_text(path, setting).split("\n"), start=1):
        if line.strip():
            yield Row({"prompt": line.strip()}, Place(str(path), number, "line"))


def _read_csv(path: Path, setting: str) -> Iterator[ReadRow]:
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    text = _read_text(path, setting)
    # newline="" keeps line breaks inside quoted cells as they are.
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=_delimiter(path, text), strict=True)
    columns: list[str] = []
    first_line = 1
    try:
        for cells in reader:
            place = Place(str(path), first_line, "line")
            first_line = reader.line_num + 1
            if not cells:
                continue
            if not columns:
                columns = _column_names(cells, path, setting)
            elif len(cells) != len(columns):
                what = f"has {_counted(len(cells), 'cell')} where the first line has {len(columns)}"
                yield BadRow(place, what, "quote cells that hold a delimiter or a line break")
            else:
                values = (None if cell in _NO_VALUE else cell for cell in cells)
                yield Row(dict(zip(columns, values, strict=True)), place)
    except csv.Error as problem:
        raise InputError(f"{path} line {reader.line_num}: is not CSV: {problem}", setting=setting) from None


def _delimiter(path: Path, text: str) -> str:
    """Return what stands between cells; Excel writes semicolons or tabs into a `.csv` where commas are decimal."""
    if file_suffix(path) == ".tsv":
        return "\t"
    first = text.lstrip().split("\n", 1)[0]
    return "," if "," in first else next((mark for mark in ";\t" if mark in first), ",")


def _column_names(cells: list[str], path: Path, setting: str) -> list[str]:
    if len(set(cells)) < len(cells):
        raise InputError(f"{path}: two columns have the same name in the first line", setting=setting)
    return cells


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _read_parquet(path: Path, setting: str) -> Iterator[ReadRow]:
    import pyarrow.parquet

    data = _read_bytes(path, setting)
    try:
        rows = pyarrow.parquet.read_table(pyarrow.BufferReader(data)).to_pylist()
    except Exception as problem:  # damage ends in OSError, ValueError, EOFError or an exception of Arrow's own
        reason = (str(problem).splitlines() or [type(problem).__name__])[0][:120]
        raise InputError(f"{path}: is not a Parquet file, or it is damaged ({reason})", setting=setting) from None
    yield from table_rows(rows, str(path))


_READERS: Final[dict[str, Callable[[Path, str], Iterator[ReadRow]]]] = {
    ".jsonl": _read_json,
    ".ndjson": _read_json,
    ".json": _read_json,
    ".csv": _read_csv,
    ".tsv": _read_csv,
    ".parquet": _read_parquet,
    ".txt": _read_lines,
}
FILE_SUFFIXES: Final = frozenset(_READERS)
