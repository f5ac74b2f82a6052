"""What the user or the system message wishes about emojis, read from their own words."""

import re
from dataclasses import dataclass
from functools import lru_cache

_FORBID = re.compile(
    r"\b(?:no(?: more)?|without|zero|hate|dislike|never|avoid(?:ing)?|refrain from|stop|skip|drop|omit|leave out|"
    r"do(?:es)? ?n[o']?t|do not|must ?n[o']?t|must not|should ?n[o']?t|should not|can ?not|can't|not|free of|"
    r"instead of|rather than)\b"
    r"(?:(?!\b(?:hesitate|forget|problem|afraid|shy|limit|only|but|than|too)\b)[^.!?\n]){0,32}?\bemojis?\b"
    r"|\bemojis?[- ](?:free|less)\b|\bemojis? (?:are|is) (?:not (?:allowed|wanted|welcome)|forbidden|banned|off)\b"
    r"|\bemojis?(?: off\b|: (?:no|off|none)\b)"
    r"|\bplain text only\b|\btext only\b",
    re.IGNORECASE,
)
_NOT_ONE = re.compile(r"\bnot (?:a single|one|any) emojis?\b", re.IGNORECASE)
_NUMBERS = {"a": 1, "an": 1, "single": 1, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "ten": 10}
_NUMBER = r"(?:an? single |an? |)(\d{1,3}|one|two|three|four|five|ten|single)"
_COUNT = re.compile(
    r"\b(at least|at most|no more than|not more than|more than|fewer than|maximum(?: of)?|max|up to|exactly|"
    r"precisely|only|just)?\s*"
    + _NUMBER
    + r"(?:\s*(?:to|-|–|or)\s*(\d{1,3}|two|three|four|five|ten))?\s+(?:[a-z]+ ){0,2}?emojis?\b",
    re.IGNORECASE,
)
_ASK = re.compile(
    r"\b(?:use|using|add|adding|include|including|with|sprinkle|put|insert|write|reply|answer|respond|speak|want|love|"
    r"need|more|some|few|many|lots of|plenty of|full of|forget|hesitate|contains?|enjoys?|"
    r"(?<!you )likes?)\b[^.!?\n]{0,40}?\bemojis?\b"
    r"|\bemojis?(?: on\b|: (?:yes|on)\b)"
    r"|\bemojis? (?:please|welcome)\b|\bemojis? are (?:welcome|encouraged|great)\b",
    re.IGNORECASE,
)
_MANY = re.compile(r"\b(?:lots|many|plenty|tons|loads|full of|as many|every (?:sentence|line|word))\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Wish:
    """How many emojis are wished for."""

    least: int
    most: int | None
    many: bool = False

    @property
    def forbids(self) -> bool:
        """Whether no emoji is wanted at all."""
        return self.most == 0


NO_EMOJI = Wish(0, 0)


def find_wish(prompt: str, system: str = "") -> Wish | None:
    """Return what is wished about emojis: by the prompt if it says anything, else by the system message."""
    return _read_wish(prompt) or _read_wish(system)


@lru_cache(maxsize=4096)
def _read_wish(text: str) -> Wish | None:
    """Return the wish of one text; the last one said counts."""
    if "emoji" not in text.lower() and "text only" not in text.lower():
        return None
    best: tuple[int, Wish] | None = None
    masked = text
    if _NOT_ONE.search(text):
        return NO_EMOJI
    for match in _COUNT.finditer(text):
        best = max(best or (-1, NO_EMOJI), (match.start(), _counted(match)), key=lambda found: found[0])
        masked = masked[: match.start()] + " " * (match.end() - match.start()) + masked[match.end() :]
    for match in list(_FORBID.finditer(masked)):
        best = max(best or (-1, NO_EMOJI), (match.start(), NO_EMOJI), key=lambda found: found[0])
        masked = masked[: match.start()] + " " * (match.end() - match.start()) + masked[match.end() :]
    for match in _ASK.finditer(masked):
        wish = Wish(1, None, bool(_MANY.search(match[0])))
        best = max(best or (-1, NO_EMOJI), (match.start(), wish), key=lambda found: found[0])
    return best[1] if best else None


def _counted(match: re.Match[str]) -> Wish:
    bound = (match[1] or "").lower()
    number = _as_number(match[2])
    if bound == "at least":
        return Wish(number, None, number > 3)
    if bound in (
        "at most",
        "no more than",
        "not more than",
        "more than",
        "fewer than",
        "up to",
        "max",
    ) or bound.startswith("maximum"):
        return Wish(0, number)
    if match[3]:
        return Wish(number, max(number, _as_number(match[3])), number > 3)
    return Wish(number, number, number > 3)


def _as_number(word: str) -> int:
    return int(word) if word.isdigit() else _NUMBERS[word.lower()]
