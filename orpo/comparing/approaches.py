"""What is compared: the base, adapters, prompting, examples as earlier turns, and the best of several replies."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from orpo.command.paths import public_name
from orpo.records.messages import Message, system_message, with_system

BASE: Final = "base"
TUNED: Final = "tuned"


@dataclass(frozen=True)
class Approach:
    """One way to get replies out of a model.

    Attributes:
        name: Its name in tables.
        adapter: The folder of its adapter; None for the base model.
        system: Its system prompt, if any.
        examples: Answered messages that stand before each conversation.
        best_of: Replies to each prompt, of which the score picks one.
    """

    name: str
    adapter: Path | None = None
    system: str | None = None
    examples: list[Message] = field(default_factory=list)
    best_of: int = 1

    def conversation(self, messages: Sequence[Message]) -> list[Message]:
        """Return a conversation as this approach asks it; a system prompt that it has follows the approach's own."""
        own = system_message(messages)
        rest = messages[1:] if own else messages
        system = "\n\n".join(part for part in (self.system, own) if part)
        return with_system(system, [*self.examples, *rest])

    def described(self) -> dict[str, object]:
        """Return what the approach is, as JSON values."""
        return {
            "adapter": public_name(str(self.adapter)) if self.adapter else None,
            "system": self.system,
            "examples": self.examples,
            "best_of": self.best_of,
        }


def adapter_names(adapters: Sequence[Path]) -> list[str]:
    """Return a short name for each adapter: its folder's, with as many parents as tell them apart."""
    for parts in range(1, 1 + max((len(path.parts) for path in adapters), default=0)):
        names = ["/".join(path.parts[-parts:]) for path in adapters]
        if len(set(names)) == len(names) and BASE not in names:
            return names
    return [str(path) for path in adapters]
