"""Where each emoji of a reply stands: its sentence, its place, and whether in code or a link."""

import re
import sys
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from orpo.scoring.emoji_table import normalise_emoji
from orpo.scoring.finding import EmojiSpan, find_emojis
from orpo.scoring.screening import fragments, holds_any

_CODE = re.compile(r"```.*?(?:```|\Z)|~~~.*?(?:~~~|\Z)|``[^\n]+?``|`[^`\n]+`", re.DOTALL)
# A line that only code has: a definition, a block's head, a call or an assignment of a value in quotes or brackets
# (but "x = 5" is maths), a statement's end, a query, a tag, a lone bracket, a pair of JSON.
_CODE_LINE = r"""[ \t]*(?:
    (?:async[ ])?(?:def|class)[ ]\w+.*[:{]
  | (?:[a-z]+[ ]){0,3}(?:function|fn|func|void|int)[ ]\w+[ ]?\(.*
  | (?:from[ ][\w.]+[ ])?import[ ][\w.{}*, ]+;? | \#include[ ]?[<"].*
  | for[ ]\w+[ ]in[ ].+: | (?:if|while|elif)[ ].*[<>=!(].*: | (?:else|try):
  | (?:const|let|var)[ ]\w+[ ]?=.* | [a-z_][\w.]*[ ]?[-+]?=[ ]?(?:["'\[{]|[a-z_][\w.]*\().*
  | [a-z_][\w.]*\(.*\)[;:{]? | .*[)\]}"'];  | .*[)=>][ ]?\{
  | SELECT[ ].+[ ]FROM[ ].* | INSERT[ ]INTO[ ].* | <(?:!DOCTYPE|/?[a-z][a-z0-9]*[ />]).*
  | [{}()\[\]]+[,;]? | \{?[ ]?"[^"\n]*"[ ]?:[ ]?(?:["\d\[{]|true|false|null).* | \[[ ]?".*"[ ]?\],? | >>>[ ].*
)[ \t]*"""
# Its indented lines, comments and further lines of code belong to it.
_UNFENCED = re.compile(
    rf"^{_CODE_LINE}$(?:\n(?:{_CODE_LINE}|[ \t]{{2,}}(?![-*•]|\d+[.)]).*\S.*|[ \t]*(?:\#|//).*)$)*",
    re.MULTILINE | re.VERBOSE,
)
_OBJECT = re.compile(r'\{\s*"[^"\n]*"\s*:.*\}', re.DOTALL)
# A pattern is searched only where one of its fragments stands.
_CODE_AND_ITS_SIGNS = (
    (_CODE, fragments("`|~~~")),
    (_UNFENCED, fragments(":|{|}|(|)|[|]|;|<|=|>>>|import |#include|SELECT |INSERT ")),
    (_OBJECT, fragments("{")),
)
_LINK = re.compile(r"(?:https?://|www\.)\S+")
# A full stop inside a number or a name, "2.5" or "Node.js", ends no sentence.
_SENTENCE = re.compile(r"(?:[^.!?…\n]|[.!?…](?=\w))+(?:[.!?…]+[)\"'»”*_]*)?|[.!?…]+")
WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
_FIRST_WORD = _WORD_CHARACTER = re.compile(r"[\w'’]+")
_LAST_WORD = re.compile(r"[\w'’]+$")
_LIST_MARK = re.compile(r"[\s>]*(?:[-*+•]|\d{1,3}[.)])?[\s>*_#]*")
_CLOSING = " \t\r)]\"'»”*_~"
_CAPITAL = re.compile(r"[\"'“‘*_]*(?!I\b)[A-Z]")
_LONGEST_CLAUSE = 400
_LONGEST_READ = 1500

PLACE_VALUES = {
    "ends a line": 1.0,
    "ends a sentence": 1.0,
    "stands before punctuation": 0.95,
    "opens a line": 0.9,
    "stands for a full stop": 0.9,
    "follows a comma": 0.8,
    "stands between words": 0.5,
    "stands inside a word": 0.05,
}


