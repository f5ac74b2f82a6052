"""How fast emojis are found and replies scored, on one core.

    uv run benchmarks/score_speed.py                              # on text made here
    uv run benchmarks/score_speed.py --data ../shared/data        # on real chat

Counting is compared with the `emoji` package and with the pattern usually given for the `regex` package, which is not
exact. Processor seconds of this process, best of five rounds, the first round not counted. The last
line is JSON.
"""

import argparse
import gzip
import json
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # one core means one core

import random
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import emoji
import regex

from orpo.command.display import print_table
from orpo.scoring import count_emojis, find_emojis, get_scorer, strip_emojis

# The pattern that answers on the web give: no list of sequences, so lone flag letters and bare arrows count too.
REGEX_PATTERN = regex.compile(
    r"\p{RI}\p{RI}|\p{Emoji_Presentation}(?:\p{EMod})?(?:\u200d\p{Emoji}\ufe0f?(?:\p{EMod})?)*"
    r"|\p{Extended_Pictographic}(?:\ufe0f|\p{EMod})?(?:\u200d\p{Emoji}\ufe0f?(?:\p{EMod})?)*|[0-9#*]\ufe0f?\u20e3"
)
WORDS = re.findall(
    r"\w+",
    """the a to of and you that is it for on with have this be are was but not what all were when we can said there use
    an each which she do how their if will up other about out many then them these so some her would make like him into
    time has look two more write go see number no way could people my than first water been call who its now find""",
)
ROUNDS = 5


def made_up_chat(rng: random.Random, emojis: Sequence[str], messages: int, share_with_emoji: float) -> list[str]:
    """Return messages of ordinary words, some with typographic quotes, some with emojis."""
    texts = []
    for _ in range(messages):
        words = rng.choices(WORDS, k=rng.randint(6, 40))
        text = " ".join(words).capitalize() + rng.choice([".", "!", "?", "…"])
        if rng.random() < 0.15:
            text = text.replace(" you ", " you’re ", 1)
        if rng.random() < share_with_emoji:
            text += " " + rng.choice(emojis)
        texts.append(text)
    return texts


def real_chat(data: Path) -> list[str]:
    """Return GoEmotions comments, about 2 % of which carry emojis."""
    path = data / "emoji" / "reddit_comments_with_emotions.jsonl.gz"
    lines = gzip.decompress(path.read_bytes()).decode("utf-8").split("\n")
    return [json.loads(line)["text"] for line in lines if line]


def megabytes_per_second(work: Callable[[str], object], texts: Sequence[str], rounds: int = ROUNDS) -> float:
    """Return the speed of the fastest round."""
    size = sum(len(text.encode("utf-8")) for text in texts) / 1e6
    best = float("inf")
    for number in range(rounds + 1):
        started = time.process_time()
        for text in texts:
            work(text)
        if number:
            best = min(best, time.process_time() - started)
    return size / best


def measure_finding(chat: list[str], emoji_chat: list[str]) -> list[dict[str, object]]:
    """Return MB/s for chat as it is, and for messages that all carry emojis."""
    tools: dict[str, tuple[Callable[[str], object], int]] = {
        "count_emojis": (count_emojis, 1),
        "find_emojis": (find_emojis, 1),
        "strip_emojis": (strip_emojis, 1),
        "regex package": (lambda text: len(REGEX_PATTERN.findall(text)), 4),
        "emoji.emoji_list": (emoji.emoji_list, 20),
        "emoji.emoji_count": (emoji.emoji_count, 20),
    }
    return [
        {
            "tool": name,
            "chat_mb_per_s": megabytes_per_second(tool, chat[::thinned]),
            "emoji_messages_mb_per_s": megabytes_per_second(tool, emoji_chat[:: max(1, thinned // 4)]),
        }
        for name, (tool, thinned) in tools.items()
    ]


def measure_scoring(replies: list[str]) -> list[dict[str, object]]:
    """Return replies a second for each scorer, every reply seen once and each with a prompt of its own."""
    rows: list[dict[str, object]] = []
    pairs = list(zip(replies[0::2], replies[1::2], strict=False))
    warm_up, timed = pairs[:200], pairs[200:3200]
    for name in ("tasteful", "contains_emoji"):
        scorer = get_scorer(name)
        for prompt, reply in warm_up:
            scorer.score(reply, prompt)
        started = time.process_time()
        for prompt, reply in timed:
            scorer.score(reply, prompt)
        seconds = time.process_time() - started
        words = sum(len(reply.split()) for _, reply in timed) / len(timed)
        rows.append({"scorer": name, "replies_per_s": len(timed) / seconds, "words_per_reply": words})
    return rows


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="a folder with emoji/reddit_comments_with_emotions.jsonl.gz")
    arguments = parser.parse_args()
    rng = random.Random(0)
    emojis = [text for text, entry in emoji.EMOJI_DATA.items() if entry["status"] == emoji.STATUS["fully_qualified"]]
    chat = real_chat(arguments.data) if arguments.data else made_up_chat(rng, emojis, 20_000, 0.02)
    emoji_chat = [text for text in chat if count_emojis(text)]
    finding = measure_finding(chat, emoji_chat)
    # every reply with an emoji at its end: the dearest case, as a reply without one needs no models
    common = ["😂", "❤️", "😊", "🎉", "🙏", "😢", "🔥", "👍"]
    scoring = measure_scoring([f"{strip_emojis(text)} {rng.choice(common)}" for text in chat[:6500]])
    for title, rows in (("Finding emojis", finding), ("Full score, one emoji in every reply", scoring)):
        columns = list(rows[0])
        print_table(columns, [[row[column] for column in columns] for row in rows], title=title)
    print(json.dumps({"data": str(arguments.data or "made up"), "finding": finding, "scoring": scoring}))


if __name__ == "__main__":
    main()
