"""Build the relevance model that the package ships: `orpo/scoring/data/meaning.npz` and `lexicon.json.gz`.

    python -m builds.relevance_model.build --data ../shared/data

Takes about one minute on one core. Needs scikit-learn and scipy beside the package. README.md in this folder says
what the data are and where they come from; docs/experiments.md says what else was tried.
"""

import argparse
import gzip
import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from builds.relevance_model.emoji_sense import describe, mix, read_emoji_vectors
from builds.relevance_model.linear_models import LinearModel, train_emotions
from builds.relevance_model.sources import (
    EMOTIONS_RATED,
    Comment,
    read_comments,
    read_conversations,
    read_felt,
    read_keywords,
    read_messages,
    read_ratings,
    read_usual,
    read_written_contexts,
    read_written_replies,
    usual_grade,
)
from orpo.scoring.encoder import static_encoder
from orpo.scoring.meaning import MeaningModel, TextMeaning
from orpo.scoring.words import Vocabulary, stem

OUTPUT = Path(__file__).resolve().parents[2] / "orpo" / "scoring" / "data"
BACKGROUND_TEXTS = 1500  # of comments and of messages each
NEIGHBOURS = 5
HAPPY = {"joy", "fun", "pride", "love", "gratitude", "hope", "surprise"}
UNHAPPY = {"sympathy", "sadness", "worry", "anger"}
GRAVE = {"grief", "crisis", "violence", "grave_illness"}
MOOD_RIDGE = 30.0

Arrays = dict[str, NDArray[Any]]


def build(data: Path, *, words: int = 20_000) -> tuple[Arrays, dict[str, Any]]:
    """Return the arrays and the lexicon of the model, trained on these data."""
    comments = read_comments(data)
    _say("vocabulary and lexicon")
    vocabulary = count_words(read_conversations(data) + 3 * [comment.text for comment in comments], words)
    arrays, lexicon = _lexicon(data, vocabulary)
    _add_senses(arrays, lexicon, data, vocabulary, comments)
    _say("emotions and mood")
    _add_emotions(arrays, train_emotions(comments))
    _add_mood(arrays)
    _say("emotions of emojis")
    _add_emoji_emotions(arrays, lexicon, data)
    return arrays, lexicon


def count_words(texts: list[str], words: int) -> Vocabulary:
    """Return the commonest words of these texts with their log probabilities."""
    splitter = Vocabulary([], np.zeros(0))
    counted = Counter(token for text in texts for token in splitter.tokens(text))
    kept = [word for word, count in counted.most_common(words) if count >= 6]
    return Vocabulary(kept, np.log(np.array([counted[word] for word in kept]) / sum(counted.values())))


def _lexicon(data: Path, vocabulary: Vocabulary) -> tuple[Arrays, dict[str, Any]]:
    """Return the keywords of each emoji, weighted by how few emojis share them, and how usual each emoji is."""
    keywords = read_keywords(data)
    emojis = sorted(keywords)
    shared: dict[str, int] = {}
    for entry in keywords.values():
        for word in entry:
            shared[word] = shared.get(word, 0) + 1
    rarity = {word: float(np.log(len(emojis) / count)) for word, count in shared.items()}
    by_stem: list[dict[str, float]] = []
    for emoji in emojis:
        stems: dict[str, float] = {}
        for word, count in keywords[emoji].items():
            stems[stem(word)] = round(max(stems.get(stem(word), 0.0), rarity[word] * min(count, 2.0)), 2)
        by_stem.append(stems)
    grades = read_usual()
    arrays: Arrays = {"word_log_probabilities": np.array(vocabulary.log_probabilities, dtype=np.float16)}
    return arrays, {
        "words": vocabulary.words,
        "emojis": emojis,
        "keywords": by_stem,
        "usual": [usual_grade(emoji, grades) for emoji in emojis],
    }


def _add_senses(
    arrays: Arrays, lexicon: dict[str, Any], data: Path, vocabulary: Vocabulary, comments: list[Comment]
) -> None:
    """Add the vector of each emoji, and the mean and deviation of its likeness to everyday texts."""
    encoder, tuned = static_encoder(), read_emoji_vectors()
    described = describe(data)
    columns = zip(*(described[emoji] for emoji in lexicon["emojis"]), strict=True)
    vectors = mix(*(np.array([encoder.encode(text) for text in column]) for column in columns))
    for number, emoji in enumerate(lexicon["emojis"]):
        vectors[number] = tuned.get(emoji, vectors[number])
    arrays["emoji_vectors"] = np.round(vectors * 127 / np.abs(vectors).max()).astype(np.int8)
    texts = [comment.text for comment in comments[:BACKGROUND_TEXTS]]
    texts += [message for message, _, _, _ in read_messages()[:BACKGROUND_TEXTS]]
    likeness = np.array([encoder.encode(" ".join(vocabulary.tokens(text))) for text in texts]) @ vectors.T
    arrays["sense_mean"] = likeness.mean(axis=0).astype(np.float16)
    arrays["sense_deviation"] = likeness.std(axis=0).astype(np.float16)


def _add_mood(arrays: Arrays) -> None:
    """Add a direction that tells happy from unhappy exchanges (ridge regression on the moods of written messages)."""
    encoder = static_encoder()
    vectors, moods = [], []
    for message, _, mood, reply in read_messages():
        target = 1.0 if mood in HAPPY else -1.0 if mood in UNHAPPY else 0.0
        vectors += [encoder.encode(message), encoder.encode(reply)]
        moods += [target, target]
    for text, label in [*read_written_contexts(), *((reply.text, reply.label) for reply in read_written_replies())]:
        if label in GRAVE:
            vectors.append(encoder.encode(text))
            moods.append(-1.0)
    matrix, wanted = np.array(vectors), np.array(moods)
    bias = wanted.mean()
    square = matrix.T @ matrix + MOOD_RIDGE * np.eye(matrix.shape[1])
    arrays["mood_weights"] = np.linalg.solve(square, matrix.T @ (wanted - bias)).astype(np.float32)
    arrays["mood_bias"] = np.array([bias], dtype=np.float32)