@dataclass(frozen=True, slots=True)
class Occurrence:
    """One emoji of a reply in its surroundings; those in equal surroundings are equal, wherever they stand."""

    span: EmojiSpan = field(compare=False)
    key: str
    """The emoji without skin tone and VS16."""
    place: str
    """A key of PLACE_VALUES."""
    clause: str
    """The sentence it belongs to."""
    before: str
    """The sentence before that one; `` where there is none."""
    word_before: str
    """The word that touches it, with nothing but blanks between; `` after punctuation."""
    word_after: str
    in_code: bool
    in_link: bool


class Reply:
    """A reply taken apart once for all the parts of a score."""

    def __init__(self, text: str) -> None:
        """Find the emojis and blank them out, positions kept."""
        self.text = text
        self.spans = find_emojis(text)
        self.plain = _blank_out(text, self.spans)
        self._texts: dict[int, str] = {}

    @cached_property
    def word_count(self) -> int:
        """How many words the reply has beside its emojis; what is said twice counts once."""
        return len(WORD.findall("\n".join(self.distinct_sentences)))

    @cached_property
    def sentences(self) -> list[tuple[int, int]]:
        """Where the sentences that hold words start and end; a line break ends one."""
        matches = ((match.start(), match.end()) for match in _SENTENCE.finditer(self.plain))
        return [(start, end) for start, end in matches if WORD.search(self.plain, start, end)]

    @cached_property
    def code(self) -> list[tuple[int, int]]:
        """Code fences, code spans and code without either; an open fence reaches to the end."""
        plain = self.plain
        return [
            match.span()
            for pattern, signs in _CODE_AND_ITS_SIGNS
            if holds_any(plain, signs)
            for match in pattern.finditer(plain)
        ]

    @cached_property
    def _merged_code(self) -> list[tuple[int, int]]:
        merged: list[tuple[int, int]] = []
        for first, last in sorted(self.code):
            if merged and first <= merged[-1][1]:
                merged[-1] = (merged[-1][0], max(merged[-1][1], last))
            else:
                merged.append((first, last))
        return merged

    @cached_property
    def links(self) -> list[tuple[int, int]]:
        """Links, which may hold emojis that nobody reads as such."""
        if "http" not in self.text and "www." not in self.text:
            return []
        return [match.span() for match in _LINK.finditer(self.text)]

    @cached_property
    def occurrences(self) -> list[Occurrence]:
        """Every emoji in its surroundings."""
        return [occurrence for run in self._runs() for occurrence in self._describe(run)]

    @cached_property
    def distinct_sentences(self) -> list[str]:
        """The reply's sentences without emojis and list marks, each once."""
        sentences = [self._sentence(number) for number in range(len(self.sentences))]
        text = "\n".join(sentences)
        once = _said_once(text)
        if len(once) < len(text):
            sentences = [match[0].strip() for match in _SENTENCE.finditer(once) if WORD.search(match[0])]
        return list(dict.fromkeys(sentences))

    @cached_property
    def _first_time(self) -> dict[str, int]:
        """Where each sentence stands for the first time."""
        numbers = range(len(self.sentences) - 1, -1, -1)
        return {self._sentence(number): number for number in numbers}

    @cached_property
    def words(self) -> str:
        """The reply's distinct sentences, shortened to what is read of them."""
        return " ".join(self.distinct_sentences)[:_LONGEST_READ]

    @cached_property
    def keys(self) -> list[str]:
        """The key of each emoji, in order."""
        return [normalise_emoji(span.text) for span in self.spans]

    def _runs(self) -> Iterator[list[EmojiSpan]]:
        """Yield emojis that stand side by side, blanks between or not: they share one place."""
        run: list[EmojiSpan] = []
        for span in self.spans:
            if run and self.text[run[-1].end : span.start].strip(" \t\ufe0f\u200d"):
                yield run
                run = []
            run.append(span)
        if run:
            yield run

    def _describe(self, run: list[EmojiSpan]) -> Iterator[Occurrence]:
        start, end = run[0].start, run[-1].end
        place = self._place(start, end)
        clause, sentence_before = self._clause(start)
        before, after = self._touching_words(start, end)
        for span in run:
            yield Occurrence(
                span=span,
                key=normalise_emoji(span.text),
                place=place,
                clause=clause,
                before=sentence_before,
                word_before=before,
                word_after=after,
                in_code=_is_within(self._merged_code, span.start),
                in_link=_is_within(self.links, span.start),
            )

    def _place(self, start: int, end: int) -> str:
        plain = self.plain
        if start > 0 and plain[start - 1].isalnum() and plain[end : end + 1].isalnum():
            return "stands inside a word"
        line_end = plain.find("\n", end)
        rest = plain[end : min(line_end if line_end >= 0 else len(plain), end + _LONGEST_READ)].lstrip(_CLOSING)
        if not rest:
            return "ends a line"
        line_start = plain.rfind("\n", 0, start) + 1
        opening = plain[max(line_start, start - _LONGEST_READ) : start]
        if _LIST_MARK.fullmatch(opening):
            return "opens a line"
        last = opening.rstrip(_CLOSING)[-1:]
        if last in ".!?…:":
            return "ends a sentence"
        if rest[0] in ".!?…,;:":
            return "stands before punctuation"
        if last in ",;–—-(":
            return "follows a comma"
        return "stands for a full stop" if _CAPITAL.match(rest) else "stands between words"

    def _touching_words(self, start: int, end: int) -> tuple[str, str]:
        left = self.plain[max(0, start - 40) : start].rstrip(" \t")
        right = self.plain[end : end + 40].lstrip(" \t")
        before = _LAST_WORD.search(left) if _WORD_CHARACTER.match(left.removesuffix("\n")[-1:]) else None
        after = _FIRST_WORD.match(right)
        return (before[0].lower() if before else "", after[0].lower() if after else "")

    def _clause(self, start: int) -> tuple[str, str]:
        """Return the sentence an emoji stands in or follows, else the one it opens, and the sentence before it."""
        sentences = self.sentences
        if not sentences:
            return "", ""
        # The last sentence that begins before the emoji, or the one before where it has no word there yet.
        chosen = max(0, bisect_left(sentences, (start, 0)) - 1)
        if chosen and not WORD.search(self.plain, sentences[chosen][0], start):
            chosen -= 1
        last = sentences[chosen][1]
        opens_line = "\n" in self.plain[last:start] and chosen + 1 < len(sentences)
        if opens_line and not self.plain[self.plain.rfind("\n", 0, start) + 1 : start].strip(" \t>-*+•#_"):
            chosen += 1
        clause = self._sentence(chosen)
        first = self._first_time[clause]
        before = self._sentence(first - 1) if first else ""
        return clause[-_LONGEST_CLAUSE:], before[-_LONGEST_CLAUSE:]

    def _sentence(self, number: int) -> str:
        """Return a sentence without its emojis and list mark."""
        if number not in self._texts:
            first, last = self.sentences[number]
            mark = _LIST_MARK.match(self.plain, first, last)
            self._texts[number] = " ".join(self.plain[mark.end() if mark else first : last].split())
        return self._texts[number]


def _said_once(text: str) -> str:
    """Return a text, or what it says twice; the first time may lack a full stop, or end in dots that open the next."""
    said = WORD.findall(text)
    while (half := len(said) // 2) and said[:half] == said[half:]:
        starts = [word.start() for word in WORD.finditer(text)]
        first, second = text[: starts[half] - starts[0]], text[starts[half] :]
        text = second if first.rstrip().removesuffix("...") == f"{second.rstrip()} " else first
        said = said[:half]
    return text


def _is_within(spans: Sequence[tuple[int, int]], position: int) -> bool:
    """Tell whether a position lies in one of the spans, which are in order and apart."""
    number = bisect_right(spans, (position, sys.maxsize)) - 1
    return number >= 0 and position < spans[number][1]


def _blank_out(text: str, spans: list[EmojiSpan]) -> str:
    """Return the text with a blank for each character of an emoji."""
    if not spans:
        return text
    pieces: list[str] = []
    position = 0
    for span in spans:
        pieces.append(text[position : span.start])
        pieces.append(" " * (span.end - span.start))
        position = span.end
    pieces.append(text[position:])
    return "".join(pieces)
