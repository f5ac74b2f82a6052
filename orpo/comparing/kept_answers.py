"""Answers on disk, each under a hash of everything that decided it, so that nobody waits or pays for one twice."""

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import get_ident
from typing import Self, TypedDict

from orpo.command.display import console_err
from orpo.command.paths import cache_folder
from orpo.command.signals import CleaningUp, count_writing
from orpo.records.replies import Reply


class KeptReply(TypedDict):
    """A reply."""

    text: str
    finished: bool
    tokens: int


class KeptAnswers(TypedDict, total=False):
    """What a file of the cache holds: replies with their time, or log-probabilities."""

    replies: list[KeptReply]
    seconds: float
    log_probs: list[tuple[float, int]]


def answer_file(decided: Sequence[object]) -> Path:
    """Return where the answers are kept that all of this decides, JSON-able values."""
    text = json.dumps(decided, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return _folder() / f"{hashlib.sha256(text.encode('ascii')).hexdigest()}.json"


def find_answers(file: Path) -> KeptAnswers | None:
    """Return what is kept; None where there is nothing yet, or what a full disk cut off."""
    try:
        kept: KeptAnswers = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    _Known.replies += len(kept.get("replies", []))
    return kept


def keep_answers(file: Path, content: KeptAnswers) -> None:
    """Write an answer whole or not at all; a cache that cannot be written costs time later, and no result now."""
    if _write(file, content):
        _Known.replies += len(content.get("replies", []))


class GrowingAnswers:
    """The replies to one set of conversations while they are written, each on disk from the moment it ends.

    They are lines of a file beside the one that the whole set gets: a run that is stopped or killed loses none of them.
    As a context manager it closes that file.

    Attributes:
        rows: The replies by the place of their conversation.
        seconds: How long they took, in all runs that wrote some.
    """

    def __init__(self, file: Path, *, reuse: bool) -> None:
        """Take what an earlier run left, if it is to be reused; `file` is what `answer_file` says for the set."""
        self.rows: dict[int, Reply] = {}
        self.seconds = 0.0
        self._file, self._lines = file, file.with_suffix(".jsonl")
        if reuse:
            self._read()
        _Known.replies += len(self.rows)
        self._stream = None
        try:
            self._lines.parent.mkdir(parents=True, exist_ok=True)
            self._stream = self._lines.open("a" if reuse else "w", encoding="utf-8")
            self._stream.write("\n" if self._stream.tell() else "")  # a kill may have cut the last line short
        except OSError as problem:
            _tell_not_kept(problem)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._stream is not None:
            with suppress(OSError):
                self._stream.close()

    def missing(self, asked: Sequence[Sequence[int]]) -> list[int]:
        """Return the places without a reply yet.

        The same conversation asked twice counts as a whole: the replies differ by which of them comes first.
        """
        unanswered = {tuple(prompt) for row, prompt in enumerate(asked) if row not in self.rows}
        return [row for row, prompt in enumerate(asked) if tuple(prompt) in unanswered]

    def add(self, row: int, reply: Reply, seconds: float) -> None:
        """Keep a reply; `seconds` is how long it and those before it took, since the reply that was kept last."""
        self.rows[row] = reply
        self.seconds += seconds
        if self._stream is None:
            return
        line = {"row": row, "seconds": self.seconds, **_as_kept(reply)}
        try:
            self._stream.write(json.dumps(line, ensure_ascii=False) + "\n")
            self._stream.flush()
        except OSError as problem:
            _tell_not_kept(problem)
            self._stream = None
        else:
            _Known.replies += 1

    def finish(self) -> list[Reply]:
        """Keep the set as a whole, in place of the lines, and return the replies in order."""
        replies = [self.rows[row] for row in sorted(self.rows)]
        if _write(self._file, {"replies": [_as_kept(reply) for reply in replies], "seconds": self.seconds}):
            self._lines.unlink(missing_ok=True)
        return replies

    def _read(self) -> None:
        with suppress(OSError, UnicodeDecodeError):
            for line in self._lines.read_text(encoding="utf-8").split("\n"):
                with suppress(ValueError, KeyError, TypeError):
                    kept = json.loads(line)
                    self.rows[kept["row"]] = Reply(kept["text"], kept["finished"], kept["tokens"])
                    self.seconds = max(self.seconds, kept["seconds"])


@contextmanager
def telling_what_is_kept(*, reuse: bool) -> Iterator[None]:
    """After an exception in the block, Ctrl-C too, the user learns how many replies are kept, and how to go on."""
    count_writing(1)
    try:
        yield
    except BaseException as problem:
        with CleaningUp():
            if _Known.replies:
                how = "goes on from there" if reuse else "takes them with `reuse_replies`"
                problem.add_note(f"{_Known.replies} replies are kept in {_folder()}; the same command {how}")
        raise
    finally:
        count_writing(-1)


class _Known:
    """What this process has found in the cache or put there."""

    replies = 0


def _folder() -> Path:
    return cache_folder() / "answers"


def _as_kept(reply: Reply) -> KeptReply:
    return {"text": reply.text, "finished": reply.finished, "tokens": reply.tokens}


def _write(file: Path, content: KeptAnswers) -> bool:
    """Write a file whole or not at all; return whether it is there."""
    temporary = file.with_name(f".{file.name}.{os.getpid()}.{get_ident()}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
        temporary.replace(file)
    except OSError as problem:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        _tell_not_kept(problem)
        return False
    return True


def _tell_not_kept(problem: OSError) -> None:
    console_err.print(f"the replies are not kept for another run: {problem}", soft_wrap=True)
