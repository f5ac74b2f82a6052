"""The card of a preference data set, README.md: what it holds, how it was made, and how it looks."""

import json
import re
from collections.abc import Sequence
from typing import Final

from huggingface_hub import DatasetCard, DatasetCardData

from orpo.command.markdown import table
from orpo.command.paths import public_name
from orpo.command.safe_text import printable
from orpo.generating.result import GenerationMetrics, ScoredMeasures, count_objections, spread
from orpo.generating.settings import WriterSpec
from orpo.records.pairs import PreferencePair

_KINDS: Final = {
    "presence": "an emoji where one is in place; rejected: none",
    "fit": "an emoji that fits; rejected: the same reply with one that has nothing to do with it",
    "excess": "one to three emojis; rejected: many, or one repeated",
    "place": "an emoji behind a sentence; rejected: inside a word or a clause",
    "restraint": "none in grave, technical and formal matters; rejected: one",
    "obedience": "what the system message or the user wishes; rejected: the opposite",
}


def make_card(
    pairs: Sequence[PreferencePair], metrics: GenerationMetrics, writers: Sequence[WriterSpec], scorer: str
) -> str:
    """Return the card's text, in Markdown."""
    data = DatasetCardData(
        pretty_name="Emoji preferences",
        language="en",
        task_categories=["text-generation"],
        tags=["preference", "orpo", "dpo", "emoji", "synthetic", "distilabel"],
        configs=[{"config_name": "default", "data_files": "pairs.jsonl"}],
    )
    parts = [
        "# Preference pairs: emojis used well",
        f"{len(pairs)} pairs from {metrics['prompts']} prompts"
        + (f" and {metrics['examples']} examples" if metrics["examples"] else "")
        + f". `chosen` is the reply that the scorer `{scorer}` scored higher; the clearest pairs stand first.",
        table(("writer", "model", "system prompt"), [_writer_row(spec) for spec in writers]),
        table(
            ("kind", "pairs", "what it teaches"),
            [(kind, count, _KINDS.get(kind, "")) for kind, count in metrics["kinds"].items()],
        ),
        "Columns, in TRL's conversational preference format plus where each pair came from: `prompt` (chat messages), "
        "`chosen` and `rejected` (one assistant message each), `chosen_score`, `rejected_score`, `chosen_reasons`, "
        "`rejected_reasons` (what cost the reply something), `chosen_model`, `rejected_model`, `kind`, `prompt_id`, "
        "`source`.",
        table(
            ("side", "with an emoji", "emojis per reply", "score", "words per reply"),
            [_side_row(name, side) for name, side in metrics["sides"].items()],
        ),
        table(("what the score held against rejected replies", "pairs"), list(count_objections(pairs).items())),
        table(("dropped because", "prompts"), list(metrics["dropped"].items())) or "No prompt was dropped.",
        _examples(spread(pairs, 3)),
        "The replies were written by the models named above, and their terms apply to what they wrote. `run.json` "
        "holds all settings, versions and measurements; `dropped.jsonl` the prompts that made no pair, with the "
        "score's reasons.",
    ]
    body = "\n\n".join(part for part in parts if part)
    return str(DatasetCard(f"---\n{data.to_yaml()}\n---\n\n{body}\n"))


def _writer_row(spec: WriterSpec) -> tuple[str, str, str]:
    return spec.side, public_name(str(spec.adapter or spec.model)), spec.system or "none"


def _side_row(name: str, side: ScoredMeasures) -> tuple[str, ...]:
    words = f"{side.mean_words:.1f}"
    return name, f"{side.emoji_rate:.1%}", f"{side.mean_emojis:.2f}", f"{side.mean_score:.2f}", words


def _examples(pairs: Sequence[PreferencePair]) -> str:
    shown = [
        {
            "prompt": printable(pair.prompt[-1]["content"]),
            "kind": pair.kind,
            "chosen": printable(pair.chosen_text),
            "chosen_score": round(pair.chosen_score, 3),
            "rejected": printable(pair.rejected_text),
            "rejected_score": round(pair.rejected_score, 3),
            "rejected_reasons": [printable(reason) for reason in pair.rejected_reasons],
        }
        for pair in pairs
    ]
    lines = "\n".join(json.dumps(example, ensure_ascii=False, indent=1) for example in shown)
    longest = max((len(run) for run in re.findall(r"`+", lines)), default=0)
    fence = "`" * max(3, longest + 1)  # nothing in a reply can end the block, so no HTML in it is read as such
    return f"{fence}json\n{lines}\n{fence}"
