"""The writers as distilabel LLMs: a local model, batched and seeded, or any OpenAI-compatible endpoint.

Both look into the reply store before they ask, and put every answer there as soon as it exists.
"""

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from distilabel.models.llms import LLM
from pydantic import PrivateAttr

from orpo.chat_model.chat_template import encode_prompt
from orpo.chat_model.generation import context_length, generate_replies
from orpo.command.errors import ModelError
from orpo.generating.endpoint import CallFailed, Endpoint
from orpo.generating.local_models import LoadedModels
from orpo.generating.reply_store import ReplyStore, reply_key
from orpo.records.messages import Message
from orpo.records.replies import Reply, Sampling

ENDPOINT_PREFIX: Final = "openai:"
TOO_LONG: Final = "prompt too long"

_HOPELESS_FAILURES: Final = 12
_LATE_SECONDS: Final = 2.0


@dataclass(frozen=True)
class WriterSpec:
    """Who writes one side.

    Attributes:
        name: The side: `emoji` or `plain`.
        model: a local folder, a GGUF file, a Hub id, or `openai:NAME`.
        system: The writer's system prompt; None for none.
        base_url: The endpoint's address, for `openai:NAME`.
    """

    name: str
    model: str
    system: str | None = None
    base_url: str | None = None

    @property
    def is_endpoint(self) -> bool:
        """Tell whether the model is asked over HTTP."""
        return self.model.startswith(ENDPOINT_PREFIX)


class Stopped(Exception):
    """The run is being stopped, so this work ends here."""


@dataclass
class WritingRun:
    """What all writers of one run share. distilabel copies its steps; this object refuses to be copied."""

    store: ReplyStore
    models: LoadedModels
    sampling: Sampling
    seed: int
    batch_size: int = 50
    concurrency: int = 8
    timeout_seconds: float = 120.0
    retries: int = 4
    reuse: bool = True
    on_reply: Callable[[str, int], None] | None = None
    stop: threading.Event = field(default_factory=threading.Event)
    reused: dict[str, int] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __deepcopy__(self, memo: dict[int, Any]) -> "WritingRun":
        """Return this same object: a copy would neither see the stop nor share the model."""
        return self

    def count(self, writer: str, replies: int, *, reused: bool = False) -> None:
        """Note that a writer has so many replies more."""
        with self._lock:
            if reused:
                self.reused[writer] = self.reused.get(writer, 0) + replies
            if self.on_reply is not None:
                self.on_reply(writer, replies)

    def check_stop(self, *_: Any) -> None:
        """Raise Stopped once the run is being stopped."""
        if self.stop.is_set():
            raise Stopped


class StoredLLM(LLM):  # type: ignore[misc]
    """A distilabel LLM that answers from the store what it can, and asks for the rest."""

    writer: str
    model: str

    _run: WritingRun = PrivateAttr()
    _identity: str = PrivateAttr("")

    @property
    def model_name(self) -> str:
        """Return the name under which distilabel records the model."""
        return self.model

    def generate(self, inputs: list[list[Message]], num_generations: int = 1) -> list[dict[str, Any]]:
        """Return one reply for each conversation, as distilabel wants it: with `failure` empty or the reason."""
        if num_generations != 1:
            raise NotImplementedError("a writer gives one reply for each prompt")
        keys = [self._key(messages) for messages in inputs]
        answers: dict[str, Reply | str] = {}
        if self._run.reuse:
            answers.update(self._run.store.find(keys))
            self._run.count(self.writer, sum(key in answers for key in keys), reused=True)
        missing = {key: messages for key, messages in zip(keys, inputs, strict=True) if key not in answers}
        for part in self._ask(list(missing.items())):
            good = [(key, answer) for key, answer in part if isinstance(answer, Reply)]
            self._keep(good)
            answers.update(part)
            self._run.count(self.writer, len(part))
        return [_as_distilabel(answers[key]) for key in keys]

    def _ask(self, requests: list[tuple[str, list[Message]]]) -> Iterator[list[tuple[str, Reply | str]]]:
        """Yield (key, answer) in parts as they come; an answer that is text is the reason of a failure."""
        raise NotImplementedError

    def _keep(self, answers: list[tuple[str, Reply]]) -> None:
        """Put answers on disk; those that were not to be reused give way to the new ones."""
        self._run.store.add(self._identity, answers, replace=not self._run.reuse)

    def _key(self, messages: Sequence[Message]) -> str:
        run = self._run
        return reply_key(model=self._identity, sampling=asdict(run.sampling), messages=messages, seed=run.seed)


