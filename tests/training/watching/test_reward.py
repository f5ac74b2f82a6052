"""R(y) = log(pi_theta / pi_ref) + beta * A(y), against values derived by hand."""

from pathlib import Path
from typing import Any

import pytest
import torch

from orpo.records.pairs import PreferencePair
from orpo.training.tokenization import tokenize_pairs
from orpo.training.watching.reward import ReferenceModel, advantages, log_ratios, rewards
from tests.training.small_models import settings_from


@pytest.fixture(scope="module")
def tuned(tiny_model_folder: Path) -> Any:
    """Return a tiny model whose adapter does something."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(1)
    base = AutoModelForCausalLM.from_pretrained(tiny_model_folder)
    model = get_peft_model(base, LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM")).eval()
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.3)
    return model


def log_prob(model: Any, prompt: list[int], reply: list[int]) -> float:
    """Compute log p(reply | prompt) from all logits, the slow and plain way."""
    with torch.no_grad():
        logits = model(torch.tensor([prompt + reply])).logits[0, len(prompt) - 1 : -1]
    return float(logits.log_softmax(-1).gather(1, torch.tensor(reply)[:, None]).sum())


def test_advantages_are_scores_minus_their_mean() -> None:
    """Scores 1, 0, 1 have the mean 2/3."""
    assert advantages([1.0, 0.0, 1.0]) == pytest.approx([1 / 3, -2 / 3, 1 / 3])
    assert advantages([0.5]) == [0.0]


def test_log_ratio_is_the_adapter_against_the_base(tuned: Any) -> None:
    prompt, reply = [5, 6, 7], [9, 10, 2]
    with_adapter = log_prob(tuned, prompt, reply)
    with tuned.disable_adapter():
        without = log_prob(tuned, prompt, reply)
    assert abs(with_adapter - without) > 1e-3
    found = log_ratios(tuned, [prompt], [reply], reference=ReferenceModel(), batch_size=4)
    assert found == pytest.approx([with_adapter - without], abs=1e-4)


def test_rewards_add_the_weighted_advantage_within_each_prompt(tuned: Any) -> None:
    replies = [[[9, 2], [11, 12, 2]], [[13, 2], [14, 2]]]
    scores = [[1.0, 0.0], [1.0, 1.0]]
    prompts = [[5, 6], [7, 8, 9]]
    flat = log_ratios(
        tuned,
        [[5, 6], [5, 6], [7, 8, 9], [7, 8, 9]],
        [*replies[0], *replies[1]],
        reference=ReferenceModel(),
        batch_size=1,
    )
    found = rewards(tuned, prompts, replies, scores, reference=ReferenceModel(), beta=0.2, batch_size=3)
    assert found[0] == pytest.approx([flat[0] + 0.1, flat[1] - 0.1], abs=1e-4)
    assert found[1] == pytest.approx([flat[2], flat[3]], abs=1e-4)


def test_a_fresh_adapter_moves_nothing(tiny_model_folder: Path) -> None:
    from transformers import AutoModelForCausalLM

    from orpo.training.adapter import add_adapter
    from tests.training.small_models import settings_from

    model = add_adapter(AutoModelForCausalLM.from_pretrained(tiny_model_folder), settings_from())
    assert rewards(
        model, [[5, 6]], [[[9, 2], [10, 2]]], [[1.0, 0.0]], reference=ReferenceModel(), beta=0.1, batch_size=2
    ) == [pytest.approx([0.05, -0.05])]


def test_the_reference_is_measured_once_whatever_the_adapter_does(tuned: Any) -> None:
    """The second time nothing goes through the model; a new completion does, beside those that are known."""
    reference, passes = ReferenceModel(), []
    prompt, first, second = [5, 6, 7], [9, 10, 2], [11, 2]
    handle = tuned.get_base_model().model.register_forward_hook(lambda *_: passes.append(1))
    try:
        found = reference.log_probs(tuned, [prompt, prompt], [first, first], batch_size=4)
        with tuned.disable_adapter():
            assert found == pytest.approx([log_prob(tuned, prompt, first)] * 2, abs=1e-4)
        passes.clear()
        assert reference.log_probs(tuned, [prompt], [first], batch_size=4) == found[:1]
        assert not passes
        both = reference.log_probs(tuned, [prompt, prompt], [second, first], batch_size=4)
        assert both[1] == found[0] and both[0] != found[0] and len(passes) == 1
    finally:
        handle.remove()


def test_the_losss_beta_is_not_the_rewards(tiny_model_folder: Path, rows: list[PreferencePair]) -> None:
    """ORPO's lambda served as R(y)'s weight of the score too: two quantities under one flag.

    A fresh adapter has log(pi / pi_ref) = 0, so R is the reward's own beta times the advantage, whatever the loss's is.
    """
    from orpo.chat_model.loading import load_model, load_tokenizer
    from orpo.training.adapter import add_adapter
    from orpo.training.watching import State
    from orpo.training.watching.reply_probe import ReplyProbe
    from orpo.training.watching.tensorboard import TensorBoardMonitor

    tokenizer = load_tokenizer(str(tiny_model_folder))
    pairs = tokenize_pairs(rows[:2], tokenizer, 256).pairs

    def reward_of_chosen(**changes: float) -> float:
        settings = settings_from(model=str(tiny_model_folder), device="cpu", max_new_tokens=2, **changes)
        model = add_adapter(load_model(str(tiny_model_folder), device="cpu", dtype="float32"), settings)
        state = State()
        ReplyProbe(TensorBoardMonitor(Path()), tokenizer, [], pairs, settings).measure(model, state)
        return state.log_history[-1]["reward/chosen"]

    usual = reward_of_chosen(beta=0.1)
    assert usual != 0 and reward_of_chosen(beta=5.0) == pytest.approx(usual, rel=1e-4)
    assert reward_of_chosen(beta=0.1, reward_beta=0.2) == pytest.approx(2 * usual, rel=1e-4)
