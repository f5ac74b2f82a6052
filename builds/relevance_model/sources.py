"""Read the files that the relevance model is built from; README.md says where they come from, under which licence."""

import csv
import gzip
import json
import re
from collections import Counter, defaultdict
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from orpo.records.near_duplicates import content_words
from orpo.records.prompts import embedded_prompts
from orpo.scoring import find_emojis, normalise_emoji, strip_emojis
from orpo.scoring.emoji_table import emoji_table

EMOTIONS_RATED = ("anger", "anticipation", "disgust", "fear", "joy", "sadness", "surprise", "trust")
POSITIVE = {
    *("admiration", "amusement", "approval", "caring", "desire", "excitement"),
    *("gratitude", "joy", "love", "optimism", "pride", "relief"),
}
NEGATIVE = {
    *("anger", "annoyance", "disappointment", "disapproval", "disgust", "embarrassment"),
    *("fear", "grief", "nervousness", "remorse", "sadness"),
}
USAGE_FILE = Path(__file__).parent / "usage.tsv"
FELT_FILE = Path(__file__).parent / "felt.tsv"
USUAL_FILE = Path(__file__).parent / "usual.tsv"
EXAMPLES = Path(__file__).parents[2] / "orpo" / "records" / "examples.jsonl"
MEASURED_ON = Path(__file__).parents[2] / "benchmarks" / "data"
SHARED_AT_MOST = 0.6
SPEAK_OF_EMOJIS = ("asks", "forbids")
LABELS_OF = {
    **{name: name for name in ("code", "grief", "legal", "formal", "grave_illness", "violence", "crisis")},
    "json": "data",
}
CONTEXTS = Path(__file__).parents[1] / "contexts"
RARE, FLAG, SIGN = 1.0, 0.5, 0.0
_KEYWORD = re.compile(r"[a-z0-9]+(?:'[a-z]+)?|[!?]+|:\)|:\(|<3")
# Words of names that say how a picture looks, not what it means.
_LOOKS = {"face", "eye", "eyes", "with", "of", "and", "the", "symbol", "button"}


@dataclass(frozen=True)
class Comment:
    """A comment with the emotions that people saw in it."""

    text: str
    emotions: tuple[str, ...]


@dataclass(frozen=True)
class Tweet:
    """A tweet whose one emoji was taken out."""

    text: str
    emoji: str


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Read gzip JSON lines."""
    return [json.loads(line) for line in gzip.decompress(path.read_bytes()).decode("utf-8").split("\n") if line]


def read_comments(data: Path) -> list[Comment]:
    """Return GoEmotions comments without an emoji: those with one are kept for validation."""
    rows = read_rows(data / "emoji" / "reddit_comments_with_emotions.jsonl.gz")
    return [Comment(row["text"], tuple(row["emotions"])) for row in rows if strip_emojis(row["text"]) == row["text"]]


def read_tweets(data: Path, split: str) -> list[Tweet]:
    """Return the tweets of one split."""
    rows = read_rows(data / "emoji" / "tweets_with_emoji_label.jsonl.gz")
    return [Tweet(row["text"], normalise_emoji(row["emoji"])) for row in rows if row["split"] == split]


def read_conversations(data: Path) -> list[str]:
    """Return the texts that word vectors are learned from: conversations and assistant replies, no tweets."""
    texts: list[str] = []
    for name in ("self_dialogue", "synthetic_persona_chat", "topical_chat", "casino"):
        texts.extend(" \n ".join(row["turns"]) for row in read_rows(data / "chat" / f"{name}.jsonl.gz"))
    texts.extend(row["reply"] for row in read_rows(data / "chat" / "open_assistant_outputs.jsonl.gz"))
    return [strip_emojis(text) for text in texts]


def read_ratings(data: Path) -> dict[str, list[float]]:
    """Return EmoTag's human ratings: eight emotions for each of 150 emojis."""
    with (data / "emoji" / "EmoTag1200-scores.csv").open(encoding="utf-8", newline="") as file:
        return {
            normalise_emoji(row["emoji"]): [float(row[emotion]) for emotion in EMOTIONS_RATED]
            for row in csv.DictReader(file)
        }


def read_keywords(data: Path) -> dict[str, dict[str, float]]:
    """Return the keywords of each emoji (skin tones share one entry): CLDR, emojilib and our notes on usage."""
    keywords: dict[str, dict[str, float]] = {}

    def add(emoji: str, phrases: list[str]) -> None:
        words = keywords.setdefault(normalise_emoji(emoji), {})
        for phrase in phrases:
            for word in _KEYWORD.findall(phrase.lower().replace("_", " ")):
                if word not in _LOOKS:
                    words[word] = 1.0

    for name, key in (("cldr-annotations-en", "annotations"), ("cldr-annotations-derived-en", "annotationsDerived")):
        annotations = json.loads(gzip.decompress((data / "emoji" / f"{name}.json.gz").read_bytes()))[key]["annotations"]
        for emoji, entry in annotations.items():
            if normalise_emoji(emoji) == emoji.replace("\ufe0f", ""):  # not once more for each skin tone
                add(emoji, entry.get("default", []) + entry.get("tts", []))
    emojilib = json.loads(gzip.decompress((data / "emoji" / "emojilib-keywords-en.json.gz").read_bytes()))
    for emoji, phrases in emojilib.items():
        add(emoji, phrases)
    for emoji, usage in read_usage().items():
        words = keywords.setdefault(emoji, {})
        for word in usage.lower().split():
            words[word] = words.get(word, 0.0) + 1.0
    # CLDR also annotates signs of text that are no emojis, such as currency signs and arrows.
    listed = {normalise_emoji(emoji) for emoji in emoji_table()}
    return {emoji: words for emoji, words in keywords.items() if words and emoji in listed}


