"""What a conversation is about, where that decides whether an emoji is in place.

Crises and grief are read from the prompt and the reply, data and code from the reply's form. The words of law,
medicine, code and maths count in the prompt alone: a reply may say "let's compile a list" or "the contract" anywhere.
"""

import json
import re
from dataclasses import dataclass
from functools import lru_cache

from orpo.scoring.screening import fold_case, fragments, holds_any

GENTLE = frozenset(
    "🕊💐❤🙏😢😔💔🤗🫂🕯💙💜🤍💛💚🧡🖤🌹🌷🌸😞🥺😭💗💕🌈☹🙁😥🌻🤎♥🩷🩵🩶🥀👼🥹"  # one code point each
)
"""Emojis that people use to comfort."""


@dataclass(frozen=True, slots=True, eq=False)  # each is itself alone; to hash a pattern would take its time
class Context:
    """A kind of conversation."""

    name: str
    pattern: re.Pattern[str]
    fragments: tuple[str, ...]
    """Whatever the pattern matches holds one of these in lower case."""
    gentle: float
    """The value of a comforting emoji there."""
    other: float
    appetite: float
    """How much a reply without any emoji is missed: 0 not at all, 1 as anywhere."""
    outweighs_system: bool = False
    """Whether restraint holds although the system message asks for emojis; the user's own message may lift it."""


def _words(*alternatives: str) -> re.Pattern[str]:
    return re.compile(rf"\b(?:{'|'.join(alternatives)})\b", re.IGNORECASE)


_CRISIS = _words(
    r"suicid\w*|kill myself|(?:end|tak(?:e|ing)) my (?:own )?life|want to die|self[- ]harm\w*|hurt(?:ing)? myself|"
    r"overdos\w+|call 911|ambulance|can't breathe|cannot breathe|heart attack|having a stroke|is unconscious|"
    r"is bleeding"
)
_CRISIS_FRAGMENTS = fragments(
    "suicid|myself|my life|own life|to die|harm|overdos|911|ambulance|breathe|heart attack|stroke|unconsc|bleed"
)

_PET = r"(?:dog|cat|pet|rabbit|hamster|puppy|kitten|horse)"
_KIN = (
    r"(?:mom|mum|mother|dad|father|parents?|wife|husband|partner|son|daughter|child|baby|boy|girl|brother|sister|twin|"
    r"friend|uncle|aunt|cousin|nephew|niece|neighbou?r|colleague|co-?worker|classmate|student|teacher|"
    rf"grand(?:ma|pa|mother|father|mom|mum|dad|parents?|son|daughter|child)|granny|nana?|{_PET})"
)
_LOVED_ONE = rf"{_KIN}(?!['’]s)"  # "my friend's phone died" is about a phone
# "Mom", "Grandma Rose", "a student in my class"
_SUBJECT = rf"{_LOVED_ONE}(?: (?-i:[A-Z]\w+))?(?: (?:in|from|at|of) (?:my|our|the) \w+)?"
_GRIEF = _words(
    r"passed away|funeral\w*|condolence\w*|eulogy|obituar\w+|your loss|my loss|our loss|bereave\w*|griev(?:e[sd]?|ing)|"
    r"(?<!good )grief|miscarriage|still(?:born|birth)|widow\w*|in memoriam|memorial service|hospice|life support|"
    r"(?:take|takes|took|taken) (?:his|her|their) own life",
    rf"lost (?:my|our|her|his|their) (?:\w+ )?{_LOVED_ONE}",
    rf"(?:my|our|her|his|their|your) (?:late|dead|deceased) {_KIN}",
    # "is dead tired" and "died laughing" are figures of speech.
    rf"{_SUBJECT}(?: (?:has|have|had|is|was|were|just|recently|suddenly)){{0,2}} "
    r"(?:died|dead|killed|drowned|passed on|didn['’]t survive|did not survive)"
    r"(?! (?:tired|serious|wrong|asleep|set|it|laughing|of laugh\w+|of embarrassment))",
    r"(?:he|she|they) (?:just )?died (?:this|last|yesterday|today|peacefully|suddenly|an? \w+ ago)",
    r"since (?:he|she|they) passed(?=[.,;!?]|$)",
    rf"{_KIN}['’]s (?:death|passing|grave|ashes)",
    rf"buried (?:my|our|her|his|their) (?:\w+ )?{_LOVED_ONE}",
    # A baby is put to sleep every night; a pet once.
    rf"(?:had|have|having) to put (?:him|her|(?:my|our|the) (?:\w+ )?{_PET}) (?:down|to sleep)",
    rf"put (?:my|our|the) (?:\w+ )?{_PET} (?:down|to sleep)",
)
_GRIEF_FRAGMENTS = fragments(
    "passed|funeral|condolence|eulogy|obituar| loss|bereave|griev|grief|miscarriage|stillb|widow|memoria|hospice|"
    "life support|own life|lost |late |died|dead|deceased|killed|drowned|survive|death|passing|grave|ashes|buried|"
    "put "
)

