"""One call to an OpenAI-compatible endpoint, and what went wrong with it, told apart.

distilabel's own OpenAI class turns a failed call into a batch of nulls. Here a failure that concerns one prompt is a
`CallFailed` with its reason, and one that every further call would meet too is a ModelError.
"""

import json
import os
from collections.abc import Sequence
from typing import Any
from urllib.parse import unquote, urlsplit

from orpo.command.errors import ModelError, SettingsError
from orpo.command.safe_text import mask_address, mask_text, printable
from orpo.records.messages import Message
from orpo.records.replies import Reply, Sampling

KEY_VARIABLE = "OPENAI_API_KEY"
_NEW_LIMIT_NAME = "max_completion_tokens"  # reasoning models of OpenAI's know max_tokens by this name only
_LONGEST_REASON = 120
_HOPELESS = {401: "refuses the key in OPENAI_API_KEY", 403: "forbids this", 404: "knows no such model or address"}


class CallFailed(Exception):
    """One call failed for good, after all retries; the message is the reason, short enough to count by."""


class Endpoint:
    """A chat completion endpoint; the key comes from the environment and is written nowhere.

    Attributes:
        model: The model's name there.
        address: The address for people and the reply store: a user and a password in it are masked.
    """

    def __init__(self, model: str, base_url: str | None, *, timeout_seconds: float, retries: int) -> None:
        """Make the client; retries wait 0.5 s, 1 s, 2 s and so on, or as long as the endpoint asks."""
        import openai

        key = os.environ.get(KEY_VARIABLE)
        address = base_url or os.environ.get("OPENAI_BASE_URL")
        if not key and not address:
            raise SettingsError(
                f"openai:{model}: the environment variable {KEY_VARIABLE} is not set "
                "(a local endpoint needs none: name it with --base-url)"
            )
        self.model = model
        address = address or "https://api.openai.com/v1"
        self.address = mask_address(address)
        self._secrets = [secret for secret in (key, unquote(urlsplit(address).password or "")) if secret]
        self._limit_name = "max_tokens"
        self._client = openai.OpenAI(
            api_key=key or "none", base_url=address, timeout=timeout_seconds, max_retries=retries
        )

    def reply(self, messages: Sequence[Message], sampling: Sampling, seed: int) -> Reply:
        """Return the endpoint's answer; CallFailed for this prompt, ModelError where no call can succeed."""
        import openai

        try:
            return self._read(self._call(messages, sampling, seed))
        except openai.APITimeoutError:
            raise CallFailed("timed out") from None
        except openai.APIConnectionError:
            raise CallFailed("no connection") from None
        except openai.APIStatusError as problem:
            reason = f"HTTP {problem.status_code}{self._reason(problem)}"
            if problem.status_code in _HOPELESS:
                what = _HOPELESS[problem.status_code]
                raise ModelError(f"openai:{self.model}: {self.address} {what} ({reason})") from None
            raise CallFailed(reason) from None
        except (openai.OpenAIError, json.JSONDecodeError, AttributeError, TypeError, IndexError, KeyError):
            raise CallFailed("answer not understood") from None

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _reason(self, problem: Any) -> str:
        """Return what the endpoint says of a refused call, as `: TEXT` in one short line without any key."""
        said = problem.body.get("message") if isinstance(problem.body, dict) else None
        text = " ".join(printable(said).split()) if isinstance(said, str) else ""
        for secret in self._secrets:
            text = text.replace(secret, "***")
        text = mask_text(text)
        if len(text) > _LONGEST_REASON:
            text = text[: _LONGEST_REASON - 1] + "…"
        return f": {text}" if text else ""

    def _call(self, messages: Sequence[Message], sampling: Sampling, seed: int) -> Any:
        import openai

        name = self._limit_name  # this call's own: another thread may meanwhile change what the next ones use
        try:
            return self._create(messages, sampling, seed, name)
        except openai.BadRequestError as problem:
            if name == _NEW_LIMIT_NAME or _NEW_LIMIT_NAME not in str(problem):
                raise
            self._limit_name = _NEW_LIMIT_NAME
            return self._create(messages, sampling, seed, _NEW_LIMIT_NAME)

    def _create(self, messages: Sequence[Message], sampling: Sampling, seed: int, limit_name: str) -> Any:
        further: dict[str, Any] = {}  # not OpenAI's, but vLLM and llama.cpp know them
        if sampling.top_k:
            further["top_k"] = sampling.top_k
        if sampling.repetition_penalty != 1.0:
            further["repetition_penalty"] = sampling.repetition_penalty
        return self._client.chat.completions.create(
            model=self.model,
            messages=list(messages),  # type: ignore[arg-type]
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            seed=seed,
            extra_body={limit_name: sampling.max_new_tokens, **further},
        )

    @staticmethod
    def _read(answer: Any) -> Reply:
        choice = answer.choices[0]
        text = choice.message.content
        if text is not None and not isinstance(text, str):
            raise TypeError("content is not text")
        tokens = getattr(getattr(answer, "usage", None), "completion_tokens", None)
        # Half a surrogate pair cannot be written as UTF-8 by anyone.
        clean = (text or "").encode("utf-8", "replace").decode("utf-8").strip()
        return Reply(clean, choice.finish_reason != "length", tokens if isinstance(tokens, int) else 0)
