"""An OpenAI-compatible endpoint as a distilabel LLM, asked by several threads at once."""

from collections.abc import Sequence
from contextlib import closing
from functools import partial

from pydantic import PrivateAttr

from orpo.chat_model.endpoint.addresses import ENDPOINT_PREFIX
from orpo.chat_model.endpoint.answers import CallFailed
from orpo.chat_model.endpoint.client import Endpoint
from orpo.chat_model.endpoint.many_calls import make_calls
from orpo.generating.stored_writer import THREAD_NAMES, Answer, Failed, Parts, Request, StoredLLM
from orpo.records.replies import Reply


class EndpointLLM(StoredLLM):
    """A model asked over HTTP."""

    _endpoint: Endpoint | None = PrivateAttr(None)

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
        answers = make_calls(
            [partial(self._call, request) for request in requests],
            concurrency=self._run.concurrency,
            who=f"{self._spec.model} at {self.endpoint.address}",
            thread_names=THREAD_NAMES,
            check_stop=self._run.check_stop,
        )
        with closing(answers):
            for place, answer in answers:
                yield [(requests[place].key, Failed(str(answer)) if isinstance(answer, CallFailed) else answer)]

    def _call(self, request: Request) -> Reply:
        self._run.check_stop()
        reply = self.endpoint.reply(request.messages, self._run.sampling, request.seed)
        self._keep([(request.key, reply)])
        return reply
