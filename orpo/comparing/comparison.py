"""Base against tuned on held-out prompts: one model in memory, its adapter off and on.

The measures answer four questions. Does the tuned model use emojis, and not too many? Does it use them well (the score
and its parts)? Are its replies still replies (ended, not repeating themselves)? Does it still know its language
(perplexity on plain text that no run trains on)?
"""

import math
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from orpo.chat_model.chat_template import encode_text
from orpo.chat_model.generation import generate_replies
from orpo.chat_model.log_probs import completion_log_probs
from orpo.records.messages import user_message, with_system
from orpo.records.prompts import OUT_OF_PLACE, Prompt
from orpo.records.replies import Reply, Sampling
from orpo.scoring import DEFAULT_SCORER, ScoreReport, count_emojis, mean_scores
from orpo.scoring.replies import score_replies

BASE: Final = "base"
TUNED: Final = "tuned"

_PLAIN_TEXT_FILE = Path(__file__).with_name("plain_text.txt")
_WARM_UP = Sampling(temperature=0, max_new_tokens=4)


@dataclass(frozen=True)
class Measures:
    """What one side's replies come to.

    Attributes:
        replies: How many replies were measured.
        emoji_rate: Share of replies with at least one emoji.
        in_place_rate: The same where an emoji is in place; None where the prompts have no categories.
        out_of_place_rate: The same for code, JSON, grief and legal matters; the lower the better.
        mean_emojis: Emojis per reply.
        max_emojis: Most emojis in one reply.
        finished_share: Share that the model ended itself within the token limit.
        repeated_share: Share in which four words in a row stand three times.
        distinct_share: Different replies divided by replies; low means one answer for everything.
        mean_tokens: Tokens per reply.
        tokens_per_second: Speed of generation, in batches, after a warm-up.
        perplexity: Per token on held-out plain text; None where it was not measured.
        scores: Mean score as `total`, and the mean of each of its parts.
    """

    replies: int
    emoji_rate: float
    mean_emojis: float
    max_emojis: int
    finished_share: float
    repeated_share: float
    distinct_share: float
    mean_tokens: float
    tokens_per_second: float
    perplexity: float | None = None
    in_place_rate: float | None = None
    out_of_place_rate: float | None = None
    scores: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Side:
    """The replies of one side and their scores, in the order of the prompts, and their measures."""

    name: str
    replies: list[Reply]
    reports: list[ScoreReport]
    measures: Measures


@dataclass(frozen=True)
class Comparison:
    """Both sides' replies to the same prompts; `tuned` is None where only the base was asked."""

    prompts: list[Prompt]
    base: Side
    tuned: Side | None
    scorer: str = DEFAULT_SCORER

    def sides(self) -> list[Side]:
        """Return the sides there are, base first."""
        return [self.base] if self.tuned is None else [self.base, self.tuned]

    def rows(self) -> list[dict[str, Any]]:
        """Return one JSON-able row per prompt, with both replies."""
        return [
            {
                "prompt_id": prompt.prompt_id,
                "category": prompt.category,
                "prompt": prompt.text,
                **{side.name: _reply_row(side.replies[index], side.reports[index]) for side in self.sides()},
            }
            for index, prompt in enumerate(self.prompts)
        ]

    def summary(self) -> dict[str, Any]:
        """Return the measures of each side by name."""
        return {side.name: asdict(side.measures) for side in self.sides()}


def choose_prompts(prompts: Sequence[Prompt], count: int) -> list[Prompt]:
    """Return `count` prompts from all over the list, always the same ones; 0 takes all of them."""
    if count <= 0 or count >= len(prompts):
        return list(prompts)
    return random.Random(0).sample(list(prompts), len(prompts))[:count]


def plain_texts() -> list[str]:
    """Return the everyday prose, written for this purpose, on which perplexity is measured."""
    return [line for line in _PLAIN_TEXT_FILE.read_text(encoding="utf-8").splitlines() if line.strip()]


