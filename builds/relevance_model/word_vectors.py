"""Word vectors from word co-occurrence: positive pointwise mutual information, then a truncated SVD."""

from collections import Counter
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sparse
from numpy.typing import NDArray
from scipy.sparse.linalg import svds

from orpo.scoring.words import Vocabulary

WINDOW = 8
GAP = 10  # places between texts, so that no window crosses from one to the next
SMOOTHING = 0.75  # of context counts, as in Levy, Goldberg & Dagan 2015
SHIFT = 0.5


@dataclass(frozen=True)
class WordVectors:
    """A vocabulary and a unit vector per word."""

    vocabulary: Vocabulary
    vectors: NDArray[np.float32]  # [words, dimensions]


def train_word_vectors(texts: list[str], *, words: int, dimensions: int) -> WordVectors:
    """Learn vectors of the commonest words of these texts."""
    splitter = Vocabulary([], np.zeros(0))
    tokens = [splitter.tokens(text) for text in texts]
    counts = Counter(token for line in tokens for token in line)
    kept = [word for word, count in counts.most_common(words) if count >= 6]
    total = sum(counts.values())
    vocabulary = Vocabulary(kept, np.log(np.array([counts[word] for word in kept]) / total))
    positions: list[int] = []
    for line in tokens:
        positions.extend(vocabulary.index.get(token, -1) for token in line)
        positions.extend([-1] * GAP)
    information = _positive_information(_cooccurrence(np.array(positions, dtype=np.int32), len(kept)))
    left, singular, _ = svds(information, k=dimensions, random_state=0)
    vectors = left[:, ::-1] * np.sqrt(singular[::-1])
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True) + 1e-9
    return WordVectors(vocabulary, vectors.astype(np.float32))


def _cooccurrence(positions: NDArray[np.int32], words: int) -> sparse.csr_matrix:
    counts = sparse.csr_matrix((words, words), dtype=np.float32)
    for distance in range(1, WINDOW + 1):
        left, right = positions[:-distance], positions[distance:]
        both = (left >= 0) & (right >= 0)
        weights = np.full(int(both.sum()), distance**-0.5, dtype=np.float32)
        counts = counts + sparse.coo_matrix((weights, (left[both], right[both])), shape=(words, words)).tocsr()
    return (counts + counts.T).tocsr()


def _positive_information(counts: sparse.csr_matrix) -> sparse.csr_matrix:
    rows = np.asarray(counts.sum(axis=1)).ravel()
    contexts = np.asarray(counts.sum(axis=0)).ravel() ** SMOOTHING
    contexts /= contexts.sum()
    pairs = counts.tocoo()
    information = np.log(pairs.data / (rows[pairs.row] * contexts[pairs.col]))
    keep = information > SHIFT
    shape = counts.shape
    return sparse.coo_matrix((information[keep], (pairs.row[keep], pairs.col[keep])), shape=shape).tocsr()
