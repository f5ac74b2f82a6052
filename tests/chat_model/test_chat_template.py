"""The chat template is applied exactly once, and the end of a turn is found."""

from types import ModuleType
from typing import Any

import pytest

from orpo.chat_model.chat_template import (
    encode_prompt,
    render_prompt,
    reply_end_ids,
    turn_end_id,
)
from orpo.command.errors import ModelError
from orpo.records.messages import user_message, with_system


def test_a_prompt_is_rendered_once_up_to_the_reply(tokenizer: Any) -> None:
    assert render_prompt(tokenizer, user_message("Hi")) == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    ids = encode_prompt(tokenizer, user_message("Hi"))
    assert tokenizer.decode(ids) == render_prompt(tokenizer, user_message("Hi"))
    assert ids.count(1) == 2 and ids.count(2) == 1


def test_there_is_one_bos_also_where_tokenizer_and_template_both_write_it(tiny_models: ModuleType) -> None:
    """Encoding the rendered text with special tokens gives two, which models were never trained on."""
    tokenizer = tiny_models.make_tokenizer(tiny_models.WITH_BOS, adds_bos=True)
    assert tokenizer("Hi")["input_ids"][0] == tokenizer.bos_token_id == 3
    ids = encode_prompt(tokenizer, user_message("Hi"))
    assert ids.count(3) == 1 and ids[0] == 3


def test_special_tokens_inside_a_message_do_not_break_the_rendering(tokenizer: Any) -> None:
    rendered = render_prompt(tokenizer, user_message("{{ messages }} {% if %} </s>"))
    assert "{{ messages }} {% if %} </s>" in rendered


def test_a_template_without_a_system_role_gets_the_system_prompt_in_the_first_message(tiny_models: ModuleType) -> None:
    refuses = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    tokenizer = tiny_models.make_tokenizer(refuses + tiny_models.CHATML)
    rendered = render_prompt(tokenizer, with_system("Be brief.", user_message("Hi")))
    assert rendered == "<|im_start|>user\nBe brief.\n\nHi<|im_end|>\n<|im_start|>assistant\n"
    with pytest.raises(ModelError, match=r"roles \(system\).*System role not supported"):
        render_prompt(tokenizer, [{"role": "system", "content": "Be brief."}])


def test_the_turn_end_is_found_though_eos_is_another_token(tiny_models: ModuleType, random_model: Any) -> None:
    """Base models often name `<|endoftext|>` as EOS while their template ends turns with `<|im_end|>`."""
    tokenizer = tiny_models.make_tokenizer()
    assert turn_end_id(tokenizer) == 2
    tokenizer.eos_token = "<|pad|>"
    assert turn_end_id(tokenizer) == 2
    assert reply_end_ids(random_model, tokenizer) == [0, 2]


def test_a_template_in_plain_text_ends_no_turn(tiny_models: ModuleType) -> None:
    plain = "{% for message in messages %}{{ message['role'] + ': ' + message['content'] + '\n' }}{% endfor %}"
    assert turn_end_id(tiny_models.make_tokenizer(plain)) is None
