"""Many calls at the same time, and an end to them where an endpoint answers nothing any more."""

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Generator, Sequence
from typing import Final

from orpo.chat_model.endpoint.answers import CallFailed
from orpo.command.errors import ModelError
from orpo.records.replies import Reply

_HOPELESS_FAILURES: Final = 12
_LATE_SECONDS: Final = 2.0

_Waiting = queue.SimpleQueue[int]
_Answered = queue.SimpleQueue[tuple[int, Reply | CallFailed | Exception]]


def make_calls(
    calls: Sequence[Callable[[], Reply]],
    *,
    concurrency: int,
    who: str,
    thread_names: str = "orpo",
    check_stop: Callable[[], None] = lambda: None,
) -> Generator[tuple[int, Reply | CallFailed], None, None]:
    """Make the calls in threads and yield (place of the call, answer) as they come; to be closed by the caller.

    A call keeps its own answer on disk, if it is to be kept: a kill then costs no more than the calls under way, and
    when this ends early those have a moment to come back.

    Args:
        calls: Each returns a reply, or raises CallFailed for this prompt alone; anything else it raises ends them all.
        concurrency: Calls at the same time.
        who: What is asked, for the error.
        thread_names: What the names of the threads begin with.
        check_stop: Called a few times a second; it may raise to stop.

    Raises:
        ModelError: `_HOPELESS_FAILURES` calls in a row failed.
    """
    waiting: _Waiting = queue.SimpleQueue()
    answered: _Answered = queue.SimpleQueue()
    for place in range(len(calls)):
        waiting.put(place)
    # Daemons: Ctrl-C must not wait for the slowest call.
    workers = [
        threading.Thread(
            target=_work, args=(calls, waiting, answered), daemon=True, name=f"{thread_names} call {number}"
        )
        for number in range(min(concurrency, len(calls)))
    ]
    for worker in workers:
        worker.start()
    failures_in_a_row = 0
    try:
        for _ in calls:
            place, answer = _next(answered, check_stop)
            if isinstance(answer, CallFailed):
                failures_in_a_row += 1
                if failures_in_a_row >= _HOPELESS_FAILURES:
                    raise ModelError(
                        f"{who}: {_HOPELESS_FAILURES} calls in a row failed (the last: {answer}); what was answered is "
                        "kept"
                    )
            elif isinstance(answer, Exception):
                raise answer
            else:
                failures_in_a_row = 0
            yield place, answer
    finally:
        _finish(waiting, workers)


def _work(calls: Sequence[Callable[[], Reply]], waiting: _Waiting, answered: _Answered) -> None:
    """Call until nothing waits; every call is answered, if only by its failure."""
    while True:
        try:
            place = waiting.get_nowait()
        except queue.Empty:
            return
        try:
            answered.put((place, calls[place]()))
        except CallFailed as failure:
            answered.put((place, failure))
        except Exception as problem:
            answered.put((place, problem))
            return


def _next(answered: _Answered, check_stop: Callable[[], None]) -> tuple[int, Reply | CallFailed | Exception]:
    while True:
        check_stop()
        with contextlib.suppress(queue.Empty):
            return answered.get(timeout=0.1)


def _finish(waiting: _Waiting, workers: Sequence[threading.Thread]) -> None:
    """Call nothing more, and still let those come back that do so within a moment: they may have been paid for."""
    with contextlib.suppress(queue.Empty):
        while True:
            waiting.get_nowait()
    deadline = time.monotonic() + _LATE_SECONDS
    for worker in workers:
        worker.join(max(0.0, deadline - time.monotonic()))
