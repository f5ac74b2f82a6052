"""A sentence-embedding model as a judge of relevance, to compare the shipped model with.

    uv run benchmarks/score_validity.py --embedding-model FOLDER

FOLDER is a BERT-like encoder in transformers' format, such as sentence-transformers/all-MiniLM-L6-v2 (90 MB): the mean
of its last hidden states, normalised, is a sentence's vector.
"""

import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from builds.relevance_model.sources import read_keywords, read_tweets
from orpo.scoring import emoji_name
from orpo.scoring.meaning import MeaningModel

TWEETS = 8_000
Vectors = np.ndarray[Any, np.dtype[np.float32]]


class SentenceEmbeddings:
    """Vectors of texts, each computed once."""

    def __init__(self, folder: Path) -> None:
        """Load encoder and tokenizer from a folder."""
        from transformers import AutoModel, AutoTokenizer

        self._tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        self._model = AutoModel.from_pretrained(folder, local_files_only=True, use_safetensors=True).eval()
        self._known: dict[str, Vectors] = {}

    @torch.no_grad()
    def encode(self, texts: Sequence[str], batch_size: int = 64) -> Vectors:
        """Return (len(texts), size) vectors of length 1."""
        new = sorted(dict.fromkeys(text for text in texts if text not in self._known), key=len)
        for start in range(0, len(new), batch_size):
            batch = new[start : start + batch_size]
            tokens = self._tokenizer(batch, padding=True, truncation=True, max_length=128, return_tensors="pt")
            hidden = self._model(**tokens).last_hidden_state  # (B, T, size)
            mask = tokens["attention_mask"][..., None].float()
            vectors = torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=1)
            self._known.update(zip(batch, vectors.numpy(), strict=True))
        return np.stack([self._known[text] for text in texts])


def embedding_judges(folder: Path, model: MeaningModel, data: Path) -> dict[str, Callable[[int, Any, str], float]]:
    """Return two judges: emojis by their names and keywords, and those with the centroids of train tweets added."""
    encoder = SentenceEmbeddings(folder)
    keywords = read_keywords(data)
    by_name = encoder.encode([f"{emoji_name(e)}: {', '.join(sorted(keywords[e])[:12])}" for e in model.emojis])
    tweets = random.Random(0).sample(read_tweets(data, "train"), TWEETS)
    groups: dict[str, list[str]] = defaultdict(list)
    for tweet in tweets:
        groups[tweet.emoji].append(tweet.text)
    with_tweets = by_name.copy()
    mean = encoder.encode([tweet.text for tweet in tweets]).mean(0)
    for emoji, texts in groups.items():
        with_tweets[model.index[emoji]] = 4 * (encoder.encode(texts).mean(0) - mean)
    encoder.encode([tweet.text for tweet in read_tweets(data, "val")])
    return {
        "sentence embedding, names and keywords": lambda number, _, text: float(
            by_name[number] @ encoder.encode([text])[0]
        ),
        "sentence embedding, centroids of tweets": lambda number, _, text: float(
            with_tweets[number] @ encoder.encode([text])[0]
        ),
    }
