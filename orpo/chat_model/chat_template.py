"""Messages on their way through the model's chat template into token ids, for training and for inference alike.

The template is applied here and nowhere else, exactly once, with no second BOS. What a template does wrong is found by
looking at what it wrote: a message whose text is not there, an opening of the reply that is not how replies open.
"""

import re
from collections.abc import Sequence
from typing import Final
from weakref import WeakKeyDictionary

from torch import nn
from transformers import PreTrainedTokenizerBase

from orpo.chat_model.head import causal_model_of
from orpo.command.errors import InputError, ModelError
from orpo.records.messages import Message, user_message

PLAIN_TEMPLATE: Final = (
    "{{ bos_token or '' }}{% for message in messages %}"
    "{% if message['role'] == 'system' %}{{ message['content'] + '\n\n' }}"
    "{% elif message['role'] == 'user' %}{{ 'User: ' + message['content'] + '\n' }}"
    "{% else %}{{ 'Assistant: ' + message['content'] + '\n\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)
"""The plain text form for pretrained models that know no chat and understand examples; a reply is one line."""

_SENTINEL: Final = "sentinel of the reply"
_THOUGHT_END: Final = "</think>"  # templates leave the thoughts of earlier turns out, as they should

_known_markers: "WeakKeyDictionary[PreTrainedTokenizerBase, tuple[object, frozenset[str]]]" = WeakKeyDictionary()


def render_prompt(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]) -> str:
    """Return the conversation as the template writes it, up to where the assistant's words are to begin.

    Some templates know no system role, or drop its text: there the system prompt opens the first user message. Models
    that can think aloud are told not to, since their thoughts would be taken for the reply; and where a template opens
    a thought all the same, the prompt ends before it, where a reply without thoughts begins.
    """
    return _open(tokenizer, messages)[1]


def render_reply(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], reply: str) -> tuple[str, str]:
    """Return the text of `render_prompt`, and what the template writes after it when this is the reply."""
    said, opening = _open(tokenizer, messages)
    whole = _apply(tokenizer, [*said, {"role": "assistant", "content": reply}], opens_reply=False)
    if not whole.startswith(opening):
        raise ModelError(_difference(opening, whole))
    ending = whole[len(opening) :]
    if _THOUGHT_END not in reply and reply.strip() not in ending:
        raise ModelError("the chat template drops the reply's text; use another chat template")
    return opening, ending


def encode_prompt(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]) -> list[int]:
    """Return the ids of `render_prompt`; the template has written BOS if there is one, so none is added."""
    rendered = render_prompt(tokenizer, messages)
    contents = [message["content"] for message in messages]
    try:
        return encode_rendered(tokenizer, rendered, contents)
    except InputError as problem:
        held = next(text for text in contents if any(marker in text for marker in turn_markers(tokenizer)))
        raise InputError(f"{problem}: {held[:60]!r}") from None


