"""The replies that GRPO learns from: written by the model itself to a step's prompts, just before it, and scored."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import torch
from peft import PeftModel
from transformers import PreTrainedTokenizerBase

from orpo.chat_model.generation import check_context, sample_ids
from orpo.chat_model.options import resolve_reply_dtype
from orpo.records.replies import Reply, Sampling
from orpo.scoring import ScoreReport
from orpo.scoring.replies import score_replies
from orpo.training.examples import Example, SampledGroup
from orpo.training.fast.packing import ReplyGroup
from orpo.training.settings import TrainSettings

Figures = dict[str, list[float]]
"""What is logged of the replies of a step, a value for each."""

_SEEDS_OF_A_RUN: Final = 1_000_003  # a prime, so that the steps of two runs with near seeds share no seed


@dataclass(frozen=True)
class GroupSampler:
    """Has the model write a group of replies to each prompt.

    The loss takes them for samples of the policy, so they are drawn from all of it: temperature 1, no top-p.
    """

    tokenizer: PreTrainedTokenizerBase
    settings: TrainSettings

    def check_room(self, model: PeftModel, rows: Sequence[Example]) -> None:
        """Raise InputError for prompts that leave no room for a reply, before anything is trained."""
        check_context(model, [row.prompt_ids for row in rows], self.settings.watch.max_new_tokens)

    def sample(self, model: PeftModel, rows: Sequence[Example], step: int) -> tuple[list[SampledGroup], Figures]:
        """Return a group for each row; the seed, the step and the prompt decide what it says."""
        count = self.settings.objective.replies_per_prompt
        devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
        with torch.random.fork_rng(devices):
            sampled = sample_ids(
                model,
                self.tokenizer,
                [row.prompt_ids for row in rows for _ in range(count)],
                Sampling(temperature=1.0, top_p=1.0, max_new_tokens=self.settings.watch.max_new_tokens),
                seed=self.settings.seed * _SEEDS_OF_A_RUN + step,
                dtype=resolve_reply_dtype(self.settings.compute.dtype, model.device),
            )
        replies = [reply for _, reply in sampled]
        prompts = [row.source.prompt for row in rows for _ in range(count)]
        reports = score_replies(self.settings.watch.scorer, prompts, [reply.text for reply in replies])
        groups = [
            SampledGroup(
                row.prompt_ids,
                tuple(ids for ids, _ in sampled[start : start + count]),
                tuple(report.score for report in reports[start : start + count]),
                row.row,
            )
            for start, row in zip(range(0, len(sampled), count), rows, strict=True)
        ]
        return groups, figures_of(replies, reports)


def figures_of(replies: Sequence[Reply], reports: Sequence[ScoreReport]) -> Figures:
    """Return how each reply uses emojis, each part of its score, and whether that part finds nothing wrong."""
    counts = [len(report.emojis) for report in reports]
    figures: Figures = {
        "samples/emoji_rate": [float(count > 0) for count in counts],
        "samples/mean_emojis": [float(count) for count in counts],
        "samples/finished_share": [float(reply.finished) for reply in replies],
        "samples/tokens": [float(reply.tokens) for reply in replies],
    }
    for name in reports[0].parts:
        values = [report.parts[name].value for report in reports]
        figures[f"parts/{name}"] = values
        figures[f"parts/{name}_faultless_share"] = [float(value >= 1.0) for value in values]
    return figures


def longest_group(row: Example, settings: TrainSettings) -> ReplyGroup:
    """Return a made-up group with as many tokens as one to this prompt can have, to count memory with."""
    firsts = range(settings.objective.replies_per_prompt)
    return ReplyGroup(row.prompt_ids, tuple([first] * settings.watch.max_new_tokens for first in firsts))
