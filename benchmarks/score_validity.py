"""Is the score valid? Against what people did, and against damage done on purpose.

    uv run benchmarks/score_validity.py --data ../shared/data

Prints tables: relevance on tweets whose emoji was removed (split `val`, on which nothing was chosen); the emoji in
place against a random one of equal frequency in comments; damage to well-scored replies; what length and formatting
buy; and the exchanges of score_on_written_sets.py. The last line is JSON.
"""

import argparse
import json
import random
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for the recipes

from benchmarks.score_on_written_sets import (
    measure_blind,
    measure_calibration,
    measure_presence,
    measure_restraint,
    measure_smiles,
    measure_start,
    measure_suggestions,
    read_everyday,
    read_gpt_replies,
)
from builds.relevance_model.sources import NEGATIVE, POSITIVE, read_keywords, read_rows, read_tweets
from orpo.command.display import print_table
from orpo.scoring import find_emojis, get_scorer, normalise_emoji, strip_emojis
from orpo.scoring.meaning import MeaningModel, TextMeaning, meaning_model
from orpo.scoring.relevance import Place, emotion_fit, relevance

OWN_REPLIES = Path(__file__).with_name("well_written_replies.tsv")
WELL_SCORED = 0.6
COMMENTS_AT_MOST = 150
GLEE = ("😂", "🤣", "🎉", "🥳", "😆")
GLOOM = ("😡", "😭", "😢", "🤮", "😠", "👎")
CODE = "\n```python\nprint('hello')\n```"

Judge = Callable[[int, TextMeaning, str], float]
Row = dict[str, Any]


def judges(model: MeaningModel, data: Path) -> dict[str, Judge]:
    """Return the contestants: plain baselines, the parts of the shipped model, and the whole of it."""
    keywords = read_keywords(data)
    exact = [set(keywords[emoji]) for emoji in model.emojis]

    def plain_lexicon(number: int, meaning: TextMeaning, text: str) -> float:
        return float(len(exact[number] & set(re.findall(r"[a-z0-9]+", text.lower()))))

    def stemmed(number: int, meaning: TextMeaning, text: str) -> float:
        own = model.keywords[number]
        return sum(own[word] for word in meaning.sense.stems & own.keys())

    return {
        "keywords, exact": plain_lexicon,
        "keywords, stemmed and weighted": stemmed,
        "sense (static encoder)": lambda number, meaning, _: model.sense_score(number, meaning.sense),
        "emotions": lambda number, meaning, _: float(model.emoji_emotions[number] @ meaning.emotions),
        "shipped (all three)": lambda number, meaning, _: model.lexical_score(number, meaning),
        "relevance and emotion as scored": lambda number, _, text: (
            relevance(model.emojis[number], Place(text)) * emotion_fit(model.emojis[number], text)
        ),
    }


def measure_tweets(model: MeaningModel, contestants: dict[str, Judge], data: Path) -> list[Row]:
    """Return macro and micro AUC, top-1 and top-3 of 20 for each contestant on the validation tweets."""
    tweets = read_tweets(data, "val")
    emojis = sorted({tweet.emoji for tweet in tweets})
    numbers = [model.index[emoji] for emoji in emojis]
    labels = np.array([emojis.index(tweet.emoji) for tweet in tweets])
    meanings = [model.text(tweet.text) for tweet in tweets]
    rows = []
    for name, judge in contestants.items():
        scores = np.array(
            [
                [judge(number, meaning, tweet.text) for number in numbers]
                for meaning, tweet in zip(meanings, tweets, strict=True)
            ]
        )
        rows.append({"judge": name, **ranking_figures(scores, labels)})
    return rows


def ranking_figures(scores: np.ndarray[Any, Any], labels: np.ndarray[Any, Any]) -> dict[str, float]:
    """Return how often the right column beats another, averaged per label (macro) and per row (micro), and top-k."""
    own = scores[np.arange(len(labels)), labels][:, None]
    others = scores.shape[1] - 1
    wins = ((own > scores).sum(axis=1) + 0.5 * ((own == scores).sum(axis=1) - 1)) / others
    macro = float(np.mean([wins[labels == label].mean() for label in np.unique(labels)]))
    # a tie is worth its share of the places it covers
    above, tied = (scores > own).sum(axis=1), (scores == own).sum(axis=1)
    top = {k: float(np.clip((k - above) / tied, 0, 1).mean()) for k in (1, 3)}
    figures = {"macro_auc": macro, "micro_auc": float(wins.mean()), "top1": top[1], "top3": top[3]}
    return figures | {"macro_f1": macro_f1(scores.argmax(axis=1), labels)}


def macro_f1(picked: np.ndarray[Any, Any], labels: np.ndarray[Any, Any]) -> float:
    """Return the mean F1 over labels of the best column: TweetEval's measure."""
    found = []
    for label in np.unique(labels):
        right = int(((picked == label) & (labels == label)).sum())
        found.append(2 * right / max(1, int((picked == label).sum() + (labels == label).sum())))
    return float(np.mean(found))


