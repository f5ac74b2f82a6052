"""Which emojis fit a sentence: Unicode CLDR keywords for its words, human emotion ratings for its mood.

The lexicon is built from three files (homes and licences in README.md): CLDR annotations, emojilib's
keywords and the EmoTag1200 ratings (150 emojis x 8 emotions, each rated by people between 0 and 1).
"""

import csv
import gzip
import json
import math
import random
import re
from collections import Counter, defaultdict
from pathlib import Path

_STOP = {
    line.strip() for line in (Path(__file__).parent / "stop_words.txt").read_text().splitlines() if line[:1] != "#"
}

# The feeling of a reply as weights on the eight rated emotions (EmoTag1200's columns).
_MOODS = {
    "joy": {"joy": 1.0, "trust": 0.3, "surprise": 0.2},
    "love": {"joy": 0.7, "trust": 1.0},
    "gratitude": {"joy": 0.7, "trust": 0.9},
    "fun": {"joy": 1.0, "surprise": 0.2},
    "pride": {"joy": 0.9, "trust": 0.3, "anticipation": 0.2},
    "calm": {"joy": 0.6, "trust": 0.6},
    "curious": {"anticipation": 1.0, "joy": 0.3},
    "surprise": {"surprise": 1.0, "joy": 0.5},
    "sympathy": {"trust": 0.9, "sadness": 0.5},
    "sadness": {"sadness": 0.9, "trust": 0.4},
    "worry": {"trust": 0.7, "fear": 0.3, "sadness": 0.2},
    "anger": {"trust": 0.6, "anger": 0.2, "sadness": 0.2},
    "hope": {"trust": 0.7, "anticipation": 0.4, "joy": 0.4},
    "neutral": {"trust": 0.6, "joy": 0.6},
}
# What CLDR and emojilib call the emojis of a mood: the ratings alone cannot tell a party from a kiss.
_MOOD_KEYWORDS = {
    "joy": "celebration happy party tada smile",
    "love": "heart love adore hug",
    "gratitude": "thanks thank hug grateful appreciate",
    "fun": "haha laugh lol fun playful",
    "pride": "celebrate applause congratulations trophy star winning",
    "calm": "relaxed calm relieved flower leaf",
    "curious": "idea thinking think curious bulb search sparkle",
    "surprise": "wow surprised amazed sparkle",
    "sympathy": "hug support blue care comfort hope",
    "sadness": "hug comfort blue yellow hope",
    "worry": "hug support luck hope pray blue",
    "anger": "hug calm support frustrated",
    "hope": "hope luck sparkle pray rainbow",
    "neutral": "smile sparkle okay happy",
}
# Faces and signs that no assistant should send to a stranger, whatever their ratings.
_UNFIT = set(
    "🕐🕑🕒🕓🕔🕕🕖🕗🕘🕙🕚🕛🕜🕝🕞🕟🕠🕡🕢🕣🕤🕥🕦🕧🤯🤪😹😼😽🙀😿🥍🏣🎑📍🎰🎱🥊🧿🔮🃏🀄🎴⛎🤥🤑🤐🥺🖕💩🔫🔞💋👅💀👻😈👿😡😠🤬😤👎💣🔪🍆🍑💦👊💢🚬🍻🍺🥃🍷🍸🍹🍾😏🙄😒👙🩲🥵🤮🤢💉🩸🔨⚰🪦🪓🗡😚😙😗😘💏💑💪🏿🙊🙉🙈👇👈👉👆☝✊🙅🙋🙆💁❌❗‼❓⁉♻☑🔴⬅➡↩↪▶◀💥👹👺🤡😵🥴😾🙍🙎🎅🤶💲💱📛🚫⛔🆘🆗🆕🆒🆓🆙🈁🔱⚜"
)
# emoji-test lists its groups in a fixed order; the emoji that opens each one tells them apart even where the
# comment lines were stripped. People, symbols and flags are left out but for `_EXTRA`.
_GROUP_OPENERS = {"😀": True, "👋": False, "🐵": True, "🏧": False}
_EXTRA = "👋👍👏🙌🙏💪🤝👶👑✅💯🎓👀🧑‍🍳👩‍💻"  # the few from other groups that chats are full of

# Tongues, romance and money look silly beside a stranger's everyday message, so a mood alone never brings them.
_NEVER_BY_MOOD = set("😋😛😜😝😻💰😳😱😼😇😎👀😪😫😩😕😥😞😟😭💔😢")
_ROMANCE = set("💕💞💘💓💗😍💖🌹♥")
_ROMANTIC_MOODS = {"love", "joy", "gratitude"}
_CHEERFUL = set("💎💯✈👏😉🎉😆😃😄😁🙌👍☺")
_SUPPORTIVE_MOODS = {"sympathy", "sadness", "worry", "anger"}

