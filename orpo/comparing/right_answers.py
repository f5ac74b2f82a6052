"""Whether a reply to a short question holds an accepted answer."""

import re
import unicodedata
from collections.abc import Sequence

from orpo.scoring import strip_emojis

_THOUSANDS = re.compile(r"(?<=\d)[,\u202f\u00a0](?=\d{3}(?!\d))")


def is_right(reply: str, accepted: Sequence[str]) -> bool:
    """Return whether one of the accepted answers stands in the reply as whole words, whatever the case or accents.

    `7` is not found in `17` or `7.5`, but in `7.`; thousands may be grouped.
    """
    said = _plain(strip_emojis(reply))
    return any(re.search(_whole(_plain(answer)), said) for answer in accepted)


def _whole(answer: str) -> str:
    after = r"(?!\w|[.,]\d)"
    before = r"(?<!\w)(?<!\d[.,])(?<!-)" if answer[:1].isdigit() else r"(?<!\w)"
    return before + re.escape(answer) + after


def _plain(text: str) -> str:
    letters = unicodedata.normalize("NFKD", text.casefold())
    bare = "".join(letter for letter in letters if not unicodedata.combining(letter))
    return " ".join(_THOUSANDS.sub("", bare).split())