# What the parties do, as a landlord or a contract alone may be good news, and a court one for tennis.
_LAW = _words(
    r"lawsuit\w*|legal(?:ly)?|lawyer\w*|attorney\w*|clause|liabilit\w+|plaintiff|defendant|subpoena|summons|custody|"
    r"eviction|evict\w*|affidavit|copyright|non-?disclosure|cease and desist|power of attorney|statute|indemnif\w+|"
    r"executor|judge?ments?|tenancy|security deposit|debt collector|criminal record|bail (?:hearing|bond|money)",
    r"(?-i:sue[ds]?|suing)",  # with a capital it is a name: "aunt Sue"
    r"(?:terminat|breach|draft|break|void|enforc|cancel|disput)\w* (?:of )?(?:\w+ ){0,3}contract|contract law",
    r"(?:in|to|supreme|small claims|high) court|court (?:summons|order|date|hearing|case|ruling)",
    r"(?:criminal|civil|family|labou?r|employment|tax|international|patent) law|against the law",
    r"(?:my|our|legal|tenants?['’]?|consumer) rights|landlord (?:refus\w+|owes?|won['’]t|keeps)",
    r"can (?:my|our|the|a|an) (?:landlord|employer|tenant)",
    r"(?:sign|write|contest|draft|update|witness)\w* (?:my|a|the|her|his|their) (?:last )?will|last will",
    r"disput\w+ (?:a|the|my|this) (?:debt|charge|bill)|(?:is|on|set|sets|post) bail",
)
_LAW_FRAGMENTS = fragments(
    "law|legal|attorney|clause|liabilit|plaintiff|defendant|subpoena|summons|custody|evict|affidavit|copyright|"
    "disclosure|cease and|statut|indemnif|executor|judg|tenancy|deposit|debt|criminal|bail|sue|suing|contract|court|"
    "rights|landlord|tenant|employer|my will| a will|the will|her will|his will|their will|last will|disput"
)

_MEDICINE = _words(
    r"diagnos\w+|symptom\w*|chemotherap\w*|chemo|cancer|tumou?r\w*|biopsy|dosage|dose|prescri\w+|medication\w*|"
    r"antibiotic\w*|ibuprofen|paracetamol|acetaminophen|insulin|blood pressure|chest pain|side effects|seizure\w*|"
    r"\d+ ?mg|infection|surgery|fever of"
)
_MEDICINE_FRAGMENTS = fragments(
    "diagnos|symptom|chemo|cancer|tumo|biops|dosage|dose|prescri|medication|antibiotic|ibuprofen|paracetamol|"
    "acetaminophen|insulin|blood|chest|side effect|seizure|mg|infection|surgery|fever"
)

# Said of a surgery or a contract, this is a reason to celebrate.
_GOOD_NEWS = _words(
    r"went (?:really |so |very )?(?:well|great|fine)|all clear|(?:is|are|came back) (?:clear|clean|normal|benign)|"
    r"back to normal|cancer[- ]free|in remission|recovered|i['’]?m home|dream (?:job|house|home)|i (?:just )?won|"
    r"we won|(?:good|great) news|so happy|so proud|thrilled"
)