def _add_emotions(arrays: Arrays, model: LinearModel) -> None:
    arrays["emotion_weights"] = model.weights
    arrays["emotion_scale"] = model.scale
    arrays["emotion_bias"] = model.bias
    arrays["emotion_idf"] = model.idf[0]
    arrays["emotion_names"] = np.array(model.outputs)
    outputs = len(model.outputs)
    arrays["emotion_mean"] = np.zeros(outputs, dtype=np.float32)
    arrays["emotion_deviation"] = np.ones(outputs, dtype=np.float32)


def _add_emoji_emotions(arrays: Arrays, lexicon: dict[str, Any], data: Path) -> None:
    """Add each emoji's emotions, from `felt.tsv` or by its keywords, and its human ratings or its nearest's."""
    emojis: list[str] = lexicon["emojis"]
    ratings = read_ratings(data)
    rated = [emoji in ratings for emoji in emojis]
    arrays["is_rated"] = np.array(rated)
    arrays["ratings"] = np.zeros((len(emojis), len(EMOTIONS_RATED)), dtype=np.float16)
    arrays["ratings_mean"] = np.mean(list(ratings.values()), axis=0).astype(np.float32)
    arrays["emoji_emotions"] = np.zeros((len(emojis), len(arrays["emotion_names"]) - 2), dtype=np.int8)
    model = MeaningModel(arrays, lexicon)
    background = [model.text(comment.text) for comment in read_comments(data)[:BACKGROUND_TEXTS]]
    _calibrate_emotions(arrays, background)
    model = MeaningModel(arrays, lexicon)  # its texts are now in standard deviations
    words = read_keywords(data)
    profiles = np.array(
        [np.mean([c * model.text(w).emotions for w, c in words[emoji].items()], axis=0) for emoji in emojis]
    )
    profiles -= profiles[[bool(flag) for flag in rated]].mean(axis=0)
    profiles /= np.linalg.norm(profiles, axis=1, keepdims=True) + 0.3  # a vague profile stays weak
    _set_felt(profiles, emojis, list(arrays["emotion_names"][:-2]))
    arrays["emoji_emotions"] = np.clip(np.round(profiles * 127), -127, 127).astype(np.int8)
    _spread_ratings(arrays, emojis, ratings, model)


def _set_felt(profiles: NDArray[np.floating], emojis: list[str], names: list[str]) -> None:
    """Put what people use an emoji for, where it is written down, in place of what its keywords say."""
    felt = {emoji: entry for emoji, entry in read_felt().items() if emoji in emojis}
    rows = np.array([[entry.get(name, 0.0) for name in names] for entry in felt.values()])
    rows -= rows.mean(axis=0)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    profiles[[emojis.index(emoji) for emoji in felt]] = rows


def _calibrate_emotions(arrays: Arrays, background: list[TextMeaning]) -> None:
    """Set the means and deviations of the emotion scores over everyday comments."""
    logits = np.arctanh(np.clip([meaning.emotions for meaning in background], -0.999999, 0.999999)) * 1.5
    arrays["emotion_mean"][:-2] = logits.mean(axis=0)
    arrays["emotion_deviation"][:-2] = logits.std(axis=0)


def _spread_ratings(arrays: Arrays, emojis: list[str], ratings: dict[str, list[float]], model: MeaningModel) -> None:
    """Give an unrated emoji the ratings of its nearest rated ones, weaker the further they are."""
    places = [number for number, emoji in enumerate(emojis) if emoji in ratings]
    known = np.array([ratings[emojis[number]] for number in places])
    similarity = model.emoji_vectors @ model.emoji_vectors[places].T
    for number, emoji in enumerate(emojis):
        if emoji in ratings:
            arrays["ratings"][number] = ratings[emoji]
            continue
        nearest = np.argsort(-similarity[number])[:NEIGHBOURS]
        weights = np.maximum(similarity[number][nearest], 0.0) ** 2
        if weights.max(initial=0.0) > 0.0:
            estimate = weights @ known[nearest] / weights.sum()
            arrays["ratings"][number] = estimate * min(1.0, 1.5 * float(similarity[number][nearest[0]]))


def _say(stage: str) -> None:
    print(f"{time.process_time():6.1f} s  {stage}", flush=True)


def write(arrays: Arrays, lexicon: dict[str, Any], folder: Path) -> None:
    """Write both files."""
    np.savez_compressed(folder / "meaning.npz", **arrays)  # type: ignore[arg-type]  # its stub takes any for a flag
    body = json.dumps(lexicon, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
    (folder / "lexicon.json.gz").write_bytes(gzip.compress(body, compresslevel=9, mtime=0))
    for name in ("meaning.npz", "lexicon.json.gz"):
        print(f"{(folder / name).stat().st_size / 1e6:.2f} MB  {name}")


def main() -> None:
    """Build and write the model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the folder that holds chat/ and emoji/")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    arguments = parser.parse_args()
    arrays, lexicon = build(arguments.data)
    arguments.output.mkdir(parents=True, exist_ok=True)
    write(arrays, lexicon, arguments.output)


if __name__ == "__main__":
    main()
