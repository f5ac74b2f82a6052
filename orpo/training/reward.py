"""The reward R(y) as a meter of training: how far the adapter moved from the base model, and how good the reply is.

    R(y) = log( pi_theta(y|x) / pi_ref(y|x) ) + beta * A(y)

This is no part of ORPO's loss, which has neither a reference model nor an advantage. With LoRA the reference is the
same network with the adapter off, so it costs one more forward pass. A(y) is the score of y minus the mean score of all
replies to the same prompt that are measured with it: here the chosen, the rejected and a freshly sampled one.
"""

from collections.abc import Sequence
from typing import Any

from orpo.chat_model.log_probs import completion_log_probs


def advantages(scores: Sequence[float]) -> list[float]:
    """Return each score minus the mean of all, for the replies to one prompt."""
    mean = sum(scores) / len(scores)
    return [score - mean for score in scores]


def log_ratios(
    model: Any, prompt_ids: list[list[int]], completion_ids: list[list[int]], *, batch_size: int
) -> list[float]:
    """Return log pi_theta(y|x) - log pi_ref(y|x), summed over each completion's tokens, for a PEFT model."""
    tuned = completion_log_probs(model, prompt_ids, completion_ids, batch_size=batch_size)
    with model.disable_adapter():
        base = completion_log_probs(model, prompt_ids, completion_ids, batch_size=batch_size)
    return [ours - reference for (ours, _), (reference, _) in zip(tuned, base, strict=True)]


def rewards(
    model: Any,
    prompt_ids: Sequence[list[int]],
    replies: Sequence[Sequence[list[int]]],
    scores: Sequence[Sequence[float]],
    *,
    beta: float,
    batch_size: int,
) -> list[list[float]]:
    """Return R of every reply.

    Args:
        model: A PEFT model with its adapter on.
        prompt_ids: One prompt for each group of replies.
        replies: For each prompt the ids of several replies, each with its end token.
        scores: For each prompt the scores of these replies.
        beta: The weight of the advantage.
        batch_size: How many replies go through the model at once.
    """
    prompts = [prompt for prompt, group in zip(prompt_ids, replies, strict=True) for _ in group]
    ratios = iter(log_ratios(model, prompts, [ids for group in replies for ids in group], batch_size=batch_size))
    return [[next(ratios) + beta * advantage for advantage in advantages(group)] for group in scores]