def compare(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Prompt],
    sampling: Sampling,
    *,
    seed: int,
    batch_size: int = 16,
    system: str | None = None,
    texts: Sequence[str] = (),
    scorer: str = DEFAULT_SCORER,
    on_batch: Callable[[int], None] | None = None,
) -> Comparison:
    """Have the base, and the tuned model if there is an adapter, answer the same prompts with the same seed.

    Args:
        model: A PeftModel, or a plain model to measure the base alone.
        tokenizer: Its tokenizer.
        prompts: What to answer.
        sampling: How tokens are picked.
        seed: Seed of the sampling.
        batch_size: Prompts at once.
        system: A system prompt for both sides.
        texts: Plain text to measure perplexity on; none measured if empty.
        scorer: The score of each reply.
        on_batch: Called after each batch with its size.
    """
    conversations = [with_system(system, prompt.conversation()) for prompt in prompts]
    generate_replies(model, tokenizer, [user_message("Hello")], _WARM_UP, seed=0)

    def measure(name: str, switch: AbstractContextManager[Any]) -> Side:
        with switch:
            started = time.perf_counter()
            replies = generate_replies(
                model, tokenizer, conversations, sampling, seed=seed, batch_size=batch_size, on_batch=on_batch
            )
            seconds = time.perf_counter() - started
            perplexity = measure_perplexity(model, tokenizer, texts, batch_size=batch_size) if texts else None
        reports = score_replies(scorer, conversations, [reply.text for reply in replies])
        categories = [prompt.category for prompt in prompts]
        return Side(name, replies, reports, measure_replies(replies, seconds, perplexity, reports, categories))

    has_adapter = hasattr(model, "disable_adapter")
    base = measure(BASE, model.disable_adapter() if has_adapter else nullcontext())
    tuned = measure(TUNED, nullcontext()) if has_adapter else None
    return Comparison(list(prompts), base, tuned, scorer)


def measure_replies(
    replies: Sequence[Reply],
    seconds: float,
    perplexity: float | None = None,
    reports: Sequence[ScoreReport] = (),
    categories: Sequence[str] = (),
) -> Measures:
    """Return the measures of replies that took so many seconds."""
    count = max(1, len(replies))
    emojis = [count_emojis(reply.text) for reply in replies]
    known = list(zip(emojis, categories or [""] * len(emojis), strict=True))
    tokens = sum(reply.tokens for reply in replies)
    return Measures(
        replies=len(replies),
        emoji_rate=sum(number > 0 for number in emojis) / count,
        mean_emojis=sum(emojis) / count,
        max_emojis=max(emojis, default=0),
        finished_share=sum(reply.finished for reply in replies) / count,
        repeated_share=sum(repeats_itself(reply.text) for reply in replies) / count,
        distinct_share=len({reply.text for reply in replies}) / count,
        mean_tokens=tokens / count,
        tokens_per_second=tokens / max(seconds, 1e-9),
        perplexity=perplexity,
        in_place_rate=_rate([number for number, category in known if category and category not in OUT_OF_PLACE]),
        out_of_place_rate=_rate([number for number, category in known if category in OUT_OF_PLACE]),
        scores=mean_scores(reports),
    )


def _rate(emojis: Sequence[int]) -> float | None:
    return sum(number > 0 for number in emojis) / len(emojis) if emojis else None


def repeats_itself(text: str, *, length: int = 4, times: int = 3) -> bool:
    """Tell whether some `length` words in a row stand at least `times` times in the text."""
    words = text.lower().split()
    grams = Counter(tuple(words[start : start + length]) for start in range(len(words) - length + 1))
    return max(grams.values(), default=0) >= times


def measure_perplexity(model: Any, tokenizer: Any, texts: Sequence[str], *, batch_size: int = 16) -> float:
    """Return exp(-mean log p) per token over the texts; each text's first token is given, not predicted."""
    prompts, rest = [], []
    for text in texts:
        ids = encode_text(tokenizer, text)
        if tokenizer.bos_token_id is not None:
            ids = [tokenizer.bos_token_id, *ids]
        prompts.append(ids[:1])
        rest.append(ids[1:])
    scored = completion_log_probs(model, prompts, rest, batch_size=batch_size)
    total, tokens = sum(value for value, _ in scored), sum(count for _, count in scored)
    return math.exp(min(-total / max(1, tokens), 700.0))  # 700: the largest whose exp is finite


def _reply_row(reply: Reply, report: ScoreReport) -> dict[str, Any]:
    return {**asdict(reply), "emojis": count_emojis(reply.text), "score": report.as_dict()}
