"""Read the public chat corpora as cleaned conversations.

Every reader yields `Conversation`s; licences and public homes are listed in README.md.
"""

import gzip
import json
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cleaning import clean_reply, clean_turn, is_usable


@dataclass
class Conversation:
    """Messages of alternating user and assistant turns (the last one is the assistant's)."""

    source: str
    turns: list[str]
    mood: str = "neutral"
    out_of_place: bool = False
    topic: str = ""


def _rows(path: Path) -> Iterator[dict]:
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)


def _windows(turns: list[str], source: str, topic: str, max_words: int = 110) -> Iterator[Conversation]:
    """Cut a dialogue into pieces of an even number of usable turns, at most `max_words` each."""
    piece: list[str] = []
    for turn in [*map(clean_turn, turns), ""]:
        fits = turn and is_usable(turn) and sum(len(t.split()) for t in piece) + len(turn.split()) <= max_words
        if fits:
            piece.append(turn)
            continue
        if len(piece) >= 2:
            yield Conversation(source, piece[: len(piece) // 2 * 2], topic=topic)
        piece = [turn] if turn and is_usable(turn) else []


def read_dialogues(folder: Path) -> Iterator[Conversation]:
    """Human dialogues; nearly all are free of emojis, the few turns with one are dropped by the ASCII rule."""
    for name in ("self_dialogue", "synthetic_persona_chat", "topical_chat", "casino", "taskmaster4"):
        seen: set[str] = set()
        for row in _rows(folder / f"{name}.jsonl.gz"):
            key = " ".join(row["turns"])[:200].lower()
            if key in seen:
                continue
            seen.add(key)
            yield from _windows(row["turns"], name, row.get("topic", "").replace("_", " "))


# Sentences of a model talking about its makers or its limits teach nothing about chatting.
_BOILERPLATE = re.compile(
    r"open ?assistant|language model|openai|laion|chatgpt|as an ai|i am an ai|i'm an ai|knowledge cutoff"
    r"|search engine|\bglados\b",
    re.I,
)


def read_assistant_replies(folder: Path, per_prompt: int = 8) -> Iterator[Conversation]:
    """Replies of open assistants: short, finished ones; at most `per_prompt` for one prompt."""
    weak = ("1b-deduped", "pre-v8", "falcon-40b", "12b-deduped")
    by_prompt: dict[str, list[str]] = {}
    for row in _rows(folder / "open_assistant_outputs.jsonl.gz"):
        prompt, reply = clean_turn(row["prompt"]), clean_reply(row["reply"])
        if row["model"].endswith(weak) or any(w in row["model"] for w in weak) or _BOILERPLATE.search(prompt + reply):
            continue
        if not is_usable(prompt, 40) or not is_usable(reply.replace("\n", " "), 75) or len(reply.split()) < 6:
            continue
        if reply[-1] not in ".!?" or re.search(r"[.!?][A-Za-z]{2,}|[a-z][A-Z]|\d[a-z]{3,}", reply):
            continue
        by_prompt.setdefault(prompt, []).append(reply)
    for prompt, replies in by_prompt.items():
        for reply in random.Random(prompt).sample(replies, min(per_prompt, len(replies))):
            yield Conversation("open_assistant", [prompt, reply])


def read_word_problems(folder: Path) -> Iterator[Conversation]:
    """Grade-school problems with short worked answers."""
    for row in _rows(folder / "gsm8k_train.jsonl.gz"):
        answer = re.sub(r"<<[^>]*>>", "", row["answer"]).replace("\n#### ", "\nThe answer is ") + "."
        question = clean_turn(row["question"])
        if len(question.split()) <= 40 and len(answer.split()) <= 50 and (question + answer).isascii():
            yield Conversation("gsm8k", [question, clean_reply(answer)])