_PROGRAM = r"(?:function|method|program|script|class|struct|code|command|macro|snippet|compiler|crate|loop|query)"
_CODE_WORDS = _words(
    r"python|javascript|typescript|golang|sql|regex|regular expression|html|css|json|yaml|xml|csv|api|stack trace|"
    r"traceback|dockerfile|makefile|git (?:commit|rebase|merge|push)|(?:for|while) loop|list comprehension|source code|"
    r"code snippet|unit tests?|debug(?:s|ged|ging|ger)?|compilers?|(?:won['’]t|doesn['’]t|does not|fails to) compile|"
    r"compil\w+ errors?|SELECT \* FROM|TypeError|ValueError|NullPointerException|segfault",
    rf"write (?:a|the|some) {_PROGRAM}",
    r"(?:fix|run|review|explain|refactor|optimi[sz]e|test) (?:this|my|the|some) code",
    # Words and letters of everyday life ("a birthday bash", "vitamin C"), unless code stands beside them.
    rf"(?-i:C|Go|R|[Rr]ust|[Jj]ava|[Bb]ash|[Ss]wift|[Rr]uby|shell) {_PROGRAM}",
    r"in (?-i:Go|Rust|[Jj]ava|[Bb]ash|Swift|Ruby)",
)
# "+" and "#" are no word characters, so no \b can follow them. "C# minor" is music.
_C_FAMILY = r"(?<!\w)c(?:\+\+|#)(?!\w| (?:minor|major))"
_CODE_FRAGMENTS = fragments(
    "python|java|script|golang|sql|regex|regular exp|html|css|json|yaml|xml|csv|api|trace|dockerfile|makefile|git |"
    "loop|list comp|code|unit test|debug|compil|select *|typeerror|valueerror|nullpointer|segfault|function|method|"
    "program|class|struct|command|macro|snippet|crate|query|in go|in rust|in bash|in swift|in ruby|c++|c#"
)

_MATHS_FRAGMENTS = fragments(r"+|*|×|÷|=|^|-|/|\frac|\int|equation|derivative|integral|solve for|prove ")

CRISIS = Context("a crisis", _CRISIS, _CRISIS_FRAGMENTS, gentle=0.5, other=0.08, appetite=0.0, outweighs_system=True)
GRIEF = Context("grief", _GRIEF, _GRIEF_FRAGMENTS, gentle=1.0, other=0.12, appetite=0.25, outweighs_system=True)
LAW = Context("a legal matter", _LAW, _LAW_FRAGMENTS, gentle=0.6, other=0.35, appetite=0.0)
MEDICINE = Context("a medical matter", _MEDICINE, _MEDICINE_FRAGMENTS, gentle=0.75, other=0.35, appetite=0.2)
CODE = Context(
    "code",
    re.compile(f"{_CODE_WORDS.pattern}|{_C_FAMILY}", re.IGNORECASE),
    _CODE_FRAGMENTS,
    gentle=0.6,
    other=0.6,
    appetite=0.0,
    outweighs_system=True,
)
DATA = Context("a data format", re.compile(r"(?!)"), (), gentle=0.05, other=0.05, appetite=0.0, outweighs_system=True)
MATHS = Context(
    "maths steps",
    # "-" and "/" between digits also join ranges, dates and hours: they need blanks, or a request to calculate.
    re.compile(
        r"\d\s*[+*×÷=^]\s*\(?-?\d|\d\s+[-/]\s+\(?\d|\b(?:what(?:['’]s| is)|calculate|compute|solve):? \d+[-/]\d|"
        r"\\frac|\\int|\b(?:equation|derivative|integral|solve for|prove that)\b",
        re.IGNORECASE,
    ),
    _MATHS_FRAGMENTS,
    gentle=0.75,
    other=0.75,
    appetite=0.4,
)
_OF_REPLIES = (CRISIS, GRIEF)
_OF_PROMPTS = (CRISIS, GRIEF, LAW, MEDICINE, CODE, MATHS)


def find_context(reply_plain: str, has_code: bool, prompt: str) -> Context | None:
    """Return the strictest context that a reply stands in, or None for everyday talk."""
    if _is_data(reply_plain):
        return DATA
    found = _context_of(prompt, _OF_PROMPTS) or _context_of(reply_plain, _OF_REPLIES)
    if has_code and (found is None or found is MATHS):
        return CODE
    return found


@lru_cache(maxsize=4096)
def _context_of(text: str, contexts: tuple[Context, ...]) -> Context | None:
    if not text:
        return None
    folded = fold_case(text)
    for context in contexts:
        if not holds_any(folded, context.fragments):
            continue  # most texts end here, and a search would take 10 times as long
        if context.pattern.search(text) and not (context in (LAW, MEDICINE) and _is_good_news(text)):
            return context
    return None


def _is_good_news(text: str) -> bool:
    return "?" not in text and _GOOD_NEWS.search(text) is not None


def _is_data(text: str) -> bool:
    stripped = text.strip()
    if len(stripped) < 2 or stripped[0] + stripped[-1] not in ("{}", "[]"):
        return False
    try:
        json.loads(stripped)
    except (ValueError, RecursionError):
        return stripped[0] == "{" and '"' in stripped and ":" in stripped
    return True
