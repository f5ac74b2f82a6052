"""The loss and its gradients, for every layout and many kinds of model, against the model's own logits."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch

from orpo.training.fast.packed_forward import best_layout
from orpo.training.fast.packing import Layout, pack_replies
from orpo.training.losses import orpo_losses
from tests.small_models import SHAPES, VOCABULARY, make_shape, with_lora
from tests.training.small_models import (
    LENGTHS,
    Pair,
    copy_of,
    gradients,
    groups_of,
    largest_relative_difference,
    make_pairs,
    reference_loss,
)


def loss_of(model: Any, pairs: Sequence[Pair], layout: Layout, *, beta: float, nll_on_prompt: bool) -> torch.Tensor:
    packed = pack_replies(groups_of(pairs), layout=layout, nll_on_prompt=nll_on_prompt)
    log_probs = model(packed=packed)
    chosen, rejected = (packed.sum_by_reply(log_probs) / packed.reply_tokens).view(-1, 2).unbind(1)
    nll = -(log_probs * packed.in_nll).sum() / packed.in_nll.sum()
    return nll + beta * orpo_losses(chosen, rejected).mean()


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_takes_shared_prompts_and_agrees_with_its_own_logits(shape: str) -> None:
    """Loss within 1e-5 and gradients within 1e-4 of the plain reference; windows and soft caps included."""
    plain = with_lora(make_shape(shape))
    fast = copy_of(plain)
    assert best_layout(fast) == "shared"
    pairs = make_pairs(LENGTHS)
    for nll_on_prompt in (True, False):
        plain.zero_grad()
        fast.zero_grad()
        expected = reference_loss(plain, pairs, beta=0.3, nll_on_prompt=nll_on_prompt)
        got = loss_of(fast, pairs, "shared", beta=0.3, nll_on_prompt=nll_on_prompt)
        expected.backward()
        got.backward()
        assert abs(got.item() - expected.item()) <= 1e-5 * max(1.0, abs(expected.item()))
        assert largest_relative_difference(gradients(fast), gradients(plain)) <= 1e-4


@pytest.mark.parametrize("shape", ["llama_untied", "gemma2_softcap", "mistral_sliding"])
def test_replies_that_begin_alike_are_computed_once_and_counted_twice(shape: str) -> None:
    """Minimal pairs: a token differs, a reply goes on, a pair shares nothing; fewer tokens, the same gradients."""
    stems = make_pairs([(9, 8, 8), (4, 5, 5), (6, 1, 1)], seed=3)
    pairs = [
        Pair(stems[0].prompt_ids, [*stems[0].chosen_ids, 2], [*stems[0].chosen_ids[:-1], 50, 2]),
        Pair(stems[1].prompt_ids, [*stems[1].chosen_ids, 51, 52, 2], [*stems[1].chosen_ids, 2]),
        Pair(stems[2].prompt_ids, stems[2].chosen_ids, [53, 2]),
    ]
    plain = with_lora(make_shape(shape))
    fast = copy_of(plain)
    assert best_layout(fast) == "shared"
    row = pack_replies(groups_of(pairs), layout="shared", nll_on_prompt=True)
    assert row.input_ids.shape[1] == sum(len(p.prompt_ids) for p in pairs) + 7 + 1 + 1 + 5 + 2 + 0 + 0 + 1
    for nll_on_prompt in (True, False):
        plain.zero_grad()
        fast.zero_grad()
        expected = reference_loss(plain, pairs, beta=0.3, nll_on_prompt=nll_on_prompt)
        got = loss_of(fast, pairs, "shared", beta=0.3, nll_on_prompt=nll_on_prompt)
        expected.backward()
        got.backward()
        assert abs(got.item() - expected.item()) <= 1e-5 * max(1.0, abs(expected.item()))
        assert largest_relative_difference(gradients(fast), gradients(plain)) <= 1e-4


@pytest.mark.filterwarnings(
    "ignore:flex_attention called without torch.compile",
    "ignore:_compile flag on create_block_mask",
    "ignore:`torch.jit.script_method` is deprecated",  # torch before 2.14 uses it itself
)
@pytest.mark.parametrize("shape", ["llama_untied", "gemma2_softcap", "mistral_sliding"])
def test_flex_attention_takes_shared_prompts_too(shape: str) -> None:
    """Only its forward pass can be run on a CPU; `best_layout` compares it with the model's own logits."""
    model = with_lora(make_shape(shape))
    model.get_base_model().set_attn_implementation("flex_attention")
    with torch.compiler.set_stance("force_eager"):
        assert best_layout(model) == "shared"
    assert model.get_base_model().config._attn_implementation == "shared_prompt_flex"


