"""Several iterators at once, each run by a thread of its own with its share of torch's threads."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from queue import SimpleQueue
from threading import Event, Thread
from typing import TypeVar

import torch

Item = TypeVar("Item")


@dataclass(frozen=True)
class _End:
    """An iterator has ended, or failed."""

    problem: BaseException | None = None


def side_by_side(sources: Sequence[Iterator[Item]]) -> Iterator[Item]:
    """Yield what the iterators give, in the order in which they give it.

    What one of them raises is raised here. All have stopped when this ends, also where it is closed or interrupted.
    """
    threads = torch.get_num_threads()
    found: SimpleQueue[Item | _End] = SimpleQueue()
    stop = Event()

    def run(source: Iterator[Item]) -> None:
        torch.set_num_threads(max(1, threads // len(sources)))
        try:
            for item in source:
                found.put(item)
                if stop.is_set():
                    break
        except BaseException as problem:  # the caller's thread raises it
            found.put(_End(problem))
        else:
            found.put(_End())

    running = [Thread(target=run, args=(source,), daemon=True) for source in sources]
    try:
        for thread in running:
            thread.start()
        left = len(sources)
        while left:
            item = found.get()
            if not isinstance(item, _End):
                yield item
            elif item.problem is not None:
                raise item.problem
            else:
                left -= 1
    finally:
        stop.set()
        for thread in running:
            if thread.ident is not None:
                thread.join()
        torch.set_num_threads(threads)  # the setting of some libraries under torch is not a thread's own
