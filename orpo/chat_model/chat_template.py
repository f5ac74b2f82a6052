"""Chat messages on their way through the model's chat template into token ids: exactly once, with no second BOS."""

from collections.abc import Sequence
from typing import Any

from orpo.command.errors import ModelError
from orpo.records.messages import Message, user_message

_PROBE = "sentinel of the reply"


def render_prompt(tokenizer: Any, messages: Sequence[Message]) -> str:
    """Return the conversation as the template writes it, up to where the assistant is to answer.

    Some templates know no system role: there the system prompt opens the first user message. Models that can think
    aloud are told not to, since their thoughts would be taken for the reply.
    """
    try:
        return _apply_template(tokenizer, messages, add_generation_prompt=True)
    except ModelError:
        merged = _fold_system(messages)
        if merged is None:
            raise
        return _apply_template(tokenizer, merged, add_generation_prompt=True)


def encode_prompt(tokenizer: Any, messages: Sequence[Message]) -> list[int]:
    """Return the ids of `render_prompt`; the template has written BOS if there is one, so none is added."""
    return encode_text(tokenizer, render_prompt(tokenizer, messages))


def encode_text(tokenizer: Any, text: str) -> list[int]:
    """Return the ids of text as it stands, without BOS or EOS."""
    ids: list[int] = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    return ids


def turn_end_id(tokenizer: Any) -> int | None:
    """Return the special token that the template writes right after a reply (`<|im_end|>`, `<|eot_id|>`), if any.

    It is what a trained reply ends with, and need not be the tokenizer's EOS: base models often name another one.
    """
    conversation = [*user_message("Hello"), {"role": "assistant", "content": _PROBE}]
    rendered = _apply_template(tokenizer, conversation, add_generation_prompt=False)
    _, found, after = rendered.rpartition(_PROBE)
    after = after.lstrip()
    if not found or not after:
        return None
    first = encode_text(tokenizer, after)[0]
    special = {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}
    return first if first in special else None


def reply_end_ids(model: Any, tokenizer: Any) -> list[int]:
    """Return every id that ends a reply: the template's turn end, the tokenizer's EOS, the model's own list."""
    configured = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    ids = {turn_end_id(tokenizer), tokenizer.eos_token_id}
    ids.update(configured if isinstance(configured, list | tuple) else [configured])
    found = sorted(int(token) for token in ids if token is not None)
    if not found:
        raise ModelError("the tokenizer names no EOS token and its chat template ends no turn, so no reply would end")
    return found


def _apply_template(tokenizer: Any, messages: Sequence[Message], *, add_generation_prompt: bool) -> str:
    from jinja2 import TemplateError

    try:
        rendered: str = tokenizer.apply_chat_template(
            list(messages), tokenize=False, add_generation_prompt=add_generation_prompt, enable_thinking=False
        )
    except (TemplateError, TypeError, KeyError, ValueError) as problem:
        roles = ", ".join(message.get("role", "no role") for message in messages)
        reason = " ".join(str(problem).split())
        raise ModelError(f"the chat template does not take a conversation of these roles ({roles}): {reason}") from None
    return rendered


def _fold_system(messages: Sequence[Message]) -> list[Message] | None:
    if len(messages) < 2 or messages[0]["role"] != "system" or messages[1]["role"] != "user":
        return None
    opening = f"{messages[0]['content']}\n\n{messages[1]['content']}"
    return [{"role": "user", "content": opening}, *messages[2:]]
