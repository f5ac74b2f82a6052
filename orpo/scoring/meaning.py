"""What a text means, in the terms that emojis are judged by: words, sense and emotions.

Everything here is numpy over `data/`, which `builds/relevance_model/` makes. Two sources judge how well an emoji fits:

- the lexicon: keywords of CLDR and emojilib with notes on usage, matched by stem, and the sense of the text against
  that of these words, as the static encoder sees both. It knows every emoji.
- the emotions that people saw in comments, against those that an emoji is used for and was rated by.
"""

import gzip
import json
import math
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from importlib import resources
from io import BytesIO

import numpy as np
from numpy.typing import NDArray

from orpo.scoring.emoji_table import emoji_name, normalise_emoji
from orpo.scoring.encoder import static_encoder
from orpo.scoring.text_features import text_buckets
from orpo.scoring.words import Vocabulary, stem

# Fitted by builds/relevance_model/mixing.py on replies written for this project.
SENSE_WEIGHT = 0.55
KEYWORD_WEIGHT = 0.15
EMOTION_WEIGHT = 0.8
MOST_KEYWORDS = 12.0  # beyond, more keywords say nothing new

_TINY = np.float32(1e-9)
_USUAL = 3.0

Array = NDArray[np.float32]
ByStem = dict[str, tuple[NDArray[np.intp], Array]]
"""For each keyword the emojis that have it, with its weight in each."""


@dataclass(frozen=True)
class Feeling:
    """What people are likely to feel in one text."""

    positive: float  # probability that people would call it positive
    negative: float


@dataclass(frozen=True)
class Sense:
    """What a text is about."""

    vector: Array  # [dimensions], unit length or zero
    stems: frozenset[str]
    mood: float  # from -1, sad or worried, to 1, happy


@dataclass(frozen=True)
class TextMeaning(Feeling):
    """What the models see in one text."""

    emotions: Array  # [emotions], in standard deviations from everyday comments, squashed to (-1, 1)
    sense: Sense


class MeaningModel:
    """The shipped model."""

    def __init__(self, arrays: dict[str, NDArray[np.number]], lexicon: dict[str, object]) -> None:
        """Take what the recipe made: arrays, and the lexicon's words, emojis and keywords."""
        self._arrays = _as_floats(arrays)
        words, emojis, keywords = lexicon["words"], lexicon["emojis"], lexicon["keywords"]
        assert isinstance(words, list) and isinstance(emojis, list) and isinstance(keywords, list)
        self.vocabulary = Vocabulary(words, arrays["word_log_probabilities"].astype(np.float64))
        self.emojis: list[str] = emojis
        self.index = {emoji: number for number, emoji in enumerate(emojis)}
        self.keywords: list[dict[str, float]] = keywords
        self.emoji_vectors = _unit(arrays["emoji_vectors"].astype(np.float32))
        self.emoji_emotions = arrays["emoji_emotions"].astype(np.float32) / 127.0
        self.ratings: Array = arrays["ratings"].astype(np.float32)
        self.is_rated = arrays["is_rated"].astype(bool)
        self.usualness: Array = np.array(lexicon["usual"]).astype(np.float32)
        count = len(arrays["emotion_mean"]) - 2  # the last two are positive and negative, read as probabilities
        self._emotion_mean: Array = self._arrays["emotion_mean"][:count]
        self._emotion_deviation: Array = self._arrays["emotion_deviation"][:count]
        self._sense_mean: Array = arrays["sense_mean"].astype(np.float32)
        self._sense_scale: Array = np.asarray(SENSE_WEIGHT / arrays["sense_deviation"].astype(np.float32))
        # One number of a list is had in a third of the time of one of an array.
        self._sense_means: list[float] = self._sense_mean.tolist()
        self._sense_scales: list[float] = self._sense_scale.tolist()
        self._mood_bias = float(self._arrays["mood_bias"][0])
        self.text = lru_cache(maxsize=4096)(self._text)
        self.feeling = lru_cache(maxsize=4096)(self._feeling)
        self.sense = lru_cache(maxsize=4096)(self._sense)

    @cached_property
    def _by_stem(self) -> ByStem:
        return _inverted(self.keywords)

    @cached_property
    def _topical(self) -> tuple[Array, Array, Array, ByStem]:
        """Scales, means and vectors of usual emojis that say more than a mood, and who has which keyword among them."""
        usual = np.flatnonzero(self.usualness >= _USUAL)
        rows = np.array([row for row in usual if "face" not in emoji_name(self.emojis[row]).split()], dtype=np.intp)
        by_stem = _inverted([self.keywords[row] for row in rows])
        return self._sense_scale[rows], self._sense_mean[rows], self.emoji_vectors[rows], by_stem

    def number(self, emoji: str) -> int | None:
        """Return the row of an emoji, or None for one that the lexicon lacks."""
        return self.index.get(normalise_emoji(emoji))

    def names(self, number: int, word: str) -> bool:
        """Return whether a word is a keyword of an emoji."""
        return stem(word.lower()) in self.keywords[number]

    def sense_score(self, number: int, sense: Sense) -> float:
        """Return how well an emoji fits what a text is about: 0 as well as any text, more where it fits better."""
        return self._sense_scales[number] * (
            float(self.emoji_vectors[number] @ sense.vector) - self._sense_means[number]
        )

    def topic_score(self, number: int, sense: Sense) -> float:
        """Return `sense_score` and what the emoji's keywords in the text add to it."""
        return self.sense_score(number, sense) + self.keyword_score(number, sense)

    def keyword_score(self, number: int, sense: Sense) -> float:
        """Return what the emoji's keywords in a text say for it."""
        keywords = self.keywords[number]
        if sense.stems.isdisjoint(keywords):
            return 0.0
        return KEYWORD_WEIGHT * min(MOST_KEYWORDS, sum(keywords[word] for word in sense.stems & keywords.keys()))

    def lexical_score(self, number: int, meaning: TextMeaning) -> float:
        """Return how well an emoji fits by words, sense and emotions; 0 or less where it does not."""
        return self.topic_score(number, meaning.sense) + EMOTION_WEIGHT * self.emotion_score(number, meaning)

    def emotion_score(self, number: int, meaning: TextMeaning) -> float:
        """Return how far what an emoji is used to express goes along with what people see in a text; 0 if neither."""
        return float(self.emoji_emotions[number] @ meaning.emotions)

    def sense_scores(self, sense: Sense) -> Array:
        """Return what `sense_score` says of every emoji at once."""
        by_sense = self._sense_scale * (self.emoji_vectors @ sense.vector - self._sense_mean)
        return np.asarray(by_sense, dtype=np.float32)

    def topic_scores(self, sense: Sense) -> Array:
        """Return what `topic_score` says of every emoji at once."""
        by_keyword = self._keyword_scores(sense, self._by_stem, len(self.emojis))
        return np.asarray(self.sense_scores(sense) + by_keyword, dtype=np.float32)

    @staticmethod
    def _keyword_scores(sense: Sense, by_stem: ByStem, count: int) -> Array:
        keywords = np.zeros(count, dtype=np.float32)
        for word in sorted(sense.stems & by_stem.keys()):  # sorted, so that the sums are always the same
            numbers, weights = by_stem[word]
            keywords[numbers] += weights
        return np.asarray(KEYWORD_WEIGHT * np.minimum(MOST_KEYWORDS, keywords), dtype=np.float32)

    def best_topic_score(self, sense: Sense) -> float:
        """Return the `topic_score` of the usual emoji, no face, that fits a text's topic best."""
        scales, means, vectors, by_stem = self._topical
        by_sense = scales * (vectors @ sense.vector - means)
        return float((by_sense + self._keyword_scores(sense, by_stem, len(scales))).max())

    def _text(self, text: str) -> TextMeaning:
        logits = self._emotion_logits(text)
        standard = (logits[: len(self._emotion_mean)] - self._emotion_mean) / self._emotion_deviation
        return TextMeaning(*_probabilities(logits), np.tanh(standard / 1.5), self.sense(text))

    def _sense(self, text: str) -> Sense:
        tokens = self.vocabulary.tokens(text)
        vector = static_encoder().encode(" ".join(tokens) if "#" in text else text)  # hashtags as words
        mood = float(vector @ self._arrays["mood_weights"]) + self._mood_bias
        return Sense(vector, frozenset(map(stem, tokens)), max(-1.0, min(1.0, mood)))

    def _feeling(self, text: str) -> Feeling:
        return Feeling(*_probabilities(self._emotion_logits(text)))

    def _emotion_logits(self, text: str) -> Array:
        a = self._arrays
        buckets = text_buckets(text)
        weights = _unit_vector(a["emotion_idf"].take(buckets))
        logits: Array = (weights @ a["emotion_weights"].take(buckets, axis=0)) * a["emotion_scale"] + a["emotion_bias"]
        return logits


