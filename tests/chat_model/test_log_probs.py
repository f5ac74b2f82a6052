"""Completion log probabilities equal the plain softmax over all logits."""

from types import ModuleType
from typing import Any

import pytest
import torch
from transformers import Gemma2Config, Gemma2ForCausalLM

from orpo.chat_model import log_probs
from orpo.chat_model.log_probs import completion_log_probs

PROMPTS = [[5, 6, 7], [8], [9, 10, 11, 12, 13], [5]]
COMPLETIONS = [[20, 21, 22, 23], [24] * 30, [25], []]


def naive(model: Any, prompt: list[int], completion: list[int]) -> tuple[float, int]:
    """The slow twin: one row, unpadded, all logits in float32, one softmax."""
    with torch.no_grad():
        logits = model(torch.tensor([prompt + completion])).logits[0].float().log_softmax(dim=-1)
    places = range(len(prompt) - 1, len(prompt) + len(completion) - 1)
    return sum(float(logits[place, token]) for place, token in zip(places, completion, strict=True)), len(completion)


@pytest.mark.parametrize("batch_size", [1, 2, 8])
def test_they_equal_the_naive_twin(random_model: Any, batch_size: int) -> None:
    found = completion_log_probs(random_model, PROMPTS, COMPLETIONS, batch_size=batch_size)
    for (total, count), prompt, completion in zip(found, PROMPTS, COMPLETIONS, strict=True):
        wanted, length = naive(random_model, prompt, completion)
        assert count == length and total == pytest.approx(wanted, rel=1e-5, abs=1e-5)


def test_adapters_count_and_can_be_switched_off(random_model: Any, tuned_model: Any) -> None:
    base = completion_log_probs(random_model, PROMPTS, COMPLETIONS)
    tuned = completion_log_probs(tuned_model, PROMPTS, COMPLETIONS)
    assert tuned[0][0] == pytest.approx(naive(tuned_model, PROMPTS[0], COMPLETIONS[0])[0], rel=1e-5)
    assert tuned != base
    with tuned_model.disable_adapter():
        assert completion_log_probs(tuned_model, PROMPTS, COMPLETIONS) == base


def test_a_model_that_caps_its_logits_is_measured_as_it_is() -> None:
    """Gemma's logits are not its output layer times its hidden states; only the model itself knows."""
    torch.manual_seed(0)
    config = Gemma2Config(
        vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, final_logit_softcapping=2.0, initializer_range=0.5,
        max_position_embeddings=128, attn_implementation="eager",  # type: ignore[call-arg]  # it takes any
    )  # fmt: skip
    model = Gemma2ForCausalLM(config).eval()
    found = completion_log_probs(model, PROMPTS, COMPLETIONS)
    assert found[0][0] == pytest.approx(naive(model, PROMPTS[0], COMPLETIONS[0])[0], rel=1e-4)


def test_no_full_logits_are_ever_made(tiny_models: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Watch the output layer of a real model: it never sees more rows than a chunk."""
    model = tiny_models.make_model(300)
    completion_log_probs(model, [[1]], [[2]])  # the model's one-time trial
    monkeypatch.setattr(log_probs, "chunk_rows", lambda vocabulary: 256)
    seen: list[int] = []
    model.lm_head.register_forward_hook(lambda _module, _inputs, output: seen.append(output.shape[:-1].numel()))
    completion_log_probs(model, [[5] * 10] * 8, [[7] * 90] * 8, batch_size=8)
    assert max(seen) <= 256 and sum(seen) == 8 * 90


def test_a_prompt_without_tokens_is_refused(random_model: Any) -> None:
    with pytest.raises(ValueError, match="without tokens"):
        completion_log_probs(random_model, [[]], [[1]])
