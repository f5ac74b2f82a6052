"""What somebody asks of the engine, and what they are told."""

import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from orpo.command.errors import OrpoError
from orpo.records.messages import Message
from orpo.records.replies import Sampling


@dataclass(frozen=True)
class Accepted:
    """The request can be answered; it waits, or is being answered."""

    prompt_tokens: int


@dataclass(frozen=True)
class Piece:
    """What the reply goes on with."""

    text: str


@dataclass(frozen=True)
class Finished:
    """The reply is whole: `stop` where the model or a stop text ended it, `length` where the limit did."""

    reason: Literal["stop", "length"]
    tokens: int


@dataclass(frozen=True)
class Failed:
    """There is no reply, or no more of it; an OrpoError is the request's own fault."""

    problem: Exception


Event = Accepted | Piece | Finished | Failed


@dataclass(eq=False)
class Job:
    """A reply that somebody wants.

    Attributes:
        model: The name of the model that is to answer.
        messages: The conversation to answer.
        sampling: How tokens are picked.
        seed: With the conversation and the repeat it decides the reply.
        tell: Gets the events, in the engine's thread: Accepted, pieces, then Finished; or Failed at any time.
        repeat: Which of several replies to one conversation with one seed this is, from 1.
        stops: Texts that end the reply.
        client: Whose turn it is when it is this job's.
        is_cancelled: Set when nobody wants the reply any more.
    """

    model: str
    messages: Sequence[Message]
    sampling: Sampling
    seed: int
    tell: Callable[[Event], None]
    repeat: int = 1
    stops: Sequence[str] = ()
    client: str = ""
    is_cancelled: bool = False
    prompt: list[int] = field(default_factory=list)


class BusyError(Exception):
    """As many requests wait as may."""


class StoppingError(Exception):
    """The server is being stopped, so no more of a reply comes."""


def tell_failure(job: Job, problem: Exception) -> None:
    """Tell a job that it has failed; what is no user's mistake is told on stderr too, whole."""
    if not isinstance(problem, OrpoError | StoppingError):
        traceback.print_exception(problem, file=sys.stderr)
    job.tell(Failed(problem))
