"""What a conversation is about, where that decides whether an emoji is in place."""

import json
import re
from dataclasses import dataclass
from functools import lru_cache

GENTLE = frozenset(
    "🕊💐❤🙏😢😔💔🤗🫂🕯💙💜🤍💛💚🧡🖤🌹🌷🌸😞🥺😭💗💕🌈☹🙁😥🌻🤎♥🩷🩵🩶🥀👼🥹"  # one code point each
)
"""Emojis that people use to comfort."""


@dataclass(frozen=True, slots=True)
class Context:
    """A kind of conversation."""

    name: str
    pattern: re.Pattern[str]
    gentle: float
    """The value of a comforting emoji there."""
    other: float
    appetite: float
    """How much a reply without any emoji is missed: 0 not at all, 1 as anywhere."""


def _words(pattern: str) -> re.Pattern[str]:
    return re.compile(rf"\b(?:{pattern})\b", re.IGNORECASE)


CONTEXTS = (
    Context(
        "a crisis",
        _words(
            r"suicid\w*|kill myself|end my life|want to die|self[- ]harm\w*|hurt(?:ing)? myself|overdos\w+|call 911|"
            r"ambulance|can't breathe|cannot breathe|heart attack|having a stroke|is unconscious|is bleeding"
        ),
        gentle=0.5,
        other=0.08,
        appetite=0.0,
    ),
    Context(
        "grief",
        _words(
            r"passed away|funeral\w*|condolence\w*|eulogy|obituar\w+|your loss|my loss|our loss|bereave\w*|"
            r"griev\w+|grief|"
            r"miscarriage|widow\w*|in memoriam|memorial service|lost (?:my|our|her|his|"
            r"their) (?:\w+ )?(?:mom|mum|mother|"
            r"dad|father|wife|husband|son|daughter|child|baby|brother|sister|friend|grand\w+|dog|cat|pet|uncle|aunt)|"
            r"(?:mom|mum|mother|dad|father|wife|husband|son|daughter|child|baby|brother|sister|friend|grand\w+|dog|cat|"
            r"pet|uncle|aunt|rabbit|hamster)(?: \w+)? (?:just )?(?:died|is dead|has died)|died (?:this|last|"
            r"yesterday|today|in)|"
            r"put (?:him|her|it|down) (?:down|to sleep)"
        ),
        gentle=1.0,
        other=0.12,
        appetite=0.25,
    ),
    Context(
        "a legal matter",
        _words(
            r"lawsuit\w*|legal(?:ly)?|lawyer\w*|attorney\w*|contract|clause|liabilit\w+|plaintiff|defendant|subpoena|"
            r"court|custody|tenant|landlord|eviction|affidavit|sue[ds]?|suing|copyright|non-?disclosure|"
            r"cease and desist|"
            r"power of attorney|last will|statute|indemnif\w+"
        ),
        gentle=0.6,
        other=0.35,
        appetite=0.0,
    ),
    Context(
        "a medical matter",
        _words(
            r"diagnos\w+|symptom\w*|chemotherap\w*|chemo|cancer|tumou?r\w*|biopsy|dosage|dose|prescri\w+|medication\w*|"
            r"antibiotic\w*|ibuprofen|paracetamol|acetaminophen|insulin|blood pressure|chest pain|"
            r"side effects|seizure\w*|"
            r"\d+ ?mg|infection|surgery|fever of"
        ),
        gentle=0.75,
        other=0.35,
        appetite=0.2,
    ),
)

_CODE_ASKED = _words(
    r"python|javascript|typescript|java|rust|golang|c\+\+|c#|sql|regex|regular expression|html|css|bash|shell script|"
    r"json|yaml|xml|csv|api|stack trace|traceback|dockerfile|git (?:commit|rebase|merge|push)|for loop|"
    r"write (?:a|the|some) (?:function|code|script|query|program)|source code|code snippet|"
    r"unit tests?|compile\w*|debug\w*|"
    r"SELECT \* FROM|TypeError|ValueError|NullPointerException|segfault"
)
CODE = Context("code", _CODE_ASKED, gentle=0.6, other=0.6, appetite=0.0)
DATA = Context("a data format", re.compile(r"(?!)"), gentle=0.05, other=0.05, appetite=0.0)
MATHS = Context(
    "maths steps",
    re.compile(r"\d\s*[-+*/×÷=^]\s*\(?-?\d|\\frac|\\int|\b(?:equation|derivative|integral|solve for|prove that)\b"),
    gentle=0.75,
    other=0.75,
    appetite=0.4,
)


def find_context(reply_plain: str, has_code: bool, prompt: str) -> Context | None:
    """Return the strictest context that a reply stands in, or None for everyday talk."""
    if _is_data(reply_plain):
        return DATA
    found = _context_of(prompt) or _context_of(reply_plain)
    if has_code and (found is None or found is MATHS):
        return CODE
    return found


@lru_cache(maxsize=4096)
def _context_of(text: str) -> Context | None:
    if not text:
        return None
    for context in (*CONTEXTS, CODE, MATHS):
        if context.pattern.search(text):
            return context
    return None


def _is_data(text: str) -> bool:
    stripped = text.strip()
    if len(stripped) < 2 or stripped[0] + stripped[-1] not in ("{}", "[]"):
        return False
    try:
        json.loads(stripped)
    except (ValueError, RecursionError):
        return stripped[0] == "{" and '"' in stripped and ":" in stripped
    return True
