"""Where in a text an emoji may stand: behind its sentences, outside of code."""

import re

from orpo.scoring.surroundings import WORD, Reply

_MOST_SENTENCES = 12  # of a long text only the last ones are looked at
_ABBREVIATION = re.compile(r"(?:\b(?:e\.g|i\.e|etc|vs|mr|mrs|ms|dr|st|no|prof|approx)|\b[A-Z])\.$", re.IGNORECASE)
_END = re.compile(r"[.!?…]+[)\]\"'»”’*_]*(?=\s|$)|(?<=[^\s.!?…])[ \t]*(?=\n|$)")


def sentence_ends(reply: Reply) -> list[tuple[int, int]]:
    """Return where the sentences start and end after which an emoji may stand: prose with words, no code, no links.

    The end lies behind the closing marks and quotes. A sentence that an emoji follows already is left out.
    """
    found: list[tuple[int, int]] = []
    start = 0
    for match in _END.finditer(reply.plain):
        before, end = reply.plain[start : match.end()], match.end()
        if match[0].startswith(".") and _ABBREVIATION.search(before) and reply.plain[end : end + 1] not in ("", "\n"):
            continue
        sentence = (start, start + len(before.rstrip()))
        start = end
        if WORD.search(before) and not _in_code(reply, *sentence) and not _is_followed(reply, end):
            found.append(sentence)
    return found[-_MOST_SENTENCES:]


def _in_code(reply: Reply, start: int, end: int) -> bool:
    return any(first < end and start < last and last >= end for first, last in reply.code)


def _is_followed(reply: Reply, end: int) -> bool:
    rest = reply.plain[end:]
    blanks = len(rest) - len(rest.lstrip(" \t"))
    return any(end <= span.start <= end + blanks for span in reply.spans)
