"""How an endpoint is asked: a group of settings of every command that asks one. Light: `--help` reads it."""

import json
from dataclasses import dataclass

from orpo.chat_model.endpoint.options import EndpointOptions
from orpo.command.errors import SettingsError
from orpo.command.settings import setting
from orpo.records.json_text import kind_of_value


@dataclass(kw_only=True)
class CallSettings:
    """How calls to OpenAI-compatible endpoints are made."""

    request_extra: str | None = setting(None, "JSON object that goes into every request", secret=True)
    omit: str = setting("", "fields to leave out of every request, such as seed,top_p")
    concurrency: int = setting(8, "calls at the same time", at_least=1)
    timeout_seconds: float = setting(120.0, "how long one whole answer may take", above=0)
    retries: int = setting(4, "how often a failed call is repeated, with growing pauses", at_least=0)

    def options(self) -> EndpointOptions:
        """Return how calls are made."""
        return EndpointOptions(
            timeout_seconds=self.timeout_seconds,
            retries=self.retries,
            extra=_read_extra(self.request_extra),
            omit=frozenset(name.strip() for name in self.omit.split(",") if name.strip()),
        )


def _read_extra(text: str | None) -> dict[str, object]:
    if text is None:
        return {}
    try:
        extra = json.loads(text)
    except (ValueError, RecursionError):
        extra = None
    if not isinstance(extra, dict):
        kind = "" if extra is None else f" but {kind_of_value(extra)}"
        # The text is not shown: it may hold a key.
        raise SettingsError(
            f"is not a JSON object{kind}; write one such as '{{\"enable_thinking\": false}}'", setting="request_extra"
        )
    return extra
