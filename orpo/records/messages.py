"""Chat messages: what a conversation is made of, and the few questions that everybody asks of one."""

from collections.abc import Sequence

Message = dict[str, str]
"""One chat message: `{"role": "user", "content": "Hello"}`."""


def user_message(text: str) -> list[Message]:
    """Return a conversation that holds one message of the user's."""
    return [{"role": "user", "content": text}]


def last_message(messages: Sequence[Message]) -> str:
    """Return what was said last, which is what a reply answers."""
    return messages[-1]["content"]


def system_message(messages: Sequence[Message]) -> str:
    """Return the conversation's system prompt, empty if it has none."""
    return messages[0]["content"] if messages and messages[0]["role"] == "system" else ""


def with_system(text: str | None, messages: Sequence[Message]) -> list[Message]:
    """Return the conversation with this system prompt in place of any it has; None or blank leaves it as it is."""
    if not text or not text.strip():
        return list(messages)
    rest = messages[1:] if messages and messages[0]["role"] == "system" else messages
    return [{"role": "system", "content": text}, *rest]
