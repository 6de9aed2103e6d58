"""A few of many items, chosen by a number that follows from each of them: the same ones in whatever order they come."""

import heapq
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Sample(Generic[Item]):
    """The items with the smallest keys.

    Args:
        size: How many are kept.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._count = 0
        self._heap: list[tuple[int, str, int, Item]] = []

    def add(self, key: int, name: str, item: Item) -> None:
        """Take an item. Of equal keys the greater name goes first, of equal names the one that came first."""
        self._count += 1
        entry = (-key, name, -self._count, item)
        if len(self._heap) < self._size:
            heapq.heappush(self._heap, entry)
        elif entry[:3] > self._heap[0][:3]:
            heapq.heapreplace(self._heap, entry)

    def items(self) -> list[Item]:
        """Return what was kept, the smallest key first."""
        return [item for *_, item in sorted(self._heap, key=lambda entry: entry[:3], reverse=True)]