class LocalLLM(StoredLLM):
    """A model in this process: batches padded on the left, one random stream for each prompt."""

    _loaded: Any = PrivateAttr(None)

    def load(self) -> None:
        """Load the model, or take the one that the other writer has loaded."""
        super().load()
        self._loaded = self._run.models.load(self.model, flag=f"--{self.writer}-model")
        self._identity = self._loaded.identity

    def unload(self) -> None:
        """Let go of the model."""
        self._loaded = None

    def _ask(self, requests: list[tuple[str, list[Message]]]) -> Iterator[list[tuple[str, Reply | str]]]:
        limit = context_length(self._loaded.model)
        room = None if limit is None else limit - self._run.sampling.max_new_tokens
        short: list[tuple[str, list[Message]]] = []
        for key, messages in requests:
            if room is None or len(encode_prompt(self._loaded.tokenizer, messages)) <= room:
                short.append((key, messages))
            else:
                yield [(key, TOO_LONG)]
        for start in range(0, len(short), self._run.batch_size):
            yield self._generate(short[start : start + self._run.batch_size])

    def _generate(self, requests: list[tuple[str, list[Message]]]) -> list[tuple[str, Reply | str]]:
        run, loaded = self._run, self._loaded
        # One batch at a time for each model: two at once would need twice the memory and no less time.
        with loaded.lock:
            run.check_stop()
            replies = generate_replies(
                loaded.model,
                loaded.tokenizer,
                [messages for _, messages in requests],
                run.sampling,
                seed=run.seed,
                batch_size=run.batch_size,
                on_step=run.check_stop,  # a stop waits for a token, not for a batch
            )
        return [(key, reply) for (key, _), reply in zip(requests, replies, strict=True)]


class EndpointLLM(StoredLLM):
    """An OpenAI-compatible endpoint, asked by several threads at once."""

    base_url: str | None = None

    _endpoint: Any = PrivateAttr(None)
    _failures_in_a_row: int = PrivateAttr(0)

    def load(self) -> None:
        """Make the client; nothing is asked yet."""
        super().load()
        name, run = self.model.removeprefix(ENDPOINT_PREFIX), self._run
        self._endpoint = Endpoint(name, self.base_url, timeout_seconds=run.timeout_seconds, retries=run.retries)
        self._identity = f"{self._endpoint.address} {self.model}"

    def unload(self) -> None:
        """Close the connections."""
        if self._endpoint is not None:
            self._endpoint.close()

    def _ask(self, requests: list[tuple[str, list[Message]]]) -> Iterator[list[tuple[str, Reply | str]]]:
        waiting: queue.SimpleQueue[tuple[str, list[Message]]] = queue.SimpleQueue()
        answered: queue.SimpleQueue[tuple[str, Reply | str | Exception]] = queue.SimpleQueue()
        for request in requests:
            waiting.put(request)
        # Daemons: Ctrl-C must not wait for the slowest call.
        workers = [
            threading.Thread(target=self._work, args=(waiting, answered), daemon=True)
            for _ in range(min(self._run.concurrency, len(requests)))
        ]
        for worker in workers:
            worker.start()
        try:
            for _ in requests:
                key, answer = self._next(answered)
                if isinstance(answer, Exception):
                    raise answer
                self._note_failure(answer)
                yield [(key, answer)]
        finally:
            self._finish(waiting, answered, workers)

    def _finish(self, waiting: Any, answered: Any, workers: list[threading.Thread]) -> None:
        """Ask nothing more, and still keep what comes back within a moment: it may have been paid for."""
        with contextlib.suppress(queue.Empty):
            while True:
                waiting.get_nowait()
        deadline = time.monotonic() + _LATE_SECONDS
        for worker in workers:
            worker.join(max(0.0, deadline - time.monotonic()))
        late = []
        while not answered.empty():
            key, answer = answered.get()
            if isinstance(answer, Reply):
                late.append((key, answer))
        if late:
            self._keep(late)

    def _work(self, waiting: Any, answered: Any) -> None:
        """Ask until nothing waits; every request is answered, if only by its failure."""
        while not self._run.stop.is_set():
            try:
                key, messages = waiting.get_nowait()
            except queue.Empty:
                return
            try:
                answered.put((key, self._endpoint.reply(messages, self._run.sampling, self._run.seed)))
            except CallFailed as failure:
                answered.put((key, str(failure)))
            except Exception as problem:
                answered.put((key, problem))
                return

    def _next(self, answered: Any) -> tuple[str, Reply | str | Exception]:
        while True:
            self._run.check_stop()
            try:
                answer: tuple[str, Reply | str | Exception] = answered.get(timeout=0.1)
                return answer
            except queue.Empty:
                continue

    def _note_failure(self, answer: Reply | str) -> None:
        self._failures_in_a_row = self._failures_in_a_row + 1 if isinstance(answer, str) else 0
        if self._failures_in_a_row >= _HOPELESS_FAILURES:
            raise ModelError(
                f"{self.model} at {self._endpoint.address}: {_HOPELESS_FAILURES} calls in a row failed (the last: "
                f"{answer}); what was answered is kept"
            )


def make_llm(spec: WriterSpec, run: WritingRun) -> StoredLLM:
    """Return the distilabel LLM of a writer."""
    llm: StoredLLM
    if spec.is_endpoint:
        llm = EndpointLLM(writer=spec.name, model=spec.model, base_url=spec.base_url)
    else:
        llm = LocalLLM(writer=spec.name, model=spec.model)
    llm._run = run
    return llm


def _as_distilabel(answer: Reply | str) -> dict[str, Any]:
    reply, failure = (Reply("", False, 0), answer) if isinstance(answer, str) else (answer, "")
    return {
        "generations": [reply.text],
        "statistics": {"input_tokens": [0], "output_tokens": [reply.tokens]},
        "failure": [failure],
        "finished": [reply.finished],
    }