def read_emoji_comments(data: Path) -> list[tuple[str, str, set[str]]]:
    """Return (comment, one of its emojis, emotions that people saw) for comments that carry emojis."""
    items: list[tuple[str, str, set[str]]] = []
    for row in read_rows(data / "emoji" / "reddit_comments_with_emotions.jsonl.gz"):
        keys = list(dict.fromkeys(normalise_emoji(span.text) for span in find_emojis(row["text"])))
        if keys and len(strip_emojis(row["text"])) > 3:
            items.extend((row["text"], key, set(row["emotions"])) for key in keys)
    return items


def measure_comments(model: MeaningModel, contestants: dict[str, Judge], data: Path) -> list[Row]:
    """Return how often the emoji in place beats one drawn from all comments' emojis, so by equal frequency."""
    items = [item for item in read_emoji_comments(data) if item[1] in model.index]
    pool = [emoji for _, emoji, _ in items]
    rng = random.Random(0)
    rivals = [[rival for rival in rng.choices(pool, k=25) if rival != emoji][:20] for _, emoji, _ in items]
    rows = []
    for name, judge in contestants.items():
        wins = total = 0.0
        for (text, emoji, _), others in zip(items, rivals, strict=True):
            plain = strip_emojis(text)
            meaning = model.text(plain)
            own = judge(model.index[emoji], meaning, plain)
            for rival in others:
                score = judge(model.index[rival], meaning, plain)
                wins += 1.0 if own > score else 0.5 if own == score else 0.0
                total += 1
        rows.append({"judge": name, "auc": wins / total, "pairs": int(total)})
    return rows


def well_scored_replies(data: Path) -> list[tuple[str, str, str]]:
    """Return (mood, prompt, reply) of replies that the default profile scores well: our own and people's comments."""
    scorer = get_scorer("tasteful")
    own = [line.split("\t") for line in OWN_REPLIES.read_text(encoding="utf-8").splitlines()]
    replies = [(mood, prompt, reply) for mood, prompt, reply in own if scorer.score(reply, prompt) >= WELL_SCORED]
    print(f"{len(replies)} of {len(own)} replies written for this project score at least {WELL_SCORED}")
    comments: dict[str, str] = {}
    for text, _, emotions in read_emoji_comments(data):
        if len(text.split()) >= 5 and scorer.score(text) >= WELL_SCORED:
            positive, negative = bool(emotions & POSITIVE), bool(emotions & NEGATIVE)
            comments[text] = "happy" if positive and not negative else "sad" if negative and not positive else ""
    print(f"{len(comments)} comments with emojis score as much; {min(len(comments), COMMENTS_AT_MOST)} are used")
    return replies + [(mood, "", text) for text, mood in list(comments.items())[:COMMENTS_AT_MOST]]


