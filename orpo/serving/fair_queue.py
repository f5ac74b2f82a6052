"""Who is next: clients take turns, so that one with many requests does not keep another with one waiting."""

from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Generic, TypeVar

Item = TypeVar("Item")


class FairQueue(Generic[Item]):
    """Waiting items, in the order of arrival for each client, and of clients in turn."""

    def __init__(self) -> None:
        self._waiting: OrderedDict[str, deque[Item]] = OrderedDict()

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values()))

    def put(self, client: str, item: Item) -> None:
        """Let an item wait behind the client's others."""
        self._waiting.setdefault(client, deque()).append(item)

    def take(self) -> Item:
        """Return the next item; the client's next one comes when every other waiting client has had a turn."""
        client, items = self._waiting.popitem(last=False)
        item = items.popleft()
        if items:
            self._waiting[client] = items
        return item

    def remove_if(self, is_unwanted: Callable[[Item], bool]) -> None:
        """Drop the items of which this is true."""
        for client in list(self._waiting):
            kept = deque(item for item in self._waiting[client] if not is_unwanted(item))
            if kept:
                self._waiting[client] = kept
            else:
                del self._waiting[client]
