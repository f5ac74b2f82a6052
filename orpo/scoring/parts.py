"""The parts of a score: each looks at one thing and returns its value in [0, 1] with a one-line reason.

Where several emojis are judged, each different emoji counts once, by its worst place, and the part is their mean. So
adding more of an emoji that is already there can never raise a part.
"""

import re
from collections import Counter
from collections.abc import Callable

from orpo.scoring.contexts import QUIET, Context
from orpo.scoring.emoji_table import KEYCAP, SKIN_TONES, VS16, ZWJ, emoji_name, emoji_table
from orpo.scoring.meaning import meaning_model
from orpo.scoring.profiles import Profile
from orpo.scoring.relevance import Place, emotion_fit, relevance
from orpo.scoring.surroundings import PLACE_VALUES, Occurrence, Reply
from orpo.scoring.wishes import Wish

Part = tuple[float, str]

_NO_EMOJI: Part = (1.0, "no emoji to judge")
_MANY_FACTOR = 3.0  # how many more emojis are fine where the user asks for many
_FREE_SPOKEN_WORDS = 8
_SPOKEN_SHARE = 0.2

# An emoji after one of these stands for the word that should follow, wherever it stands.
_BEFORE_A_NOUN = frozenset(["a", "an", "the", "my", "your", "our", "their", "its", "every"])
# These may also end a sentence ("I'm so happy for her 🎉"), so they tell only where words go on behind the emoji.
_BEFORE_A_WORD = _BEFORE_A_NOUN.union(
    ["his", "her", "some", "any", "each", "these", "those"],
    ["of", "to", "for", "with", "in", "on", "at", "from", "by", "into", "and", "or"],
    ["i", "we", "they", "is", "are", "was", "were", "am"],
)
_BROKEN = re.compile(f"[{SKIN_TONES}{KEYCAP}\U0001f1e6-\U0001f1ff\U000e0020-\U000e007f]")


def presence(reply: Reply, profile: Profile, context: Context | None, wish: Wish | None) -> Part:
    """Judge whether there is an emoji, where one is in place."""
    if reply.spans:
        return (0.0, "has emojis, none is right") if profile.name == "none" else (1.0, "has an emoji")
    if wish is not None and wish.most == 0:
        return 1.0, "no emoji, as asked"
    sureness = context.sureness if context else 0.0
    value = 1.0 - (1.0 - profile.without) * (1.0 - sureness)
    if context and sureness >= 0.5:
        return value, f"no emoji, and {context.name} needs none"
    return value, "no emoji"


def obedience(reply: Reply, wish: Wish | None) -> Part:
    """Judge whether the number of emojis is what was asked for."""
    if wish is None:
        return 1.0, "nothing asked about emojis"
    count = len(reply.spans)
    if wish.forbids:
        return (1.0, "none, as asked") if count == 0 else (0.0, f"{count} where none was asked for")
    if count < wish.least:
        return count / wish.least, f"{count} where at least {wish.least} was asked for"
    if wish.most is not None and count > wish.most:
        return wish.most / count, f"{count} where at most {wish.most} was asked for"
    return 1.0, f"{count}, as asked"


def density(reply: Reply, profile: Profile, wish: Wish | None) -> Part:
    """Judge how many emojis there are for the words and sentences."""
    count = len(reply.spans)
    if count == 0:
        return _NO_EMOJI
    factor = _MANY_FACTOR if wish is not None and wish.many else 1.0
    by_words = max(profile.free, profile.per_100_words * reply.word_count / 100)
    by_sentences = max(profile.free, profile.per_sentence * (1 + len(reply.distinct_sentences)))
    allowed = factor * min(by_words, by_sentences)
    if wish is not None and not wish.forbids:
        allowed = max(allowed, wish.least, wish.most or 0)
    if count <= allowed:
        return 1.0, f"{count} in {reply.word_count} words"
    value = (allowed / count) ** 1.5
    return value, f"{count} in {reply.word_count} words; at most {allowed:.0f} reads well"


