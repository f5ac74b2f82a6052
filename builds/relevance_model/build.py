"""Build the relevance model that the package ships: `orpo/scoring/data/meaning.npz` and `lexicon.json.gz`.

    python -m builds.relevance_model.build --data ../shared/data

Takes about three minutes on one core. Needs scikit-learn and scipy beside the package. README.md in this folder says
what the data are and where they come from; docs/experiments.md says what else was tried.
"""

import argparse
import gzip
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from builds.relevance_model.linear_models import RATED_AS, LinearModel, train_emotions, train_tweets
from builds.relevance_model.sources import (
    EMOTIONS_RATED,
    Comment,
    read_comments,
    read_conversations,
    read_keywords,
    read_ratings,
    read_tweets,
    read_usual,
    usual_grade,
)
from builds.relevance_model.word_vectors import WordVectors, train_word_vectors
from orpo.scoring.meaning import MeaningModel, TextMeaning
from orpo.scoring.words import stem

OUTPUT = Path(__file__).resolve().parents[2] / "orpo" / "scoring" / "data"
COMMON_DIRECTIONS = 8
KEYWORD_RARITY = 1e-3
BACKGROUND_COMMENTS = 2000
NEIGHBOURS = 5

Arrays = dict[str, NDArray[Any]]


def build(
    data: Path, *, tweet_share: float = 1.0, words: int = 20_000, dimensions: int = 96
) -> tuple[Arrays, dict[str, Any]]:
    """Return the arrays and the lexicon of the model, trained on these data."""
    comments = read_comments(data)
    texts = read_conversations(data) + 3 * [comment.text for comment in comments]
    _say("word vectors")
    word_vectors = train_word_vectors(texts, words=words, dimensions=dimensions)
    arrays, lexicon = _lexicon(data, word_vectors, comments)
    _say("emotions")
    _add_emotions(arrays, train_emotions(comments))
    _say("tweets")
    tweets = read_tweets(data, "train")
    _add_tweets(arrays, lexicon, train_tweets(tweets[: int(len(tweets) * tweet_share)]))
    _say("emoji emotions and background")
    _add_emoji_emotions(arrays, lexicon, data)
    _add_background(arrays, lexicon, comments)
    return arrays, lexicon


def _lexicon(data: Path, word_vectors: WordVectors, comments: list[Comment]) -> tuple[Arrays, dict[str, Any]]:
    """Return word and emoji vectors and the keywords of each emoji, weighted by how few emojis share them."""
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
    quantised = np.round(word_vectors.vectors * 127 / np.abs(word_vectors.vectors).max()).astype(np.int8)
    arrays: Arrays = {
        "word_vectors": quantised,
        "word_log_probabilities": np.array(word_vectors.vocabulary.log_probabilities, dtype=np.float16),
    }
    grades = read_usual()
    lexicon = {
        "words": word_vectors.vocabulary.words,
        "emojis": emojis,
        "keywords": by_stem,
        "usual": [usual_grade(emoji, grades) for emoji in emojis],
    }
    _add_directions(arrays, lexicon, comments)
    vectors = quantised.astype(np.float32)
    probability = np.exp(np.array(word_vectors.vocabulary.log_probabilities))
    index = word_vectors.vocabulary.index
    emoji_vectors = np.zeros((len(emojis), vectors.shape[1]), dtype=np.float32)
    for number, emoji in enumerate(emojis):
        for word, count in keywords[emoji].items():
            if word in index:
                weight = KEYWORD_RARITY / (KEYWORD_RARITY + probability[index[word]])
                emoji_vectors[number] += rarity[word] * count * weight * vectors[index[word]]
        if emoji_vectors[number].any():
            emoji_vectors[number] = _centre(emoji_vectors[number], arrays)
    arrays["emoji_vectors"] = np.round(emoji_vectors * 127 / np.abs(emoji_vectors).max()).astype(np.int8)
    return arrays, lexicon


