"""Which questions are near copies of others: MinHash finds candidates, and each candidate is compared exactly.

Two questions are as similar as their sets of word pairs (Jaccard). 64 hashes in 16 bands of 4 propose two questions of
similarity s with probability 1 - (1 - s^4)^16: 0.99 at 0.7 and 0.9999 at 0.8 (Leskovec et al., Mining of Massive
Datasets, 3.4). What is proposed is compared in full, so nothing is called a copy that is none.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from xray_vqa.generation.quality.report import Duplicates, share_of
from xray_vqa.generation.quality.texts import Texts, hashes_of_pairs, mix

BANDS, ROWS = 16, 4
NEIGHBOURS = 8
"""Members of a bucket that each is compared with. A bucket may hold thousands that one template made."""
MOST_COMPARED_AT_ONCE = 50_000
"""Bounds the memory: some 20 MB."""
MOST_PAIRS_OF_AN_IMAGE = 64
"""Pairs of one image that each question is compared with."""


def shingles(texts: Texts) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Return the different pairs of neighbouring words of each text, of a single word itself, and where each begins.

    Returns:
        (pairs,) hashes, text after text, and (texts + 1,) starts.
    """
    words, starts = texts.words, texts.starts
    sizes = np.diff(starts)
    owner = np.repeat(np.arange(len(sizes), dtype=np.int32), sizes)
    has_next = owner[:-1] == owner[1:]
    single = np.flatnonzero(sizes == 1).astype(np.int32)
    hashes = np.concatenate([hashes_of_pairs(words[:-1], words[1:])[has_next], words[starts[single]]])
    owner = np.concatenate([owner[:-1][has_next], single])
    order = np.lexsort((hashes, owner))
    hashes, owner = hashes[order], owner[order]
    first = np.ones(len(owner), np.bool_)
    first[1:] = (owner[1:] != owner[:-1]) | (hashes[1:] != hashes[:-1])
    return hashes[first], np.searchsorted(owner[first], np.arange(len(sizes) + 1))


class NearCopies:
    """Finds near copies among different questions.

    Args:
        questions: The result depends on the set alone, and on no order.
        similarity: Jaccard similarity from which two are near copies.
    """

    def __init__(self, questions: Texts, similarity: float) -> None:
        from scipy.sparse import csr_array

        self._similarity = similarity
        self._keys = questions.keys
        self._hashes, self._starts = shingles(questions)
        different, columns = np.unique(self._hashes, return_inverse=True)
        shape = (len(questions), max(len(different), 1))
        self._sets: Any = csr_array((np.ones(len(columns), np.int32), columns, self._starts), shape=shape)
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
            order = np.lexsort((self._keys, keys))
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
        for _ in range(ROWS):
            factor, offset = chance.integers(1, 2**63, 2, np.uint64)
            hashes = mix(self._hashes * (factor | np.uint64(1)) + offset)
            keys = mix(keys ^ np.minimum.reduceat(hashes, self._starts[:-1]))
        return keys


def count_duplicates(
    texts: Texts, image: NDArray[np.int64], question: NDArray[np.int64], similarity: float
) -> Duplicates:
    """Return how often questions are asked again.

    Args:
        texts: The different questions.
        image: (pairs,), any numbering.
        question: (pairs,), numbers in `texts`.
        similarity: From which two are near copies.
    """
    copies = NearCopies(texts, similarity)
    order = np.argsort(image, kind="stable")
    image, asked = image[order], question[order]
    again, nearly = np.zeros(len(asked), np.bool_), np.zeros(len(asked), np.bool_)
    for distance in range(1, min(MOST_PAIRS_OF_AN_IMAGE, len(asked))):
        together = np.flatnonzero(image[:-distance] == image[distance:])
        if not len(together):
            break
        left, right = asked[together], asked[together + distance]
        again[together[left == right] + distance] = True
        other = left != right
        close = copies.are_near(left[other], right[other])
        nearly[together[other][close] + distance] = True
    return Duplicates(
        num_different=len(texts),
        repeated=share_of(len(asked) - len(texts), len(asked)),
        near=share_of(int(copies.have_copies().sum()), len(texts)),
        repeated_in_image=share_of(int(again.sum()), len(asked)),
        near_in_image=share_of(int((nearly & ~again).sum()), len(asked)),
    )