def repetition(reply: Reply, profile: Profile) -> Part:
    """Judge repeats of one emoji, and variety where there are many."""
    keys = reply.keys
    if not keys:
        return _NO_EMOJI
    if len(set(keys)) == len(keys):
        return 1.0, "each emoji once"
    emoji, most = Counter(keys).most_common(1)[0]
    last = len(profile.repeats)
    value = profile.repeats[most - 1] if most <= last else profile.repeats[-1] * (last / most) ** 1.5
    variety = min(1.0, len(set(keys)) / len(keys) / 0.6) if len(keys) >= 4 else 1.0
    return min(value, variety), f"{emoji} {most} times"


def placement(reply: Reply) -> Part:
    """Judge where emojis stand: a line's or sentence's end is best, the inside of a word worst."""
    if not reply.spans:
        return _NO_EMOJI
    value, worst = _mean_of_worst(reply.occurrences, lambda occurrence: PLACE_VALUES[occurrence.place])
    lines, marked = _marked_lines(reply)
    if marked >= 3 and marked >= 0.6 * lines:
        return 0.4 * value, f"{marked} of {lines} lines carry an emoji as a bullet"
    return value, f"{worst.span.text} {worst.place}"


def replacement(reply: Reply) -> Part:
    """Judge whether an emoji stands for a word that the sentence needs."""
    if not reply.spans:
        return _NO_EMOJI
    if reply.word_count == 0:
        return 0.3, "emojis instead of words"
    value, worst = _mean_of_worst(reply.occurrences, _keeps_words)
    if value >= 0.999:
        return 1.0, "no word is replaced"
    before = f"after {worst.word_before!r} " if worst.word_before else ""
    return value, f"{worst.span.text} {before}stands for a word"


def relevance_part(reply: Reply, prompt: str) -> Part:
    """Judge whether each emoji means what its sentence says."""
    if not reply.spans:
        return _NO_EMOJI

    def judge(occurrence: Occurrence) -> float:
        return relevance(occurrence.key, Place(occurrence.clause, occurrence.before, reply.words, prompt))

    value, worst = _mean_of_worst(reply.occurrences, judge)
    verdict = "fits" if value >= 0.6 else "fits loosely" if value >= 0.35 else "has little to do with"
    return value, f"{worst.span.text} ({emoji_name(worst.span.text)}) {verdict} {_quote(worst.clause or prompt)}"


def emotion_part(reply: Reply, prompt: str) -> Part:
    """Judge whether each emoji's feeling suits the feeling of its sentence and of what it answers."""
    if not reply.spans:
        return _NO_EMOJI
    value, worst = _mean_of_worst(
        reply.occurrences, lambda occurrence: emotion_fit(occurrence.key, occurrence.clause, prompt)
    )
    if value >= 0.8:
        return value, "the feeling suits the words"
    return value, f"{worst.span.text} clashes with the feeling of {_quote(worst.clause)}"


def context_part(reply: Reply, profile: Profile, context: Context | None, wish: Wish | None) -> Part:
    """Judge whether emojis are in place at all: not in code or data, with restraint in grave matters."""
    if not reply.spans:
        return _NO_EMOJI

    def judge(occurrence: Occurrence) -> float:
        if occurrence.in_code:
            return 0.05
        if occurrence.in_link:
            return 0.1
        if context is None or (wish is not None and not wish.forbids and context.label != "data"):
            return 1.0
        restraint = profile.restraints[context.label]
        worth = restraint.other
        if occurrence.key in QUIET:
            in_kind = restraint.quiet_in_kind if context.user_uses_emojis else None
            worth = restraint.quiet if in_kind is None else in_kind
        return 1.0 - context.sureness * (1.0 - worth)

    value, worst = _mean_of_worst(reply.occurrences, judge)
    if value >= 0.999:
        return 1.0, f"in place in {context.name}" if context else "everyday talk"
    where = "code" if worst.in_code else "a link" if worst.in_link else context.name if context else ""
    doubt = "" if worst.in_code or worst.in_link or not context or context.sureness > 0.9 else "what may be "
    return value, f"{worst.span.text} in {doubt}{where}"


