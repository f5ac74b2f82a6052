"""Replies do not depend on their batch, end where the model ends them, and come out clean."""

from collections.abc import Iterable
from types import ModuleType
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoConfig, AutoModelForCausalLM, MambaConfig, MambaForCausalLM

from orpo.chat_model.chat_template import encode_prompt
from orpo.chat_model.decoder import make_decoder
from orpo.chat_model.decoding import common_beginning
from orpo.chat_model.generation import clean_reply, generate_replies, iterate_replies
from orpo.chat_model.options import resolve_reply_dtype
from orpo.chat_model.streaming import stream_reply
from orpo.chat_model.token_picker import TokenPicker
from orpo.command.errors import InputError
from orpo.records.messages import user_message, with_system
from orpo.records.replies import Reply, Sampling

TEXTS = ["hi", "how are you today", "hi", "good news", "tell me the whole story of the cat and the dog " * 2, "x"]
CONVERSATIONS = [user_message(text) for text in TEXTS]
SAMPLING = Sampling(temperature=0.9, max_new_tokens=12)


def test_the_same_seed_gives_the_same_replies_at_every_batch_size(random_model: Any, tokenizer: Any) -> None:
    wanted = generate_replies(random_model, tokenizer, CONVERSATIONS, SAMPLING, seed=5, batch_size=1)
    assert len({reply.text for reply in wanted}) == len(TEXTS), "also the two equal prompts get two replies"
    for batch_size in (2, 4, 16):
        found = generate_replies(random_model, tokenizer, CONVERSATIONS, SAMPLING, seed=5, batch_size=batch_size)
        assert found == wanted
    assert generate_replies(random_model, tokenizer, CONVERSATIONS, SAMPLING, seed=6) != wanted


def test_a_reply_is_the_same_alone_and_among_others_and_in_any_order(random_model: Any, tokenizer: Any) -> None:
    wanted = generate_replies(random_model, tokenizer, CONVERSATIONS, SAMPLING, seed=5)
    assert generate_replies(random_model, tokenizer, CONVERSATIONS[4:5], SAMPLING, seed=5) == wanted[4:5]
    shuffled = [4, 0, 5, 1, 3, 2]
    found = generate_replies(random_model, tokenizer, [CONVERSATIONS[row] for row in shuffled], SAMPLING, seed=5)
    assert found == [wanted[row] for row in shuffled]


def in_order(replies: Iterable[tuple[int, Reply]]) -> list[Reply]:
    """Return replies in the order of their conversations."""
    return [reply for _, reply in sorted(replies, key=lambda pair: pair[0])]


@pytest.mark.skipif(
    resolve_reply_dtype("auto", torch.device("cpu")) != torch.bfloat16, reason="no fast bfloat16 on this processor"
)
@pytest.mark.parametrize("examples", [0, 2])
def test_in_bfloat16_too_a_reply_does_not_depend_on_the_batch(
    examples: int, tiny_models: ModuleType, tokenizer: Any
) -> None:
    """Products of another number of rows round differently there, and 54 of 60 sampled replies came out different."""
    model = tiny_models.make_model(len(tokenizer), hidden=64)
    opening = [{"role": "user", "content": "hello " * 20}, {"role": "assistant", "content": "good " * 10}]
    conversations = [[*opening, *messages] for messages in CONVERSATIONS] * 3
    sampling = Sampling(temperature=0.9, max_new_tokens=20)

    def answer(conversations: list[Any], batch_size: int) -> list[Any]:
        replies = iterate_replies(
            model, tokenizer, conversations, sampling, seed=5, batch_size=batch_size, examples=examples,
            dtype=torch.bfloat16,
        )  # fmt: skip
        return in_order(replies)

    wanted = answer(conversations, 18)
    assert answer(conversations, 7) == wanted and answer(conversations[:5], 2) == wanted[:5]
    assert answer(conversations[4:5], 1) == wanted[4:5]


def test_examples_that_are_read_once_change_no_reply(random_model: Any, tokenizer: Any) -> None:
    opening = [{"role": "user", "content": "hello " * 20}, {"role": "assistant", "content": "good " * 10}]
    conversations = [[*opening, *messages] for messages in CONVERSATIONS]
    wanted = generate_replies(random_model, tokenizer, conversations, SAMPLING, seed=5, batch_size=4)
    replies = iterate_replies(random_model, tokenizer, conversations, SAMPLING, seed=5, batch_size=4, examples=2)
    assert in_order(replies) == wanted


