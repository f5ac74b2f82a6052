"""Clean English chat text: casing, spacing, frequent typos, unusable turns."""

import html
import re

# Frequent misspellings and missing apostrophes in the human corpora, found by counting their
# out-of-vocabulary words. Only forms that are never correct English are listed.
_WORDS = {
    "dont": "don't", "doesnt": "doesn't", "didnt": "didn't", "cant": "can't", "wont": "won't",
    "isnt": "isn't", "wasnt": "wasn't", "werent": "weren't", "arent": "aren't", "couldnt": "couldn't",
    "wouldnt": "wouldn't", "shouldnt": "shouldn't", "havent": "haven't", "hasnt": "hasn't",
    "hadnt": "hadn't", "im": "I'm", "ive": "I've", "youre": "you're", "theyre": "they're",
    "thats": "that's", "whats": "what's", "theres": "there's", "heres": "here's", "youve": "you've",
    "theyve": "they've", "weve": "we've", "youll": "you'll", "theyll": "they'll", "hes": "he's",
    "shes": "she's", "lets": "let's", "alot": "a lot", "definately": "definitely",
    "definitly": "definitely", "recieve": "receive", "beleive": "believe", "wierd": "weird",
    "freind": "friend", "becuase": "because", "becasue": "because", "teh": "the", "thier": "their",
    "probly": "probably", "favorit": "favorite", "awsome": "awesome", "movei": "movie",
    "intresting": "interesting", "tommorow": "tomorrow", "untill": "until", "wich": "which",
    "realy": "really", "basicly": "basically", "u": "you", "ur": "your", "r": "are", "pls": "please",
    "plz": "please", "thx": "thanks", "gonna": "going to", "wanna": "want to", "gotta": "have to",
    "kinda": "kind of", "sorta": "sort of", "cuz": "because", "coz": "because",
}  # fmt: skip
_WORD = re.compile(r"(?<![\w'])(" + "|".join(_WORDS) + r")(?![\w'])", re.IGNORECASE)
_PUNCTUATION = str.maketrans(
    {"’": "'", "‘": "'", "“": '"', "”": '"', "–": "-", "—": " - ", "…": "...", "\u00a0": " ", "`": "'", "\t": " "}
)
_UNWANTED = re.compile(
    r"https?://|www\.|_URL_|\[[^\]]*\]|<[^>]*>|\*\w|#\w|@\w|\\|\b(?:sex|porn|rape|fuck|shit|nigg|suicide"
    r"|kill (?:my|your)self|bitch|whore|slut|cunt|dick|penis|vagina|nazi|hitler"
    r"|trump|biden|obama|republican|democrat|turkers?|mturk)",
    re.IGNORECASE,
)


def _fix_word(match: re.Match[str]) -> str:
    word = match.group(1)
    fixed = _WORDS[word.lower()]
    return fixed[0].upper() + fixed[1:] if word[0].isupper() else fixed


def clean_turn(text: str) -> str:
    """One turn with sentence casing, single spaces, ASCII quotes and a closing mark."""
    text = html.unescape(text).translate(_PUNCTUATION)
    text = re.sub(r"[ \r\n]+", " ", text).strip()
    text = re.sub(r"\s+([,.!?;:])", r"\1", text)
    text = re.sub(r"([,;])(?=[A-Za-z])", r"\1 ", text)
    text = re.sub(r"([a-z])([.!?])(?=[A-Z])", r"\1\2 ", text)
    text = re.sub(r"([!?])\1{1,}", r"\1", text)
    text = re.sub(r"\.{4,}", "...", text)
    text = _WORD.sub(_fix_word, text)
    text = re.sub(r"(?<![\w'])i(?=['\s,.!?]|$)", "I", text)
    text = re.sub(r"(^|[.!?] )([a-z])", lambda m: m.group(1) + m.group(2).upper(), text)
    if text and text[-1].isalnum():
        question = re.match(
            r"(what|who|when|where|why|how|do|does|did|is|are|can|could|would|have|has|will)\b", text, re.I
        )
        text += "?" if question and len(text.split()) < 14 else "."
    return text


def clean_reply(text: str) -> str:
    """A written reply: as a turn, but its line breaks (numbered steps, code) stay."""
    lines = [re.sub(r"[ \t]+", " ", line).strip() for line in html.unescape(text).translate(_PUNCTUATION).split("\n")]
    return re.sub(r"\n{2,}", "\n", "\n".join(lines)).strip()


def is_usable(text: str, max_words: int = 60) -> bool:
    """Whether a cleaned turn is plain English of a usable length."""
    words = text.split()
    if not 1 <= len(words) <= max_words or not text.isascii():
        return False
    letters = sum(c.isalpha() for c in text)
    if letters < 0.6 * len(text) or (text.isupper() and len(words) > 3):
        return False
    return not _UNWANTED.search(text) and max(map(len, words)) < 22