def reading(reply: Reply) -> Part:
    """Judge what a screen reader has to say: the words of the emojis' names beside the words of the text."""
    if not reply.spans:
        return _NO_EMOJI
    spoken = sum(len(emoji_name(span.text).split()) for span in reply.spans)
    allowed = _FREE_SPOKEN_WORDS + _SPOKEN_SHARE * reply.word_count
    return min(1.0, allowed / max(spoken, 1)), f"a screen reader adds {spoken} words to {reply.word_count}"


def rendering(reply: Reply, profile: Profile) -> Part:
    """Judge whether everyone sees what was meant: no broken characters, no emoji too new for most devices."""
    if reply.text.isascii():
        return 1.0, "plain characters"
    if "\ufffd" in reply.text:
        return 0.1, "holds U+FFFD, a broken character"
    if _BROKEN.search(reply.plain):
        return 0.3, "holds half an emoji: a lone modifier or flag letter"
    for span in reply.spans:
        if reply.plain[span.end : span.end + 1] in (ZWJ, VS16) and reply.plain[span.end : span.end + 1]:
            return 0.6, f"{span.text} is followed by a lone joiner"
        entry = emoji_table().get(span.text.replace(VS16, ""))
        if entry is not None and entry.version > profile.newest_version:
            return 0.7, f"{span.text} came with emoji {entry.version}, later than {profile.newest_version}"
    return 1.0, "shows everywhere"


def _mean_of_worst(occurrences: list[Occurrence], judge: Callable[[Occurrence], float]) -> tuple[float, Occurrence]:
    """Return the mean over different emojis of each one's worst value, and the worst occurrence of all."""
    if len(occurrences) == 1:  # as most often
        return judge(occurrences[0]), occurrences[0]
    worst: dict[str, tuple[float, Occurrence]] = {}
    judged: dict[Occurrence, float] = {}  # a reply may hold thousands of one emoji in equal surroundings
    for occurrence in occurrences:
        if occurrence not in judged:
            judged[occurrence] = judge(occurrence)
        value = judged[occurrence]
        if occurrence.key not in worst or value < worst[occurrence.key][0]:
            worst[occurrence.key] = (value, occurrence)
    lowest = min(worst.values(), key=lambda found: found[0])
    return sum(value for value, _ in worst.values()) / len(worst), lowest[1]


def _keeps_words(occurrence: Occurrence) -> float:
    """Return how sure it is that no word is missing where this emoji stands."""
    before, after = occurrence.word_before, occurrence.word_after
    between = occurrence.place == "stands between words"
    if before in _BEFORE_A_NOUN or (between and before in _BEFORE_A_WORD):
        return 0.05
    if between and not (_names(occurrence.key, before) or _names(occurrence.key, after)):
        return 0.5
    return 1.0


def _names(emoji_key: str, word: str) -> bool:
    model = meaning_model()
    number = model.number(emoji_key)
    return number is not None and bool(word) and model.names(number, word)


def _marked_lines(reply: Reply) -> tuple[int, int]:
    """Return how many lines hold text, and how many of them open or end with an emoji."""
    marked: set[int] = set()
    line = position = 0
    for occurrence in reply.occurrences:
        if occurrence.place in ("opens a line", "ends a line"):
            line += reply.plain.count("\n", position, occurrence.span.start)
            position = occurrence.span.start
            marked.add(line)
    lines = sum(1 for line in reply.plain.split("\n") if line.strip())
    return lines, len(marked)


def _quote(text: str) -> str:
    flat = " ".join(text.split())
    return f"{flat[:40] + '…' if len(flat) > 41 else flat!r}" if flat else "an empty text"
