"""The fast paths of the models agree with their plain twins."""

import zlib

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from orpo.scoring.meaning import _unit, _unit_vector
from orpo.scoring.text_features import _ASCII_TOKEN, _TOKEN, BUCKET_BITS, plain_text, word_buckets
from orpo.scoring.words import _OTHER_THAN_WORDS, Vocabulary

VECTORS = arrays(np.float32, st.integers(0, 500), elements=st.floats(-1e3, 1e3, width=32))


@given(vector=VECTORS)
def test_one_vector_gets_length_one_as_a_row_of_many_does(vector: np.ndarray) -> None:
    assert np.array_equal(_unit_vector(vector), _unit(vector))
    assert np.array_equal(_unit_vector(vector), _unit(vector[None])[0])


def test_a_word_alone_falls_into_the_bucket_of_its_checksum() -> None:
    mixed = (zlib.crc32("grüße".encode()) * 0x9E3779B97F4A7C15) % 2**64
    assert word_buckets("grüße").tolist() == [mixed >> (64 - BUCKET_BITS)]


@given(text=st.text(st.characters(max_codepoint=127), max_size=80))
def test_a_text_of_ascii_alone_comes_apart_as_any_other_does(text: str) -> None:
    plain = plain_text(text)
    assert [token.decode() for token in _ASCII_TOKEN.findall(plain.encode())] == _TOKEN.findall(plain)
    if not any(sign in text for sign in _OTHER_THAN_WORDS):
        words = Vocabulary([], np.zeros(0))
        assert words.tokens(text) == words.tokens(f"{text} @somebody"), "people are left out"
