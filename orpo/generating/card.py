"""The card of a preference data set, README.md: what it holds, how it was made, and how it looks."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from orpo.generating.choosing import spread
from orpo.records.pairs import PreferencePair

_HEADER = """\
---
pretty_name: Emoji preferences
task_categories: [text-generation]
tags: [preference, orpo, dpo, emoji, synthetic, distilabel]
configs:
- config_name: default
  data_files: pairs.jsonl
---
"""


def write_card(
    pairs: Sequence[PreferencePair],
    settings: Mapping[str, Any],
    metrics: Mapping[str, Any],
    sides: Mapping[str, Mapping[str, Any]],
    dropped: Mapping[str, int],
) -> str:
    """Return the card's text, in Markdown."""
    parts = [
        _HEADER,
        "# Preference pairs: emojis used well\n",
        f"{len(pairs)} pairs from {metrics['prompts']} prompts. Two writers answered every prompt; `chosen` is the "
        f"reply that the scorer `{settings['scorer']}` scored higher, `rejected` the other one; the clearest pairs "
        "stand first.\n",
        _writers(settings),
        _columns(),
        _sides(sides),
        _dropped(dropped),
        _examples(spread(pairs, 3)),
        "The replies were written by the models named above, and their terms apply to what they wrote. "
        "`run.json` holds all settings, versions and measurements; `dropped.jsonl` the prompts that made no pair.\n",
    ]
    return "\n".join(part for part in parts if part)


def _writers(settings: Mapping[str, Any]) -> str:
    lines = ["| writer | model | system prompt |", "|---|---|---|"]
    for name in ("emoji", "plain"):
        system = settings[f"{name}_system"] or "none"
        lines.append(f"| {name} | {_cell(settings[f'{name}_model'])} | {_cell(system)} |")
    return "\n".join(lines) + "\n"


def _columns() -> str:
    return (
        "Columns, in TRL's conversational preference format plus where each pair came from: `prompt` (chat messages), "
        "`chosen` and `rejected` (one assistant message each), `chosen_score`, `rejected_score`, `chosen_model`, "
        "`rejected_model`, `prompt_id`, `source`.\n"
    )


def _sides(sides: Mapping[str, Mapping[str, Any]]) -> str:
    lines = ["| side | with an emoji | emojis per reply | score | words per reply |", "|---|---|---|---|---|"]
    for name, side in sides.items():
        rate, emojis, score, words = (side[key] for key in ("emoji_rate", "mean_emojis", "mean_score", "mean_words"))
        lines.append(f"| {name} | {rate:.1%} | {emojis:.2f} | {score:.2f} | {words:.1f} |")
    return "\n".join(lines) + "\n"


def _dropped(dropped: Mapping[str, int]) -> str:
    if not dropped:
        return "No prompt was dropped.\n"
    lines = ["| dropped because | prompts |", "|---|---|", *(f"| {_cell(why)} | {n} |" for why, n in dropped.items())]
    return "\n".join(lines) + "\n"


def _examples(pairs: Sequence[PreferencePair]) -> str:
    shown = [
        {
            "prompt": pair.prompt[-1]["content"],
            "chosen": pair.chosen[0]["content"],
            "chosen_score": round(pair.chosen_score, 3),
            "rejected": pair.rejected[0]["content"],
            "rejected_score": round(pair.rejected_score, 3),
        }
        for pair in pairs
    ]
    lines = "\n".join(json.dumps(example, ensure_ascii=False, indent=1) for example in shown)
    fence = "````" if "```" in lines else "```"
    return f"{fence}json\n{lines}\n{fence}\n"


def _cell(text: object) -> str:
    return " ".join(str(text).split()).replace("|", "\\|")
