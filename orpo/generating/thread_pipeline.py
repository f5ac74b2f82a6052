"""A distilabel pipeline whose steps run as threads of this process.

distilabel's local pipeline gives every step a process. Measured on 1.5.3: killed and rerun, 5 of 6 runs hang or fail;
Ctrl-C returns half the rows and exit code 0; after SIGKILL its workers go on calling the model; a failed batch becomes
nulls; both writers would load the same model. The steps here spend their time in torch or waiting for an endpoint,
where Python's lock is free, so threads cost little and none of that can happen.
"""

import logging
import queue
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from distilabel.pipeline.base import BasePipeline
from distilabel.pipeline.step_wrapper import _StepWrapper, _StepWrapperException

_POLL_SECONDS = 0.05
_PATIENCE_SECONDS = 10.0


class ThreadPipeline(BasePipeline):  # type: ignore[misc]
    """Runs steps in threads, stops at the first failure, and trusts nothing but what flowed through it."""

    def __init__(self, name: str, *, stop: threading.Event) -> None:
        """Name the pipeline; `stop` is set when it is to end early, for steps that watch it."""
        super().__init__(name=name)
        self._stop_event = stop
        self._failure: BaseException | None = None
        self._threads: list[threading.Thread] = []
        self._started: set[str] = set()

    def run_rows(self) -> list[dict[str, Any]]:
        """Run to the end and return the rows of the last step; the first exception of any step is raised here."""
        with _quiet_logging(), tempfile.TemporaryDirectory(prefix="orpo-distilabel-") as scratch:
            self._cache_dir = Path(scratch)
            try:
                super().run(use_cache=False)
                self._output_queue: queue.Queue[Any] = queue.Queue()
                self._load_queue: queue.Queue[Any] = queue.Queue()
                self._start(self._run_load_queue_loop)
                self._wait(self._start(self._output_queue_loop))
            except BaseException:
                self._stop()
                raise
            finally:
                self._teardown()
        rows: list[dict[str, Any]] = self._write_buffer.rows
        return rows

    @property
    def QueueClass(self) -> Callable[[], Any]:
        """Return the queues' class: threads share a plain one."""
        return queue.Queue

    def _wait(self, coordinator: threading.Thread) -> None:
        """Wait in short joins, so that Ctrl-C and a failure elsewhere are seen at once."""
        while coordinator.is_alive():
            coordinator.join(_POLL_SECONDS)
            if self._failure is not None:
                raise self._failure
        if self._failure is not None:
            raise self._failure
        if self._exception:
            raise self._exception

    def _start(self, work: Callable[[], Any]) -> threading.Thread:
        def guarded() -> None:
            try:
                work()
            except BaseException as problem:
                self._fail(problem.subprocess_exception if isinstance(problem, _StepWrapperException) else problem)

        thread = threading.Thread(target=guarded, daemon=True)
        self._threads.append(thread)
        thread.start()
        return thread

    def _fail(self, problem: BaseException | None) -> None:
        """Keep the first failure; what stopping causes afterwards is no news."""
        if self._failure is None and not self._stop_event.is_set():
            self._failure = problem or RuntimeError("a step failed and did not say why")

    def _run_step(self, step: Any, input_queue: Any, replica: int) -> None:
        wrapper = _LoudStepWrapper(
            step=step,
            replica=replica,
            input_queue=input_queue,
            output_queue=self._output_queue,
            load_queue=self._load_queue,
        )
        wrapper.on_failure = self._fail
        self._started.add(step.name)
        self._start(wrapper.run)

    def _run_steps(self, steps: Any) -> None:
        """Start the steps and wait until they are loaded; distilabel would look only every 2.5 seconds."""
        names = list(steps)
        super()._run_steps(names)
        while not self._stop_event.is_set() and self._failure is None:
            with self._steps_load_status_lock:
                if all(self._steps_load_status[name] != -999 for name in names):  # _STEP_NOT_LOADED_CODE
                    return
            self._stop_event.wait(_POLL_SECONDS / 5)

    def _stop(self) -> None:
        """Tell everything to end: steps that watch the event, loops that wait for a queue."""
        self._stop_event.set()
        with self._stop_called_lock:
            self._stop_called = True
        for waiting in self._steps_input_queues.values():
            waiting.put(None)
        if hasattr(self, "_output_queue"):
            self._output_queue.put(None)

    def _finalize_pipeline_execution(self) -> None:
        """Wait for the steps to end, but not after a stop: the end markers that `_stop` sent would be waited for."""
        if not self._stop_event.is_set():
            super()._finalize_pipeline_execution()

    def _teardown(self) -> None:
        """Let the threads end; those stuck in a long call are daemons and end with the process."""
        if hasattr(self, "_load_queue"):
            self._load_queue.put(None)
        patience = _PATIENCE_SECONDS if self._stop_event.is_set() else 1.0
        for thread in self._threads:
            thread.join(patience if thread is not threading.current_thread() else 0)

    def _set_steps_not_loaded_exception(self) -> None:
        """Raise what the step raised; it reports that it did not load a moment before it says why."""
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while self._failure is None and not self._stop_event.is_set() and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
        self._exception = self._failure if isinstance(self._failure, Exception) else RuntimeError("a step did not load")

    def _cache(self) -> None:
        """Write nothing: distilabel would serialise the whole graph after every batch (1000 rows: 11 to 27 s)."""

    def _register_batch(self, batch: Any) -> None:
        self._batch_manager.register_batch(batch, steps_data_path=None)

    def _setup_write_buffer(self, use_cache: bool = True) -> None:
        self._write_buffer = _RowCollector()


class _LoudStepWrapper(_StepWrapper):  # type: ignore[misc]
    """A step's loop in which a failed batch ends the run; distilabel goes on with rows of nulls."""

    on_failure: Callable[[BaseException | None], None]

    def _impute_step_outputs(self, batch: Any) -> list[dict[str, Any]]:
        self.on_failure(sys.exc_info()[1])
        rows: list[dict[str, Any]] = super()._impute_step_outputs(batch)
        return rows


class _RowCollector:
    """Takes the place of distilabel's write buffer, whose Parquet files lose columns that begin with nulls."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def add_batch(self, batch: Any) -> None:
        """Keep the rows of a batch of the last step."""
        self.rows.extend(batch.data[0])

    def close(self) -> None:
        """Do nothing: the rows stay in memory."""


@contextmanager
def _quiet_logging() -> Iterator[None]:
    """Keep distilabel's chatter off the terminal, and put back what it changes of the process's logging."""
    root, ours = logging.getLogger(), logging.getLogger("distilabel")
    handlers, level, own_level, propagate = list(root.handlers), root.level, ours.level, ours.propagate
    silent = logging.NullHandler()
    ours.addHandler(silent)
    ours.propagate = False
    ours.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        ours.removeHandler(silent)
        ours.setLevel(own_level)
        ours.propagate = propagate
