"""Texts as vectors: a static encoder distilled from the sentence encoder all-MiniLM-L6-v2.

A text's vector is the sum of its word pieces' vectors, scaled to length one; what a piece weighs is the length of its
vector. No layer is run, so a sentence costs some tens of microseconds. `builds/relevance_model/` trains the vectors.
"""

import re
import unicodedata
from functools import cache, lru_cache
from importlib import resources
from io import BytesIO
from itertools import chain

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

_WORD = re.compile(r"[a-z0-9]+|[!-/:-@\[-`{-~]")
_LONGEST_WORD = 40
_MOST_PIECES = 256  # of a long text; the rest hardly moves the mean


class StaticEncoder:
    """Word pieces with their vectors."""

    def __init__(self, pieces: list[str], vectors: NDArray[np.int8], scales: NDArray[np.floating]) -> None:
        """Take parallel pieces (`##ing` goes on a word), vectors in bytes, and the scale of each vector."""
        self.pieces = pieces
        self.index = {piece: number for number, piece in enumerate(pieces)}
        self._vectors = vectors
        self._scales: Array = scales.astype(np.float32)
        self._pieces_of = lru_cache(maxsize=20_000)(self._split)
        self.encode = lru_cache(maxsize=8192)(self._encode)

    @property
    def dimensions(self) -> int:
        """How many dimensions a vector has."""
        return int(self._vectors.shape[1])

    def vectors(self) -> Array:
        """Return the vector of every piece."""
        return np.asarray(self._scales[:, None] * self._vectors, dtype=np.float32)

    def tokens(self, text: str) -> list[int]:
        """Return the numbers of a text's word pieces, as BERT's lower-case tokenizer splits it.

        Words that the vocabulary cannot spell, and scripts other than Latin, are left out.
        """
        text = text.replace("’", "'").lower()
        if not text.isascii():
            text = unicodedata.normalize("NFD", text)
            text = text.translate({ord(c): None for c in set(text) if not c.isascii() and _is_mark(c)})
        return list(chain.from_iterable(map(self._pieces_of, _WORD.findall(text))))[:_MOST_PIECES]

    def _encode(self, text: str) -> Array:
        """Return a text's vector, of length one; zero where it has no known piece."""
        return self.unit(self.total(self.tokens(text)))

    def total(self, tokens: list[int]) -> Array:
        """Return the sum of these pieces' vectors."""
        if not tokens:
            return np.zeros(self.dimensions, dtype=np.float32)
        rows = np.array(tokens, dtype=np.intp)
        total: Array = self._scales.take(rows) @ self._vectors.take(rows, axis=0)
        return total

    @staticmethod
    def unit(vector: Array) -> Array:
        """Return the vector scaled to length one; zero stays zero."""
        length = np.sqrt(np.add.reduce(vector * vector))
        unit: Array = vector / max(length, np.float32(1e-9))
        return unit

    def _split(self, word: str) -> tuple[int, ...]:
        """Return the longest pieces that spell a word, from its start on; none where it cannot be spelt."""
        if len(word) > _LONGEST_WORD:
            return ()
        found: list[int] = []
        start = 0
        while start < len(word):
            end = len(word)
            while end > start:
                piece = word[start:end] if start == 0 else f"##{word[start:end]}"
                number = self.index.get(piece)
                if number is not None:
                    found.append(number)
                    break
                end -= 1
            if end == start:
                return ()
            start = end
        return tuple(found)


def _is_mark(character: str) -> bool:
    return unicodedata.category(character) == "Mn"


@cache
def static_encoder() -> StaticEncoder:
    """Load the shipped encoder, once."""
    packed = resources.files("orpo.scoring").joinpath("data/encoder.npz").read_bytes()
    with np.load(BytesIO(packed), allow_pickle=False) as archive:
        pieces = archive["pieces"].tobytes().decode().split("\n")
        return StaticEncoder(pieces, archive["vectors"], archive["scales"])