def damage(kind: str, mood: str, reply: str, model: MeaningModel, rng: random.Random) -> str | None:
    """Return the reply damaged in one way, or None where the kind does not apply."""
    emoji = find_emojis(reply)[0]
    if kind.startswith("spam"):
        return _replace_each(reply, lambda own: own * int(kind.split("x")[1]))
    if kind == "random emojis":
        return _replace_each(reply, lambda own: rng.choice([e for e in model.emojis if e != normalise_emoji(own)]))
    if kind == "moved into a word":
        plain = strip_emojis(reply)
        word = max(re.finditer(r"[A-Za-z]{2,}", plain), key=lambda match: len(match[0]), default=None)
        return None if word is None else _insert(plain, (word.start() + word.end()) // 2, emoji.text)
    if kind == "a word replaced":
        return _replace_word(reply, model)
    if kind == "moved into code":
        return strip_emojis(reply) + CODE.replace("hello", f"hello {emoji.text}")
    wrong = GLOOM if mood == "happy" else GLEE if mood == "sad" else ()
    return _replace_each(reply, lambda own: rng.choice([e for e in wrong if e != own])) if wrong else None


def _replace_each(text: str, change: Callable[[str], str]) -> str:
    for span in reversed(find_emojis(text)):
        text = text[: span.start] + change(span.text) + text[span.end :]
    return text


def _insert(text: str, position: int, piece: str) -> str:
    return text[:position] + piece + text[position:]


def _replace_word(reply: str, model: MeaningModel) -> str | None:
    """Write an emoji in place of the word that names it best."""
    from orpo.scoring.words import stem

    best: tuple[float, int, int, str] | None = None
    for match in re.finditer(r"[A-Za-z]{3,}", reply):
        word = stem(match[0].lower())
        for number, keywords in enumerate(model.keywords):
            if word in keywords and (best is None or keywords[word] > best[0]):
                best = (keywords[word], match.start(), match.end(), model.emojis[number])
    return None if best is None else reply[: best[1]] + best[3] + reply[best[2] :]


KINDS = (
    "spam x5",
    "spam x20",
    "random emojis",
    "moved into a word",
    "a word replaced",
    "moved into code",
    "wrong emotion",
)


def measure_damage(model: MeaningModel, replies: Sequence[tuple[str, str, str]]) -> list[Row]:
    """Return for each kind of damage the share of replies that score lower for it."""
    scorer = get_scorer("tasteful")
    rows = []
    for kind in KINDS:
        rng = random.Random(1)
        before, after = [], []
        for mood, prompt, reply in replies:
            damaged = damage(kind, mood, reply, model, rng)
            if damaged is not None:
                whole = reply + CODE if kind == "moved into code" else reply
                before.append(scorer.score(whole, prompt))
                after.append(scorer.score(damaged, prompt))
        lower = sum(a < b for a, b in zip(after, before, strict=True)) / len(before)
        rows.append(
            {"damage": kind, "replies": len(before), "lower": lower, "before": np.mean(before), "after": np.mean(after)}
        )
    return rows


def measure_formatting(replies: Sequence[tuple[str, str, str]]) -> list[Row]:
    """Return how much the score moves when plain text is doubled or sentences become bullets."""
    scorer = get_scorer("tasteful")
    names = ("plain text doubled", "doubled, emoji kept", "bullets, plain", "bullets")
    changes: dict[str, list[float]] = {name: [] for name in names}
    for _, prompt, reply in replies:
        plain = strip_emojis(reply)
        score, plain_score = scorer.score(reply, prompt), scorer.score(plain, prompt)
        changes["plain text doubled"].append(scorer.score(f"{plain} {plain}", prompt) - plain_score)
        changes["doubled, emoji kept"].append(scorer.score(f"{plain}\n{reply}", prompt) - score)
        changes["bullets, plain"].append(scorer.score(_as_bullets(plain), prompt) - plain_score)
        changes["bullets"].append(scorer.score(_as_bullets(reply), prompt) - score)
    return [
        {
            "change": name,
            "replies": len(values),
            "mean": float(np.mean(values)),
            "largest": float(np.max(np.abs(values))),
            "below_0.05": float(np.mean(np.abs(values) < 0.05)),
        }
        for name, values in changes.items()
    ]


def _as_bullets(text: str) -> str:
    return "\n".join(f"- {line}" for line in text.split("\n"))


def show(title: str, rows: list[Row]) -> None:
    """Print rows of figures as a table."""
    columns = list(rows[0])
    print_table(columns, [[_rounded(row[column]) for column in columns] for row in rows], title=title)


def _rounded(value: Any) -> Any:
    return round(float(value), 4) if isinstance(value, float | np.floating) else value


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(__file__).resolve().parents[2] / "shared" / "data")
    parser.add_argument("--embedding-model", type=Path, help="folder of a sentence encoder to compare with")
    parser.add_argument("--blind", action="store_true", help="measure the blind sets alone: rarely, never to tune")
    arguments = parser.parse_args()
    if arguments.blind:
        blind = measure_blind()
        for title, rows in blind.items():
            show(title, rows)
        print(json.dumps(blind))
        return
    data = arguments.data
    model = meaning_model()
    contestants = judges(model, data)
    if arguments.embedding_model:
        from benchmarks.sentence_embeddings import embedding_judges

        contestants |= embedding_judges(arguments.embedding_model, model, data)
    tweets = measure_tweets(model, contestants, data)
    show("Tweets without their emoji: which of 20 was it (5,000, split val)", tweets)
    comments = measure_comments(model, contestants, data)
    show("Comments: the emoji in place against another of equal frequency", comments)
    replies = well_scored_replies(data)
    damages = measure_damage(model, replies)
    show("Damage to well-scored replies: the damaged one scores lower", damages)
    formatting = measure_formatting(replies)
    show("Length and formatting", formatting)
    written = {
        "restraint": (
            "Grave, formal and technical prompts: the plain reply above the one with a smile",
            measure_restraint(),
        ),
        "presence": (
            "Replies with emojis: above their plain twin, above others' emojis",
            measure_presence({"everyday prompts": read_everyday(), "GPT-written pairs": read_gpt_replies(data)}),
        ),
        "smiles": ("An emoji of the topic beside a smile in its place", measure_smiles()),
        "suggestions": ("suggest_emojis: a reader accepts the first, one of the first three", measure_suggestions()),
        "calibration": ("Said and seen: the reply with an emoji is preferred", measure_calibration(data)),
        "start": ("A fresh process, seconds", measure_start()),
    }
    for title, rows in written.values():
        show(title, rows)
    results = {"tweets": tweets, "comments": comments, "damage": damages, "formatting": formatting}
    results |= {name: rows for name, (_, rows) in written.items()}
    print(json.dumps(results, default=float, ensure_ascii=False))


if __name__ == "__main__":
    main()
