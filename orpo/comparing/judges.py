"""Who judges: a local model, or a model behind an OpenAI-compatible endpoint."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import replace
from typing import Final

from orpo.chat_model.endpoint.addresses import check_address
from orpo.chat_model.endpoint.answers import CallFailed
from orpo.chat_model.endpoint.client import Endpoint
from orpo.chat_model.endpoint.options import EndpointOptions
from orpo.chat_model.loading import locate_model
from orpo.command.display import console_err
from orpo.command.errors import SettingsError, setting_named
from orpo.command.safe_text import mask_address
from orpo.comparing.answering import AnsweringModel
from orpo.comparing.judging import Answering
from orpo.comparing.settings import ReportSettings
from orpo.records.messages import Message
from orpo.records.replies import Sampling

ENDPOINT: Final = "openai:"

_SAMPLING: Final = Sampling(temperature=0.0, max_new_tokens=8)
_CALLS_AT_ONCE: Final = 8


def check_judge(settings: ReportSettings) -> None:
    """Find what is wrong with the judge before any model is loaded."""
    if settings.judge is None:
        if settings.base_url is not None:
            shown = mask_address(settings.base_url)
            raise SettingsError(
                f"{shown}: is for a judge, and none is named; name one, {ENDPOINT}NAME", setting="base_url"
            )
        return
    if not settings.judge.startswith(ENDPOINT):
        with setting_named("judge", instead_of="model"):
            locate_model(settings.judge)
        return
    if settings.base_url is not None:
        check_address(settings.base_url, setting="base_url")
    _open_endpoint(settings).close()


@contextmanager
def open_judge(settings: ReportSettings, on_answer: Callable[[int], None]) -> Iterator[Answering]:
    """Yield what answers the judge's questions; `on_answer` is called with how many answers have come."""
    assert settings.judge is not None
    if settings.judge.startswith(ENDPOINT):
        with closing(_open_endpoint(settings)) as endpoint:
            yield _EndpointJudge(endpoint, on_answer)
        return
    model = AnsweringModel(replace(settings.base, model=settings.judge), settings.judge, None)

    def answer(conversations: Sequence[Sequence[Message]]) -> list[str]:
        found = model.answer(conversations, _SAMPLING, seed=0, tuned=False, on_batch=on_answer)
        return [reply.text for reply in found.replies]

    yield answer


def _open_endpoint(settings: ReportSettings) -> Endpoint:
    assert settings.judge is not None
    return Endpoint(settings.judge.removeprefix(ENDPOINT), settings.base_url, EndpointOptions())


class _EndpointJudge:
    """Asks several questions at once; a call that fails for good is no verdict, and is told."""

    def __init__(self, endpoint: Endpoint, on_answer: Callable[[int], None]) -> None:
        self._endpoint, self._on_answer = endpoint, on_answer

    def __call__(self, conversations: Sequence[Sequence[Message]]) -> list[str]:
        with ThreadPoolExecutor(_CALLS_AT_ONCE) as threads:
            texts = list(threads.map(self._ask, conversations))
        if failed := texts.count(None):
            console_err.print(f"{failed} of {len(texts)} calls of the judge failed and count as ties", soft_wrap=True)
        return [text or "" for text in texts]

    def _ask(self, conversation: Sequence[Message]) -> str | None:
        try:
            return self._endpoint.reply(conversation, _SAMPLING, 0).text
        except CallFailed:
            return None
        finally:
            self._on_answer(1)
