"""How the next token is picked: greedily, or by sampling that does not depend on the batch.

Every conversation has its own stream of random numbers, keyed by the seed and the conversation; one number per token
picks from the candidates in order of their probability. So a seed gives the same reply alone or among others.
"""

import hashlib
from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor
from torch.nn.functional import pad

from orpo.records.replies import Sampling

_CANDIDATES: Final = (64, 1024)  # looked at first: nearly always enough for top-p, and far cheaper than a full sort
_BLOCK: Final = 64


class TokenPicker:
    """Picks the next token of each row from the row's own random numbers."""

    def __init__(self, sampling: Sampling, row_keys: Sequence[str], seed: int) -> None:
        """Draw every row's numbers in advance: [rows, max_new_tokens], on the CPU, so no device changes them."""
        self.sampling = sampling
        self._numbers: Tensor | None = None
        if sampling.temperature > 0 and row_keys:
            self._numbers = torch.stack([_draw(seed, key, sampling.max_new_tokens) for key in row_keys])
        self._reply_ids = torch.zeros(len(row_keys), sampling.max_new_tokens, dtype=torch.long)

    def pick(self, logits: Tensor, rows: Sequence[int], steps: Sequence[int]) -> Tensor:
        """Return the next ids [B], given logits [B, V] and each row's number and how many tokens its reply has."""
        row, step = torch.tensor(rows), torch.tensor(steps)
        scores = self._penalise(logits.float(), row, step)
        if self._numbers is None:
            picked = _falling(scores, 1)[1][:, 0]
        else:
            numbers = self._numbers[row, step].to(scores.device)
            is_copy = scores is not logits  # bfloat16 logits were copied already
            tempered = scores.div_(self.sampling.temperature) if is_copy else scores / self.sampling.temperature
            picked = self._sample(tempered, numbers)
        self._reply_ids[row, step] = picked.cpu()
        return picked

    def _penalise(self, scores: Tensor, row: Tensor, step: Tensor) -> Tensor:
        """Make the tokens that a reply already holds less likely: scores [B, V]."""
        penalty = self.sampling.repetition_penalty
        if penalty == 1.0 or not bool(step.any()):
            return scores
        width = int(step.max())
        ids = self._reply_ids[row, :width]
        # Beyond a row's end stands its first token again, which changes nothing; an empty row keeps its scores.
        ids = torch.where(torch.arange(width) < step[:, None], ids, ids[:, :1]).to(scores.device)
        seen = scores.gather(1, ids)
        less = torch.where(seen < 0, seen * penalty, seen / penalty)
        return scores.scatter(1, ids, torch.where((step > 0).to(scores.device)[:, None], less, seen))

    def _sample(self, scores: Tensor, numbers: Tensor) -> Tensor:
        """Sample by inverse CDF over the candidates in falling order: scores [B, V], numbers [B] -> ids [B]."""
        size, top_k, top_p = scores.shape[1], self.sampling.top_k, self.sampling.top_p
        if 0 < top_k < size:
            values, ids = _falling(scores, top_k)
            return _invert(values, ids, values.logsumexp(dim=1, keepdim=True), numbers, top_p)[0]
        total = scores.logsumexp(dim=1, keepdim=True)
        picked = torch.zeros(len(scores), dtype=torch.long, device=scores.device)
        left = torch.arange(len(scores), device=scores.device)
        for count in (*(number for number in _CANDIDATES if number < size), size):
            values, ids = _falling(scores[left] if len(left) < len(scores) else scores, count)
            found, decided = _invert(values, ids, total[left], numbers[left], top_p)
            picked[left] = found
            left = left[~decided]
            if len(left) == 0:
                break
        return picked


def _invert(values: Tensor, ids: Tensor, total: Tensor, numbers: Tensor, top_p: float) -> tuple[Tensor, Tensor]:
    """Return the ids that the numbers pick from the likeliest tokens, and whether more tokens could change that.

    Args:
        values: [B, C], falling.
        ids: [B, C].
        total: [B, 1], the log of the sum over all tokens that may be picked.
        numbers: [B], between 0 and 1.
        top_p: A token is kept while those before it have not reached this; the first always is.
    """
    mass = (values - total).exp().cumsum(dim=1)
    before = torch.cat([torch.zeros_like(mass[:, :1]), mass[:, :-1]], dim=1)
    kept = (before < top_p).sum(dim=1, keepdim=True)
    whole = mass.gather(1, kept - 1) if top_p < 1 else torch.ones_like(total)
    target = numbers[:, None] * whole
    index = torch.minimum(torch.searchsorted(mass, target, right=True), kept - 1)
    decided = mass[:, -1] >= top_p if top_p < 1 else mass[:, -1] > target[:, 0]
    return ids.gather(1, index)[:, 0], decided


def _falling(scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the `count` highest scores of each row, falling, and their ids.

    The highest tokens lie in the blocks with the highest maxima, so most of the vocabulary is read once and not sorted:
    a third of the time of topk over 49,152 tokens.
    """
    rows, size = scores.shape
    if count * _BLOCK >= size:
        found = scores.topk(min(count, size), dim=1)
        return found.values, found.indices
    if size % _BLOCK:
        scores = pad(scores, (0, _BLOCK - size % _BLOCK), value=-torch.inf)
    blocks = scores.view(rows, -1, _BLOCK)
    # In rising order of their ids, so that of equal scores the first is found, as argmax finds it.
    best = blocks.amax(dim=2).topk(count, dim=1).indices.sort(dim=1).values
    values, places = blocks.gather(1, best[:, :, None].expand(-1, -1, _BLOCK)).flatten(1).topk(count, dim=1)
    return values, best.gather(1, places // _BLOCK) * _BLOCK + places % _BLOCK


def _draw(seed: int, key: str, count: int) -> Tensor:
    digest = hashlib.sha256(f"{seed}:{key}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
    return torch.rand(count, generator=generator)


def row_keys(prompts: Sequence[Sequence[int]]) -> list[str]:
    """Key a row by its prompt and how often that prompt came before, so that order and neighbours do not count."""
    seen: dict[tuple[int, ...], int] = {}
    keys = []
    for prompt in map(tuple, prompts):
        seen[prompt] = seen.get(prompt, 0) + 1
        keys.append(f"{hashlib.sha256(repr(prompt).encode()).hexdigest()}:{seen[prompt]}")
    return keys
