"""95 % intervals: Wilson's for a rate of independent scans, a bootstrap over bags for everything else.

The questions about one bag, and several scans of it, stand and fall together. Drawing whole groups keeps five questions
about one bag from passing for five observations.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from xray_vqa.evaluation.results import Estimate

LEVEL = 0.95
DRAWS = 1000

FloatArray = NDArray[np.float64]


def rate(hits: int, n: int) -> Estimate:
    """Return a share with Wilson's interval; null for an empty set."""
    if n == 0:
        return Estimate(value=None, n=0)
    interval = binomtest(hits, n).proportion_ci(LEVEL, method="wilson")
    return Estimate(value=hits / n, n=n, low=float(interval.low), high=float(interval.high))


def over_groups(
    statistic: Callable[[FloatArray], float],
    groups: Sequence[str],
    n: int,
    *,
    num_independent: int | None = None,
    draws: int = DRAWS,
    seed: int = 0,
) -> Estimate:
    """Return a statistic between 0 and 1 with the percentile interval of a bootstrap that draws whole groups.

    Args:
        statistic: From (len(groups),) float64 weights, one for each observation, to a number; NaN where undefined.
        groups: Which group each observation belongs to.
        n: What the estimate says that it was measured on.
        num_independent: How many observations a value of exactly 0 or 1 rests on; by default the groups. Every draw
            gives that value again, which would look like certainty, so Wilson's interval for so many is taken.
        draws: How often.
        seed: Of the draws, so that equal inputs give equal intervals.

    The interval is null with fewer than two groups, or where most draws leave the statistic undefined.
    """
    value = statistic(np.ones(len(groups))) if groups else math.nan
    if math.isnan(value):
        return Estimate(value=None, n=n)
    names, member = np.unique(np.asarray(groups), return_inverse=True)
    if len(names) < 2:
        return Estimate(value=value, n=n)
    if value <= 0 or value >= 1:
        independent = len(names) if num_independent is None else num_independent
        edge = rate(independent if value >= 1 else 0, independent)
        return Estimate(value=value, n=n, low=edge.low, high=edge.high)
    generator = np.random.default_rng(seed)
    size = len(names)
    counts = (np.bincount(generator.integers(0, size, size), minlength=size) for _ in range(draws))
    drawn = np.array([statistic(count[member].astype(float)) for count in counts])
    defined = drawn[~np.isnan(drawn)]
    if len(defined) < draws / 2:
        return Estimate(value=value, n=n)
    low, high = np.quantile(defined, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(value=value, n=n, low=float(low), high=float(high))


def ratio_over_groups(above: Sequence[float], below: Sequence[float], groups: Sequence[str], n: int) -> Estimate:
    """Return sum(above) / sum(below) with its interval over groups: a mean, an accuracy, a micro F1."""
    names, member = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    top = np.bincount(member, np.asarray(above, dtype=float), len(names))
    bottom = np.bincount(member, np.asarray(below, dtype=float), len(names))

    def statistic(weights: FloatArray) -> float:
        total = float(weights @ bottom)
        return float(weights @ top) / total if total > 0 else math.nan

    return over_groups(statistic, [str(name) for name in names], n, num_independent=int((bottom > 0).sum()))
