"""Chat templates as people bring them: all of TRL's, and what the well-known families do otherwise.

What is right for each: every message's text is in the prompt, once; the reply follows it at once, and ends with one end
token; the prompt is the one that inference asks with; no thought is left open. Or one line says why not.
"""

import re
from pathlib import Path
from typing import Final

import pytest
import trl
from transformers import PreTrainedTokenizerBase

from orpo.chat_model.chat_template import encode_prompt, missing_markers, render_prompt, render_reply
from orpo.chat_model.loading import prepare_tokenizer
from orpo.command.errors import ModelError, OrpoError
from orpo.records.messages import Message
from orpo.records.pairs import PreferencePair
from orpo.training.tokenization import tokenize_pairs
from tests.small_models import make_chat_tokenizer

pytestmark = pytest.mark.faults("chat templates")

TALK: Final[list[Message]] = [
    {"role": "system", "content": "Be kind to all."},
    {"role": "user", "content": "Hello there."},
    {"role": "assistant", "content": "Good day to you."},
    {"role": "user", "content": "How are you?"},
]
REPLY: Final = "I am well 🎉"

TRL: Final = {file.stem: file for file in sorted((Path(trl.__file__).parent / "chat_templates").glob("*.jinja"))}
# They take contents in parts only, as of images, and write nothing for a text or fail on it.
ONLY_PARTS: Final = ("idefics3", "llava_next", "smolvlm")

_MARKER: Final = re.compile(
    r"<\|[^|<>\s'\"{}]+\|>|<(?:start|end)_of_turn>|<｜[^｜<>]+｜>|<\|turn>|<turn\|>|\[/?INST\]|</?s>|<bos>"
)


def tokenizer_for(template: str) -> PreTrainedTokenizerBase:
    """Return a tokenizer that knows the markers of a template as one token each."""
    markers = ("<|pad|>", "<|eos|>", "<|first|>", *sorted(set(_MARKER.findall(template))))
    roles = {"pad_token": "<|pad|>", "eos_token": "<|eos|>", "bos_token": "<|first|>"}
    return prepare_tokenizer(make_chat_tokenizer(template, markers, **roles), "tried")


def as_pair(talk: list[Message]) -> PreferencePair:
    better, worse = ([{"role": "assistant", "content": text}] for text in (REPLY, "Not so well."))
    return PreferencePair(talk, better, worse)


def check(tokenizer: PreTrainedTokenizerBase, talk: list[Message]) -> tuple[str, str]:
    """Assert all that is right for any template, and return the prompt's text and what follows it."""
    prompt, ending = render_reply(tokenizer, talk, REPLY)
    for message in talk:
        assert prompt.count(message["content"]) == 1, message
    assert ending.lstrip().startswith(REPLY)
    assert prompt.count("<think>") == prompt.count("</think>") and "think>" not in ending
    assert render_prompt(tokenizer, talk) == prompt and missing_markers(tokenizer) == []
    (pair,) = tokenize_pairs([as_pair(talk)], tokenizer, 4096).pairs
    assert pair.prompt_ids == encode_prompt(tokenizer, talk)
    assert tokenizer.decode(pair.prompt_ids) == prompt
    end = pair.chosen_ids[-1]
    assert pair.chosen_ids.count(end) == 1 and pair.rejected_ids.count(end) == 1
    assert end in tokenizer.added_tokens_decoder and pair.rejected_ids[-1] == end
    assert str(tokenizer.decode(pair.chosen_ids[:-1])).removesuffix("<|END_RESPONSE|>").strip() == REPLY
    return prompt, ending


@pytest.mark.parametrize("name", [name for name in TRL if not name.startswith(ONLY_PARTS)])
def test_a_template_of_trl_loses_nothing_and_ends_once(name: str) -> None:
    check(tokenizer_for(TRL[name].read_text(encoding="utf-8")), TALK)


@pytest.mark.parametrize("name", [name for name in TRL if name.startswith(ONLY_PARTS)])
def test_a_template_that_takes_no_text_is_one_line(name: str) -> None:
    """idefics3's dropped all text, and chosen was equal to rejected."""
    with pytest.raises(ModelError, match=r"the chat template (drops the text|does not take a conversation)") as caught:
        render_reply(tokenizer_for(TRL[name].read_text(encoding="utf-8")), TALK, REPLY)
    assert "\n" not in str(caught.value)


def turns(system: str, user: str, assistant: str, opening: str, *, before: str = "") -> str:
    """Return a template that writes each role in its form, where TEXT stands for the content."""

    def form(written: str) -> str:
        return "{{ '" + written.replace("TEXT", "' + m['content'] + '") + "' }}" if written else ""

    return (
        f"{before}{{% for m in messages %}}{{% if m['role'] == 'system' %}}{form(system)}"
        f"{{% elif m['role'] == 'user' %}}{form(user)}{{% else %}}{form(assistant)}{{% endif %}}{{% endfor %}}"
        f"{{% if add_generation_prompt %}}{{{{ '{opening}' }}}}{{% endif %}}"
    )


NO_SYSTEM: Final = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
TURN: Final = ("<|user|>\\nTEXT<|end|>\\n", "<|assistant|>\\nTEXT<|end|>\\n", "<|assistant|>\\n")

