"""The chat template is applied exactly once, and the end of a turn is found."""

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from orpo.chat_model.chat_template import (
    PLAIN_TEMPLATE,
    encode_prompt,
    missing_markers,
    render_prompt,
    render_reply,
    reply_end_ids,
    turn_end_id,
)
from orpo.chat_model.generation import as_reply
from orpo.command.errors import InputError, ModelError
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


def test_a_system_text_that_the_template_drops_opens_the_first_message(tiny_models: ModuleType) -> None:
    """The first Phi-3 dropped it without a word, so both writers got the same prompt."""
    drops = "{% for m in messages if m['role'] != 'system' %}" + tiny_models.CHATML.split("%}", 1)[1].replace(
        "message[", "m["
    )
    tokenizer = tiny_models.make_tokenizer(drops)
    rendered = render_prompt(tokenizer, with_system("Be brief.", user_message("Hi")))
    assert rendered == "<|im_start|>user\nBe brief.\n\nHi<|im_end|>\n<|im_start|>assistant\n"


def test_a_system_text_in_the_last_message_is_not_lost(tiny_models: ModuleType) -> None:
    """Mistral's way since its third version: nothing is folded where the text is there."""
    last = (
        "{% for m in messages %}{% if m['role'] == 'user' %}{{ '[INST] ' }}{% if loop.last and messages[0]['role'] == "
        "'system' %}{{ messages[0]['content'] + '\n\n' }}{% endif %}{{ m['content'] + '[/INST]' }}"
        "{% elif m['role'] == 'assistant' %}{{ ' ' + m['content'] + '<|im_end|>' }}{% endif %}{% endfor %}"
    )
    tokenizer = tiny_models.make_tokenizer(last)
    conversation = [*user_message("One"), {"role": "assistant", "content": "1"}, *user_message("Two")]
    rendered = render_prompt(tokenizer, with_system("Be brief.", conversation))
    assert rendered == "[INST] One[/INST] 1<|im_end|>[INST] Be brief.\n\nTwo[/INST]"
    assert render_reply(tokenizer, user_message("Hi"), "Yes") == ("[INST] Hi[/INST]", " Yes<|im_end|>")


def test_a_template_that_fails_in_any_way_is_one_line(tiny_models: ModuleType) -> None:
    tokenizer = tiny_models.make_tokenizer()
    for template, says in (("{{ 1/0 }}", "division by zero"), ("{{ nothing.at.all }}", "undefined")):
        tokenizer.chat_template = template
        with pytest.raises(ModelError, match=says) as caught:
            render_prompt(tokenizer, user_message("Hi"))
        assert "\n" not in str(caught.value)


def test_a_prompt_that_the_reply_changes_shows_where(tiny_models: ModuleType) -> None:
    shifts = "{{ messages | length }}" + tiny_models.CHATML
    with pytest.raises(ModelError, match=r"differently with and without the reply: '2.*with it, '1.*without"):
        render_reply(tiny_models.make_tokenizer(shifts), user_message("Hi"), "Yes")


def test_a_special_token_in_a_message_is_text_and_a_turn_marker_is_refused(tokenizer: Any) -> None:
    ids = encode_prompt(tokenizer, user_message("the <|bos|> token"))
    assert 3 not in ids and tokenizer.decode(ids) == render_prompt(tokenizer, user_message("the <|bos|> token"))
    with pytest.raises(InputError, match=r"turn marker <\|im_end\|>"):
        encode_prompt(tokenizer, user_message("Hi<|im_end|>"))


def test_markers_that_the_tokenizer_does_not_know_are_named(tiny_models: ModuleType) -> None:
    """ChatML on a base model: `<|im_end|>` became text that the model shows its users."""
    assert missing_markers(tiny_models.make_tokenizer()) == []
    other = tiny_models.make_tokenizer(tiny_models.CHATML.replace("<|im_end|>", "<|eot|>"))
    assert missing_markers(other) == ["<|eot|>"]


def test_a_model_without_a_template_is_asked_in_plain_text_and_replies_a_line(
    tiny_models: ModuleType, random_model: Any
) -> None:
    tokenizer = tiny_models.make_tokenizer(PLAIN_TEMPLATE)
    conversation = [*user_message("Hi"), {"role": "assistant", "content": "Hello!"}, *user_message("How are you?")]
    rendered = render_prompt(tokenizer, with_system("Be kind.", conversation))
    assert rendered == "Be kind.\n\nUser: Hi\nAssistant: Hello!\n\nUser: How are you?\nAssistant:"
    ends = reply_end_ids(random_model, tokenizer)
    assert tokenizer.encode("\n")[0] in ends and tokenizer.eos_token_id in ends
    reply = as_reply(tokenizer, tokenizer.encode(" Fine.\nUser:"), ends)
    assert reply.text == "Fine." and reply.finished


@pytest.mark.shared_data
@pytest.mark.parametrize(
    ("name", "opening"),
    [
        ("mistral", "<s>[INST] Be kind.\n\nHi [/INST]"),
        ("qwen2.5", "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"),
        (
            "qwen3",
            "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
            "<think>\n\n</think>\n\n",
        ),
        ("smollm2", "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"),
    ],
)
def test_real_templates_keep_the_system_text_and_open_the_reply(shared_data: Path, name: str, opening: str) -> None:
    folder = shared_data.parent / "tokenizers" / name
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there")
    maker = PreTrainedTokenizerFast if (folder / "tokenizer.json").is_file() else AutoTokenizer
    tokenizer = maker.from_pretrained(folder)
    conversation = with_system("Be kind.", user_message("Hi"))
    found, ending = render_reply(tokenizer, conversation, "Yes 🎉")
    assert found == render_prompt(tokenizer, conversation) == opening
    assert ending.startswith("Yes 🎉") and missing_markers(tokenizer) == []
    again = tokenizer.decode(encode_prompt(tokenizer, conversation))  # SentencePiece puts a blank behind <s>
    assert isinstance(again, str) and again.replace(" ", "") == opening.replace(" ", "")


def test_what_a_template_writes_before_every_reply_belongs_to_the_prompt(tiny_models: ModuleType) -> None:
    """The channel of a final answer was left to the model to write, and the word `final` to be shown in its replies."""
    channel = (
        "{% for m in messages %}{{ '<|im_start|>' + m['role'] + ('<|bos|>final<|pad|>' if m['role'] == 'assistant' "
        "else '') + m['content'] + '<|im_end|>' }}{% endfor %}{% if add_generation_prompt %}"
        "{{ '<|im_start|>assistant' }}{% endif %}"
    )
    opening = "<|im_start|>userHi<|im_end|><|im_start|>assistant<|bos|>final<|pad|>"
    tokenizer = tiny_models.make_tokenizer(channel)
    assert render_prompt(tokenizer, user_message("Hi")) == opening
    assert render_reply(tokenizer, user_message("Hi"), "Yes 🎉") == (opening, "Yes 🎉<|im_end|>")


def test_a_turn_marker_is_told_with_the_message_that_holds_it(tokenizer: Any) -> None:
    with pytest.raises(InputError, match=r"the turn marker <\|im_end\|>, as if .*: 'Hi<\|im_end\|>'"):
        encode_prompt(tokenizer, user_message("Hi<|im_end|>"))
