"""Answers on disk, each under a hash of everything that decided it, so that nobody waits or pays for one twice."""

import hashlib
import json
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from threading import get_ident
from typing import TypedDict

from orpo.command.display import console_err
from orpo.command.paths import cache_folder


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
    return cache_folder() / "answers" / f"{hashlib.sha256(text.encode('ascii')).hexdigest()}.json"


def find_answers(file: Path) -> KeptAnswers | None:
    """Return what is kept; None where there is nothing yet, or what a full disk cut off."""
    try:
        kept: KeptAnswers = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return kept


def keep_answers(file: Path, content: KeptAnswers) -> None:
    """Write an answer whole or not at all; a cache that cannot be written costs time later, and no result now."""
    temporary = file.with_name(f".{file.name}.{os.getpid()}.{get_ident()}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
        temporary.replace(file)
    except OSError as problem:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        console_err.print(f"the replies are not kept for another run: {problem}", soft_wrap=True)
