"""Texts as numbers: a large set of them, all different, takes 8 bytes a word and is worked on by the column."""

from array import array
from collections.abc import Sequence
from functools import lru_cache
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

_ODD = np.uint64(0x9E3779B97F4A7C15)


def hash_of(text: str) -> int:
    """Return 64 bits that stand for a text: among a million texts two share them once in 37 million sets."""
    return int.from_bytes(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest())


_hash_of_word = lru_cache(maxsize=2**16)(hash_of)


def mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Scatter whole numbers over 64 bits (the finaliser of splitmix64, doi.org/10.1145/2714064.2660195)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def hashes_of_pairs(first: NDArray[np.uint64], second: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return a number for each two neighbouring words; "a b" and "b a" are told apart."""
    return mix(first * _ODD + second)


class Texts:
    """Different texts, numbered from 0 as they come."""

    def __init__(self, texts: Sequence[Sequence[str]] = ()) -> None:
        self._numbers: dict[int, int] = {}
        self._words, self._ends = array("Q"), array("Q", [0])
        for text in texts:
            self.add(text)

    def __len__(self) -> int:
        return len(self._numbers)

    def add(self, text: Sequence[str]) -> int:
        """Take a text as its words and return its number, that of its equal if there was one."""
        hashes = array("Q", map(_hash_of_word, text or [""]))
        key = int.from_bytes(blake2b(hashes, digest_size=8).digest())
        number = self._numbers.setdefault(key, len(self._numbers))
        if number == len(self._ends) - 1:
            self._words.extend(hashes)
            self._ends.append(len(self._words))
        return number

    @property
    def keys(self) -> NDArray[np.uint64]:
        """A number for each text that follows from its words alone, (texts,)."""
        return np.fromiter(self._numbers, np.uint64, len(self._numbers))

    @property
    def words(self) -> NDArray[np.uint64]:
        """The words of all texts, one text after the other, (words,)."""
        return np.array(self._words, np.uint64)

    @property
    def starts(self) -> NDArray[np.int64]:
        """Where each text begins in `words`, and where the last one ends, (texts + 1,). None is empty."""
        return np.array(self._ends, np.int64)
