"""An OpenAI-compatible endpoint as a distilabel LLM, asked by several threads at once."""

import contextlib
import queue
import threading
import time
from collections.abc import Sequence
from typing import Final

from pydantic import PrivateAttr

from orpo.command.errors import ModelError
from orpo.generating.answers import CallFailed
from orpo.generating.endpoint import Endpoint
from orpo.generating.settings import ENDPOINT_PREFIX
from orpo.generating.stored_writer import THREAD_NAMES, Answer, Failed, Parts, Request, StoredLLM
from orpo.records.replies import Reply

_HOPELESS_FAILURES: Final = 12
_LATE_SECONDS: Final = 2.0

_Waiting = queue.SimpleQueue[Request]
_Answered = queue.SimpleQueue[tuple[str, Answer | Exception]]


class EndpointLLM(StoredLLM):
    """A model asked over HTTP."""

    _endpoint: Endpoint | None = PrivateAttr(None)
    _failures_in_a_row: int = PrivateAttr(0)

    def load(self) -> None:
        """Make the client; nothing is asked yet."""
        super().load()
        name = self._spec.model.removeprefix(ENDPOINT_PREFIX)
        self._endpoint = Endpoint(name, self._spec.base_url, self._run.endpoint)
        self._identity = f"{self._endpoint.identity} {self._spec.model}"

    def unload(self) -> None:
        """Close the connections."""
        if self._endpoint is not None:
            self._endpoint.close()

    @property
    def endpoint(self) -> Endpoint:
        """The client, which `load` has made."""
        if self._endpoint is None:
            raise RuntimeError("the endpoint is not loaded")
        return self._endpoint

    def _keep(self, answers: Sequence[tuple[str, Answer]]) -> None:
        """Keep all but empty answers: those may be better the next time."""
        super()._keep([(key, a) for key, a in answers if isinstance(a, Reply) and a.text.strip()])

    def _ask(self, requests: list[Request]) -> Parts:
        waiting: _Waiting = queue.SimpleQueue()
        answered: _Answered = queue.SimpleQueue()
        for request in requests:
            waiting.put(request)
        # Daemons: Ctrl-C must not wait for the slowest call.
        workers = [
            threading.Thread(
                target=self._work, args=(waiting, answered), daemon=True, name=f"{THREAD_NAMES} call {number}"
            )
            for number in range(min(self._run.concurrency, len(requests)))
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
            self._finish(waiting, workers)

    def _finish(self, waiting: _Waiting, workers: list[threading.Thread]) -> None:
        """Ask nothing more, and still let those keep what comes back within a moment: it may have been paid for."""
        with contextlib.suppress(queue.Empty):
            while True:
                waiting.get_nowait()
        deadline = time.monotonic() + _LATE_SECONDS
        for worker in workers:
            worker.join(max(0.0, deadline - time.monotonic()))

    def _work(self, waiting: _Waiting, answered: _Answered) -> None:
        """Ask until nothing waits; every request is answered, if only by its failure.

        An answer is on disk before the next call is made, so a kill costs no more than the calls under way.
        """
        while not self._run.stop.is_set():
            try:
                request = waiting.get_nowait()
            except queue.Empty:
                return
            try:
                reply = self.endpoint.reply(request.messages, self._run.sampling, request.seed)
                self._keep([(request.key, reply)])
                answered.put((request.key, reply))
            except CallFailed as failure:
                answered.put((request.key, Failed(str(failure))))
            except Exception as problem:
                answered.put((request.key, problem))
                return

    def _next(self, answered: _Answered) -> tuple[str, Answer | Exception]:
        while True:
            self._run.check_stop()
            try:
                return answered.get(timeout=0.1)
            except queue.Empty:
                continue

    def _note_failure(self, answer: Answer) -> None:
        self._failures_in_a_row = self._failures_in_a_row + 1 if isinstance(answer, Failed) else 0
        if isinstance(answer, Failed) and self._failures_in_a_row >= _HOPELESS_FAILURES:
            raise ModelError(
                f"{self._spec.model} at {self.endpoint.address}: {_HOPELESS_FAILURES} calls in a row failed (the "
                f"last: {answer.reason}); what was answered is kept"
            )
