"""Log probabilities of given completions, without ever holding a [B, T, V] tensor.

The hidden states are small, the logits are not: for a vocabulary of 151,936, 2 x 512 tokens take 622 MB. So the hidden
states of completion tokens go through the output layer a few hundred at a time.
"""

from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from orpo.chat_model.generation import answering

_CHUNK_TOKENS = 256
_plain_heads: "WeakKeyDictionary[torch.nn.Module, bool]" = WeakKeyDictionary()


def completion_log_probs(
    model: Any,
    prompt_ids: Sequence[Sequence[int]],
    completion_ids: Sequence[Sequence[int]],
    *,
    batch_size: int = 8,
) -> list[tuple[float, int]]:
    """Return (sum of log p(token | what came before), tokens) for each completion, in the order given.

    Args:
        model: A causal language model, with or without a PEFT adapter; evaluated without dropout and gradients.
        prompt_ids: Ids before each completion, at least one each.
        completion_ids: Ids whose log probabilities are summed; an empty completion gives (0.0, 0).
        batch_size: Rows at once; it changes the speed, not the result.
    """
    if len(prompt_ids) != len(completion_ids):
        raise ValueError(f"{len(prompt_ids)} prompts and {len(completion_ids)} completions")
    if any(len(prompt) == 0 for prompt in prompt_ids):
        raise ValueError("a prompt without tokens: the first token of a completion needs one before it")
    results = [(0.0, 0)] * len(prompt_ids)
    filled = [row for row in range(len(prompt_ids)) if len(completion_ids[row])]
    order = sorted(filled, key=lambda row: len(prompt_ids[row]) + len(completion_ids[row]))
    with answering(model), torch.no_grad():
        for start in range(0, len(order), max(1, batch_size)):
            rows = order[start : start + max(1, batch_size)]
            sums = _batch_sums(model, [prompt_ids[row] for row in rows], [completion_ids[row] for row in rows])
            for row, total in zip(rows, sums, strict=True):
                results[row] = (total, len(completion_ids[row]))
    return results


def _batch_sums(model: Any, prompts: list[Sequence[int]], completions: list[Sequence[int]]) -> list[float]:
    device = next(model.parameters()).device
    rows = [[*prompt, *completion] for prompt, completion in zip(prompts, completions, strict=True)]
    longest = max(map(len, rows))
    # Right padding: a causal model does not look ahead, so what follows the completion changes nothing.
    input_ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows], device=device)  # [B, T]
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows], device=device)
    # Position t predicts token t + 1, so the states wanted start one before the completion.
    wanted = [
        (index, position)
        for index, (prompt, row) in enumerate(zip(prompts, rows, strict=True))
        for position in range(len(prompt) - 1, len(row) - 1)
    ]
    index, position = torch.tensor(wanted, device=device).T
    token_log_probs = _log_probs_at(model, input_ids, mask, index, position)
    sums = torch.zeros(len(rows), dtype=torch.float64).index_add_(0, index.cpu(), token_log_probs.double().cpu())
    return [float(value) for value in sums]


def _log_probs_at(model: Any, input_ids: Tensor, mask: Tensor, index: Tensor, position: Tensor) -> Tensor:
    """Return log p [N] of the tokens after the N places (index, position)."""
    targets = input_ids[index, position + 1]
    causal = model.get_base_model() if hasattr(model, "get_base_model") else model
    if not _head_is_plain(causal):
        # A model that does something of its own to its logits: take them from itself, a row at a time.
        logits = [_row_logits(causal, input_ids, mask, index, position, row) for row in range(input_ids.shape[0])]
        return torch.cat([_pick(part, targets[index == row]) for row, part in enumerate(logits)])
    hidden = causal.base_model(input_ids=input_ids, attention_mask=mask, use_cache=False).last_hidden_state
    states = hidden[index, position]  # [N, H]
    head = causal.get_output_embeddings()
    parts = [
        _pick(head(states[start : start + _CHUNK_TOKENS]), targets[start : start + _CHUNK_TOKENS])
        for start in range(0, len(targets), _CHUNK_TOKENS)
    ]
    return torch.cat(parts)


def _row_logits(model: Any, input_ids: Tensor, mask: Tensor, index: Tensor, position: Tensor, row: int) -> Tensor:
    output = model(input_ids=input_ids[row : row + 1], attention_mask=mask[row : row + 1], use_cache=False)
    logits: Tensor = output.logits[0, position[index == row]]
    return logits


def _pick(logits: Tensor, targets: Tensor) -> Tensor:
    """Return log softmax at the targets, in float32: logits [N, V], targets [N] -> [N]."""
    logits = logits.float()
    return logits.gather(1, targets[:, None])[:, 0] - logits.logsumexp(dim=1)


def _head_is_plain(model: Any) -> bool:
    """Tell whether logits = output layer(hidden states): Gemma caps its logits, Cohere and Granite scale theirs.

    Tried out on a few tokens once per model, since no attribute says so for every architecture.
    """
    if model not in _plain_heads:
        tokens = torch.arange(4, device=next(model.parameters()).device)[None]
        head = model.get_output_embeddings()
        if head is None or model.base_model is model:
            _plain_heads[model] = False
        else:
            hidden = model.base_model(input_ids=tokens, use_cache=False).last_hidden_state
            direct, own = head(hidden).float(), model(input_ids=tokens, use_cache=False).logits.float()
            _plain_heads[model] = direct.shape == own.shape and torch.equal(direct, own)
    return _plain_heads[model]