_WORD = re.compile(r"[a-z]+(?:'[a-z]+)?")


def stem(word: str) -> str:
    """A crude English stem: enough to join `cakes` with `cake` and `baking` with `bake`."""
    for ending, replacement in (("ies", "y"), ("ings", ""), ("ing", ""), ("ed", ""), ("es", "e"), ("s", "")):
        if word.endswith(ending) and len(word) - len(ending) >= 3 and not word.endswith("ss"):
            return (word[: len(word) - len(ending)] + replacement).rstrip("e")
    return word.rstrip("e") if len(word) > 3 else word


def _load_json(path: Path) -> dict:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return json.load(file)


class EmojiLexicon:
    """Emojis by the stems of words, and by mood."""

    def __init__(self, folder: Path) -> None:
        """Read the emoji files below `folder` (emoji-test, CLDR, emojilib, EmoTag1200)."""
        self.emojis = self._usable_emojis(folder)
        names, keywords = self._keywords(folder)
        self.by_stem = self._index(names, keywords)
        self.by_mood = self._rate(folder, keywords)

    @staticmethod
    def _usable_emojis(folder: Path) -> list[str]:
        chosen, in_wanted_group = [], True
        with gzip.open(folder / "emoji-test.txt.gz", "rt", encoding="utf-8") as lines:
            for line in lines:
                if "; fully-qualified" not in line:
                    continue
                emoji, version = re.search(r"# (\S+) E([\d.]+)", line).groups()  # type: ignore[union-attr]
                in_wanted_group = _GROUP_OPENERS.get(emoji, in_wanted_group)
                codes = line.split(";")[0].split()
                plain = len(codes) == 1 or (len(codes) == 2 and codes[1] == "FE0F")
                if emoji in _EXTRA or (in_wanted_group and plain and float(version) <= 12 and not set(emoji) & _UNFIT):
                    chosen.append(emoji)
        return chosen

    def _keywords(self, folder: Path) -> tuple[dict[str, str], dict[str, set[str]]]:
        cldr = _load_json(folder / "cldr-annotations-en.json.gz")["annotations"]["annotations"]
        emojilib = _load_json(folder / "emojilib-keywords-en.json.gz")
        names, keywords = {}, {}
        for emoji in self.emojis:
            entry = cldr.get(emoji) or cldr.get(emoji.replace("\ufe0f", "")) or {"default": [], "tts": [""]}
            more = emojilib.get(emoji) or emojilib.get(emoji.replace("\ufe0f", "")) or []
            names[emoji] = entry["tts"][0]
            keywords[emoji] = {k.lower() for k in entry["default"]} | {k.lower().replace("_", " ") for k in more}
        return names, keywords

    def _index(self, names: dict[str, str], keywords: dict[str, set[str]]) -> dict[str, list[tuple[str, float]]]:
        """Stem -> [(emoji, weight)]; a stem that many emojis share says little, a name says most."""
        raw: dict[str, dict[str, float]] = defaultdict(dict)
        for emoji in self.emojis:
            name_stems = {stem(w) for w in _WORD.findall(names[emoji])}
            for keyword in keywords[emoji] | {names[emoji]}:
                words = _WORD.findall(keyword)
                if len(words) != 1 or words[0] in _STOP or len(words[0]) < 3:
                    continue
                key = stem(words[0])
                weight = (2.0 if names[emoji] == keyword else 1.0) * (1.5 if key in name_stems else 1.0)
                raw[key][emoji] = max(weight, raw[key].get(emoji, 0.0))
        index = {}
        for key, found in raw.items():
            best = sorted(found.items(), key=lambda item: -item[1])
            if len(best) <= 14 or best[0][1] >= 1.5:
                index[key] = [(e, w / math.sqrt(min(len(best), 9))) for e, w in best if w >= best[0][1] * 0.6][:5]
        return index

    def _rate(self, folder: Path, keywords: dict[str, set[str]]) -> dict[str, list[tuple[str, float]]]:
        """Mood -> [(emoji, weight)]: the people's ratings under the mood's weights, doubled by a shared keyword."""
        with (folder / "EmoTag1200-scores.csv").open(encoding="utf-8") as file:
            ratings = list(csv.DictReader(file))
        known = {e.replace("\ufe0f", ""): e for e in self.emojis}
        by_mood = {}
        for mood, weights in _MOODS.items():
            scored = []
            for row in ratings:
                emoji = known.get(row["emoji"].replace("\ufe0f", ""))
                if emoji is None or float(row["sadness"]) > 0.3:
                    continue
                if (
                    set(emoji) & _NEVER_BY_MOOD
                    or (set(emoji) & _ROMANCE and mood not in _ROMANTIC_MOODS)
                    or (set(emoji) & _CHEERFUL and mood in _SUPPORTIVE_MOODS)
                ):
                    continue
                value = sum(w * float(row[e]) for e, w in weights.items()) / sum(weights.values())
                value *= 1.0 - 0.7 * max(float(row["anger"]), float(row["disgust"]))
                hits = sum(k in keywords[emoji] for k in _MOOD_KEYWORDS[mood].split())
                scored.append((emoji, value * (1 + hits)))
            by_mood[mood] = sorted(scored, key=lambda item: -item[1])[:12]
        # Emojis that people have not rated enter by keyword alone, at the weight of a middling rating.
        for mood, words in _MOOD_KEYWORDS.items():
            listed = {e for e, _ in by_mood[mood]}
            faces_and_hearts = [e for e in "🤗🥳🥰🤔💡🏆🌱🤩🙂🌻🍀🔍🌈💙💛🌷🌤️" if e in self.emojis and e not in listed]
            by_mood[mood] += [(e, 0.9) for e in faces_and_hearts if sum(w in keywords[e] for w in words.split()) >= 1]
        return by_mood

    def candidates(self, sentence: str) -> Counter[str]:
        """Emojis whose keywords the sentence holds, with summed weights."""
        found: Counter[str] = Counter()
        for word in dict.fromkeys(_WORD.findall(sentence.lower())):
            if word in _STOP:
                continue
            for emoji, weight in self.by_stem.get(stem(word), ()):
                found[emoji] += weight
        return found


