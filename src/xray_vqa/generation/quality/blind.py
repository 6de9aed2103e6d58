"""How far one gets without looking: a classifier that reads questions and never sees an image.

A naive Bayes over the hashed words and word pairs that a question has and, as telling, does not have (Bernoulli),
learned on one half of the images and tried on the other, both ways round. Where it beats the best constant answer by
much, questions give their answers away, and a model will learn that in place of looking.
"""

import math
import zlib
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

NUM_FEATURES = 2**15
MOST_ANSWERS = 64
"""Answers that are told apart; the rarer ones (rare combinations of places or items) count as wrong."""
SMOOTHING = 1.0
_Z = 1.96
"""Of a 95 % interval."""


def question_features(questions: Sequence[Sequence[str]]) -> Any:
    """Return which hashed words and word pairs each question has, as ones, sparse (questions, NUM_FEATURES)."""
    from scipy.sparse import csr_array

    columns: list[int] = []
    starts = [0]
    place: dict[str, int] = {}
    for question in questions:
        for gram in (*question, *map(" ".join, pairwise(("^", *question)))):
            column = place.get(gram)
            if column is None:
                column = place[gram] = zlib.crc32(gram.encode()) % NUM_FEATURES
            columns.append(column)
        starts.append(len(columns))
    counts = csr_array(
        (np.ones(len(columns)), np.array(columns, np.int32), np.array(starts, np.int64)),
        shape=(len(questions), NUM_FEATURES),
    )
    counts.sum_duplicates()
    counts.data[:] = 1
    return counts


def num_right_blind(
    features: Any,
    questions: NDArray[np.int64],
    answers: NDArray[np.int64],
    halves: NDArray[np.int64],
) -> int:
    """Return how many answers the classifier gets right that learned from the other half of the images.

    Args:
        features: (different questions, NUM_FEATURES), of `question_features`.
        questions: (pairs,), index into `features`.
        answers: (pairs,), any numbering.
        halves: (pairs,), 0 or 1 by image.
    """
    names, classes, sizes = np.unique(answers, return_inverse=True, return_counts=True)
    kept = np.argsort(-sizes, kind="stable")[:MOST_ANSWERS]
    rank = np.full(len(names), -1)
    rank[kept] = np.arange(len(kept))
    classes = rank[classes]
    different, rows = np.unique(questions, return_inverse=True)
    counts = features[different]
    right = 0
    for half in (0, 1):
        learned = _table(rows, classes, (halves != half) & (classes >= 0), len(different), len(kept))
        tried = _table(rows, classes, (halves == half) & (classes >= 0), len(different), len(kept))
        priors = learned.sum(axis=0)
        if not priors.sum():
            continue
        seen = (counts.T @ learned).T  # (answers, NUM_FEATURES)
        common = (seen.sum(axis=0) + 0.5) / (priors.sum() + 1)
        # Rare answers lean on what questions have in general, or a word that they never met would rule them out.
        chance = (seen + SMOOTHING * common) / (priors[:, None] + SMOOTHING)
        weights = np.log(chance) - np.log1p(-chance)
        scores = counts @ weights.T + np.log1p(-chance).sum(axis=1) + np.log(priors + SMOOTHING)
        right += int(tried[np.arange(len(different)), scores.argmax(axis=1)].sum())
    return right


def _table(
    rows: NDArray[np.int64], classes: NDArray[np.int64], taken: NDArray[np.bool_], num_rows: int, num_classes: int
) -> NDArray[np.float64]:
    flat = np.bincount(rows[taken] * num_classes + classes[taken], minlength=num_rows * num_classes)
    return flat.reshape(num_rows, num_classes).astype(np.float64)


def surely_above(right: int, count: int) -> float:
    """Return the lower end of the 95 % interval of a share (Wilson), so that luck in few questions is no shortcut."""
    share = right / count
    centre = share + _Z * _Z / (2 * count)
    spread = _Z * math.sqrt(share * (1 - share) / count + _Z * _Z / (4 * count * count))
    return max(0.0, (centre - spread) / (1 + _Z * _Z / count))