def _probabilities(logits: Array) -> tuple[float, float]:
    """Return the probabilities of positive and negative, which come last."""
    positive, negative = (1.0 / (1.0 + math.exp(-max(-30.0, min(30.0, x)))) for x in logits[-2:].tolist())
    return positive, negative


def _inverted(keywords: list[dict[str, float]]) -> ByStem:
    """Return for each keyword the emojis that have it, with its weight in each."""
    rows: dict[str, tuple[list[int], list[float]]] = {}
    for number, entry in enumerate(keywords):
        for word, weight in entry.items():
            numbers, weights = rows.setdefault(word, ([], []))
            numbers.append(number)
            weights.append(weight)
    return {word: (np.array(n, dtype=np.intp), np.array(w, dtype=np.float32)) for word, (n, w) in rows.items()}


def _unit(vectors: Array) -> Array:
    """Return vectors of length one; a zero vector stays zero."""
    length = np.sqrt((vectors * vectors).sum(axis=-1, keepdims=True))
    units: Array = vectors / np.maximum(length, 1e-9)
    return units


def _unit_vector(vector: Array) -> Array:
    """Return what `_unit` returns for one vector, to the last bit, in half the time."""
    length = np.sqrt(np.add.reduce(vector * vector))
    unit: Array = vector / max(length, _TINY)
    return unit


def _as_floats(arrays: dict[str, NDArray[np.number]]) -> dict[str, Array]:
    """Return the arrays of numbers ready for use; weights come as bytes that hold their signed square roots.

    Rows lie in one piece, as texts pick rows: `take` gets them three times as fast as an index in brackets does.
    """
    ready = {name: array.astype(np.float32, order="C") for name, array in arrays.items() if array.dtype.kind in "iuf"}
    ready["emotion_weights"] = ready["emotion_weights"] * np.abs(ready["emotion_weights"])
    return ready


@cache
def meaning_model() -> MeaningModel:
    """Load the shipped model, once."""
    folder = resources.files("orpo.scoring").joinpath("data")
    packed = BytesIO(folder.joinpath("meaning.npz").read_bytes())
    with np.load(packed, allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files}
    lexicon = json.loads(gzip.decompress(folder.joinpath("lexicon.json.gz").read_bytes()))
    return MeaningModel(arrays, lexicon)
