"""One thread that owns the model and writes all replies, some of them at once; everybody else asks and listens.

The thread takes a step for each model that is being asked, one after the other, so the base and a tuned model that are
asked together answer together. Who asks gets events, in that thread, and must be quick about them.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from orpo.serving.fair_queue import FairQueue
from orpo.serving.jobs import Accepted, BusyError, Job, StoppingError, tell_failure

if TYPE_CHECKING:
    from orpo.serving.lane import Lane
    from orpo.serving.models import ServedModels

_MOST_LANES: Final = 4  # that keep their copy of the weights; the one that was asked longest ago makes room


class Engine:
    """The thread, its queue, and the models once they are loaded.

    Attributes:
        failure: Why the thread has ended: what was wrong with the models, or with this program.
    """

    def __init__(
        self,
        load: "Callable[[], ServedModels]",
        *,
        slots: int,
        most_waiting: int,
        on_loaded: Callable[[], None] = lambda: None,
        on_failure: Callable[[], None] = lambda: None,
    ) -> None:
        """Make an engine that loads with `load` and writes up to `slots` replies at once."""
        self.failure: BaseException | None = None
        self._load, self._slots, self._most_waiting = load, slots, most_waiting
        self._on_loaded, self._on_failure = on_loaded, on_failure
        self._changed = threading.Condition()
        self._arrived: list[Job] = []
        self._waiting: FairQueue[Job] = FairQueue()
        self._is_stopping = False
        self._models: ServedModels | None = None
        self._lanes: OrderedDict[str, Lane] = OrderedDict()
        self._thread = threading.Thread(target=self._run, name="replies", daemon=True)

    @property
    def is_ready(self) -> bool:
        """Whether the models are loaded."""
        return self._models is not None

    @property
    def dtype(self) -> str:
        """The number format that replies are computed in; empty until the models are loaded."""
        return "" if self._models is None else self._models.dtype

    def start(self) -> None:
        """Begin to load."""
        self._thread.start()

    def stop(self) -> None:
        """Give everything up, and wait until the thread has ended or can be left; loading can be left at once."""
        self.begin_to_stop()
        if self.is_ready:
            self._thread.join(5.0)

    def begin_to_stop(self) -> None:
        """Tell whoever waits that no more comes, as soon as the token at hand is written; returns at once."""
        with self._changed:
            self._is_stopping = True
            arrived, self._arrived = self._arrived, []
            self._changed.notify()
        for job in arrived:
            tell_failure(job, StoppingError())

    def submit(self, jobs: Sequence[Job]) -> None:
        """Ask for replies, all of them or none.

        Raises:
            BusyError: There is no room for them to wait.
            StoppingError: Nothing is answered any more.
        """
        with self._changed:
            if self._is_stopping:
                raise StoppingError
            if len(self._arrived) + len(self._waiting) + len(jobs) > self._most_waiting:
                raise BusyError
            self._arrived += jobs
            self._changed.notify()

    def cancel(self, job: Job) -> None:
        """Write no more of a reply; it gets no further event."""
        with self._changed:
            job.is_cancelled = True
            self._changed.notify()

    def counts(self) -> dict[str, int]:
        """Return how many replies are being written and how many wait."""
        with self._changed:
            return {
                "writing": sum(len(lane) for lane in self._lanes.values()),
                "waiting": len(self._waiting) + len(self._arrived),
            }

    def _run(self) -> None:
        try:
            models = self._load()
            for name in models.catalogue.ids[:2]:
                self._lane(models, name)  # now, or whoever asks first would wait for it
            self._models = models
            if not self._is_stopping:
                self._on_loaded()
            while (arrived := self._wait()) is not None:
                for job in arrived:
                    self._prepare(models, job)
                self._drop_cancelled()
                self._admit(models)
                for lane in list(self._lanes.values()):
                    lane.step()
            self._give_up()
        except BaseException as problem:
            self.failure = problem
            self._on_failure()

    def _give_up(self) -> None:
        while len(self._waiting):
            tell_failure(self._waiting.take(), StoppingError())
        for lane in self._lanes.values():
            lane.give_up(StoppingError())

    def _wait(self) -> list[Job] | None:
        """Return what has arrived once there is something to do; None when it is time to end."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._is_stopping or self._arrived or len(self._waiting) or any(map(len, self._lanes.values()))
            )
            arrived, self._arrived = self._arrived, []
            return None if self._is_stopping else arrived

    def _prepare(self, models: "ServedModels", job: Job) -> None:
        """Encode a job's conversation and let it wait its turn, or say why it cannot be answered."""
        from orpo.chat_model.chat_template import encode_prompt
        from orpo.chat_model.generation import check_context

        if job.is_cancelled:
            return
        try:
            job.prompt = encode_prompt(models.tokenizer(job.model), job.messages)
            check_context(models.model, [job.prompt], job.sampling.max_new_tokens)
        except Exception as problem:
            tell_failure(job, problem)
            return
        job.tell(Accepted(len(job.prompt)))
        with self._changed:
            self._waiting.put(job.client, job)

    def _drop_cancelled(self) -> None:
        with self._changed:
            self._waiting.remove_if(lambda job: job.is_cancelled)
        for lane in self._lanes.values():
            lane.drop_cancelled()

    def _admit(self, models: "ServedModels") -> None:
        """Let those whose turn it is join, as many as there is room for."""
        chosen: dict[str, list[Job]] = {}
        with self._changed:
            free = self._slots - sum(map(len, self._lanes.values()))
            for _ in range(min(free, len(self._waiting))):
                job = self._waiting.take()
                chosen.setdefault(job.model, []).append(job)
        for name, jobs in chosen.items():
            try:
                lane = self._lane(models, name)
            except Exception as problem:
                for job in jobs:
                    tell_failure(job, problem)
            else:
                lane.join(jobs)

    def _lane(self, models: "ServedModels", name: str) -> "Lane":
        from orpo.serving.lane import Lane

        if name not in self._lanes:
            idle = [other for other, lane in self._lanes.items() if not len(lane)]
            if len(self._lanes) >= _MOST_LANES and idle:
                del self._lanes[idle[0]]
            self._lanes[name] = Lane(models, name)
        self._lanes.move_to_end(name)
        return self._lanes[name]