# What the prompt's end is to be for TALK.
FAMILIES: Final[dict[str, tuple[str, str]]] = {
    "Zephyr": (turns("<|system|>\\nTEXT</s>\\n", "<|user|>\\nTEXT</s>\\n", "<|assistant|>\\nTEXT</s>\\n",
                     "<|assistant|>\\n"), "<|user|>\nHow are you?</s>\n<|assistant|>\n"),
    "Vicuna, in words": (turns("TEXT ", "USER: TEXT ", "ASSISTANT: TEXT</s>", "ASSISTANT: "),
                         "USER: How are you? ASSISTANT:"),
    "Alpaca, in words": (turns("TEXT\\n\\n", "### Instruction:\\nTEXT\\n\\n", "### Response:\\nTEXT</s>\\n\\n",
                               "### Response:\\n"), "### Instruction:\nHow are you?\n\n### Response:\n"),
    "no system role": (turns("", *TURN, before=NO_SYSTEM), "<|user|>\nHow are you?<|end|>\n<|assistant|>\n"),
    "drops the system text, as the first Phi-3": (turns("", *TURN),
                                                  "<|user|>\nHow are you?<|end|>\n<|assistant|>\n"),
    "opens a thought when it asks, as R1": (
        turns("TEXT", "<｜User｜>TEXT", "<｜Assistant｜>TEXT<｜end｜>", "<｜Assistant｜><think>\\n"),
        "<｜User｜>How are you?<｜Assistant｜>"),
    "thinks unless told not to, as Qwen 3": (
        turns("<|im_start|>system\\nTEXT<|im_end|>\\n", "<|im_start|>user\\nTEXT<|im_end|>\\n",
              "<|im_start|>assistant\\nTEXT<|im_end|>\\n", "<|im_start|>assistant\\n' + ('' if enable_thinking is "
              "defined and enable_thinking is false else '<think>\\n') + '"),
        "<|im_start|>user\nHow are you?<|im_end|>\n<|im_start|>assistant\n"),
    "ignores what opens the reply": (turns("TEXT\\n", "<|user|>TEXT\\n", "TEXT<|end|>\\n", ""), "How are you?\n"),
    "trims every text": (turns("<|s|>TEXT", *TURN).replace("m['content']", "m['content'] | trim"),
                         "How are you?<|end|>\n<|assistant|>\n"),
    "writes the day": (turns("TEXT", *TURN, before="{{ 'Today: ' + strftime_now('%d %b %Y') + '\\n' }}"),
                       "How are you?<|end|>\n<|assistant|>\n"),
    "the system text in the last user turn, as Mistral": (
        "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}{{ '[INST] ' }}{% if loop.last and "
        "messages[0]['role'] == 'system' %}{{ messages[0]['content'] + '\\n\\n' }}{% endif %}"
        "{{ m['content'] + '[/INST]' }}{% elif m['role'] == 'assistant' %}{{ ' ' + m['content'] + '</s>' }}"
        "{% endif %}{% endfor %}", "[INST] Be kind to all.\n\nHow are you?[/INST]"),
    "the system text within the first user turn, as Llama 2": (
        "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}{{ '[INST] ' }}{% if loop.index0 < 2 and "
        "messages[0]['role'] == 'system' %}{{ '<<SYS>>\\n' + messages[0]['content'] + '\\n<</SYS>>\\n\\n' }}"
        "{% endif %}{{ m['content'] + ' [/INST]' }}{% elif m['role'] == 'assistant' %}{{ ' ' + m['content'] + ' </s>' "
        "}}{% endif %}{% endfor %}", "[INST] How are you? [/INST]"),
}  # fmt: skip


@pytest.mark.parametrize("name", FAMILIES)
def test_a_familys_template_loses_nothing_and_opens_the_reply(name: str) -> None:
    template, opening = FAMILIES[name]
    prompt, _ = check(tokenizer_for(template), TALK)
    assert prompt.rstrip(" ").endswith(opening.rstrip(" "))


REFUSED: Final[dict[str, tuple[str, str]]] = {
    "divides by zero": ("{{ 1/0 }}", "division by zero"),
    "a name that is not there": ("{{ nothing.at.all }}", "is undefined"),
    "drops the user's text": (turns("TEXT", "<|user|>", "TEXT<|end|>", ""), "drops the text of a message \\(user\\)"),
    "drops the reply's text": (turns("TEXT", "TEXT\\n", "<|end|>", ""), "drops the text of a message \\(assistant\\)"),
    "in capitals": (turns("TEXT", *TURN).replace("m['content']", "m['content'] | upper"), "drops the text"),
    "the last message only": ("{{ messages[-1]['content'] }}", "drops the text of a message"),
    "writes how many messages there are": ("{{ messages | length }}" + turns("TEXT", *TURN), "writes the prompt diff"),
    "refuses every conversation": ("{{ raise_exception('not today') }}", "not today"),
    "an escape sequence in its refusal": ("{{ raise_exception('\\x1b[2Jno') }}", "does not take a conversation"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_template_that_cannot_be_used_is_one_line_that_says_why(name: str) -> None:
    template, says = REFUSED[name]
    with pytest.raises(OrpoError, match=says) as caught:
        render_reply(tokenizer_for(template), TALK, REPLY)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400