def read_usage() -> dict[str, str]:
    """Return our notes on how people use an emoji."""
    lines = USAGE_FILE.read_text(encoding="utf-8").splitlines()
    return {normalise_emoji(emoji): usage for emoji, usage in (line.split("\t") for line in lines)}


def read_felt() -> dict[str, dict[str, float]]:
    """Return our notes on the emotions that people use an emoji for, in the comments' labels, with weights."""
    felt = {}
    for line in FELT_FILE.read_text(encoding="utf-8").splitlines():
        emoji, entry = line.split("\t")
        names, weights = entry.split()[::2], entry.split()[1::2]
        felt[normalise_emoji(emoji)] = dict(zip(names, map(float, weights), strict=True))
    return felt


def read_usual() -> dict[str, float]:
    """Return how usual people's use of an emoji is: 5 for everybody's, down to 2 for known ones.

    The grades follow the order in which Unicode's published frequency groups stand, and, beyond these, how often one
    meets an emoji in messages on its own topic.
    """
    grades: dict[str, float] = {}
    for line in USUAL_FILE.read_text(encoding="utf-8").splitlines():
        grade, emojis = line.split("\t")
        grades.update((normalise_emoji(span.text), float(grade)) for span in find_emojis(emojis))
    return grades


def usual_grade(emoji: str, grades: dict[str, float]) -> float:
    """Return the grade of an emoji by `read_usual`; what is not listed is rare, a flag or a sign."""
    if emoji in grades:
        return grades[emoji]
    if "\U0001f1e6" <= emoji[0] <= "\U0001f1ff" or "\U000e007f" in emoji:
        return FLAG
    return SIGN if emoji[0] < "\u2600" or "\U0001f192" <= emoji[0] <= "\U0001f251" or "\u20e3" in emoji else RARE


@dataclass(frozen=True)
class WrittenReply:
    """An exchange written for this project: what was asked, in which context, and a reply that suits it."""

    prompt: str
    label: str
    text: str


def read_written_contexts() -> list[tuple[str, str]]:
    """Return (message, label) of the messages written to tell contexts apart, and of the embedded training prompts.

    Hard negatives are labelled everyday. Left out is what comes near a message that the score is measured on.
    """
    rows = [row for name in ("grave", "everyday", "extra") for row in _read_lines(CONTEXTS / f"{name}.jsonl")]
    messages = [(str(row["text"]), str(row["label"])) for row in rows if not _is_near(row["text"])]
    for prompt in embedded_prompts("train"):
        if prompt.category not in SPEAK_OF_EMOJIS:
            messages.append((prompt.text, LABELS_OF.get(prompt.category, "everyday")))
    return messages


def read_messages() -> list[tuple[str, str, str, str]]:
    """Return (message, label, mood of a fitting reply, plain reply) of messages of everyday life and a few on code."""
    rows = [row for row in _read_lines(CONTEXTS / "messages.jsonl") if not _is_near(row["text"])]
    return [(row["text"], row["label"], row["mood"], row["reply"]) for row in rows]


def read_bland_replies() -> list[str]:
    """Return replies that say nothing of what was asked, such as "Okay."."""
    return [row["text"] for row in _read_lines(CONTEXTS / "bland.jsonl") if not _is_near(row["text"])]


def read_written_replies() -> list[WrittenReply]:
    """Return the exchanges that ship as examples: emojis in place in everyday ones, none in the others.

    Left out are those whose prompt shares six tenths of its words with one that the score is measured on.
    """
    found = []
    for row in _read_lines(EXAMPLES):
        prompt = row["prompt"][-1]["content"]
        if row["category"] not in SPEAK_OF_EMOJIS and not _is_near(prompt):
            found.append(WrittenReply(prompt, LABELS_OF.get(row["category"], "everyday"), row["reply"]))
    return found


@cache
def _measured_by_word() -> dict[str, list[int]]:
    """Return the numbers of the measured texts that hold each content word."""
    rows = [row for path in sorted(MEASURED_ON.glob("*.jsonl")) for row in _read_lines(path)]
    texts = [text for row in rows for text in (row["prompt"], row.get("text", "")) if text]
    numbers: dict[str, list[int]] = defaultdict(list)
    for number, text in enumerate(texts):
        for word in content_words(text):
            numbers[word].append(number)
    return dict(numbers)


def _is_near(message: str) -> bool:
    """Return whether a measured text holds six tenths of a message's content words."""
    words = content_words(message)
    shared = Counter(number for word in words for number in _measured_by_word().get(word, ()))
    return len(words) > 1 and max(shared.values(), default=0) >= SHARED_AT_MOST * len(words)


def _read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
