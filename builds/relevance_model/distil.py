"""Distil the static encoder that the package ships, `orpo/scoring/data/encoder.npz`, from all-MiniLM-L6-v2.

    uv run --group builds python -m builds.relevance_model.distil --data ../shared/data

Every word piece starts from its own vector in the teacher, brought to fewer dimensions by the main directions of real
sentences and weighted by rarity (as SIF does: Arora, Liang & Ma 2017). Then all vectors are trained until the sum over
a sentence's pieces points where the teacher's vector of the sentence does, sentence by sentence and between the
sentences of a batch. About ten minutes on one core; most of it is the teacher reading 70,000 sentences.
"""

import argparse
import random
import re
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from builds.relevance_model.sources import read_comments, read_rows, read_written_contexts, read_written_replies
from builds.relevance_model.teacher import Teacher
from orpo.scoring import strip_emojis
from orpo.scoring.emoji_table import emoji_table

OUTPUT = Path(__file__).resolve().parents[2] / "orpo" / "scoring" / "data" / "encoder.npz"
DIMENSIONS = 128
RARITY = 1e-3
COMMENTS, TURNS, ANSWERS = 22_000, 24_000, 20_000
LONGEST = 64  # pieces
BATCH, EPOCHS, RATE = 512, 9, 3e-3
DROPPED = 0.1  # share of pieces left out at random, so that no piece leans on its neighbours
BETWEEN = 2.0  # weight of the similarities between the sentences of a batch
HELD_OUT = 4000
_SHIPPED_PIECE = re.compile(r"(?:##)?[a-z0-9]+|[!-/:-@\[-`{-~]")

Floats = NDArray[np.float32]


def read_sentences(data: Path) -> list[str]:
    """Return sentences of chat and comments, the names of emojis, and what was written for the contexts; no tweet."""
    rng = random.Random(0)
    answers = [row["reply"] for row in read_rows(data / "chat" / "open_assistant_outputs.jsonl.gz")]
    texts = split_sentences([comment.text for comment in read_comments(data)], COMMENTS, rng)
    texts += split_sentences(read_turns(data), TURNS, rng) + split_sentences(answers, ANSWERS, rng)
    texts += sorted({emoji.name for emoji in emoji_table().values() if "skin tone" not in emoji.name})
    rng.shuffle(texts)
    texts += [text for text, _ in read_written_contexts()]
    for reply in read_written_replies():
        texts += [reply.prompt, reply.text]
    return [strip_emojis(text) for text in texts]


def read_turns(data: Path) -> list[str]:
    """Return what people say in conversations."""
    turns: list[str] = []
    for name in ("self_dialogue", "synthetic_persona_chat", "topical_chat", "casino"):
        for row in read_rows(data / "chat" / f"{name}.jsonl.gz"):
            turns.extend(row["turns"])
    return turns


def split_sentences(texts: list[str], most: int, rng: random.Random) -> list[str]:
    """Return different sentences of these texts, drawn at random."""
    found = [sentence.strip() for text in texts for sentence in re.split(r"(?<=[.!?])\s+|\n+", text)]
    found = [sentence for sentence in found if 3 <= len(sentence.split()) <= 40]
    rng.shuffle(found)
    return list(dict.fromkeys(found))[:most]


def train(sentences: list[str], teacher: Teacher) -> Floats:
    """Return a vector for each word piece."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    pieces = [
        np.array(row, dtype=np.int64)
        for row in teacher.tokenizer(sentences, add_special_tokens=False, truncation=True, max_length=LONGEST)[
            "input_ids"
        ]
    ]
    count = len(teacher.tokenizer)
    wanted = teacher.encode(sentences)
    directions = np.linalg.svd(wanted.T @ wanted)[0][:, :DIMENSIONS]
    targets = wanted @ directions
    targets /= np.linalg.norm(targets, axis=1, keepdims=True)
    seen = np.bincount(np.concatenate(pieces), minlength=count) + 0.5
    start = (teacher.encode_tokens(range(count)) @ directions) * (RARITY / (RARITY + seen / seen.sum()))[:, None]
    bag = torch.nn.EmbeddingBag(count, DIMENSIONS, mode="sum")
    bag.weight.data = torch.from_numpy((start / np.abs(start).mean() * 0.1).astype(np.float32))
    optimizer = torch.optim.Adam(bag.parameters(), lr=RATE)
    order = rng.permutation(len(pieces))
    held_out, rows = order[:HELD_OUT], order[HELD_OUT:]
    steps, step = EPOCHS * (len(rows) // BATCH), 0
    goals = torch.from_numpy(targets.astype(np.float32))
    for epoch in range(EPOCHS):
        rng.shuffle(rows)
        for first in range(0, len(rows) - BATCH + 1, BATCH):
            optimizer.param_groups[0]["lr"] = RATE * (1 - step / steps)
            step += 1
            batch = rows[first : first + BATCH]
            loss = _loss(bag, [pieces[row] for row in batch], goals[batch], rng)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        agreement = _agreement(bag.weight.data.numpy(), pieces, targets, held_out)
        print(
            f"{time.process_time():6.1f} s  epoch {epoch + 1}: cosine {agreement:.3f} on held-out sentences", flush=True
        )
    return bag.weight.data.numpy()


def _loss(
    bag: torch.nn.EmbeddingBag, pieces: list[NDArray[np.int64]], goals: torch.Tensor, rng: np.random.Generator
) -> torch.Tensor:
    flat = torch.from_numpy(np.concatenate(pieces))
    offsets = torch.from_numpy(np.cumsum([0, *(len(row) for row in pieces[:-1])]))
    kept = torch.from_numpy((rng.random(len(flat)) > DROPPED).astype(np.float32))
    vectors = torch.nn.functional.normalize(bag(flat, offsets, per_sample_weights=kept), dim=-1)
    own = (1 - (vectors * goals).sum(-1)).mean()
    between: torch.Tensor = ((vectors @ vectors.T - goals @ goals.T) ** 2).mean()
    return own + BETWEEN * between


def _agreement(vectors: Floats, pieces: list[NDArray[np.int64]], targets: Floats, rows: NDArray[Any]) -> float:
    found = []
    for row in rows:
        total = vectors[pieces[row]].sum(axis=0)
        found.append(float(total @ targets[row] / max(np.linalg.norm(total), 1e-9)))
    return float(np.mean(found))


def write(vectors: Floats, vocabulary: dict[str, int], path: Path) -> None:
    """Write the pieces of Latin script with their vectors, each in bytes with a scale of its own."""
    pieces = sorted(piece for piece in vocabulary if _SHIPPED_PIECE.fullmatch(piece))
    chosen = vectors[[vocabulary[piece] for piece in pieces]]
    largest = np.abs(chosen).max(axis=1)
    np.savez_compressed(
        path,
        pieces=np.frombuffer("\n".join(pieces).encode(), dtype=np.uint8),
        vectors=np.round(chosen / largest[:, None] * 127).astype(np.int8),
        scales=(largest / 127).astype(np.float16),
    )
    print(f"{len(pieces)} pieces, {path.stat().st_size / 1e6:.2f} MB: {path}")


def main() -> None:
    """Distil and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the folder that holds chat/ and emoji/")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    arguments = parser.parse_args()
    teacher = Teacher()
    vectors = train(read_sentences(arguments.data), teacher)
    write(vectors, teacher.tokenizer.get_vocab(), arguments.output)


if __name__ == "__main__":
    main()
