"""Choices that are a function of a name alone: the same on every machine, Python version and number of workers."""

import hashlib
from collections.abc import Sequence
from typing import TypeVar

Item = TypeVar("Item")


class Draws:
    """A stream of choices that starts from a text. Two streams of one text choose alike."""

    __slots__ = ("_count", "_name")

    def __init__(self, *names: object) -> None:
        self._name = ":".join(str(name) for name in names)
        self._count = 0

    def below(self, limit: int) -> int:
        """Return a whole number from 0 to limit - 1."""
        digest = hashlib.sha256(f"{self._name}:{self._count}".encode()).digest()
        self._count += 1
        return int.from_bytes(digest[:8], "big") % limit

    def pick(self, items: Sequence[Item]) -> Item:
        """Return one of some items."""
        return items[self.below(len(items))] if len(items) > 1 else items[0]

    def order(self, items: Sequence[Item]) -> list[Item]:
        """Return the items shuffled."""
        rest = list(items)
        return [rest.pop(self.below(len(rest))) for _ in range(len(rest))]
