"""One call to an OpenAI-compatible endpoint, and what went wrong with it, told apart.

distilabel's own OpenAI class turns a failed call into a batch of nulls. Here a failure that concerns one prompt is a
`CallFailed` with its reason, and one that every further call would meet too is a ModelError.
"""

import hashlib
import json
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlsplit

from orpo.chat_model.endpoint.addresses import KEY_VARIABLE, check_address, check_key
from orpo.chat_model.endpoint.answers import CallFailed, read_answer, read_reason
from orpo.chat_model.endpoint.options import EndpointOptions
from orpo.command.errors import ModelError, SettingsError
from orpo.command.safe_text import mask_address, mask_text, printable
from orpo.records.messages import Message
from orpo.records.replies import Reply, Sampling

if TYPE_CHECKING:
    import openai

_NEW_LIMIT_NAME: Final = "max_completion_tokens"  # reasoning models of OpenAI's know max_tokens by this name only
_LONGEST_REASON: Final = 120
_HOPELESS: Final = {
    401: f"refuses the key in {KEY_VARIABLE}",
    403: "forbids this",
    404: "knows no such model or address",
}


class Endpoint:
    """A chat completion endpoint; the key comes from the environment and is written nowhere.

    Attributes:
        model: The model's name there.
        address: The address for people: user, password and keys in it are masked.
        identity: What, beside the model's name, decides the answers.
    """

    def __init__(
        self, model: str, base_url: str | None, options: EndpointOptions, *, setting: str = "base_url"
    ) -> None:
        """Make the client; errors name the setting that gives the address."""
        key = os.environ.get(KEY_VARIABLE, "").strip()
        address = base_url or os.environ.get("OPENAI_BASE_URL")
        if not key and not address:
            raise SettingsError(
                f"openai:{model}: the environment variable {KEY_VARIABLE} is not set (a local endpoint needs none: "
                f"name its address with `{setting}`)"
            )
        address = address or "https://api.openai.com/v1"
        check_key(key)
        check_address(address, setting=setting if base_url else "OPENAI_BASE_URL")
        self.model = model
        self.address = mask_address(address)
        extra = json.dumps(dict(options.extra), sort_keys=True)  # may hold a key, so only its hash is kept
        changes = [f"extra {hashlib.sha256(extra.encode()).hexdigest()[:16]}"] if options.extra else []
        changes += [f"without {','.join(sorted(options.omit))}"] if options.omit else []
        self.identity = " ".join([self.address, *changes])
        self._options = options
        self._secrets = _secrets_of(key, address)
        self._limit_name = "max_tokens"
        self._client = _make_client(key, address, options)

    def reply(self, messages: Sequence[Message], sampling: Sampling, seed: int) -> Reply:
        """Return the endpoint's answer; CallFailed for this prompt, ModelError where no call can succeed."""
        import openai

        try:
            return read_answer(self._call(messages, sampling, seed))
        except openai.APITimeoutError:
            raise CallFailed("timed out") from None
        except openai.APIConnectionError:
            raise CallFailed("no connection") from None
        except openai.APIStatusError as problem:
            status = problem.status_code
            reason = f"HTTP {status}{self._reason(problem)}"
            if status in _HOPELESS:
                raise ModelError(f"openai:{self.model}: {self.address} {_HOPELESS[status]} ({reason})") from None
            raise CallFailed(reason) from None
        except (openai.OpenAIError, UnicodeError):
            raise CallFailed("answer not understood") from None

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _reason(self, problem: "openai.APIStatusError") -> str:
        """Return what the endpoint says of a refused call, as `: TEXT` in one short line without any key."""
        text = " ".join(printable(read_reason(problem.response.content)).split())
        for secret in self._secrets:
            text = text.replace(secret, "***")
        text = mask_text(text)
        if len(text) > _LONGEST_REASON:
            text = text[: _LONGEST_REASON - 1] + "…"
        return f": {text}" if text else ""

    def _call(self, messages: Sequence[Message], sampling: Sampling, seed: int) -> bytes:
        import openai

        name = self._limit_name  # this call's own: another thread may meanwhile change what the next ones use
        try:
            return self._create(messages, sampling, seed, name)
        except openai.BadRequestError as problem:
            if name == _NEW_LIMIT_NAME or _NEW_LIMIT_NAME not in str(problem):
                raise
            self._limit_name = _NEW_LIMIT_NAME
            return self._create(messages, sampling, seed, _NEW_LIMIT_NAME)

    def _create(self, messages: Sequence[Message], sampling: Sampling, seed: int, limit_name: str) -> bytes:
        fields: dict[str, object] = {
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "seed": seed,
            limit_name: sampling.max_new_tokens,
        }
        if sampling.top_k:  # not OpenAI's, but vLLM and llama.cpp know these two
            fields["top_k"] = sampling.top_k
        if sampling.repetition_penalty != 1.0:
            fields["repetition_penalty"] = sampling.repetition_penalty
        omitted = self._options.omit | ({limit_name} if "max_tokens" in self._options.omit else set())
        kept = {name: value for name, value in fields.items() if name not in omitted} | dict(self._options.extra)
        answer = self._client.chat.completions.with_raw_response.create(
            model=self.model,
            messages=list(messages),  # type: ignore[arg-type]
            extra_body=kept,
        )
        return answer.content


def _make_client(key: str, address: str, options: EndpointOptions) -> "openai.OpenAI":
    import openai

    from orpo.chat_model.endpoint.limited_transport import make_http_client

    parts = urlsplit(address)
    return openai.OpenAI(
        api_key=key or "none",
        base_url=parts._replace(netloc=_netloc(parts), query="", fragment="").geturl(),
        default_query=dict(parse_qsl(parts.query)),
        timeout=options.timeout_seconds,
        max_retries=options.retries,
        http_client=make_http_client(options.timeout_seconds),
    )


def _netloc(parts: SplitResult) -> str:
    """Return user, password and host as httpx takes them: a password may hold an @ or a colon as it is typed."""
    user, _, host = parts.netloc.rpartition("@")
    name, colon, password = user.partition(":")
    if not user:
        return host
    return f"{quote(unquote(name), safe='')}{colon}{quote(unquote(password), safe='')}@{host}"


def _secrets_of(key: str, address: str) -> list[str]:
    parts = urlsplit(address)
    found = [key, unquote(parts.password or ""), *(value for _, value in parse_qsl(parts.query))]
    return [secret for secret in found if len(secret) > 2]
