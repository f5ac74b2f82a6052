"""The reward R(y) as a meter of training: how far the adapter moved from the base model, and how good the reply is.

    R(y) = log( pi_theta(y|x) / pi_ref(y|x) ) + beta * A(y)

This is not part of ORPO's loss, which has neither a reference model nor an advantage. With LoRA the reference is the
same network with the adapter off, so it costs one more forward pass. A(y) is the score of y minus the mean score of all
replies to the same prompt that are measured with it: here the chosen, the rejected and a freshly sampled one.
"""

from collections.abc import Sequence

from peft import PeftModel

from orpo.chat_model.log_probs import completion_log_probs


def advantages(scores: Sequence[float]) -> list[float]:
    """Return each score minus the mean of all, for the replies to one prompt."""
    mean = sum(scores) / len(scores)
    return [score - mean for score in scores]


class ReferenceModel:
    """A PEFT model with its adapter off. It does not change in training, so each completion is measured once."""

    def __init__(self) -> None:
        self._known: dict[tuple[tuple[int, ...], tuple[int, ...]], float] = {}

    def log_probs(
        self, model: PeftModel, prompt_ids: Sequence[list[int]], completion_ids: Sequence[list[int]], *, batch_size: int
    ) -> list[float]:
        """Return log pi_ref(y|x) of each completion, summed over its tokens."""
        keys = [(tuple(prompt), tuple(ids)) for prompt, ids in zip(prompt_ids, completion_ids, strict=True)]
        new = [key for key in dict.fromkeys(keys) if key not in self._known]
        if new:
            with model.disable_adapter():
                found = completion_log_probs(
                    model, [prompt for prompt, _ in new], [ids for _, ids in new], batch_size=batch_size
                )
            self._known |= {key: total for key, (total, _) in zip(new, found, strict=True)}
        return [self._known[key] for key in keys]


def log_ratios(
    model: PeftModel,
    prompt_ids: Sequence[list[int]],
    completion_ids: Sequence[list[int]],
    *,
    reference: ReferenceModel,
    batch_size: int,
) -> list[float]:
    """Return log pi_theta(y|x) - log pi_ref(y|x), summed over each completion's tokens, for a PEFT model."""
    tuned = completion_log_probs(model, prompt_ids, completion_ids, batch_size=batch_size)
    base = reference.log_probs(model, prompt_ids, completion_ids, batch_size=batch_size)
    return [ours - theirs for (ours, _), theirs in zip(tuned, base, strict=True)]


def rewards(
    model: PeftModel,
    prompt_ids: Sequence[list[int]],
    replies: Sequence[Sequence[list[int]]],
    scores: Sequence[Sequence[float]],
    *,
    reference: ReferenceModel,
    beta: float,
    batch_size: int,
) -> list[list[float]]:
    """Return R of every reply: for each prompt those of its replies, which end with their end token.

    `reference` is what was measured with the adapter off so far, `beta` the weight of the advantage.
    """
    prompts = [prompt for prompt, group in zip(prompt_ids, replies, strict=True) for _ in group]
    completions = [ids for group in replies for ids in group]
    ratios = iter(log_ratios(model, prompts, completions, reference=reference, batch_size=batch_size))
    return [[next(ratios) + beta * advantage for advantage in advantages(group)] for group in scores]
