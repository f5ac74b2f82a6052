"""Who judges: a model on this machine, or one at an OpenAI-compatible endpoint. Both answer greedily, and keep it."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import asdict, replace
from functools import partial
from typing import Final

from orpo.chat_model.endpoint.addresses import ENDPOINT_PREFIX
from orpo.chat_model.endpoint.answers import CallFailed
from orpo.chat_model.endpoint.client import Endpoint
from orpo.chat_model.endpoint.many_calls import make_calls
from orpo.chat_model.loading import locate_model
from orpo.command.display import console_err, progress_bar
from orpo.command.errors import setting_named
from orpo.comparing.answering import AnsweringModel
from orpo.comparing.comparison import Comparison
from orpo.comparing.judging import Conversations, Judgement, judge_sides, judgements_to_write
from orpo.comparing.kept_answers import answer_file, find_answers, keep_answers
from orpo.comparing.settings import ReportSettings
from orpo.records.messages import Message
from orpo.records.replies import Reply, Sampling

_JUDGED: Final = Sampling(temperature=0.0, top_p=1.0, max_new_tokens=8)
_VERSION: Final = "judged 1"  # of what is kept of an endpoint's answers
_SHOWN_REASONS: Final = 3

Judge = Callable[[Conversations, Callable[[int], None]], list[str | None]]
"""Answers conversations, telling how many answers have come; None where there is none."""


Loading = Callable[[], AbstractContextManager[Judge]]


def find_judge(settings: ReportSettings) -> Loading | None:
    """Check the judge and return what loads it, once the replies are there; None where nobody judges."""
    if settings.judge is None:
        return None
    if settings.asks_endpoint:
        EndpointJudge(settings).close()  # raises for an address or a key that cannot be used
        return partial(_at_endpoint, settings)
    with setting_named("judge", instead_of="model"):
        locate_model(settings.judge)
    return partial(_load_local, settings, settings.judge)


def judge_comparison(comparison: Comparison, load: Loading | None) -> list[Judgement]:
    """Return what the judge says of every side but the first."""
    if load is None or not comparison.held_out.prompts:
        return []
    with load() as judge, progress_bar("judging", judgements_to_write(comparison)) as advance:
        found = judge_sides(comparison, lambda asked: judge(asked, advance))
    if found and not any(judgement.wins or judgement.losses for judgement in found):
        console_err.print(
            "the judge said the same of no pair in both orders: it goes by the place, not by the reply; name a "
            "stronger one",
            soft_wrap=True,
        )
    return found


@contextmanager
def _load_local(settings: ReportSettings, name: str) -> Iterator[Judge]:
    model = AnsweringModel(replace(settings.base, model=name), name, None)

    def answer(conversations: Conversations, advance: Callable[[int], None]) -> list[str | None]:
        replies = model.answer(conversations, _JUDGED, seed=0, tuned=False, on_batch=advance).replies
        return [reply.text for reply in replies]

    yield answer


@contextmanager
def _at_endpoint(settings: ReportSettings) -> Iterator[Judge]:
    with closing(EndpointJudge(settings)) as judge:
        yield judge.answer


class EndpointJudge:
    """A model asked over HTTP, with a key from the environment alone; each answer is on disk before the next call."""

    def __init__(self, settings: ReportSettings) -> None:
        """Make the client; nothing is asked yet."""
        assert settings.judge is not None
        judging = settings.judging
        name = settings.judge.removeprefix(ENDPOINT_PREFIX)
        self._endpoint = Endpoint(name, judging.base_url, judging.options(), setting="judge_base_url")
        self._name, self._concurrency, self._reuse = settings.judge, judging.concurrency, settings.base.reuse_replies

    def close(self) -> None:
        """Close the connections."""
        self._endpoint.close()

    def answer(self, conversations: Conversations, advance: Callable[[int], None]) -> list[str | None]:
        """Answer every conversation, those that were answered before from the cache; None where a call failed."""
        texts: list[str | None] = [None] * len(conversations)
        reasons: list[str] = []
        calls = make_calls(
            [partial(self._call, messages) for messages in conversations],
            concurrency=self._concurrency,
            who=f"{self._name} at {self._endpoint.address}",
        )
        with closing(calls):
            for place, answer in calls:
                if isinstance(answer, CallFailed):
                    reasons.append(str(answer))
                else:
                    texts[place] = answer.text
                advance(1)
        if reasons:
            shown = "; ".join(list(dict.fromkeys(reasons))[:_SHOWN_REASONS])
            console_err.print(
                f"{len(reasons)} of {len(texts)} questions to the judge failed ({shown}); their prompts are not "
                "counted, and another run asks again",
                soft_wrap=True,
            )
        return texts

    def _call(self, messages: Sequence[Message]) -> Reply:
        file = answer_file([_VERSION, self._endpoint.identity, self._name, list(messages), asdict(_JUDGED)])
        kept = find_answers(file) if self._reuse else None
        if kept is not None:
            return Reply(**kept["replies"][0])
        reply = self._endpoint.reply(messages, _JUDGED, 0)
        if reply.text:  # an empty one may be better the next time
            keep_answers(file, {"replies": [{"text": reply.text, "finished": reply.finished, "tokens": reply.tokens}]})
        return reply
