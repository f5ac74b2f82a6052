"""The OpenAI-compatible endpoint: `/v1/models` and `/v1/chat/completions`, streamed or whole.

What the models cannot do is refused by name, never left out in silence; so is a parameter that the API does not have.
"""

import json
import secrets
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from orpo.command.errors import SettingsError
from orpo.command.safe_text import HALF_CHARACTER
from orpo.records.messages import Message
from orpo.records.replies import Sampling
from orpo.serving.api_errors import ApiError, as_api_error
from orpo.serving.asking import ClientGoneError, EventStream, MakeJob, ask, unless_gone
from orpo.serving.bodies import RequestBody, read_body
from orpo.serving.jobs import Accepted, Event, Failed, Finished, Job, Piece
from orpo.serving.service import Service

MOST_CHOICES: Final = 8
_MOST_SEED: Final = 2**63 - 1
_STARTED: Final = int(time.time())

# What clients send although it says what is the case anyway, and what is only told about a request.
_DEFAULTS: Final[dict[str, tuple[object, ...]]] = {
    "frequency_penalty": (0, 0.0),
    "presence_penalty": (0, 0.0),
    "logprobs": (False,),
    "logit_bias": ({},),
    "tools": ([],),
    "response_format": ({"type": "text"},),
    "store": (False,),
    "modalities": (["text"],),
}
_ONLY_TOLD: Final = ("metadata", "safety_identifier", "prompt_cache_key", "service_tier")


class TextPart(BaseModel):
    """A part of a message that is text."""

    model_config = ConfigDict(extra="forbid", strict=True)
    type: Literal["text"]
    text: str


class ChatMessage(BaseModel):
    """One message of a conversation; `developer` is a newer name for `system`."""

    model_config = ConfigDict(extra="ignore", strict=True)
    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[TextPart]

    def as_message(self) -> Message:
        """Return it as the chat templates take it."""
        text = self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)
        return {"role": "system" if self.role == "developer" else self.role, "content": text}


class StreamOptions(BaseModel):
    """What a stream holds besides the reply."""

    model_config = ConfigDict(extra="forbid", strict=True)
    include_usage: bool = False


class Asked(RequestBody):
    """The part of a request that says how a reply is to be written; also what the page asks with."""

    messages: Annotated[list[ChatMessage], Field(min_length=1)]
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    repetition_penalty: float | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    seed: Annotated[int, Field(ge=-_MOST_SEED, le=_MOST_SEED)] | None = None

    def conversation(self) -> list[Message]:
        """Return the messages; ApiError where there is nothing to answer."""
        messages = [message.as_message() for message in self.messages]
        if messages[-1]["role"] != "user" or not messages[-1]["content"].strip():
            raise ApiError(400, "messages: the last one must be the user's, and not empty", param="messages")
        if any(HALF_CHARACTER.search(message["content"]) for message in messages):
            raise ApiError(400, "messages: hold half a character, which is no text", param="messages")
        return messages

    def sampling(self, defaults: Sampling, most_tokens: int) -> Sampling:
        """Return how tokens are picked; ApiError, naming the parameter, for what cannot be."""
        names = ("temperature", "top_p", "top_k", "repetition_penalty")
        given = {name: value for name in names if (value := getattr(self, name)) is not None}
        longest = self.longest(defaults)
        if longest > most_tokens:
            raise ApiError(400, f"max_tokens: {longest} is more than this server's {most_tokens}", param="max_tokens")
        try:
            return replace(defaults, **given, max_new_tokens=longest)
        except SettingsError as problem:
            raise as_api_error(problem) from None

    def longest(self, defaults: Sampling) -> int:
        """Return the most tokens of the reply."""
        return self.max_tokens or defaults.max_new_tokens


class ChatRequest(Asked):
    """A request to /v1/chat/completions."""

    model: str
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    stop: str | Annotated[list[str], Field(max_length=4)] | None = None
    n: Annotated[int, Field(ge=1, le=MOST_CHOICES)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _leave_out_what_changes_nothing(cls, content: object) -> object:
        """Drop nulls, what is only told, and parameters that ask for what is the case anyway."""
        if not isinstance(content, dict):
            return content
        return {
            name: value
            for name, value in content.items()
            if value is not None and name not in _ONLY_TOLD and not any(value == one for one in _DEFAULTS.get(name, ()))
        }

    def longest(self, defaults: Sampling) -> int:
        """Return the most tokens of the reply, under either of its names."""
        return self.max_completion_tokens or super().longest(defaults)

    def stops(self) -> list[str]:
        """Return the texts that end the reply."""
        return [self.stop] if isinstance(self.stop, str) else list(self.stop or ())


@dataclass
class Choice:
    """One of the replies to a request, as far as it is written."""

    text: str = ""
    reason: str | None = None
    tokens: int = 0


@dataclass
class Completion:
    """A request that is being answered."""

    model: str
    seed: int
    choices: list[Choice]
    prompt_tokens: int = 0
    id: str = field(default_factory=lambda: f"chatcmpl-{secrets.token_hex(12)}")
    created: int = field(default_factory=lambda: int(time.time()))

    def take(self, number: int, event: Event) -> None:
        """Keep what an event says; ApiError where the reply failed."""
        choice = self.choices[number]
        if isinstance(event, Failed):
            raise as_api_error(event.problem)
        if isinstance(event, Accepted):
            self.prompt_tokens = event.prompt_tokens
        elif isinstance(event, Piece):
            choice.text += event.text
        else:
            choice.reason, choice.tokens = event.reason, event.tokens

    def usage(self) -> dict[str, int]:
        """Return how many tokens were read and written."""
        written = sum(choice.tokens for choice in self.choices)
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": written,
            "total_tokens": self.prompt_tokens + written,
        }

    def _head(self, kind: str) -> dict[str, object]:
        # The seed is no field of OpenAI's: it repeats a reply whose seed nobody gave.
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model, "seed": self.seed}

    def whole(self) -> dict[str, object]:
        """Return the answer to a request that is not streamed."""
        choices = [
            {
                "index": number,
                "message": {"role": "assistant", "content": choice.text, "refusal": None},
                "logprobs": None,
                "finish_reason": choice.reason,
            }
            for number, choice in enumerate(self.choices)
        ]
        return {**self._head("chat.completion"), "choices": choices, "usage": self.usage()}

    def chunk(self, number: int, delta: dict[str, str], reason: str | None = None) -> str:
        """Return one event of a stream."""
        choice = {"index": number, "delta": delta, "logprobs": None, "finish_reason": reason}
        return json.dumps({**self._head("chat.completion.chunk"), "choices": [choice]}, ensure_ascii=False)

    def usage_chunk(self) -> str:
        """Return the last event of a stream that was to tell the usage."""
        return json.dumps({**self._head("chat.completion.chunk"), "choices": [], "usage": self.usage()})