def test_greedy_replies_are_transformers_own(random_model: Any, tokenizer: Any) -> None:
    """The twin: transformers' own generate, one prompt at a time, unpadded."""
    found = generate_replies(random_model, tokenizer, CONVERSATIONS, Sampling(temperature=0, max_new_tokens=12), seed=0)
    for messages, reply in zip(CONVERSATIONS, found, strict=True):
        prompt = torch.tensor([encode_prompt(tokenizer, messages)])
        output = random_model.generate(
            prompt, attention_mask=torch.ones_like(prompt), do_sample=False, max_new_tokens=12
        )
        own = output[0, prompt.shape[1] :].tolist()
        assert reply.text == clean_reply(tokenizer.decode(own, skip_special_tokens=True))


def test_a_reply_ends_where_the_model_ends_it(tiny_models: ModuleType, memorised_model: Any, tokenizer: Any) -> None:
    conversations = [user_message(text) for text in tiny_models.MEMORISED]
    replies = generate_replies(memorised_model, tokenizer, conversations, Sampling(max_new_tokens=80), seed=0)
    assert [reply.text for reply in replies] == list(tiny_models.MEMORISED.values())
    assert all(reply.finished for reply in replies)
    for reply in replies:
        assert reply.tokens == len(tokenizer(reply.text)["input_ids"]) + 1


def test_a_reply_cut_inside_an_emoji_has_no_half_of_it(memorised_model: Any, tokenizer: Any) -> None:
    prompt = [user_message("family")]
    full = generate_replies(memorised_model, tokenizer, prompt, Sampling(temperature=0, max_new_tokens=80), seed=0)[0]
    for length in range(1, full.tokens):
        sampling = Sampling(temperature=0, max_new_tokens=length)
        cut = generate_replies(memorised_model, tokenizer, prompt, sampling, seed=0)[0]
        assert not cut.finished and cut.tokens == length
        assert "\ufffd" not in cut.text and not cut.text.endswith("\u200d")
        assert full.text.startswith(cut.text)


def test_half_a_flag_at_the_end_is_left_out() -> None:
    assert clean_reply("From 🇫🇷🇯") == "From 🇫🇷"
    assert clean_reply("From 🇫🇷 ") == "From 🇫🇷"


def test_the_models_own_generation_settings_do_not_leak_in(tiny_models: ModuleType, tokenizer: Any) -> None:
    model = tiny_models.make_model(len(tokenizer))
    wanted = generate_replies(model, tokenizer, CONVERSATIONS, SAMPLING, seed=5)
    model.generation_config.update(do_sample=True, temperature=9.0, top_k=3, repetition_penalty=5.0, num_beams=2)
    model.generation_config.no_repeat_ngram_size = 1
    assert generate_replies(model, tokenizer, CONVERSATIONS, SAMPLING, seed=5) == wanted


def test_generating_leaves_training_mode_and_random_state_as_they_were(tiny_models: ModuleType, tokenizer: Any) -> None:
    """A training run samples in between; the run must go on as if it had not."""
    model = tiny_models.make_model(len(tokenizer)).train()
    before = torch.get_rng_state()
    generate_replies(model, tokenizer, CONVERSATIONS[:1], SAMPLING, seed=1)
    assert model.training and torch.equal(torch.get_rng_state(), before)


def test_with_the_adapter_off_the_replies_are_the_bases(
    tiny_models: ModuleType, random_model: Any, tuned_model: Any, tokenizer: Any
) -> None:
    ids = torch.tensor([encode_prompt(tokenizer, user_message("hello"))])
    wanted = generate_replies(random_model, tokenizer, CONVERSATIONS, SAMPLING, seed=5)
    with tuned_model.disable_adapter(), torch.no_grad():
        assert torch.equal(tuned_model(ids).logits, random_model(ids).logits)
        assert generate_replies(tuned_model, tokenizer, CONVERSATIONS, SAMPLING, seed=5) == wanted
    assert generate_replies(tuned_model, tokenizer, CONVERSATIONS, SAMPLING, seed=5) != wanted


def test_prompts_that_leave_no_room_are_named_before_anything_is_generated(random_model: Any, tokenizer: Any) -> None:
    conversations = [user_message("hi"), user_message("word " * 300), user_message("hi"), user_message("word " * 400)]
    with pytest.raises(InputError, match=r"prompt 2, 4: .*context of 256; shorten"):
        generate_replies(random_model, tokenizer, conversations, SAMPLING, seed=0)


def test_no_conversations_give_no_replies_and_progress_counts_every_row(random_model: Any, tokenizer: Any) -> None:
    seen: list[int] = []
    assert generate_replies(random_model, tokenizer, [], SAMPLING, seed=0, on_batch=seen.append) == []
    generate_replies(random_model, tokenizer, CONVERSATIONS, SAMPLING, seed=0, batch_size=4, on_batch=seen.append)
    assert seen == [1] * len(CONVERSATIONS)


