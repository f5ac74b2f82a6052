"""Make what ships to learn from out of rows written for this project, apart from what ships to measure with.

    uv run python -m builds.examples.build examples WRITTEN.jsonl... > orpo/records/examples.jsonl
    uv run python -m builds.examples.build prompts WRITTEN.jsonl...  # adds to the training prompts

A written row holds `prompt` (text or chat messages), `category` and, for examples, `reply`. Left out are rows that say
nearly what a held-out prompt, wish or short question says, or an earlier row; and examples with an emoji where none has
a place, or without one where it has.
"""

import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

from orpo.records.messages import Message, last_message, system_message, user_message
from orpo.records.near_duplicates import KnownMessages
from orpo.records.prompts import HELD_OUT, OUT_OF_PLACE, PROMPTS_FILE, TRAIN, embedded_prompts
from orpo.records.shipped import FORBIDS, held_out_wishes, short_questions
from orpo.scoring import contains_emoji

Row = dict[str, Any]

PLAIN: Final = OUT_OF_PLACE | {FORBIDS}
"""Categories whose replies carry no emoji."""


def held_out_messages() -> KnownMessages:
    """Return everything that a model is measured on."""
    return KnownMessages(
        [
            *(prompt.text for prompt in embedded_prompts(HELD_OUT)),
            *(last_message(wish.messages) for wish in held_out_wishes()),
            *(question.question for question in short_questions()),
        ]
    )


def held_out_wordings() -> KnownMessages:
    """Return the system prompts that wish for emojis or forbid them, and whose wording must be new to the model."""
    return KnownMessages(filter(None, (system_message(wish.messages) for wish in held_out_wishes())))


def read_written(files: Iterable[Path]) -> Iterator[Row]:
    """Yield the rows with their prompt as chat messages."""
    for file in files:
        for line in file.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            prompt = row["prompt"]
            yield {**row, "prompt": user_message(prompt) if isinstance(prompt, str) else prompt}


def choose_examples(rows: Iterable[Row], left_out: Counter[str]) -> Iterator[Row]:
    """Yield the examples that may ship, and count why the others may not."""
    known = KnownMessages(prompt.text for prompt in embedded_prompts(TRAIN))
    for row in _apart_from_held_out(rows, left_out):
        if known.is_near(last_message(row["prompt"])):
            left_out["near a training prompt or an earlier example"] += 1
        elif contains_emoji(row["reply"]) == (row["category"] in PLAIN):
            left_out["an emoji out of place, or none in place"] += 1
        else:
            known.add(last_message(row["prompt"]))
            yield {name: row[name] for name in ("prompt", "category", "reply")}


def choose_prompts(rows: Iterable[Row], left_out: Counter[str]) -> Iterator[Row]:
    """Yield the training prompts that may ship, in the form of the file of prompts."""
    prompts = embedded_prompts()
    number = max(int(prompt.prompt_id.removeprefix("p")) for prompt in prompts)
    known = {json.dumps(prompt.conversation()) for prompt in prompts}
    for row in _apart_from_held_out(rows, left_out):
        if json.dumps(row["prompt"]) in known:
            left_out["a training prompt already"] += 1
            continue
        number += 1
        said: str | list[Message] = row["prompt"] if len(row["prompt"]) > 1 else last_message(row["prompt"])
        yield {"prompt_id": f"p{number:04d}", "category": row["category"], "split": TRAIN, "prompt": said}


def _apart_from_held_out(rows: Iterable[Row], left_out: Counter[str]) -> Iterator[Row]:
    messages, wordings = held_out_messages(), held_out_wordings()
    for row in rows:
        system = system_message(row["prompt"])
        if messages.is_near(last_message(row["prompt"])):
            left_out["near a held-out message"] += 1
        elif system and wordings.is_near(system):
            left_out["near the wording of a held-out wish"] += 1
        else:
            yield row


def main(argv: list[str]) -> None:
    """Print the chosen examples, or add the chosen prompts to the file of prompts."""
    what, *names = argv
    written = list(read_written(map(Path, names)))
    left_out: Counter[str] = Counter()
    if what == "prompts":
        chosen = list(choose_prompts(written, left_out))
        with PROMPTS_FILE.open("a", encoding="utf-8") as stream:
            stream.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in chosen)
    else:
        chosen = list(choose_examples(written, left_out))
        sys.stdout.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in chosen)
    print(f"{len(chosen)} of {len(written)} {what}; left out: {dict(left_out)}", file=sys.stderr)


if __name__ == "__main__":
    main(sys.argv[1:])
