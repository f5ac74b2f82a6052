"""What every model that writes has in common: it looks into the reply store first, and keeps each answer at once."""

import hashlib
import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from typing import Final

from distilabel.models.llms import LLM
from pydantic import PrivateAttr

from orpo.chat_model.endpoint.options import EndpointOptions
from orpo.chat_model.settings import LocalModelSettings
from orpo.generating.cluster import ClusterSettings
from orpo.generating.examples import ExampleTurns
from orpo.generating.local_models import LoadedModels
from orpo.generating.reply_store import ReplyStore, reply_key
from orpo.generating.settings import WriterSpec
from orpo.records.messages import Message, system_message, with_system
from orpo.records.replies import Reply, Sampling

THREAD_NAMES: Final = "orpo.generating"
"""What the names of a run's threads begin with; libraries start threads of their own beside them."""


@dataclass(frozen=True)
class Failed:
    """Why there is no reply."""

    reason: str


Answer = Reply | Failed
Parts = Generator[list[tuple[str, Answer]], None, None]


@dataclass(frozen=True)
class Request:
    """One reply to ask for."""

    key: str
    messages: list[Message]
    seed: int


class Stopped(Exception):
    """The run is being stopped, so this work ends here."""


@dataclass
class WritingRun:
    """What all writers of one run share. distilabel copies its tasks; this object refuses to be copied.

    Attributes:
        local: How local models are loaded and answer, here or in a cluster's workers.
        cluster: The machines that write; with no address, this one.
        examples: Turns to show before a prompt, made for each writer by whether it is to use emojis.
        example_count: How many; None lets small local models have some.
        on_reply: Told of each writer's progress.
        reused: How many replies of each writer came from the store.
    """

    store: ReplyStore
    models: LoadedModels
    sampling: Sampling
    seed: int
    candidates: int = 1
    local: LocalModelSettings = field(default_factory=LocalModelSettings)
    cluster: ClusterSettings = field(default_factory=ClusterSettings)
    concurrency: int = 8
    endpoint: EndpointOptions = field(default_factory=EndpointOptions)
    reuse: bool = True
    examples: ExampleTurns | None = None
    example_count: int | None = None
    on_reply: Callable[[str, int], None] | None = None
    stop: threading.Event = field(default_factory=threading.Event)
    reused: dict[str, int] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __deepcopy__(self, memo: object) -> "WritingRun":
        """Return this same object: a copy would neither see the stop nor share the model."""
        return self

    def count(self, writer: str, replies: int, *, reused: bool = False) -> None:
        """Note that a writer has this many replies more."""
        with self._lock:
            if reused:
                self.reused[writer] = self.reused.get(writer, 0) + replies
            if self.on_reply is not None:
                self.on_reply(writer, replies)

    def check_stop(self, *_: object) -> None:
        """Raise Stopped once the run is being stopped."""
        if self.stop.is_set():
            raise Stopped


class StoredLLM(LLM):  # type: ignore[misc]
    """A distilabel LLM that answers from the store what it can, and asks for the rest."""

    _spec: WriterSpec = PrivateAttr()
    _run: WritingRun = PrivateAttr()
    _identity: str = PrivateAttr("")

    @property
    def model_name(self) -> str:
        """Return the name under which distilabel records the model."""
        return self._spec.model if self.__pydantic_private__ else "unnamed"

    def conversation(self, messages: Sequence[Message]) -> list[Message]:
        """Return what the model is to see for a prompt: its own system prompt after the conversation's, examples."""
        return self._shown_after(self.example_count(), messages)

    def example_count(self) -> int:
        """Return how many examples the model is shown before a prompt."""
        return self._run.example_count or 0

    def _shown_after(self, count: int, messages: Sequence[Message]) -> list[Message]:
        wishes = [text for text in (system_message(messages), self._spec.system) if text]
        shown = with_system("\n\n".join(wishes) or None, messages)
        if count == 0 or self._run.examples is None:
            return shown
        turns = self._run.examples.before(messages, count, with_emojis=self._spec.side == "emoji")
        start = 1 if shown[0]["role"] == "system" else 0
        return [*shown[:start], *turns, *shown[start:]]

    def generate(self, inputs: list[list[Message]], num_generations: int = 1) -> list[dict[str, object]]:
        """Return the replies to each conversation, as distilabel wants them: `failure` is empty or the reason."""
        seeds = [candidate_seed(self._run.seed, number) for number in range(num_generations)]
        requests = [Request(self._key(messages, seed), messages, seed) for messages in inputs for seed in seeds]
        answers: dict[str, Answer] = {}
        if self._run.reuse:
            answers.update(self._run.store.find([request.key for request in requests]))
            found = sum(request.key in answers for request in requests)
            self._run.count(self._spec.side, found, reused=True)
        missing = {request.key: request for request in requests if request.key not in answers}
        # Closed here and now: what goes wrong while late answers are awaited must not end in the garbage collector.
        with closing(self._ask(list(missing.values()))) as parts:
            for part in parts:
                answers.update(part)
                self._run.count(self._spec.side, len(part))
        in_order = [answers[request.key] for request in requests]
        return [
            _as_distilabel(in_order[start : start + num_generations])
            for start in range(0, len(in_order), num_generations)
        ]

    def _ask(self, requests: list[Request]) -> Parts:
        """Yield (key, answer) in parts as they come, each kept already."""
        raise NotImplementedError

    def _keep(self, answers: Sequence[tuple[str, Answer]]) -> None:
        """Put answers on disk; those that were not to be reused give way to the new ones."""
        good = [(key, answer) for key, answer in answers if isinstance(answer, Reply)]
        if good:
            self._run.store.add(self._identity, good, replace=not self._run.reuse)

    def _key(self, messages: Sequence[Message], seed: int) -> str:
        return reply_key(model=self._identity, sampling=asdict(self._run.sampling), messages=messages, seed=seed)


def candidate_seed(seed: int, number: int) -> int:
    """Return the seed of a prompt's reply of this number, counted from 0, whose seed is the run's own."""
    if number == 0:
        return seed
    return int.from_bytes(hashlib.sha256(f"{seed}:{number}".encode()).digest()[:4], "big") >> 1


def _as_distilabel(answers: Sequence[Answer]) -> dict[str, object]:
    failures = [answer.reason if isinstance(answer, Failed) else "" for answer in answers]
    replies = [Reply("", False, 0) if isinstance(answer, Failed) else answer for answer in answers]
    return {
        "generations": [reply.text for reply in replies],
        "statistics": {"input_tokens": [0] * len(replies), "output_tokens": [reply.tokens for reply in replies]},
        "failure": failures,
        "finished": [reply.finished for reply in replies],
        "tokens": [reply.tokens for reply in replies],
    }