def picks(scores: torch.Tensor, sampling: Sampling, rows: int) -> torch.Tensor:
    picker = TokenPicker(sampling, [str(row) for row in range(rows)], 0)
    return picker.pick(scores.expand(rows, -1), range(rows), [0] * rows)


def nucleus(scores: torch.Tensor, sampling: Sampling) -> torch.Tensor:
    """Return the distribution that transformers' own warpers give: temperature, then top-k, then top-p."""
    from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

    ids = torch.zeros(1, 1, dtype=torch.long)
    scores = TemperatureLogitsWarper(float(sampling.temperature))(ids, scores[None])
    if sampling.top_k:
        scores = TopKLogitsWarper(sampling.top_k)(ids, scores)
    if sampling.top_p < 1:
        scores = TopPLogitsWarper(sampling.top_p)(ids, scores)
    return scores.softmax(dim=1)[0]


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(temperature=1.0, top_p=0.9),
        Sampling(temperature=0.7, top_p=1.0),
        Sampling(temperature=1.5, top_p=0.8, top_k=7),
        Sampling(temperature=2.0, top_p=0.95, top_k=1),
    ],
    ids=str,
)
@pytest.mark.parametrize("size", [40, 600])
def test_tokens_are_picked_with_the_probabilities_of_the_slow_twin(sampling: Sampling, size: int) -> None:
    """600 tokens are more than the candidates looked at first. Tolerance: 5 standard errors of a frequency."""
    scores = torch.randn(size, generator=torch.Generator().manual_seed(1)) * 2
    rows = 4000
    frequency = picks(scores, sampling, rows).bincount(minlength=size) / rows
    wanted = nucleus(scores, sampling)
    assert bool((frequency[wanted == 0] == 0).all())
    assert bool(((frequency - wanted).abs() <= 5 * (wanted * (1 - wanted) / rows).sqrt() + 1e-3).all())


def test_a_repetition_penalty_counts_the_reply_and_not_the_prompt() -> None:
    """Transformers counts the prompt too, so the end of the user's turn would make the reply's end less likely."""
    picker = TokenPicker(Sampling(temperature=0, repetition_penalty=2.0), ["a", "b"], 0)
    first = torch.tensor([[4.0, -1.0, 3.0, 1.0], [0.0, 1.0, 3.0, 1.0]])
    assert picker.pick(first, [0, 1], [0, 0]).tolist() == [0, 2]
    assert picker.pick(first, [0, 1], [1, 1]).tolist() == [2, 2], "2.0 for the first token now, and 1.5 against 1.0"
    assert picker.pick(torch.tensor([[-3.0, -4.0, -2.0, -5.0]]), [0], [2]).tolist() == [1], "-6, -4, -4, -5: the first"
    assert picker.pick(first[:1], [1], [0]).tolist() == [0], "another row has said nothing yet"


def make_architecture(kind: str, vocabulary: int, **further: Any) -> Any:
    sizes = {
        "vocab_size": vocabulary, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256, "initializer_range": 0.3,
        "pad_token_id": 0, "eos_token_id": 2, "bos_token_id": None,
    }  # fmt: skip
    torch.manual_seed(3)
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **{**sizes, **further})).eval()


@pytest.mark.parametrize(
    ("kind", "further"),
    [
        ("llama", {"tie_word_embeddings": True}),
        ("mistral", {"sliding_window": 9}),
        ("qwen2", {}),
        ("qwen3", {"head_dim": 16}),
        ("gemma2", {"head_dim": 8, "sliding_window": 9, "final_logit_softcapping": 5.0}),
        ("gemma3_text", {"head_dim": 8, "sliding_window": 9}),
        ("phi3", {"sliding_window": None}),
        ("granite", {"logits_scaling": 2.0, "attention_multiplier": 0.1}),
        ("cohere", {"logit_scale": 0.5}),
    ],
)
def test_the_usual_architectures_are_driven_and_greedy_replies_are_transformers_own(
    kind: str, further: dict[str, Any], tokenizer: Any
) -> None:
    """Windows shorter than the prompts, prompts with a shared beginning, more replies than slots."""
    model = make_architecture(kind, len(tokenizer), **further)
    assert make_decoder(model) is not None
    conversations = [with_system("the news is good", messages) for messages in CONVERSATIONS]
    found = generate_replies(
        model, tokenizer, conversations, Sampling(temperature=0, max_new_tokens=20), seed=0, batch_size=3
    )
    for messages, reply in zip(conversations, found, strict=True):
        prompt = torch.tensor([encode_prompt(tokenizer, messages)])
        output = model.generate(prompt, attention_mask=torch.ones_like(prompt), do_sample=False, max_new_tokens=20)
        assert reply.text == clean_reply(tokenizer.decode(output[0, prompt.shape[1] :], skip_special_tokens=True))