def _add_directions(arrays: Arrays, lexicon: dict[str, Any], comments: list[Comment]) -> None:
    """Add the mean text direction and the commonest directions around it."""
    from orpo.scoring.meaning import WORD_RARITY
    from orpo.scoring.words import Vocabulary

    vocabulary = Vocabulary(lexicon["words"], arrays["word_log_probabilities"].astype(np.float64))
    rarity = WORD_RARITY / (WORD_RARITY + np.exp(arrays["word_log_probabilities"].astype(np.float32)))
    rows = []
    for comment in comments[:5000]:
        numbers = [vocabulary.index[word] for word in vocabulary.tokens(comment.text) if word in vocabulary.index]
        if numbers:
            vector = rarity[numbers] @ arrays["word_vectors"][numbers].astype(np.float32)
            rows.append(vector / np.linalg.norm(vector))
    matrix = np.array(rows)
    mean = matrix.mean(axis=0)
    directions = np.linalg.svd(matrix - mean, full_matrices=False)[2][:COMMON_DIRECTIONS]
    arrays["mean_vector"] = mean.astype(np.float32)
    arrays["common_directions"] = directions.astype(np.float32)


def _centre(vector: NDArray[Any], arrays: Arrays) -> NDArray[Any]:
    centred = vector / np.linalg.norm(vector) - arrays["mean_vector"]
    centred = centred - (centred @ arrays["common_directions"].T) @ arrays["common_directions"]
    return centred / np.linalg.norm(centred)


def _add_emotions(arrays: Arrays, model: LinearModel) -> None:
    arrays["emotion_weights"] = model.weights
    arrays["emotion_scale"] = model.scale
    arrays["emotion_bias"] = model.bias
    arrays["emotion_idf"] = model.idf[0]
    arrays["emotion_names"] = np.array(model.outputs)
    arrays["emotion_to_rated"] = np.array(
        [[RATED_AS.get(name, {}).get(rated, 0.0) for rated in EMOTIONS_RATED] for name in model.outputs[:-2]],
        dtype=np.float32,
    )
    outputs = len(model.outputs)
    arrays["emotion_mean"] = np.zeros(outputs, dtype=np.float32)
    arrays["emotion_deviation"] = np.ones(outputs, dtype=np.float32)
    arrays["rated_mean"] = np.zeros(len(EMOTIONS_RATED), dtype=np.float32)
    arrays["rated_deviation"] = np.ones(len(EMOTIONS_RATED), dtype=np.float32)


def _add_tweets(arrays: Arrays, lexicon: dict[str, Any], model: LinearModel) -> None:
    arrays["tweet_weights"] = model.weights
    arrays["tweet_scale"] = model.scale
    arrays["tweet_bias"] = model.bias
    arrays["tweet_idf_words"], arrays["tweet_idf_characters"] = model.idf
    lexicon["tweet_emojis"] = model.outputs
    arrays["tweet_deviation"] = np.ones(1, dtype=np.float32)


def _add_emoji_emotions(arrays: Arrays, lexicon: dict[str, Any], data: Path) -> None:
    """Add each emoji's emotions by its keywords, and its human ratings or those of its nearest rated emojis."""
    emojis: list[str] = lexicon["emojis"]
    ratings = read_ratings(data)
    rated = [emoji in ratings for emoji in emojis]
    arrays["is_rated"] = np.array(rated)
    arrays["ratings"] = np.zeros((len(emojis), len(EMOTIONS_RATED)), dtype=np.float16)
    arrays["ratings_mean"] = np.mean(list(ratings.values()), axis=0).astype(np.float32)
    arrays["emoji_emotions"] = np.zeros((len(emojis), len(arrays["emotion_names"]) - 2), dtype=np.int8)
    count = len(emojis)
    arrays["tweet_neighbours"] = np.zeros((count, len(lexicon["tweet_emojis"])), dtype=np.int8)
    arrays["affinity_mean"] = np.zeros(count, dtype=np.float32)
    arrays["affinity_deviation"] = np.ones(count, dtype=np.float32)
    model = MeaningModel(arrays, lexicon)
    background = [model.text(comment.text) for comment in read_comments(data)[:BACKGROUND_COMMENTS]]
    _calibrate_emotions(arrays, background)
    model = MeaningModel(arrays, lexicon)  # its texts are now in standard deviations
    words = read_keywords(data)
    profiles = np.array(
        [np.mean([c * model.text(w).emotions for w, c in words[emoji].items()], axis=0) for emoji in emojis]
    )
    profiles -= profiles[[bool(flag) for flag in rated]].mean(axis=0)
    profiles /= np.linalg.norm(profiles, axis=1, keepdims=True) + 0.3  # a vague profile stays weak
    arrays["emoji_emotions"] = np.clip(np.round(profiles * 127), -127, 127).astype(np.int8)
    _spread_ratings(arrays, emojis, ratings, model)