def encode_text(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Return the ids of text as it stands, without BOS or EOS."""
    ids: list[int] = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    return ids


def encode_rendered(tokenizer: PreTrainedTokenizerBase, text: str, contents: Sequence[str]) -> list[int]:
    """Return the ids of what the template wrote, in which the messages' own text is never a special token.

    A message about `<filename>` speaks of a file name even where the tokenizer has a special token of that name.

    Args:
        tokenizer: The model's tokenizer.
        text: The rendered conversation.
        contents: The messages in it.

    Raises:
        InputError: A message holds a marker with which the template itself ends or begins turns.
    """
    special = special_texts(tokenizer)
    spans = []
    end = 0
    for content in contents:
        # In their order, so that a text that was said before is not looked for where it stood then; a template may
        # have moved a system text.
        said = content.strip()
        start = text.find(said, end) if said in text[end:] else text.find(said)
        end = max(end, start + len(said))
        held = [token for token in special if token in content]
        if not held:
            continue
        if marker := next((token for token in held if token in turn_markers(tokenizer)), None):
            raise InputError(f"a message holds the turn marker {marker}, as if a chat template were applied already")
        if start >= 0:
            spans.append((start, start + len(said)))
    ids, position = [], 0
    for start, stop in sorted(spans):
        if start >= position:
            ids += encode_text(tokenizer, text[position:start]) + _encode_as_text(tokenizer, text[start:stop])
            position = stop
    return ids + encode_text(tokenizer, text[position:])


def special_texts(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Return the texts that the tokenizer takes for special tokens."""
    return [str(token.content) for token in tokenizer.added_tokens_decoder.values() if token.special]


def turn_markers(tokenizer: PreTrainedTokenizerBase) -> frozenset[str]:
    """Return the special tokens that the chat template itself writes."""
    template = tokenizer.chat_template
    known = _known_markers.get(tokenizer)
    if known is None or known[0] != template:
        conversation = [*user_message("Hello"), {"role": "assistant", "content": _SENTINEL}, *user_message("Hello")]
        written = _apply(tokenizer, conversation, opens_reply=True)
        known = template, frozenset(token for token in special_texts(tokenizer) if token in written)
        _known_markers[tokenizer] = known
    return known[1]


def missing_markers(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Return markers such as `<|im_end|>` that the template writes and the tokenizer does not know as one token.

    The model sees them as ordinary characters then, has to learn to write them out, and shows them in its replies.
    """
    conversation = [*user_message("Hello"), {"role": "assistant", "content": _SENTINEL}]
    written = _apply(tokenizer, conversation, opens_reply=False)
    found = dict.fromkeys(re.findall(r"<\|[^|<>\s]+\|>|<(?:start|end)_of_turn>|\[/?INST\]", written))
    bracketed = "[INST]"  # plain text in the first Mistral and Llama 2 models, as they were trained
    return [text for text in found if len(encode_text(tokenizer, text)) > 1 and bracketed not in text.replace("/", "")]


def turn_end_id(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """Return the special token that the template writes right after a reply (`<|im_end|>`, `<|eot_id|>`), if any.

    It is what a trained reply ends with, and need not be the tokenizer's EOS: base models often name another one.
    """
    conversation = [*user_message("Hello"), {"role": "assistant", "content": _SENTINEL}]
    rendered = _apply(tokenizer, conversation, opens_reply=False)
    _, found, after = rendered.rpartition(_SENTINEL)
    after = after.lstrip()
    if not found or not after:
        return None
    first = encode_text(tokenizer, after)[0]
    special = {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}
    return first if first in special else None


def reply_end_ids(model: nn.Module, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Return every id that ends a reply: the template's turn end, the tokenizer's EOS, the model's own list.

    In the plain text form that is every token with a line break too.
    """
    configured = getattr(getattr(causal_model_of(model), "generation_config", None), "eos_token_id", None)
    ids = {turn_end_id(tokenizer), tokenizer.eos_token_id}
    ids.update(configured if isinstance(configured, list | tuple) else [configured])
    found = {int(token) for token in ids if isinstance(token, int)}
    if is_plain(tokenizer):
        found.update(_line_break_ids(tokenizer))
    if not found:
        raise ModelError("the tokenizer names no EOS token and its chat template ends no turn, so no reply would end")
    return sorted(found)


def is_plain(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Tell whether the model is asked in the plain text form, for want of a chat template."""
    return bool(tokenizer.chat_template == PLAIN_TEMPLATE)


def _line_break_ids(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    breaks = ("\n", "\u010a", "<0x0A>")  # itself, as byte-level vocabularies spell it, and as SentencePiece does
    return [number for token, number in tokenizer.get_vocab().items() if any(text in token for text in breaks)]


def _open(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]) -> tuple[list[Message], str]:
    """Return the messages as they are said to the template, and what it writes up to where the reply begins."""
    said, written = _say(tokenizer, messages)
    whole = ""
    # With a reply after it, a system text that a template puts into the last message would have to be there already.
    for way in (said, _fold_system(said, into_last=True)):
        if way is None:
            continue
        try:
            answered = _apply(tokenizer, [*way, {"role": "assistant", "content": _SENTINEL}], opens_reply=False)
        except ModelError:
            continue
        if answered.startswith(written):
            return way, written + _before_reply(answered[len(written) :])
        whole = whole or answered
    if not whole:  # a template may refuse a reply where there is nothing to answer
        return said, written
    common = _common_beginning(written, whole.partition(_SENTINEL)[0])
    if _lost(said, common):
        raise ModelError(_difference(written, whole))
    return said, common


def _before_reply(ending: str) -> str:
    """Return what a template writes between its opening of the reply and the reply's own words, but for blanks.

    The channel of a final answer, an empty thought: a model that had to write them itself would show them to its user.
    """
    return ending.partition(_SENTINEL)[0].rstrip() if _SENTINEL in ending else ""


def _say(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]) -> tuple[list[Message], str]:
    """Return the messages with which the template writes every text, and what it writes up to the reply."""
    problem: ModelError | None = None
    for said in (list(messages), _fold_system(messages)):
        if said is None:
            continue
        try:
            written = _apply(tokenizer, said, opens_reply=True)
        except ModelError as refusal:
            problem = problem or refusal
            continue
        lost = _lost(said, written)
        if not lost:
            return said, written
        problem = problem or ModelError(
            f"the chat template drops the text of a message ({lost[0]}); use another chat template"
        )
    assert problem is not None
    raise problem


def _lost(messages: Sequence[Message], written: str) -> list[str]:
    """Return the roles of the messages whose text is not in what the template wrote."""
    return [
        message["role"]
        for message in messages
        if _THOUGHT_END not in message["content"] and message["content"].strip() not in written
    ]


def _apply(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], *, opens_reply: bool) -> str:
    try:
        rendered = tokenizer.apply_chat_template(
            list(messages), tokenize=False, add_generation_prompt=opens_reply, enable_thinking=False
        )
    except Exception as problem:  # a template is a program of its own: it may divide by zero
        roles = ", ".join(str(message.get("role", "no role")) for message in messages)
        reason = " ".join(str(problem).split()) or type(problem).__name__
        raise ModelError(f"the chat template does not take a conversation of these roles ({roles}): {reason}") from None
    assert isinstance(rendered, str)
    return rendered


def _encode_as_text(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    ids: list[int] = tokenizer(text, add_special_tokens=False, split_special_tokens=True, verbose=False)["input_ids"]
    return ids


def _fold_system(messages: Sequence[Message], *, into_last: bool = False) -> list[Message] | None:
    """Return the conversation with its system text opening the first or last message, or None where that cannot be."""
    place = len(messages) - 1 if into_last else 1
    if len(messages) < 2 or messages[0]["role"] != "system" or messages[place]["role"] != "user":
        return None
    folded = {**messages[place], "content": f"{messages[0]['content']}\n\n{messages[place]['content']}"}
    return [*messages[1:place], folded, *messages[place + 1 :]]


def _common_beginning(one: str, other: str) -> str:
    place = 0
    while place < min(len(one), len(other)) and one[place] == other[place]:
        place += 1
    return one[:place]


def _difference(opening: str, whole: str) -> str:
    place = len(_common_beginning(opening, whole))
    before, after = (text[max(0, place - 10) : place + 20] for text in (opening, whole))
    return (
        "the chat template writes the prompt differently with and without the reply: "
        f"{after!r} with it, {before!r} without; use another chat template"
    )