_SENTENCE_END = re.compile(r"(?<=[.!?])(?:\s+|$)")
_GREETING = re.compile(r"^(hi|hello|hey|good morning|welcome|goodbye|bye|see you)\b", re.I)


def _choose(
    lexicon: EmojiLexicon, sentence: str, context: str, mood: str, used: set[str], rng: random.Random
) -> tuple[str, float]:
    """An emoji for a sentence and how much speaks for it."""
    found = lexicon.candidates(sentence)
    for emoji, weight in lexicon.candidates(context).items():
        found[emoji] += 0.35 * weight
    options = [(e, w) for e, w in found.most_common(4) if w >= 0.62 and e not in used]
    if options and rng.random() < 0.82:
        best = options[0][1]
        options = [(e, w) for e, w in options if w >= 0.6 * best]
        return rng.choices([e for e, _ in options], [w**3 for _, w in options])[0], best + 0.5
    if _GREETING.match(sentence) and "👋" not in used and rng.random() < 0.6:
        return "👋", 0.8
    moods = [(e, w) for e, w in lexicon.by_mood.get(mood, lexicon.by_mood["neutral"]) if e not in used]
    return rng.choices([e for e, _ in moods], [w**1.5 for _, w in moods])[0], 0.4


def add_emojis(lexicon: EmojiLexicon, reply: str, context: str, mood: str, rng: random.Random) -> str:
    """`reply` with one to three fitting emojis, each after the sentence that it belongs to.

    Code fences and JSON stay untouched: the emoji follows them on a line of its own, or precedes them.
    """
    if "```" in reply or reply.lstrip().startswith(("{", "[")):
        return reply + "\n" + _choose(lexicon, "", context, mood, set(), rng)[0]
    lines = reply.split("\n")
    parts: list[list[str]] = [[s for s in _SENTENCE_END.split(line) if s] for line in lines]
    slots = [(i, j) for i, line in enumerate(parts) for j, s in enumerate(line) if not re.fullmatch(r"\d+\.", s)]
    wanted = min(len(slots), rng.choices([1, 2, 3], [0.5, 0.36, 0.14])[0])
    used: set[str] = set()
    offers = []
    for i, j in slots:
        emoji, strength = _choose(lexicon, parts[i][j], context, mood, used, rng)
        last = (i, j) == slots[-1]
        offers.append((strength + (0.5 if last else 0.0) + rng.random() * 0.6, (i, j), emoji))
        used.add(emoji)
    for _, (i, j), emoji in sorted(offers, reverse=True)[:wanted]:
        parts[i][j] += f" {emoji}"
    return "\n".join(" ".join(line) for line in parts)
