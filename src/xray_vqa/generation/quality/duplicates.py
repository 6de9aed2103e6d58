"""Which questions are near copies of others: MinHash finds candidates, and each candidate is compared exactly.

Two questions are as similar as their sets of word pairs (Jaccard). 64 hashes in 16 bands of 4 propose two questions of
similarity s with probability 1 - (1 - s^4)^16: 0.99 at 0.7 and 0.9999 at 0.8 (Leskovec et al., Mining of Massive
Datasets, 3.4). What is proposed is compared in full, so nothing is called a copy that is none.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

BANDS, ROWS = 16, 4
NEIGHBOURS = 8
"""Members of a bucket that each is compared with. A bucket may hold thousands that one template made."""
MOST_COMPARED_AT_ONCE = 100_000
"""Bounds the memory: some 20 MB."""


def shingles(text: Sequence[str]) -> list[tuple[str, ...]]:
    """Return the different pairs of neighbouring words; of a single word, itself."""
    return sorted(set(pairwise(text))) if len(text) > 1 else [tuple(text)]


class NearCopies:
    """Finds near copies among different questions.

    Args:
        questions: As words. Given in sorted order, the result depends on the set alone.
        similarity: Jaccard similarity from which two are near copies.
    """

    def __init__(self, questions: Sequence[Sequence[str]], similarity: float) -> None:
        from scipy.sparse import csr_array

        self._similarity = similarity
        known: dict[tuple[str, ...], int] = {}
        columns: list[int] = []
        starts = [0]
        for question in questions:
            columns.extend(known.setdefault(shingle, len(known)) for shingle in shingles(question))
            starts.append(len(columns))
        self._columns = np.array(columns, np.int64)
        self._starts = np.array(starts, np.int64)
        shape = (len(questions), max(len(known), 1))
        self._sets: Any = csr_array((np.ones(len(columns), np.int32), self._columns, self._starts), shape=shape)
        self._sizes = np.diff(self._starts)

    def are_near(self, left: NDArray[np.int64], right: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return which of these two and two are near copies, compared in full."""
        near = np.zeros(len(left), np.bool_)
        for start in range(0, len(left), MOST_COMPARED_AT_ONCE):
            part = slice(start, start + MOST_COMPARED_AT_ONCE)
            shared = self._sets[left[part]].multiply(self._sets[right[part]]).sum(axis=1)
            either = self._sizes[left[part]] + self._sizes[right[part]] - shared
            near[part] = shared >= self._similarity * either - 1e-9
        return near

    def have_copies(self) -> NDArray[np.bool_]:
        """Return which of the questions have a near copy among the others, (questions,)."""
        found = np.zeros(len(self._sizes), np.bool_)
        if len(found) < 2:
            return found
        for band in range(BANDS):
            keys = self._band_keys(band)
            order = np.argsort(keys, kind="stable")
            keys = keys[order]
            for distance in range(1, min(NEIGHBOURS, len(keys) - 1) + 1):
                left, right = order[:-distance], order[distance:]
                proposed = (keys[:-distance] == keys[distance:]) & ~(found[left] & found[right])
                left, right = left[proposed], right[proposed]
                near = self.are_near(left, right)
                found[left[near]] = found[right[near]] = True
        return found

    def _band_keys(self, band: int) -> NDArray[np.uint64]:
        """Return one number for each question; two of them agree where all hashes of the band do, (questions,)."""
        chance = np.random.default_rng((0, band))
        keys = np.zeros(len(self._sizes), np.uint64)
        mixed = _mix(self._columns.astype(np.uint64))
        for _ in range(ROWS):
            factor, offset = chance.integers(1, 2**63, 2, np.uint64)
            hashes = _mix(mixed * (factor | np.uint64(1)) + offset)
            keys = _mix(keys ^ np.minimum.reduceat(hashes, self._starts[:-1]))
        return keys


def _mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Scatter whole numbers over 64 bits (the finaliser of splitmix64, doi.org/10.1145/2714064.2660195)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