def _calibrate_emotions(arrays: Arrays, background: list[TextMeaning]) -> None:
    """Set the means and deviations of the emotion scores over everyday comments."""
    logits = np.arctanh(np.clip([meaning.emotions for meaning in background], -0.999999, 0.999999)) * 1.5
    arrays["emotion_mean"][:-2] = logits.mean(axis=0)
    arrays["emotion_deviation"][:-2] = logits.std(axis=0)
    squashed = np.tanh((logits - arrays["emotion_mean"][:-2]) / arrays["emotion_deviation"][:-2] / 1.5)
    rated = squashed @ arrays["emotion_to_rated"]
    arrays["rated_mean"] = rated.mean(axis=0).astype(np.float32)
    arrays["rated_deviation"] = rated.std(axis=0).astype(np.float32)


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


def _add_background(arrays: Arrays, lexicon: dict[str, Any], comments: list[Comment]) -> None:
    """Set the mean and deviation of every emoji's scores over everyday comments, and who is near the tweets' emojis."""
    model = MeaningModel(arrays, lexicon)
    arrays["tweet_neighbours"] = _neighbours(model, lexicon["tweet_emojis"])
    texts = [model.text(comment.text) for comment in comments[:BACKGROUND_COMMENTS]]
    arrays["tweet_deviation"] = np.array([np.std([meaning.tweet_scores for meaning in texts])], dtype=np.float32)
    model = MeaningModel(arrays, lexicon)
    texts = [model.text(comment.text) for comment in comments[:BACKGROUND_COMMENTS]]
    numbers = range(len(lexicon["emojis"]))
    scores = np.array([[model.affinity(number, meaning) for number in numbers] for meaning in texts[::3]])
    arrays["affinity_mean"] = scores.mean(axis=0).astype(np.float32)
    arrays["affinity_deviation"] = np.maximum(scores.std(axis=0), np.median(scores.std(axis=0)) / 2).astype(np.float32)


def _neighbours(model: MeaningModel, tweet_emojis: list[str]) -> NDArray[np.int8]:
    """Return how much of the tweet model's knowledge each emoji inherits: all of its own, some of its kin's."""
    places = [model.index[emoji] for emoji in tweet_emojis]
    kinship = np.maximum(model.emoji_vectors @ model.emoji_vectors[places].T - 0.3, 0) ** 2
    share = np.minimum(4 * kinship.max(axis=1, keepdims=True), 1)
    kinship = share * kinship / np.maximum(kinship.sum(axis=1, keepdims=True), 1e-9)
    kinship[places] = np.eye(len(places))
    return np.round(kinship * 127).astype(np.int8)


def _say(stage: str) -> None:
    print(f"{time.process_time():6.1f} s  {stage}", flush=True)


def write(arrays: Arrays, lexicon: dict[str, Any], folder: Path) -> None:
    """Write both files."""
    np.savez_compressed(folder / "meaning.npz", **arrays)
    body = json.dumps(lexicon, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
    (folder / "lexicon.json.gz").write_bytes(gzip.compress(body, compresslevel=9, mtime=0))
    for name in ("meaning.npz", "lexicon.json.gz"):
        print(f"{(folder / name).stat().st_size / 1e6:.2f} MB  {name}")


def main() -> None:
    """Build and write the model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the folder that holds chat/ and emoji/")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    parser.add_argument("--tweet-share", type=float, default=1.0, help="train on this share of the tweets, to tune")
    arguments = parser.parse_args()
    arrays, lexicon = build(arguments.data, tweet_share=arguments.tweet_share)
    arguments.output.mkdir(parents=True, exist_ok=True)
    write(arrays, lexicon, arguments.output)


if __name__ == "__main__":
    main()
