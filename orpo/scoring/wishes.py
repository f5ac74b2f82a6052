"""What the user or the system message wishes about emojis, read from their own words."""

import re
from dataclasses import dataclass
from functools import lru_cache

_NOUN = r"(?:emojis?|emoticons?|smileys?)"
# A negation with the noun behind it, but not "do not forget emojis".
_FORBID = re.compile(
    r"\b(?:no(?: more)?|without|zero|hates?|dislikes?|never|avoid(?:s|ing)?|refrains? from|stop|skip|drop|omit|"
    r"leave out|do(?:es)? ?n[o']?t|do not|must ?n[o']?t|must not|should ?n[o']?t|should not|can ?not|can't|not|free of|"
    r"instead of|rather than)\b"
    rf"(?:(?!\b(?:hesitate|forget|problem|afraid|shy|limit|only|but|than|too)\b)[^.!?\n]){{0,40}}?\b{_NOUN}\b"
    rf"|\b(?:leaves?|keep|take|cut) (?:all |any |the )?{_NOUN} out\b|\b{_NOUN} (?:has|have) no place\b"
    rf"|\b{_NOUN}[- ](?:free|less)\b|\b{_NOUN} (?:are|is) (?:not (?:allowed|wanted|welcome)|forbidden|banned|off)\b"
    rf"|\b{_NOUN}(?: off\b|: (?:no|off|none)\b)"
    r"|\b(?:text|words) only(?=\s*(?:[.,;!?]|$))",
    re.IGNORECASE,
)
# "Not a single emoji", "never even one emoji": a number that is none.
_NOT_ONE = re.compile(
    r"\b(?:no|not|never|without|don't|doesn't|hates?|dislikes?|can't|cannot)\b"
    r"(?:(?!\b(?:hesitate|forget|afraid|shy|only|more|than)\b)[^.!?\n]){0,40}?"
    rf"\b(?:a single|one|any|an?) {_NOUN}\b",
    re.IGNORECASE,
)
_NUMBERS = {"a": 1, "an": 1, "single": 1, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "ten": 10}
_COUNT = re.compile(
    r"\b(at least|at most|no more than|not more than|more than|fewer than|maximum(?: of)?|max|up to|exactly|"
    r"precisely|only|just)?\s*(?:an? single |an? |)(\d{1,3}|one|two|three|four|five|ten|single)"
    r"(?:\s*(?:to|-|–|or)\s*(\d{1,3}|two|three|four|five|ten))?\s+"
    rf"(?:(?!without|no|sentences?|words?|lines?)[a-z]+ ){{0,2}}?{_NOUN}\b",
    re.IGNORECASE,
)
_ASK = re.compile(
    r"\b(?:uses?|using|adds?|adding|includes?|including|with|sprinkles?|puts?|inserts?|writes?|reply|replies|answers?|"
    r"responds?|speaks?|wants?|loves?|needs?|more|some|few|many|lots of|plenty of|full of|forget|hesitate|contains?|"
    r"enjoys?|prefers?|shows?|places?|types?|employs?|choose|chooses|throws? in|fond of|wish(?:es)? for|asks? for|"
    r"known for|expects?|happy about|(?:should|must|always|replies|answers|messages|responses|texts) have|"
    rf"(?<!you )likes?)\b[^.!?\n]{{0,40}}?\b{_NOUN}\b"
    rf"|\b{_NOUN}(?: on\b|: (?:yes|on)\b)"
    rf"|\b{_NOUN} (?:please|welcome|included)\b|\b{_NOUN} are (?:welcome|encouraged|great|your thing)\b",
    re.IGNORECASE,
)
_SPEAKS_OF_IT = re.compile(r"emoji|emoticon|smiley|(?:text|words) only", re.IGNORECASE)
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
    if not _SPEAKS_OF_IT.search(text):
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
