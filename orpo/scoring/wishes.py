"""What the user or the system message wishes about emojis, read from their own words.

Patterns are tried in the order of `_READERS`, from the most to the least specific, and what one has read is blanked
out for the next: "do not forget the emojis" is read as a request before "do not ... emojis" can be read as a ban.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache

from orpo.scoring.finding import contains_emoji
from orpo.scoring.screening import fold_case, holds_any


@dataclass(frozen=True, slots=True)
class Wish:
    """How many emojis are wished for."""

    least: int
    most: int | None
    many: bool = False
    as_user: bool = False
    """Only if the user writes emojis too."""

    @property
    def forbids(self) -> bool:
        """Whether no emoji is wanted at all."""
        return self.most == 0


NO_EMOJI = Wish(0, 0)
SOME_EMOJI = Wish(1, None)
ANY_NUMBER = Wish(0, None)


def _pattern(*alternatives: str) -> re.Pattern[str]:
    return re.compile("|".join(alternatives), re.IGNORECASE)


_NOUN = r"\b(?:emojis?|emoticons?|smileys?|smilies|pictograms?|gitmoji)\b"
# Other names for them, which mean them only where they are not wanted.
_PICTURES = (
    r"\b(?:(?:little|small|tiny|cute|cheerful|graphic|pictorial|modern|yellow) (?:\w+ )?(?:pictures?|symbols?|icons?|"
    r"faces?|characters?)|icons|symbols|(?:pictures|characters) in (?:the |my )?text)\b"
)
_PLAIN = r"(?:(?:text|words|letters|characters|ascii(?: output)?) (?:only|alone)|plain (?:words|text|letters|prose))"
_SPEAKS_OF_IT = (
    *("emoji", "emoticon", "smil", "pictogram", "gitmoji", "picture", "symbol", "icon", "faces", "pictorial"),
    *("text only", "text alone", "words only", "words alone", "letters only", "ascii", "plain "),
)
_NOT = r"\b(?:(?<!why )not?|never|cannot|neither|(?:do|does|did|must|should|ca|may|wo)n'?t)\b"
_AVOID = (
    r"\b(?:without|zero|free of|hates?|dislikes?|avoid(?:s|ing)?|refrains?(?: from)?|stop|skip|omit|leave out|"
    r"instead of|rather than|drop(?= (?:all|any|the|your|emoji|emoticon|smiley)))\b"
)
_NEGATION = rf"(?:{_NOT}|{_AVOID})"
# Up to this many characters of the same clause, on the way to the first noun.
_NEAR = rf"(?:(?!{_NOUN})[^.!?\n,;])" + "{0,40}?"
# Words that turn the negation around ("do not hesitate to"), or end its reach ("no hashtags, but emojis").
_TURNS = (
    r"\b(?:hesitate|forget|problem|afraid|shy|stingy|hold back|limit|only|but|than|too|wait|enough)\b"
    r"|[,;] (?:please )?(?:use|add|include|put|sprinkle)\b"
)

# Emojis are spoken of; nothing is wished about the reply.
_ABOUT = _pattern(
    rf"\b(?:can't|cannot|can not|couldn't) (?:find|type|copy|tell|remember|figure){_NEAR}{_NOUN}",
    r"\b(?:(?:don't|do not|doesn't|does not|didn't) (?:know|remember|understand (?:what|why|how|which))|"
    rf"no (?:idea|clue)|not sure){_NEAR}{_NOUN}",
    # A question, unless it asks for a text with or without them.
    r"(?:^|(?<=[.!?\n] ))(?:why|how(?! about)|what(?! about)|when|where|which|who|does|did|is|are|do (?!not))\b"
    rf"(?:(?!\b(?:with|without|using|no|please)\b)[^.!?\n]){{0,120}}?{_NOUN}[^.!?\n]{{0,120}}\?",
    # "Emojis instead of emoticons": the second noun is not meant to ban the first.
    rf"(?:(?<=emoji)|(?<=emojis)),? (?:instead of|rather than|(?:and )?not) {_NOUN}",
)
_BANNED = _pattern(
    rf"\b(?:leaves?|keep|take|cut) (?:all |any |the |every )?{_NOUN} out\b",
    rf"{_NOUN} (?:(?:has|have) no place|(?:do|does)(?:n't| not) belong)\b",
    rf"{_NOUN}[- ](?:free|less)\b",
    rf"{_NOUN}(?: set)? (?:are|is) (?:\w+ )?(?:not|never) (?:to be|allowed|wanted|welcome|permitted|appropriate|ok|"
    r"okay|fine|acceptable|supported|shown|displayed)\b",
    rf"{_NOUN} (?:are|is) (?:\w+ly )?(?:forbidden|banned|prohibited|disabled|off|unwelcome|unwanted|unknown|"
    r"out of place|annoying|distracting|inappropriate|vulgar|childish|"
    r"a (?:mistake|pain|no-?go|nuisance|distraction|problem))\b",
    rf"{_NOUN} (?:annoy|distract|confuse|bother|irritate|disturb|break|cause|become|"
    r"(?:do not|don't) (?:appear|show))\w*\b",
    rf"{_NOUN}(?: off\b|(?: policy| use)?(?: ->)? ?[:=] ?(?:no|off|none|never|false|not|0|zero|disabled|forbidden)\b)",
    rf"\b(?:forbids?|prohibits?|disallows?|bans?|breaks? on|chokes? on|charges? \w+ for){_NEAR}{_NOUN}",
    rf"{_NOUN}[^!?\n]{{0,80}}\b(?:omit them|leave them out|avoid them|use none|(?:don't|do not|never) "
    r"(?:use|produce|write|send|include) (?:them|any))\b",
    rf"{_NEGATION}{_NEAR}{_PICTURES}|{_PICTURES}[^.!?\n]{{0,60}}\b(?:confus|distract|annoy|disturb|childish|vulgar|unknown|"
    r"don't|do not|not)\w*|(?:leave out|stop|quit) (?:the |those |these )?" + _PICTURES,
    rf"(?:^|[.!?;:,\n] ?|\b(?:in|as|use|uses|using|write|writes|with|to|keep to|answer|reply|for) ){_PLAIN}"
    r"(?=\s*(?:[.,;:!?]|please|and\b|$))",
    # Not "in three words only", which is a length.
    r"(?:^|[.!?;:,\n] ?|\b(?:plain|simple|in|as|use|uses|using|write|writes|with|to) )"
    r"(?:text|words) only(?=\s*(?:[.,;!?]|$))",
)
# A negation of a negation. "Don't forget two emojis" is left to the count, which `_TURNS` keeps from being negated.
_REQUEST = _pattern(rf"{_NOT}{_NEAR}\b(?:without|lack|skip|omit|avoid|leave out|stop){_NEAR}{_NOUN}")
# Something near it is excluded (too many, a place, a kind), or a duty to use them: any number may be right.
_RESTRAINT = _pattern(
    rf"{_NEGATION}{_NEAR}\b(?:over(?:us|do|load)\w*|overboard|spam\w*|flood\w*|(?:too|so) (?:many|much)|many|"
    rf"lots of|a lot of|excessive\w*|unnecessary|needless|random|irrelevant|inappropriate|just|only|"
    rf"problem|mind|limit){_NEAR}{_NOUN}",
    rf"{_NOT}{_NEAR}{_NOUN} (?:too (?:much|often)|excessively|all the time|everywhere|(?:in|after) (?:every|each) "
    r"(?:word|line|sentence)|instead of|as (?:bullets?|a (?:bullet|replacement))|"
    r"(?:right )?(?:in the middle|inside|between|before|mid|at the (?:start|beginning|end)))",
    rf"{_NOT} (?:start|begin|open|end|finish|close|replace)\b{_NEAR}{_NOUN}",
    rf"{_NEGATION}{_NEAR}\b(?:the (?:[\w'-]+ ){{1,2}}|(?:this|that) (?:\w+ )?)emoji\b",
    r"(?<!\bi )(?<!\bwe )\b(?:(?:don't|do not|doesn't|does not) (?:have|need) to|needn't|need not|no need)"
    rf"{_NEAR}{_NOUN}",
    rf"\bnot (?:required|necessary|obliged|mandatory|needed) to{_NEAR}{_NOUN}",
    rf"{_NOUN} (?:are|is)(?:n't| not) (?:required|necessary|needed|mandatory|a must)\b",
)
_NUMBERS = {"single": 1, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "ten": 10}
_COUNT = _pattern(
    r"\b(at least|at most|more than|exceed|(?:fewer|less) than|minimum(?: of)?|maximum(?: of)?|max|min|up to|exactly|"
    r"precisely|only|just)?\s*(?:an? single |an? |)\b(\d{1,3}|one|two|three|four|five|ten|single)"
    r"(?:\s*(?:to|-|–|or)\s*(\d{1,3}|two|three|four|five|ten|more))?\s+"
    # Adjectives alone may come between: "10 captions with emojis" counts the captions.
    r"(?:(?!(?:with|without|using|and|or|of|in|no|full)\b)(?:[a-z]+ous|[a-z-]*[a-rt-z]) ){0,2}?"
    rf"{_NOUN}( or more|"
    r"(?: per| (?:in|after|for|to|at the end of) (?:each|every))(?! (?:message|reply|answer|response|text)))?"
)
_FORBID = _pattern(rf"{_NEGATION}(?:(?!{_TURNS})[^.!?\n]){{0,40}}?{_NOUN}")
_ASK = _pattern(
    r"\b(?:uses?|using|adds?|adding|includes?|including|with|sprinkles?|puts?|inserts?|writes?|reply|replies|answers?|"
    r"responds?|speaks?|wants?|loves?|needs?|more|some|few|many|lots of|plenty of|full of|forget|hesitate|contains?|"
    r"enjoys?|prefers?|shows?|places?|types?|employs?|choose|chooses|throws? in|drops?|fond of|wish(?:es)? for|"
    r"asks? for|known for|expects?|happy about|(?:should|must|always|replies|answers|messages|responses|texts) have|"
    rf"(?<!you )likes?)\b[^.!?\n]{{0,40}}?{_NOUN}",
    rf"{_NOUN}(?: on\b| yes\b| ?[:=] ?(?:yes|on|high|true|max|many|lots)\b)",
    rf"{_NOUN} (?:in|after|at the end of) (?:every|each)\b|\bown {_NOUN}|\binto {_NOUN}|\bsome {_NOUN}",
    rf"{_NOUN} only:|\bgo (?:big|wild|all out) (?:on|with) (?:the )?{_NOUN}",
    rf"{_NOUN} (?:help|fit|are okay|are fine)\b|\+ {_NOUN}|{_NOUN},? please\b",
    rf"\b(?:a|one) {_NOUN} (?:wouldn't|won't) (?:hurt|kill)",
    rf"{_NOUN} (?:please|welcome|included)\b",
    rf"{_NOUN} (?:are|is) (?:encouraged|great|wanted|a must|your thing|part of your style)\b",
    rf"{_NOUN} (?:makes?|improves?) (?:your|the|a|my) \w+ (?:\w+er|better)\b",
)
_ALLOWED = _pattern(
    rf"{_NOUN},? (?:okay|ok|allowed|welcome)\b",
    rf"{_NOUN} (?:(?:are|is) (?:welcome|allowed|fine|okay|ok|permitted|optional)|(?:may|can) be)\b",
)
# Before a request: it is only a permission. "Can you use emojis?" is none.
_MAY = _pattern(
    r"\b(?:may|can|might|(?:free|allowed|welcome|permitted|okay|ok|fine) to)(?! (?:you|i|we)\b)(?: [\w']+){0,4}\s*$"
)
_AS_IT_FITS = _pattern(
    r"\b(?:where|when|if)(?:ever)? (?:(?:it|they|that|this|one) (?:fits?|suits?|helps?|feels?|makes?|is|are)\b|"
    r"(?:appropriate|suitable|fitting|needed|helpful|natural)\b|you (?:like|want|wish|feel)\b)",
    r"\b(?:sparingly|in moderation|now and then|occasionally|as (?:needed|appropriate))\b",
)
_FEW = _pattern(
    rf"\b(?:keep|limit|reduce|restrict|hold)\b{_NEAR}{_NOUN} (?:use |usage )?"
    r"(?:to (?:a|the|an absolute) (?:bare )?minimum|low|rare|minimal)\b",
    rf"\bminimal (?:use of )?{_NOUN}|{_NOUN} (?:only )?(?:rarely|at a minimum)\b",
)
_AS_USER = _pattern(
    rf"{_NOUN}[^.!?\n]{{0,30}}\b(?:unless|except (?:if|when)|only (?:if|when|after)) "
    r"(?:i|they|(?:the )?(?:user|customer)s?) (?:do|does|use|uses|write|writes|send|sends|start|starts)\b"
)
_COUNT_NEGATED = _pattern(rf"(?:{_NOT}|{_AVOID})(?:(?!{_TURNS})[^.!?\n,;]){{0,40}}$")
_MANY = _pattern(r"\b(?:lots|many|plenty|tons|loads|full of|as many|every (?:sentence|line|word))\b")


_SHORTHAND = re.compile(r"\bw/?(o/?)? (?=\w)", re.IGNORECASE)


def find_wish(prompt: str, system: str = "") -> Wish | None:
    """Return what is wished about emojis: by the prompt if it says anything, else by the system message."""
    wish = _read_wish(prompt) or _read_wish(system)
    if wish is not None and wish.as_user:
        return ANY_NUMBER if contains_emoji(prompt) else NO_EMOJI
    return wish


@lru_cache(maxsize=4096)
def _read_wish(text: str) -> Wish | None:
    """Return the wish of one text; the last one said counts."""
    if not holds_any(fold_case(text), _SPEAKS_OF_IT):
        return None
    left = _SHORTHAND.sub(lambda match: "without " if match[1] else "with ", text.replace("’", "'"))
    position, last = -2, None
    for pattern, read in _READERS:
        for match in pattern.finditer(left):
            wish = read(match)
            # A restraint says how, not whether: it counts only where nothing else is said.
            place = -1 if pattern is _RESTRAINT else match.start()
            if wish is not None and place > position:
                position, last = place, wish
        left = pattern.sub(lambda match: " " * len(match[0]), left)
    return last


def _asked(match: re.Match[str]) -> Wish:
    return _loosened(Wish(1, None, bool(_MANY.search(match[0]))), match)


def _counted(match: re.Match[str]) -> Wish:
    bound = (match[1] or "").lower()
    number = _as_number(match[2])
    negated = _COUNT_NEGATED.search(match.string[max(0, match.start() - 80) : match.start()]) is not None
    if bound.startswith(("more", "exceed")):
        wish = Wish(0, number) if negated else Wish(number + 1, None)
    elif bound.startswith(("fewer", "less")):
        wish = Wish(number, None) if negated else Wish(0, max(0, number - 1))
    elif bound.startswith(("at most", "max", "up to")):
        wish = Wish(0, number)
    elif bound.startswith(("at least", "min")) or match[4] or (match[3] or "").lower() == "more":
        wish = Wish(number, None)
    elif negated:  # "not a single emoji", "never two emojis"
        wish = ANY_NUMBER if bound else Wish(0, max(0, number - 1))
    else:
        wish = Wish(number, max(number, _as_number(match[3])) if match[3] else number)
    return _loosened(replace(wish, many=wish.least > 3), match)


def _loosened(wish: Wish, match: re.Match[str]) -> Wish:
    """Return the wish without its demand, where the sentence only permits."""
    before = re.split(r"[.!?\n]", match.string[max(0, match.start() - 200) : match.start()])[-1]
    after = re.split(r"[.!?\n]", match.string[match.end() : match.end() + 200])[0]
    if _MAY.search(before) or _AS_IT_FITS.search(before) or _AS_IT_FITS.search(after):
        return replace(wish, least=0)
    return wish


def _as_number(word: str) -> int:
    return int(word) if word.isdigit() else _NUMBERS[word.lower()]


_READERS: tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], Wish | None]], ...] = (
    (_ABOUT, lambda _: None),
    (_AS_USER, lambda _: Wish(0, None, as_user=True)),
    (_FEW, lambda _: Wish(0, 1)),
    (_BANNED, lambda _: NO_EMOJI),
    (_REQUEST, _asked),
    (_RESTRAINT, lambda _: ANY_NUMBER),
    (_COUNT, _counted),
    (_FORBID, lambda _: NO_EMOJI),
    (_ALLOWED, lambda _: ANY_NUMBER),
    (_ASK, _asked),
)
