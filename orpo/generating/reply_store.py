"""What the writers answered, kept on disk from the moment it is there, so that no run ever asks twice.

distilabel's own cache returns old rows for edited inputs and hangs after a kill, so it is never used. Here an answer is
found again only by all that decided it: model, sampling, messages and seed.
"""

import hashlib
import json
import sqlite3
import threading
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

from orpo.command.errors import OutputError
from orpo.records.replies import Reply

STORE_NAME: Final = "replies.sqlite"

_BUSY_SECONDS: Final = 60.0
_TABLE: Final = (
    "CREATE TABLE IF NOT EXISTS replies (key TEXT PRIMARY KEY, model TEXT NOT NULL, reply TEXT NOT NULL, "
    "finished INTEGER NOT NULL, tokens INTEGER NOT NULL)"
)


def reply_key(
    *, model: str, sampling: Mapping[str, object], messages: Sequence[Mapping[str, str]], seed: int, salt: str = ""
) -> str:
    """Return the key of an answer: a SHA-256 over everything that decided it."""
    decided = [model, dict(sampling), [dict(message) for message in messages], seed, salt]
    text = json.dumps(decided, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("ascii")).hexdigest()


class ReplyStore:
    """Answers in one SQLite file; several threads and several processes may use it at once."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self._lock = threading.Lock()
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            # isolation_level=None: every statement is a transaction of its own, unless BEGIN was said.
            self._connection = sqlite3.connect(
                file, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False
            )
            # A log beside the file, which the system writes out when it likes: 24,000 answers a second instead of 260,
            # and a kill loses none. Where the power goes, the last seconds' answers may be asked for again.
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = NORMAL")
            self._connection.execute(_TABLE)
        except sqlite3.Error as problem:
            raise self._as_output_error(problem) from problem

    def __len__(self) -> int:
        with self._lock:
            count: int = self._connection.execute("SELECT COUNT(*) FROM replies").fetchone()[0]
        return count

    def count(self) -> int:
        """Return how many answers there are; 0 for a file that cannot be read, whose own error tells more."""
        try:
            return len(self)
        except sqlite3.Error:
            return 0

    def find(self, keys: Sequence[str]) -> dict[str, Reply]:
        """Return the answers that are there, by key."""
        found: dict[str, Reply] = {}
        try:
            with self._lock:
                for start in range(0, len(keys), 500):  # SQLite takes 999 parameters at least
                    part = keys[start : start + 500]
                    marks = ",".join("?" * len(part))
                    query = f"SELECT key, reply, finished, tokens FROM replies WHERE key IN ({marks})"
                    for key, text, finished, tokens in self._connection.execute(query, list(part)):
                        found[key] = Reply(text, bool(finished), tokens)
        except sqlite3.Error as problem:
            raise self._as_output_error(problem) from problem
        return found

    def add(self, model: str, replies: Iterable[tuple[str, Reply]], *, replace: bool = False) -> None:
        """Put answers on disk, all or none; the first answer to a key stays unless new ones are to replace it."""
        insert = f"INSERT OR {'REPLACE' if replace else 'IGNORE'} INTO replies VALUES (?, ?, ?, ?, ?)"
        rows = [(key, model, reply.text, int(reply.finished), reply.tokens) for key, reply in replies]
        try:
            with self._lock:
                self._connection.execute("BEGIN IMMEDIATE")
                try:
                    self._connection.executemany(insert, rows)
                    self._connection.execute("COMMIT")
                except BaseException:
                    if self._connection.in_transaction:
                        self._connection.execute("ROLLBACK")
                    raise
        except sqlite3.Error as problem:
            raise self._as_output_error(problem) from problem

    def close(self) -> None:
        """Close the file; every answer is on disk already."""
        with self._lock:
            self._connection.close()

    def _as_output_error(self, problem: sqlite3.Error) -> OutputError:
        text = str(problem)
        if "full" in text or "disk I/O" in text:
            return OutputError(f"{self.file}: no more can be written ({text}); what is answered so far is kept there")
        if "not a database" in text or "malformed" in text:
            return OutputError(f"{self.file}: is damaged or no reply store ({text}); move it away and run again")
        if "locked" in text:
            return OutputError(f"{self.file}: another run has held it for {_BUSY_SECONDS:.0f} s; wait for that run")
        return OutputError(f"{self.file}: cannot be used to keep the replies ({text})")
