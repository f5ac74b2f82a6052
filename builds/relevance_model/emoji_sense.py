"""Tune the static encoder for what it is used for: telling which emojis fit a sentence, as the teacher would.

    uv run --group builds python -m builds.relevance_model.emoji_sense --data ../shared/data

Comes after `distil`. The teacher compares sentences with the name, the keywords and the notes on usage of every emoji;
word pieces and emojis are trained until the encoder ranks the emojis as the teacher does, sentence by sentence. Writes
`encoder.npz` anew, and `emoji_vectors.npz` beside this file, from which `build` takes the vectors of the emojis. About
seven minutes on one core, most of them the teacher's.
"""

import argparse
import random
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from builds.relevance_model.distil import OUTPUT, read_turns, split_sentences, write
from builds.relevance_model.sources import (
    read_comments,
    read_keywords,
    read_messages,
    read_rows,
    read_usage,
    read_usual,
    read_written_contexts,
    read_written_replies,
    usual_grade,
)
from builds.relevance_model.teacher import Teacher
from orpo.scoring import emoji_name, strip_emojis
from orpo.scoring.emoji_table import emoji_table
from orpo.scoring.encoder import StaticEncoder, static_encoder

VECTORS = Path(__file__).with_name("emoji_vectors.npz")
COMMENTS, TURNS, ANSWERS, MESSAGES = 30_000, 34_000, 24_000, 40_000
SENTENCES = 32_768  # of these, drawn at random
NAME_SHARE, KEYWORDS_SHARE, USAGE_SHARE = 1.0, 1.0, 1.2  # in the vector of an emoji
LEAST_USUAL = 1.0
BATCH, EPOCHS, RATE, DROPPED = 512, 6, 1e-3, 0.1
SHARPNESS = 1.5  # of the ranking that is learnt, per standard deviation of an emoji's likeness
BETWEEN = 2.0  # weight of the similarities between the sentences of a batch
HELD_OUT = 1500
LONGEST = 256  # pieces of a sentence

Floats = NDArray[np.float32]


def read_sentences(data: Path) -> list[str]:
    """Return sentences of comments, chat and written messages, names of emojis, and texts written for the contexts."""
    rng = random.Random(0)
    answers = [row["reply"] for row in read_rows(data / "chat" / "open_assistant_outputs.jsonl.gz")]
    messages = [text for message, _, _, reply in read_messages() for text in (message, reply)]
    texts = split_sentences([comment.text for comment in read_comments(data)], COMMENTS, rng)
    texts += split_sentences(read_turns(data), TURNS, rng) + split_sentences(answers, ANSWERS, rng)
    texts += split_sentences(messages, MESSAGES, rng)
    texts += sorted({emoji.name for emoji in emoji_table().values() if "skin tone" not in emoji.name})
    texts += [text for text, _ in read_written_contexts()]
    for reply in read_written_replies():
        texts += [reply.prompt, reply.text]
    texts = list(dict.fromkeys(strip_emojis(text) for text in texts))
    rng.shuffle(texts)
    return texts[:SENTENCES]


def describe(data: Path) -> dict[str, tuple[str, str, str]]:
    """Return the name, the keywords and the notes on usage of every emoji."""
    keywords, usage = read_keywords(data), read_usage()
    return {
        emoji: (emoji_name(emoji).removeprefix("flag: "), " ".join(keywords[emoji]), usage.get(emoji, ""))
        for emoji in sorted(keywords)
    }


def read_emoji_vectors() -> dict[str, Floats]:
    """Return the tuned vectors of the emojis that people use at all."""
    with np.load(VECTORS, allow_pickle=False) as archive:
        return dict(zip(archive["emojis"].tolist(), archive["vectors"].astype(np.float32), strict=True))


def mix(name: Floats, keywords: Floats, usage: Floats) -> Floats:
    """Return the vector of each emoji from those of its descriptions."""
    vectors = NAME_SHARE * name + KEYWORDS_SHARE * keywords + USAGE_SHARE * usage
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9), dtype=np.float32)


def standardised(likeness: torch.Tensor) -> torch.Tensor:
    """Return likenesses in standard deviations of each emoji's."""
    return (likeness - likeness.mean(0)) / likeness.std(0).clamp(min=1e-4)


@dataclass
class Batch:
    """Sentences as word pieces, with what the teacher makes of them."""

    pieces: list[NDArray[np.int64]]
    goals: torch.Tensor  # [sentences, emojis], how well each emoji fits, in standard deviations
    teacher: torch.Tensor  # [sentences, teacher's dimensions]

    def __getitem__(self, rows: NDArray[np.int64]) -> "Batch":
        """Return some of them."""
        return Batch([self.pieces[row] for row in rows], self.goals[rows], self.teacher[rows])


