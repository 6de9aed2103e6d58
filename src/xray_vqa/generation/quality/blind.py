"""How far one gets without looking: a classifier that reads questions and never sees an image.

A naive Bayes over the hashed words and word pairs that a question has and, as telling, does not have (Bernoulli),
learned on one half of the images and tried on the other, both ways round. Where it beats the best constant answer by
much, questions give their answers away, and a model will learn that in place of looking.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xray_vqa.generation.quality.texts import Texts, hash_of, hashes_of_pairs

NUM_FEATURES = 2**15
MOST_ANSWERS = 64
"""Answers that are told apart; the rarer ones (rare combinations of places or items) count as wrong."""
SMOOTHING = 1.0
START = hash_of("^")
"""Stands before the first word of a question."""
SCORED_AT_ONCE = 10_000
"""Questions; bounds the memory to some 5 MB."""
_Z = 1.96
"""Of a 95 % interval."""


def question_features(questions: Texts) -> Any:
    """Return which hashed words and word pairs each question has, as ones, sparse (questions, NUM_FEATURES)."""
    from scipy.sparse import csr_array

    words, starts = questions.words, questions.starts
    before = np.concatenate([words[:1], words[:-1]])
    before[starts[:-1]] = START
    columns = np.empty(2 * len(words), np.int32)
    columns[0::2] = words % np.uint64(NUM_FEATURES)
    columns[1::2] = hashes_of_pairs(before, words) % np.uint64(NUM_FEATURES)
    has = csr_array((np.ones(len(columns), np.int8), columns, 2 * starts), shape=(len(questions), NUM_FEATURES))
    has.sum_duplicates()
    has.data[:] = 1
    return has


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
    has = features[different]
    right = 0
    for half in (0, 1):
        learned = _table(rows, classes, (halves != half) & (classes >= 0), (len(different), len(kept)))
        priors = learned.sum(axis=0)
        if not priors.sum():
            continue
        seen = (has.T @ learned).toarray().T  # (answers, NUM_FEATURES)
        common = (seen.sum(axis=0) + 0.5) / (priors.sum() + 1)
        # Rare answers lean on what questions have in general, or a word that they never met would rule them out.
        chance = (seen + SMOOTHING * common) / (priors[:, None] + SMOOTHING)
        weights = np.log(chance) - np.log1p(-chance)
        plain = np.log1p(-chance).sum(axis=1) + np.log(priors + SMOOTHING)
        guess = np.concatenate(
            [
                (has[start : start + SCORED_AT_ONCE] @ weights.T + plain).argmax(axis=1)
                for start in range(0, len(different), SCORED_AT_ONCE)
            ]
        )
        tried = halves == half
        right += int((guess[rows[tried]] == classes[tried]).sum())
    return right


def _table(
    rows: NDArray[np.int64], classes: NDArray[np.int64], taken: NDArray[np.bool_], shape: tuple[int, int]
) -> Any:
    """How often each question has each answer, sparse: a question that is met once has one answer of many."""
    from scipy.sparse import csr_array

    return csr_array((np.ones(int(taken.sum())), (rows[taken], classes[taken])), shape=shape)


def surely_above(right: int, count: int) -> float:
    """Return the lower end of the 95 % interval of a share (Wilson), so that luck in few questions is no shortcut."""
    share = right / count
    centre = share + _Z * _Z / (2 * count)
    spread = _Z * math.sqrt(share * (1 - share) / count + _Z * _Z / (4 * count * count))
    return max(0.0, (centre - spread) / (1 + _Z * _Z / count))
