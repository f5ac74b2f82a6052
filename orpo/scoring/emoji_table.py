"""Unicode's emojis: which sequences exist, since which emoji version, under which name.

The table is built by `builds/emoji_data/build.py` from Unicode's emoji-test.txt and read once, when first needed.
"""

import gzip
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib import resources

VS15 = "\ufe0e"
"""Asks for the text form of the character before it."""

VS16 = "\ufe0f"
"""Asks for the emoji form of the character before it."""

ZWJ = "\u200d"
KEYCAP = "\u20e3"
SKIN_TONES = "\U0001f3fb\U0001f3fc\U0001f3fd\U0001f3fe\U0001f3ff"

_WITHOUT_TONES = str.maketrans("", "", SKIN_TONES)


@dataclass(frozen=True, slots=True)
class Emoji:
    """One emoji of Unicode's list, in its fully-qualified form."""

    text: str
    version: float
    is_text_sign: bool
    """The bare character (without VS16) is a sign of running text, such as an arrow or the copyright sign."""
    name: str


@cache
def emoji_table() -> dict[str, Emoji]:
    """Return every emoji, keyed by its sequence without VS16, so that all qualified forms share one key."""
    packed = resources.files("orpo.scoring").joinpath("data/emojis.tsv.gz").read_bytes()
    table: dict[str, Emoji] = {}
    for line in gzip.decompress(packed).decode("utf-8").splitlines():
        sequence, version, bare, name = line.split("\t")
        table[sequence.replace(VS16, "")] = Emoji(sequence, float(version), bare == "text", name)
    return table


@lru_cache(maxsize=8192)  # there are fewer emojis, and each is asked for several times a reply
def normalise_emoji(emoji: str) -> str:
    """Return the key of an emoji's meaning: without VS16, skin tone or doubled joiners.

    `👍🏽` and `👍` share a key; so do `❤️` and `❤`.
    """
    return emoji.replace(VS16, "").translate(_WITHOUT_TONES)


def emoji_name(emoji: str) -> str:
    """Return Unicode's name of an emoji (`thumbs up: medium skin tone`), or `` where it is none."""
    entry = emoji_table().get(emoji.replace(VS16, ""))
    return entry.name if entry else ""