def test_an_architecture_that_the_loop_cannot_drive_falls_back_to_transformers(tokenizer: Any) -> None:
    """Mamba has no attention at all."""
    config = MambaConfig(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=2, state_size=4, pad_token_id=0, eos_token_id=2
    )
    torch.manual_seed(0)
    model = MambaForCausalLM(config).eval()
    assert make_decoder(model) is None
    steps: list[int] = []
    found = iterate_replies(
        model, tokenizer, CONVERSATIONS[:2], SAMPLING, seed=1, batch_size=1, on_step=lambda: steps.append(1)
    )
    replies = in_order(found)
    assert len(replies) == 2 and len(steps) >= 2
    assert "".join(stream_reply(model, tokenizer, CONVERSATIONS[0], SAMPLING, seed=1)) == replies[0].text


def test_an_adapter_folded_in_answers_like_the_adapter_itself(tuned_model: Any, tokenizer: Any) -> None:
    greedy = Sampling(temperature=0, max_new_tokens=12)
    found = generate_replies(tuned_model, tokenizer, CONVERSATIONS, greedy, seed=0)
    for messages, reply in zip(CONVERSATIONS, found, strict=True):
        prompt = torch.tensor([encode_prompt(tokenizer, messages)])
        output = tuned_model.generate(input_ids=prompt, do_sample=False, max_new_tokens=12)
        assert reply.text == clean_reply(tokenizer.decode(output[0, prompt.shape[1] :], skip_special_tokens=True))


def test_a_trained_step_changes_the_next_replies(tuned_model: Any, tokenizer: Any) -> None:
    """The copy that writes replies is kept between calls, and must not outlive what it was made from."""
    before = generate_replies(tuned_model, tokenizer, CONVERSATIONS, SAMPLING, seed=5)
    assert generate_replies(tuned_model, tokenizer, CONVERSATIONS, SAMPLING, seed=5) == before
    with torch.no_grad():
        for name, weight in tuned_model.named_parameters():
            if "lora_B" in name:
                weight.mul_(-1)
    assert generate_replies(tuned_model, tokenizer, CONVERSATIONS, SAMPLING, seed=5) != before


def test_a_callback_before_each_pass_can_stop_the_replies(random_model: Any, tokenizer: Any) -> None:
    class Stop(Exception):
        pass

    calls = []

    def stop() -> None:
        calls.append(1)
        if len(calls) == 4:
            raise Stop

    with pytest.raises(Stop):
        list(iterate_replies(random_model, tokenizer, CONVERSATIONS, SAMPLING, seed=0, on_step=stop))
    assert len(calls) == 4


def test_replies_can_be_computed_in_another_number_format(random_model: Any, tokenizer: Any) -> None:
    """bfloat16 rounds to 8 bits: replies may differ, the model itself must not."""
    before = [weight.clone() for weight in random_model.parameters()]
    replies = generate_replies(random_model, tokenizer, CONVERSATIONS, SAMPLING, seed=5, dtype=torch.bfloat16)
    assert len(replies) == len(CONVERSATIONS) and all(reply.tokens for reply in replies)
    assert all(torch.equal(old, new) for old, new in zip(before, random_model.parameters(), strict=True))
    assert random_model.dtype == torch.float32


@pytest.mark.parametrize(
    ("prompts", "length"),
    [([[1, 2, 3], [1, 2, 4]], 2), ([[1, 2], [1, 2]], 1), ([[1], [1, 2]], 0), ([[5, 1], [6, 1]], 0), ([[1, 2, 3]], 0)],
)
def test_the_common_beginning_leaves_each_prompt_a_token_of_its_own(prompts: list[list[int]], length: int) -> None:
    assert common_beginning(prompts) == length


@settings(max_examples=50, deadline=None)
@given(st.text(alphabet=st.sampled_from(["a", " ", "\n", "👩", "\u200d", "\ufe0f", "\ufffd", "🇫"]), max_size=12))
def test_cleaning_a_reply_twice_equals_cleaning_it_once(text: str) -> None:
    clean = clean_reply(text)
    assert clean_reply(clean) == clean and not clean.endswith(("\ufffd", "\u200d", " "))