def losses(
    bag: torch.nn.EmbeddingBag, emojis: torch.Tensor, batch: Batch, kept: NDArray[np.bool_] | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return how far the ranking of the emojis is from the teacher's, and the likeness between the sentences."""
    flat = torch.from_numpy(np.concatenate(batch.pieces))
    offsets = torch.from_numpy(np.cumsum([0, *(len(row) for row in batch.pieces[:-1])]))
    shares = torch.ones(len(flat)) if kept is None else torch.from_numpy(kept[: len(flat)].astype(np.float32))
    sums = torch.nn.functional.normalize(bag(flat, offsets, per_sample_weights=shares), dim=-1)
    scores = standardised(sums @ torch.nn.functional.normalize(emojis, dim=-1).T)
    ranking = torch.nn.functional.log_softmax(SHARPNESS * scores, dim=-1)
    goal = torch.nn.functional.softmax(SHARPNESS * batch.goals, dim=-1)
    away = torch.nn.functional.kl_div(ranking, goal, reduction="batchmean")
    return away, ((sums @ sums.T - batch.teacher @ batch.teacher.T) ** 2).mean()


def tune(
    encoder: StaticEncoder, sentences: list[str], wanted: Floats, described: Floats, own: Floats
) -> tuple[Floats, Floats]:
    """Return tuned vectors of the word pieces and of the emojis.

    Args:
        encoder: Where the word pieces start.
        sentences: What to learn from.
        wanted: [sentences, teacher's dimensions], the teacher's vectors.
        described: [emojis, teacher's dimensions], the teacher's vectors of the emojis.
        own: [emojis, dimensions], where the emojis start.
    """
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    likeness = wanted @ described.T
    goals = (likeness - likeness.mean(axis=0)) / likeness.std(axis=0)
    pieces = [np.array(encoder.tokens(sentence), dtype=np.int64) for sentence in sentences]
    data = Batch(pieces, torch.from_numpy(goals), torch.from_numpy(wanted))
    rows = rng.permutation([number for number, row in enumerate(pieces) if len(row)])
    held_out, rows = data[rows[:HELD_OUT]], rows[HELD_OUT:]
    bag = torch.nn.EmbeddingBag(len(encoder.pieces), encoder.dimensions, mode="sum")
    bag.weight.data = torch.from_numpy(encoder.vectors())
    emojis = torch.nn.Parameter(torch.from_numpy(own))
    rate = RATE * float(bag.weight.detach().abs().mean()) / 0.1
    optimizer = torch.optim.Adam([bag.weight, emojis], lr=rate)
    step, steps = 0, EPOCHS * (len(rows) // BATCH)
    for epoch in range(EPOCHS):
        rng.shuffle(rows)
        for first in range(0, len(rows) - BATCH + 1, BATCH):
            optimizer.param_groups[0]["lr"] = rate * (1 - step / steps)
            step += 1
            kept = rng.random(BATCH * LONGEST) > DROPPED
            away, between = losses(bag, emojis, data[rows[first : first + BATCH]], kept)
            optimizer.zero_grad()
            (away + BETWEEN * between).backward()
            optimizer.step()
        with torch.no_grad():
            away, between = losses(bag, emojis, held_out)
        figures = f"divergence {away:.3f}, likeness {between:.4f}"
        print(f"{time.process_time():6.1f} s  epoch {epoch + 1}: {figures}", flush=True)
    return bag.weight.detach().numpy(), torch.nn.functional.normalize(emojis.detach(), dim=-1).numpy()


def main() -> None:
    """Tune and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the folder that holds chat/ and emoji/")
    arguments = parser.parse_args()
    teacher, encoder = Teacher(), static_encoder()
    sentences, grades = read_sentences(arguments.data), read_usual()
    described = {
        emoji: texts for emoji, texts in describe(arguments.data).items() if usual_grade(emoji, grades) >= LEAST_USUAL
    }
    columns = list(zip(*described.values(), strict=True))
    emojis = mix(*(teacher.encode(column) * np.array([[bool(text)] for text in column]) for column in columns))
    own = mix(*(np.array([encoder.encode(text) for text in column]) for column in columns))
    pieces, vectors = tune(encoder, sentences, teacher.encode(sentences), emojis, own)
    write(pieces, encoder.index, OUTPUT)
    np.savez_compressed(VECTORS, emojis=np.array(list(described)), vectors=vectors.astype(np.float16))


if __name__ == "__main__":
    main()