@pytest.mark.parametrize("layout", ["packed", "plain"])
@pytest.mark.parametrize("shape", ["llama_untied", "mistral_sliding", "gemma2_softcap"])
def test_the_slower_layouts_give_the_same_loss(shape: str, layout: Layout) -> None:
    plain = with_lora(make_shape(shape))
    fast = copy_of(plain)
    assert best_layout(fast, wanted=layout) == layout
    pairs = make_pairs(LENGTHS)
    expected = reference_loss(plain, pairs, beta=0.1, nll_on_prompt=True)
    got = loss_of(fast, pairs, layout, beta=0.1, nll_on_prompt=True)
    expected.backward()
    got.backward()
    assert abs(got.item() - expected.item()) <= 1e-5 * max(1.0, abs(expected.item()))
    assert largest_relative_difference(gradients(fast), gradients(plain)) <= 1e-4


@pytest.mark.parametrize(
    "adapter",
    [
        {"target_modules": ["q_proj", "v_proj", "lm_head"]},  # LoRA on the head itself
        {"target_modules": ["q_proj", "embed_tokens"]},  # LoRA on the embedding
        {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]},  # a copy of the head, trained whole
    ],
    ids=["lora_head", "lora_embedding", "saved_head"],
)
def test_a_trained_head_gets_its_gradient(adapter: dict[str, Any]) -> None:
    plain = with_lora(make_shape("llama_untied"), **adapter)
    fast = copy_of(plain)
    assert best_layout(fast) == "shared"
    pairs = make_pairs(LENGTHS)
    reference_loss(plain, pairs, beta=0.2, nll_on_prompt=True).backward()
    loss_of(fast, pairs, "shared", beta=0.2, nll_on_prompt=True).backward()
    assert largest_relative_difference(gradients(fast), gradients(plain)) <= 1e-4


def test_a_tied_head_trained_whole_gets_its_gradient_from_both_ends() -> None:
    plain = make_shape("smollm2_tied")
    fast = copy_of(plain)
    assert best_layout(fast) == "shared"
    pairs = make_pairs(LENGTHS)
    reference_loss(plain, pairs, beta=0.2, nll_on_prompt=True).backward()
    loss_of(fast, pairs, "shared", beta=0.2, nll_on_prompt=True).backward()
    assert largest_relative_difference(gradients(fast), gradients(plain)) <= 1e-4


def test_gradient_checkpointing_changes_nothing() -> None:
    """Layers are run again in the backward pass, when the row's layout is no longer set; the mask must carry it."""
    plain = with_lora(make_shape("gemma2_softcap")).train()
    fast = copy_of(plain)
    fast.activation_checkpointing_enable({"use_reentrant": False})
    assert best_layout(fast) == "shared"
    pairs = make_pairs(LENGTHS)
    reference_loss(plain, pairs, beta=0.2, nll_on_prompt=False).backward()
    loss_of(fast, pairs, "shared", beta=0.2, nll_on_prompt=False).backward()
    assert largest_relative_difference(gradients(fast), gradients(plain)) <= 1e-4


def test_the_model_still_generates_as_before() -> None:
    plain = make_shape("mistral_sliding").eval()
    fast = copy_of(plain)
    assert best_layout(fast) == "shared"
    prompt = torch.tensor([[0, 0, 5, 6, 7], [8, 9, 10, 11, 12]])
    settings = {"attention_mask": (prompt != 0).long(), "max_new_tokens": 9, "do_sample": False, "eos_token_id": None}
    assert torch.equal(plain.generate(prompt, **settings), fast.generate(prompt, **settings))


def test_a_model_with_an_attention_of_its_own_falls_back_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    """Bloom adds ALiBi by index in the row, so it can neither restart positions nor share a prompt."""
    from transformers import BloomConfig, BloomForCausalLM

    torch.manual_seed(0)
    config = BloomConfig(vocab_size=VOCABULARY, hidden_size=32, n_layer=2, n_head=4, initializer_range=0.3)
    plain = BloomForCausalLM(config).eval()
    fast = copy_of(plain)
    assert best_layout(fast) == "plain"
    assert "falling back to 'packed'" in caplog.text and "falling back to 'plain'" in caplog.text
    pairs = make_pairs(LENGTHS)
    reference_loss(plain, pairs, beta=0.1, nll_on_prompt=True).backward()
    loss_of(fast, pairs, "plain", beta=0.1, nll_on_prompt=True).backward()
    assert largest_relative_difference(gradients(fast), gradients(plain)) <= 1e-4


def test_an_unusual_logit_rule_is_found_out_by_trying() -> None:
    """A model that changes its logits in a way that we do not know must not be trained on other logits."""
    model = make_shape("llama_untied")
    plain_forward = model.forward

    def doubled(*args: Any, **kwargs: Any) -> Any:
        output = plain_forward(*args, **kwargs)
        output.logits = 2 * output.logits
        return output

    model.forward = doubled
    assert best_layout(model) == "plain"


def test_bfloat16_stays_close_to_float32() -> None:
    plain = with_lora(make_shape("llama_untied"))
    fast = copy_of(plain).to(torch.bfloat16)
    assert best_layout(fast) == "shared"
    pairs = make_pairs(LENGTHS)
    expected = reference_loss(plain, pairs, beta=0.1, nll_on_prompt=True)
    got = loss_of(fast, pairs, "shared", beta=0.1, nll_on_prompt=True)
    got.backward()
    assert got.item() == pytest.approx(expected.item(), rel=0.02)
