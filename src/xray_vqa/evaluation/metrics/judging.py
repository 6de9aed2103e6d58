"""What one answer is worth against its reference, in numbers that can be added up; in several processes where it pays.

It needs neither SciPy nor numba, so that a process that judges is there in half a second.
"""

import multiprocessing
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import NamedTuple

import numpy as np

from xray_vqa.core.answers import parse_categories
from xray_vqa.core.lexicon import LANGUAGES, load_reader
from xray_vqa.evaluation.metrics.text import (
    BLEU_WIDTH,
    CHRF_WIDTH,
    FloatArray,
    bleu_statistics,
    bleu_tokenizer,
    chrf_statistics,
    is_exact,
    is_lenient,
    is_long,
    rouge_l,
)

MATCHES_WIDTH = 4
"""Exact, lenient, ROUGE-L, whether the reference is long."""
ITEMS_WIDTH = 3
"""Items rightly named, named, there; nothing for questions that do not ask for items."""

_PAIRS_A_JOB = 2_000
"""A second of work; fewer in all are done before a second process has started."""
_TOGETHER = 64
"""Pairs that sacrebleu takes apart at once; it keeps the n-grams of all of them."""


class Pair(NamedTuple):
    """What an answer is judged by; equal ones are judged once."""

    said: str
    short_truth: str
    truth: str
    language: str
    asks_items: bool


def judge_all(pairs: Sequence[Pair], workers: int = 1) -> FloatArray:
    """Return what each pair is worth, (pairs, numbers): matches, items, and sacrebleu's counts of long references.

    This process is one of the workers: it takes jobs from the end of the list until it meets what another has begun.
    """
    jobs = [pairs[start : start + _PAIRS_A_JOB] for start in range(0, len(pairs), _PAIRS_A_JOB)]
    if workers < 2 or len(jobs) < 2:
        return np.vstack([judge(job) for job in jobs]) if jobs else judge(pairs)
    others = min(workers, len(jobs)) - 1
    with ProcessPoolExecutor(others, mp_context=multiprocessing.get_context("spawn")) as pool:
        coming = [pool.submit(judge, job) for job in jobs]
        own = [judge(job) for job, waiting in zip(reversed(jobs), reversed(coming), strict=True) if waiting.cancel()]
        judged = [done.result() for done in coming if not done.cancelled()]
    return np.vstack([*judged, *reversed(own)])


def judge(pairs: Sequence[Pair]) -> FloatArray:
    """Return what each pair is worth, judged in this process."""
    matches = np.array([_matches(pair) for pair in pairs], dtype=float).reshape(-1, MATCHES_WIDTH)
    items = np.array([_items(pair) for pair in pairs], dtype=float).reshape(-1, ITEMS_WIDTH)
    return np.hstack([matches, items, _counts(pairs, np.flatnonzero(matches[:, 3]).tolist())])


def _matches(pair: Pair) -> tuple[bool, bool, float, bool]:
    return (
        is_exact(pair.said, pair.short_truth, pair.truth),
        is_lenient(pair.said, pair.short_truth, pair.truth, pair.language),
        rouge_l(pair.said, pair.truth),
        is_long(pair.truth),
    )


def _items(pair: Pair) -> tuple[int, int, int]:
    if not pair.asks_items:
        return 0, 0, 0
    named, there = _named(pair), _there(pair)
    return len(named & there), len(named), len(there)


def _named(pair: Pair) -> frozenset[str]:
    """Return the items that an answer names, read in the question's language."""
    if pair.language != "en" and pair.language in LANGUAGES:
        return load_reader(pair.language).categories(pair.said)
    return parse_categories(pair.said)


def _there(pair: Pair) -> frozenset[str]:
    """Return the items that the reference names: the short one is English in any language."""
    if not pair.short_truth and pair.language != "en" and pair.language in LANGUAGES:
        return load_reader(pair.language).categories(pair.truth)
    return parse_categories(pair.short_truth or pair.truth)


def _counts(pairs: Sequence[Pair], long: Sequence[int]) -> FloatArray:
    counts = np.zeros((len(pairs), BLEU_WIDTH + CHRF_WIDTH))
    by_tokenizer: dict[str, list[int]] = defaultdict(list)
    for at in long:
        by_tokenizer[bleu_tokenizer(pairs[at].language)].append(at)
    for name, places in by_tokenizer.items():
        for start in range(0, len(places), _TOGETHER):
            some = places[start : start + _TOGETHER]
            said, truths = [pairs[at].said for at in some], [pairs[at].truth for at in some]
            counts[some, :BLEU_WIDTH] = bleu_statistics(said, truths, name)
            counts[some, BLEU_WIDTH:] = chrf_statistics(said, truths)
    return counts
