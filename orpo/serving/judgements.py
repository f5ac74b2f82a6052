"""What people judged, in one SQLite file: votes on two replies, and decisions on pairs; on disk when a call returns."""

import sqlite3
import threading
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from orpo.command.errors import InputError, OutputError

STORE_NAME: Final = "judgements.sqlite"

_VERSION: Final = 1
_BUSY_SECONDS: Final = 30.0
_TABLES: Final = """
CREATE TABLE IF NOT EXISTS duels (
    id INTEGER PRIMARY KEY, created TEXT NOT NULL, messages TEXT NOT NULL, sampling TEXT NOT NULL,
    seed INTEGER NOT NULL, left_model TEXT NOT NULL, right_model TEXT NOT NULL,
    left_identity TEXT NOT NULL, right_identity TEXT NOT NULL, left_reply TEXT, right_reply TEXT, vote TEXT, voted TEXT
);
CREATE TABLE IF NOT EXISTS reviews (
    id INTEGER PRIMARY KEY, created TEXT NOT NULL, data TEXT NOT NULL, fingerprint TEXT NOT NULL,
    UNIQUE (data, fingerprint)
);
CREATE TABLE IF NOT EXISTS decisions (
    review INTEGER NOT NULL, row INTEGER NOT NULL, decision TEXT NOT NULL, chosen TEXT, rejected TEXT,
    who TEXT NOT NULL, decided TEXT NOT NULL, PRIMARY KEY (review, row)
);
"""

Value = str | int | float | None


class JudgementStore:
    """The file; threads of one process share it, and further processes may read and write it at the same time."""

    def __init__(self, file: Path) -> None:
        """Open it, or make it; an error of one line where it is something else."""
        self.file = file
        self._lock = threading.Lock()
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            # isolation_level=None: every statement is on disk when it returns.
            self._connection = sqlite3.connect(
                file, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False
            )
            self._connection.row_factory = sqlite3.Row
            version = int(self._connection.execute("PRAGMA user_version").fetchone()[0])
            if version not in (0, _VERSION):
                raise InputError(
                    f"{file}: was written by another version of this program; name another file", setting="store"
                )
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = FULL")
            self._connection.executescript(_TABLES)
            self._connection.execute(f"PRAGMA user_version = {_VERSION}")
        except (sqlite3.Error, OSError) as problem:
            raise OutputError(
                f"{file}: votes and reviews cannot be kept there: {problem}", setting="store"
            ) from problem

    def write(self, statement: str, *values: Value) -> int:
        """Change something; return the id of what was added."""
        with self._lock:
            return int(self._connection.execute(statement, values).lastrowid or 0)

    def change(self, statement: str, *values: Value) -> int:
        """Change something; return how many rows were changed."""
        with self._lock:
            return self._connection.execute(statement, values).rowcount

    def read(self, statement: str, *values: Value) -> Sequence[sqlite3.Row]:
        """Return the rows found."""
        with self._lock:
            return self._connection.execute(statement, values).fetchall()

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._connection.close()


def now() -> str:
    """Return the time as it is kept."""
    return datetime.now(UTC).isoformat(timespec="seconds")
