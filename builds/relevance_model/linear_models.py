"""Linear models over hashed words and word pairs: the emotions of a text."""

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sparse
from numpy.typing import NDArray
from sklearn.linear_model import SGDClassifier

from builds.relevance_model.sources import NEGATIVE, POSITIVE, Comment
from orpo.scoring.text_features import BUCKET_BITS, plain_text, word_buckets


@dataclass(frozen=True)
class LinearModel:
    """Weights in bytes with a scale per output, and the inverse document frequency of each bucket."""

    outputs: list[str]
    weights: NDArray[np.int8]  # [buckets, outputs]
    scale: NDArray[np.float32]
    bias: NDArray[np.float32]
    idf: list[NDArray[np.uint8]]  # one per kind of n-gram, in 1/16


def train_emotions(comments: list[Comment]) -> LinearModel:
    """Train one balanced logistic regression per emotion, then one each for positive and negative."""
    outputs = sorted({emotion for comment in comments for emotion in comment.emotions})
    matrix = counts([word_buckets(plain_text(comment.text)) for comment in comments], BUCKET_BITS)
    idf = inverse_frequency(matrix, least=2)
    features = weigh(matrix, idf)
    columns = [[output in comment.emotions for comment in comments] for output in outputs]
    columns.append([bool(POSITIVE & set(comment.emotions)) for comment in comments])
    columns.append([bool(NEGATIVE & set(comment.emotions)) for comment in comments])
    weights, biases = [], []
    for column in columns:
        model = SGDClassifier(
            loss="log_loss", alpha=3e-5, max_iter=6, tol=None, average=True, class_weight="balanced", random_state=0
        ).fit(features, column)
        weights.append(model.coef_[0])
        biases.append(model.intercept_[0])
    return _pack([*outputs, "positive", "negative"], np.array(weights), np.array(biases), [idf])


def counts(rows: list[NDArray[np.uint32]], bits: int) -> sparse.csr_matrix:
    indices = np.concatenate(rows)
    starts = np.cumsum([0, *(len(row) for row in rows)])
    return sparse.csr_matrix((np.ones(len(indices), dtype=np.float32), indices, starts), shape=(len(rows), 2**bits))


def inverse_frequency(matrix: sparse.csr_matrix, *, least: int) -> NDArray[np.uint8]:
    frequency = np.asarray(matrix.sum(axis=0)).ravel()
    idf = np.where(frequency >= least, np.log(matrix.shape[0] / np.maximum(frequency, 1)) + 1, 0)
    return np.clip(np.round(idf * 16), 0, 255).astype(np.uint8)


def weigh(matrix: sparse.csr_matrix, idf: NDArray[np.uint8]) -> sparse.csr_matrix:
    weighed = (matrix @ sparse.diags(idf.astype(np.float32))).tocsr()
    lengths = np.sqrt(np.asarray(weighed.multiply(weighed).sum(axis=1)).ravel())
    return (sparse.diags(1 / np.maximum(lengths, 1e-9)) @ weighed).tocsr().astype(np.float32)


def _pack(
    outputs: list[str], weights: NDArray[np.float64], bias: NDArray[np.float64], idf: list[NDArray[np.uint8]]
) -> LinearModel:
    largest = np.abs(weights).max(axis=1, keepdims=True)
    # A byte holds the signed square root: weights have long tails, and the few large ones carry the most meaning.
    quantised = np.round(np.sign(weights) * np.sqrt(np.abs(weights) / largest) * 127).astype(np.int8)
    scale = (largest[:, 0] / 127**2).astype(np.float32)
    return LinearModel(outputs, np.ascontiguousarray(quantised.T), scale, bias.astype(np.float32), idf)
