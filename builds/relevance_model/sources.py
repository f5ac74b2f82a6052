"""Read the files that the relevance model is built from; README.md says where they come from, under which licence."""

import csv
import gzip
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orpo.scoring import normalise_emoji, strip_emojis

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
    for line in USAGE_FILE.read_text(encoding="utf-8").splitlines():
        emoji, usage = line.split("\t")
        words = keywords.setdefault(normalise_emoji(emoji), {})
        for word in usage.lower().split():
            words[word] = words.get(word, 0.0) + 1.0
    return {emoji: words for emoji, words in keywords.items() if words}
