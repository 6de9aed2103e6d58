"""Words of a text, and how many different ones a set of texts has."""

import math
import re
import statistics
from collections.abc import Iterable, Sequence
from itertools import pairwise

_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|[^\W_]+")
"""Chinese and Japanese have no spaces between words: each of their signs counts as one."""

WINDOW = 1000
"""Words over which a type-token ratio is taken, since it falls with the length of a text."""


def words(text: str) -> list[str]:
    """Return the words of a text in lower case.

    >>> words("Is there a 3D-printed gun?")
    ['is', 'there', 'a', '3d', 'printed', 'gun']
    """
    return _WORD.findall(text.lower())


def distinct_share(texts: Sequence[Sequence[str]], n: int) -> float | None:
    """Return the share of different n-grams among all n-grams (distinct-n, arXiv 1510.03055); None without any."""
    grams = [gram for text in texts for gram in zip(*(text[start:] for start in range(n)), strict=False)]
    return round(len(set(grams)) / len(grams), 4) if grams else None


def type_token_ratio(texts: Iterable[Sequence[str]]) -> float | None:
    """Return the mean share of different words in windows of 1,000 words; None where there is no whole window."""
    running = [word for text in texts for word in text]
    edges = range(0, len(running) + 1, WINDOW)
    ratios = [len(set(running[start:end])) / WINDOW for start, end in pairwise(edges)]
    return round(statistics.fmean(ratios), 4) if ratios else None


def entropy_bits(counts: Iterable[int]) -> float:
    """Return the entropy of a distribution: 3 bits are as varied as 8 equally frequent things."""
    numbers = [count for count in counts if count]
    total = sum(numbers)
    return round(-sum(count / total * math.log2(count / total) for count in numbers) + 0.0, 3)
