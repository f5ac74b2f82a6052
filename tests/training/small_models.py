"""Pairs of random ids, and a plain reference for the ORPO loss to compare with."""

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from orpo.command.settings import build_settings
from orpo.training.fast.packing import ReplyGroup
from orpo.training.settings import TrainSettings
from tests.small_models import VOCABULARY


@dataclass(frozen=True)
class Pair:
    prompt_ids: list[int]
    chosen_ids: list[int]
    rejected_ids: list[int]
    row: int = 0


def settings_from(**values: Any) -> TrainSettings:
    """Return training settings from flat keys, as a command line or a recipe gives them."""
    data = values.get("data")
    return build_settings(TrainSettings, {**values, **({"data": [data]} if isinstance(data, str) else {})})


def groups_of(pairs: Sequence[Pair]) -> list[ReplyGroup]:
    """Return the pairs as groups of two replies."""
    return [ReplyGroup(pair.prompt_ids, (pair.chosen_ids, pair.rejected_ids)) for pair in pairs]


def make_pairs(lengths: Sequence[tuple[int, int, int]], seed: int = 0) -> list[Any]:
    """Pairs of random ids; they have what trainers read of a TokenizedPair, and no text."""
    generator = torch.Generator().manual_seed(seed)

    def ids(count: int) -> list[int]:
        return torch.randint(3, VOCABULARY, (count,), generator=generator).tolist()

    return [Pair(ids(p), ids(c), ids(r), row) for row, (p, c, r) in enumerate(lengths)]


LENGTHS = [(9, 7, 5), (4, 1, 6), (12, 3, 1), (1, 5, 4), (6, 11, 13)]
"""Chosen longer and shorter than rejected, completions of one token, a prompt of one token."""


def copy_of(model: nn.Module) -> Any:
    return copy.deepcopy(model)


def sequence_log_probs(model: Any, prompt: Sequence[int], completion: Sequence[int]) -> Tensor:
    """Log-probabilities of all tokens after the first, by the model's own logits, one sequence at a time."""
    ids = torch.tensor([[*prompt, *completion]])
    logits = model(input_ids=ids, use_cache=False).logits[0, :-1].float()
    return torch.log_softmax(logits, dim=-1).gather(1, ids[0, 1:, None]).squeeze(1)


def reference_loss(model: Any, pairs: Sequence[Pair], *, beta: float, nll_on_prompt: bool) -> Tensor:
    """The paper's equations written down once more, with no code of the package."""
    nll_sum: Tensor | float = 0.0
    nll_count = 0
    odds_sum: Tensor | float = 0.0
    for pair in pairs:
        chosen = sequence_log_probs(model, pair.prompt_ids, pair.chosen_ids)
        rejected = sequence_log_probs(model, pair.prompt_ids, pair.rejected_ids)
        nll_part = chosen if nll_on_prompt else chosen[-len(pair.chosen_ids) :]
        nll_sum, nll_count = nll_sum - nll_part.sum(), nll_count + len(nll_part)
        log_p = chosen[-len(pair.chosen_ids) :].mean().double()
        log_q = rejected[-len(pair.rejected_ids) :].mean().double()
        log_odds = torch.log(torch.exp(log_p) / (1 - torch.exp(log_p)))
        log_odds = log_odds - torch.log(torch.exp(log_q) / (1 - torch.exp(log_q)))
        odds_sum = odds_sum + torch.log(1 / (1 + torch.exp(-log_odds)))
    assert isinstance(nll_sum, Tensor) and isinstance(odds_sum, Tensor)
    return nll_sum / nll_count - beta * odds_sum / len(pairs)


def gradients(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def largest_relative_difference(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> float:
    """Over all parameters: the norm of the difference over the norm of the reference."""
    assert ours.keys() == theirs.keys() and ours
    worst = 0.0
    for name, reference in theirs.items():
        norm = reference.norm().item()
        difference = (ours[name] - reference).norm().item()
        worst = max(worst, difference / norm if norm else (math.inf if difference else 0.0))
    return worst
