"""Text as hashed words and word pairs, the input of the small models that ship with the package.

The same code makes the features in training and in scoring. All of it is numpy over arrays of code points, so that a
clause costs some tens of microseconds.
"""

import re
import zlib
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

BUCKET_BITS = 15
Buckets = NDArray[np.uint32]

_TOKEN = re.compile(r"[#@]?\w[\w']*|[^\w\s]")
_ASCII_TOKEN = re.compile(_TOKEN.pattern.encode())  # the same for ASCII, whose bytes are hashed as they stand
_LINK = re.compile(r"https?://\S+|www\.\S+")
_MENTION = re.compile(r"@\w+")
HUMP = re.compile(r"(?<=[a-z])(?=[A-Z])")
_HASHTAG = re.compile(r"#(\w+)")
_MIX = np.uint64(0x9E3779B97F4A7C15)
_STEP = np.uint64(0x100000001B3)
_SHIFT = np.uint64(64 - BUCKET_BITS)


def plain_text(text: str) -> str:
    """Return lower-case text with links left out, people as `@user`, and hashtags also written as words."""
    if "http" in text or "www." in text:
        text = _LINK.sub(" ", text)
    if "@" in text:
        text = _MENTION.sub("@user", text)
    if "#" in text:
        text = _HASHTAG.sub(lambda tag: f"{tag[0]} {HUMP.sub(' ', tag[1])}", text)
    return " ".join(text.split()).lower().replace("\u2019", "'")


@lru_cache(maxsize=8192)
def text_buckets(text: str) -> Buckets:
    """Return the `word_buckets` of a text as it was written; remembered, as several models ask for them."""
    return word_buckets(plain_text(text))


def word_buckets(plain: str) -> Buckets:
    """Return the buckets of words and word pairs, each once, in rising order."""
    if plain.isascii():
        tokens = _ASCII_TOKEN.findall(plain.encode())
    else:
        tokens = [token.encode("utf-8", "replace") for token in _TOKEN.findall(plain)]
    if not tokens:
        return np.zeros(0, dtype=np.uint32)
    single = np.fromiter(map(zlib.crc32, tokens), dtype=np.uint64, count=len(tokens))
    pairs = single[:-1] * _STEP + single[1:]
    buckets = ((np.concatenate([single, pairs]) * _MIX) >> _SHIFT).astype(np.uint32)
    buckets.sort()  # faster than np.unique on so few, and the order of the sums to come is always the same
    first = np.empty(len(buckets), dtype=bool)
    first[0] = True
    np.not_equal(buckets[1:], buckets[:-1], out=first[1:])
    return buckets[first]
