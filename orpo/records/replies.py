"""A reply, whoever wrote it, and how its tokens were picked."""

from dataclasses import dataclass

from orpo.command.errors import SettingsError
from orpo.command.settings import setting


@dataclass(frozen=True)
class Reply:
    """One reply of a local model or an endpoint.

    Attributes:
        text: The reply, without the end token; empty when the model ended at once.
        finished: Whether the model ended it, rather than the length limit.
        tokens: How many tokens were generated, the end token included; 0 where an endpoint does not say.
    """

    text: str
    finished: bool
    tokens: int


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How the next token is picked; a group of settings wherever replies are written."""

    temperature: float = setting(0.4, "0 takes the likeliest token; larger is more varied")
    top_p: float = setting(0.95, "sample from the likeliest tokens that together have this probability")
    top_k: int = setting(0, "sample from this many likeliest tokens; 0 for no limit")
    # Prompt tokens do not count, or the end of the user's turn would make the end of the reply less likely.
    repetition_penalty: float = setting(1.0, "above 1 makes words that the reply already holds less likely")
    max_new_tokens: int = setting(80, "the most tokens a reply may have")

    def __post_init__(self) -> None:
        """Check the ranges; SettingsError names the field."""
        checks = {
            "temperature": (self.temperature >= 0, "must be 0 (greedy) or above"),
            "top_p": (0 < self.top_p <= 1, "must be above 0 and at most 1"),
            "top_k": (self.top_k >= 0, "must be 0 (no limit) or above"),
            "repetition_penalty": (self.repetition_penalty > 0, "must be above 0"),
            "max_new_tokens": (self.max_new_tokens >= 1, "must be at least 1"),
        }
        for name, (holds, remedy) in checks.items():
            if not holds:
                raise SettingsError(f"{getattr(self, name)}: {remedy}", setting=name)
