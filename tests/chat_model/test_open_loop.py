"""Conversations that come and go in one loop: each reply is the one that it would be alone."""

import random
from types import ModuleType
from typing import Any

import pytest
import torch

from orpo.chat_model.adapters import attach_adapter
from orpo.chat_model.chat_template import encode_prompt, reply_end_ids
from orpo.chat_model.decoder import make_decoder
from orpo.chat_model.generation import as_reply, generate_replies
from orpo.chat_model.loading import load_model
from orpo.chat_model.open_loop import OpenLoop, Writing
from orpo.chat_model.options import resolve_reply_dtype
from orpo.chat_model.token_picker import row_keys
from orpo.command.errors import ModelError
from orpo.records.messages import user_message
from orpo.records.replies import Reply, Sampling

TEXTS = ["hi", "how are you today", "good news", "tell me the story of the cat and the dog " * 3, "x", "thank you"]
SAMPLINGS = [
    Sampling(temperature=0.9, max_new_tokens=40),
    Sampling(temperature=0, max_new_tokens=7),
    Sampling(temperature=1.4, top_k=20, repetition_penalty=1.2, max_new_tokens=25),
]


def write_together(model: Any, tokenizer: Any, cases: list[tuple[str, Sampling, int]], order: int) -> list[Reply]:
    """Write the replies in one loop that they join at random steps, among others that leave midway."""
    decoder = make_decoder(model, None)
    assert decoder is not None
    dice = random.Random(order)
    ends = reply_end_ids(model, tokenizer)
    loop = OpenLoop(decoder, ends)

    def writing(text: str, sampling: Sampling, seed: int) -> Writing:
        prompt = encode_prompt(tokenizer, user_message(text))
        return Writing(prompt, sampling, seed, row_keys([prompt])[0])

    made = [writing(*case) for case in cases]
    waiting, leaving = list(made), []
    dice.shuffle(waiting)
    while waiting or loop.writing:
        joining = [waiting.pop() for _ in range(min(len(waiting), dice.randrange(3)))]
        others = [writing("stay a while", SAMPLINGS[0], dice.randrange(99)) for _ in range(dice.randrange(2))]
        if waiting and joining + others:
            loop.join(joining + others)
            leaving += others
        elif joining:
            loop.join(joining)
        if leaving and dice.random() < 0.5:
            loop.leave(leaving.pop())
        loop.step()
    return [as_reply(tokenizer, one.ids, ends) for one in made]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_reply_is_the_same_whatever_comes_and_goes_beside_it(
    tiny_models: ModuleType, tokenizer: Any, dtype: torch.dtype
) -> None:
    if dtype == torch.bfloat16 and resolve_reply_dtype("auto", torch.device("cpu")) != dtype:
        pytest.skip("no fast bfloat16 on this processor")
    model = tiny_models.make_model(len(tokenizer), hidden=64).to(dtype)
    cases = [(text, sampling, seed) for text in TEXTS for sampling in SAMPLINGS for seed in (1, 2)]
    wanted = [
        generate_replies(model, tokenizer, [user_message(text)], sampling, seed=seed)[0]
        for text, sampling, seed in cases
    ]
    assert len({reply.text for reply in wanted}) > len(cases) // 2
    for order in range(3):
        assert write_together(model, tokenizer, cases, order) == wanted


def test_an_idle_loop_holds_no_slots(random_model: Any, tokenizer: Any) -> None:
    decoder = make_decoder(random_model, None)
    assert decoder is not None
    loop = OpenLoop(decoder, [])
    prompt = encode_prompt(tokenizer, user_message("hi"))
    many = [Writing(prompt, Sampling(max_new_tokens=50), seed, "key") for seed in range(6)]
    loop.join(many)
    for one in many[1:]:
        loop.leave(one)
    loop.step()
    assert len(loop._cache.lengths) == 1 and loop.writing == many[:1]
    loop.leave(many[0])
    assert loop.step() == [] and len(loop._cache.lengths) == 0


def test_several_adapters_on_one_model_answer_as_each_does_alone(
    tiny_models: ModuleType, model_folder: Any, tokenizer: Any, tmp_path: Any
) -> None:
    def load() -> Any:
        return load_model(str(model_folder), device="cpu", dtype="float32")

    folders = []
    for seed in (1, 2):
        tiny_models.add_adapter(load(), seed=seed).save_pretrained(tmp_path / str(seed))
        folders.append(tmp_path / str(seed))
    both = attach_adapter(attach_adapter(load(), folders[0]), folders[1], name="second")
    assert both.active_adapters == ["default"]
    for name, folder in zip(("default", "second"), folders, strict=True):
        both.set_adapter(name)
        alone = attach_adapter(load(), folder)
        found = generate_replies(both, tokenizer, [user_message("hi")], SAMPLINGS[0], seed=4)
        assert found == generate_replies(alone, tokenizer, [user_message("hi")], SAMPLINGS[0], seed=4)


def test_a_further_adapter_cannot_change_the_tokens_of_the_first(
    tiny_models: ModuleType, model_folder: Any, adapter_folder: Any, tmp_path: Any
) -> None:
    grown = load_model(str(model_folder), device="cpu", dtype="float32")
    grown.resize_token_embeddings(grown.config.vocab_size + 3)
    tuned = tiny_models.add_adapter(grown)
    tuned.save_pretrained(tmp_path / "grown", save_embedding_layers=True)
    first = attach_adapter(load_model(str(model_folder), device="cpu", dtype="float32"), adapter_folder)
    with pytest.raises(ModelError, match="load it by itself"):
        attach_adapter(first, tmp_path / "grown", name="second")