def completion_routes(service: Service) -> list[Route]:
    """Return the routes of the API."""
    return [
        Route("/v1/models", partial(_list_models, service)),
        Route("/v1/models/{name:path}", partial(_show_model, service)),
        Route("/v1/chat/completions", partial(_complete, service), methods=["POST"]),
    ]


async def _list_models(service: Service, request: Request) -> Response:
    return JSONResponse({"object": "list", "data": [_described(name) for name in service.catalogue.ids]})


async def _show_model(service: Service, request: Request) -> Response:
    return JSONResponse(_described(find_model(service, request.path_params["name"])))


def _described(name: str) -> dict[str, object]:
    return {"id": name, "object": "model", "created": _STARTED, "owned_by": "orpo"}


def find_model(service: Service, name: str) -> str:
    """Return a served model's name; ApiError where there is none of that name."""
    found = service.catalogue.find(name)
    if found is None:
        known = ", ".join(service.catalogue.ids)
        raise ApiError(404, f"there is no model {name!r}; there are {known}", code="model_not_found", param="model")
    return found


async def _complete(service: Service, request: Request) -> Response:
    asked = await read_body(request, ChatRequest)
    seed = secrets.randbelow(2**31) if asked.seed is None else asked.seed
    completion = Completion(find_model(service, asked.model), seed, [Choice() for _ in range(asked.n or 1)])
    makers = _jobs(service, request, asked, completion)
    if asked.stream:
        return await _stream(service, request, asked, completion, makers)
    if asked.stream_options is not None:
        raise ApiError(400, "stream_options: goes with stream alone", param="stream_options")
    try:
        await unless_gone(request, _finish(service, completion, makers))
    except ClientGoneError:
        return Response(status_code=499)
    return JSONResponse(completion.whole())


def _jobs(service: Service, request: Request, asked: ChatRequest, completion: Completion) -> list[MakeJob]:
    messages = asked.conversation()
    sampling = asked.sampling(service.sampling, service.limits.max_reply_tokens)
    client = client_of(request, asked.user)

    def maker(repeat: int) -> MakeJob:
        def make(tell: Callable[[Event], None]) -> Job:
            return Job(
                completion.model,
                messages,
                sampling,
                completion.seed,
                tell,
                repeat=repeat,
                stops=asked.stops(),
                client=client,
            )

        return make

    return [maker(number) for number in range(1, len(completion.choices) + 1)]


def client_of(request: Request, user: str | None = None) -> str:
    """Return whose turn it is with this request: an address, a program on it, and the user that it names."""
    host = request.client.host if request.client else ""
    return "\n".join((host, request.headers.get("user-agent", ""), user or ""))


async def _finish(service: Service, completion: Completion, makers: Sequence[MakeJob]) -> None:
    async with aclosing(ask(service.engine, makers)) as events:
        async for number, event in events:
            completion.take(number, event)


async def _stream(
    service: Service, request: Request, asked: ChatRequest, completion: Completion, makers: Sequence[MakeJob]
) -> Response:
    """Answer piece by piece; what is wrong with the request is still an HTTP error."""
    events = ask(service.engine, makers)
    try:
        first = await unless_gone(request, anext(events))
        completion.take(*first)
    except ClientGoneError:
        return Response(status_code=499)
    except ApiError:
        await events.aclose()
        raise
    has_usage = asked.stream_options is not None and asked.stream_options.include_usage
    return EventStream(_chunks(completion, events, has_usage))


async def _chunks(
    completion: Completion, events: AsyncGenerator[tuple[int, Event], None], has_usage: bool
) -> AsyncGenerator[str, None]:
    for number in range(len(completion.choices)):
        yield completion.chunk(number, {"role": "assistant", "content": ""})
    async with aclosing(events):
        async for number, event in events:
            try:
                completion.take(number, event)
            except ApiError as problem:
                yield json.dumps(problem.as_dict())
                return
            if isinstance(event, Piece):
                yield completion.chunk(number, {"content": event.text})
            elif isinstance(event, Finished):
                yield completion.chunk(number, {}, event.reason)
    if has_usage:
        yield completion.usage_chunk()
    yield "[DONE]"
