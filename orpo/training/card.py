"""What a finished run came to: figures out of the trainer's history, the table on the terminal, the model card."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, TypedDict

from huggingface_hub import ModelCard, ModelCardData

from orpo.command.markdown import table
from orpo.command.output_folder import write_whole
from orpo.command.paths import public_name
from orpo.training.adapter import base_model_name
from orpo.training.early_stopping import BestCheckpoint
from orpo.training.learning_rate import LearningRate
from orpo.training.settings import TrainSettings
from orpo.training.verdict import Metrics

History = Sequence[Mapping[str, float]]

_ROWS = (
    ("loss", "training loss"),
    ("rewards/score", "score of the replies learnt from"),
    ("rewards/std", "standard deviation of R(y) in a group"),
    ("rewards/log_ratio", "log(pi / pi_ref) of these replies"),
    ("kl", "distance from the reference, nats a token"),
    ("groups/same_score_share", "groups whose replies score alike"),
    ("samples/mean_emojis", "emojis per reply learnt from"),
    ("nll_loss", "negative log-likelihood"),
    ("log_odds_chosen", "log odds ratio"),
    ("rewards/margins", "reward margin"),
    ("rewards/accuracies", "chosen preferred"),
    ("logps/chosen", "log-probability of a chosen token"),
    ("eval_loss", "evaluation loss"),
    ("eval_logps/chosen", "evaluation, log-probability of a chosen token"),
    ("eval_rewards/margins", "evaluation margin"),
    ("eval_rewards/accuracies", "evaluation, chosen preferred"),
    ("replies/emoji_rate", "replies with an emoji"),
    ("replies/mean_emojis", "emojis per reply"),
    ("replies/max_emojis", "most emojis in a reply"),
    ("replies/commonest_share", "share of the commonest emoji"),
    ("replies/repeated_share", "replies that repeat themselves"),
    ("score/total", "score of the replies"),
    ("replies/finished_share", "replies that end by themselves"),
    ("reward/chosen", "R(chosen)"),
    ("reward/rejected", "R(rejected)"),
    ("reward/sampled", "R(sampled)"),
)
_SHARES = ("accuracies", "replies/emoji_rate", "_share")

_CARD: Final = """\
# Emoji adapter for {name}

A LoRA adapter that makes a chat model use emojis. All settings and versions are in `run.json`.

## Training

- {train} pairs to train on, {evaluation} to evaluate on, {steps} steps of {pairs_per_step} pairs
- LoRA rank {lora.rank}, alpha {lora.alpha}, dropout {lora.dropout:g}, on {targets}
- {method}
- learning rate {rate.value:.3g} ({rate.source}), {optimiser.schedule}, {warmup:.0%} warm-up, seed {seed}
{best}
## Result

{verdict}.

{table}

First is before the first step for the replies and the evaluation, and the first log for the training loss.
The replies are sampled on held-out prompts without a system prompt.

## Use

```
uv run orpo/inference.py --adapter trained/{folder} --prompt 'I got the job!'
```

or `PeftModel.from_pretrained` of peft, with the tokenizer and chat template of this folder.
"""


class RunCounts(TypedDict):
    """What a run had and did: pairs, dropped ones by reason, steps."""

    pairs: int
    train: int
    evaluation: int
    dropped: dict[str, int]
    truncated: int
    steps: int


def run_metrics(history: History) -> Metrics:
    """Return first and last value of everything that was watched."""
    found = {key: [entry[key] for entry in history if key in entry] for key, _ in _ROWS}
    return {key: {"first": values[0], "last": values[-1]} for key, values in found.items() if values}


def median_speed(history: History) -> float | None:
    """Return the tokens per second of the middle log; None where no step was timed."""
    rates = sorted(entry["tokens_per_second"] for entry in history if "tokens_per_second" in entry)
    return rates[len(rates) // 2] if rates else None


def summary_rows(metrics: Metrics) -> list[list[str]]:
    """Return the table of first and last values."""
    return [
        [name, _number(key, metrics[key]["first"]), _number(key, metrics[key]["last"])]
        for key, name in _ROWS
        if key in metrics
    ]


def write_model_card(
    folder: Path,
    settings: TrainSettings,
    metrics: Metrics,
    counts: RunCounts,
    rate: LearningRate,
    verdict: str,
    best: BestCheckpoint | None = None,
) -> None:
    """Write README.md: what the adapter is, how it was trained, how it did, how it is used."""
    base = base_model_name(settings)
    is_hub_id = "/" in base and not Path(base).is_absolute()
    data = ModelCardData(
        library_name="peft",
        tags=[settings.objective.method, "lora", "emoji", "preference-optimisation"],
        base_model=base if is_hub_id else None,
    )
    text = _CARD.format(
        name=public_name(base),
        train=counts["train"],
        evaluation=counts["evaluation"],
        steps=counts["steps"],
        pairs_per_step=settings.optimiser.batch_size * settings.optimiser.gradient_accumulation_steps,
        lora=settings.lora,
        targets=" ".join(settings.lora.targets),
        method=_method_line(settings),
        rate=rate,
        optimiser=settings.optimiser,
        warmup=settings.optimiser.warmup_share,
        seed=settings.seed,
        best=f"- early stopping: {best}\n" if best else "",
        verdict=verdict.capitalize(),
        table=table(("measured", "first", "last"), summary_rows(metrics)),
        folder=folder.name,
    )
    write_whole(folder / "README.md", str(ModelCard(f"---\n{data.to_yaml()}\n---\n\n{text}")))


def _method_line(settings: TrainSettings) -> str:
    method = settings.objective
    line = method.about.title + (f", beta {method.strength:g}" if method.about.beta is not None else "")
    if "nll" in method.about.reads:
        line += f", likelihood over {'prompt and completion' if method.nll_on_prompt else 'the completion'}"
    return line


def _number(key: str, value: float) -> str:
    return f"{value:.1%}" if key.endswith(_SHARES) else f"{value:.4g}"
