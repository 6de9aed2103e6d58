"""95 % intervals of plain rates, by formula, and what so many trials prove."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta, binomtest, norm

from xray_vqa.evaluation.results import Estimate

Flags = Sequence[bool] | NDArray[np.bool_]
Names = Sequence[str] | NDArray[np.str_] | NDArray[np.integer]
"""Which group each observation is of. Draws go by the order of the names."""

LEVEL = 0.95
POWER = 0.8


def rate(hits: int, n: int) -> Estimate:
    """Return a share with Wilson's interval (1927); null for an empty set."""
    if n == 0:
        return Estimate(value=None, n=0)
    interval = binomtest(hits, n).proportion_ci(LEVEL, method="wilson")
    return Estimate(value=hits / n, n=n, low=float(interval.low), high=float(interval.high), method="wilson")


def exact_rate(hits: int, n: int) -> Estimate:
    """Return a share with the interval of Clopper and Pearson (1934), which covers at least as often as it says."""
    if n == 0:
        return Estimate(value=None, n=0)
    tail = (1 - LEVEL) / 2
    low, high = lower_bound(hits, n, 1 - tail), upper_bound(hits, n, 1 - tail)
    return Estimate(value=hits / n, n=n, low=low, high=high, method="clopper-pearson")


def rate_over_groups(hits: Flags, groups: Names) -> Estimate:
    """Return a share of scans with Wilson's interval; scans of one bag count for less than as many bags.

    Where bags have several scans, n is divided by the design effect, the variance over groups against that of as many
    independent scans (Korn and Graubard 1998 for the exact interval), and never grows.
    """
    n, num_hits = len(hits), int(np.sum(hits))
    num_effective = effective_size(hits, groups)
    if n == 0 or num_effective >= n:
        return rate(num_hits, n)
    z, p = float(norm.ppf((1 + LEVEL) / 2)), num_hits / n
    centre = (p + z * z / (2 * num_effective)) / (1 + z * z / num_effective)
    spread = math.sqrt(p * (1 - p) / num_effective + z * z / (4 * num_effective**2))
    half = z * spread / (1 + z * z / num_effective)
    low, high = max(centre - half, 0.0), min(centre + half, 1.0)
    return Estimate(value=p, n=n, low=min(low, p), high=max(high, p), method="wilson, effective n")


def effective_size(hits: Flags, groups: Names) -> float:
    """Return how many independent scans these are worth: at most their number, and the groups where all agree."""
    n = len(hits)
    _, member = np.unique(np.asarray(groups), return_inverse=True)
    num_groups = int(member.max()) + 1 if n else 0
    if num_groups == n or num_groups < 2:
        return float(num_groups)
    values = np.asarray(hits, dtype=float)
    p = float(values.mean())
    if p in (0.0, 1.0):
        return float(num_groups)
    residuals = np.bincount(member, values - p)
    variance = float((residuals**2).sum()) * num_groups / (num_groups - 1) / n**2
    return min(float(n), p * (1 - p) / variance) if variance > 0 else float(n)


def lower_bound(hits: float, n: float, confidence: float = LEVEL) -> float:
    """Return the rate that is exceeded with this confidence, exact and one-sided (Clopper and Pearson 1934)."""
    return 0.0 if hits <= 0 else float(beta.ppf(1 - confidence, hits, n - hits + 1))


def upper_bound(hits: float, n: float, confidence: float = LEVEL) -> float:
    """Return the rate that is not reached with this confidence, exact and one-sided."""
    return 1.0 if hits >= n else float(beta.ppf(confidence, hits + 1, n - hits))


def trials_to_prove(rate_wanted: float, num_misses: int = 0, confidence: float = LEVEL) -> int:
    """Return the fewest trials that prove a rate of at least `rate_wanted` when so many of them miss.

    Without a miss it is log(1 - confidence) / log(rate_wanted) rounded up: 29 for a Pd of 0.9 at 95 %.
    """
    low, high = num_misses, num_misses + 1
    while lower_bound(high - num_misses, high, confidence) < rate_wanted:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        if lower_bound(middle - num_misses, middle, confidence) < rate_wanted:
            low = middle
        else:
            high = middle
    return high


def detectable_difference(p: float, n: float, power: float = POWER) -> float | None:
    """Return the smallest change of a rate that two sets of n trials each show at the 5 % level with this power.

    The normal approximation for two independent rates near `p`, which is held half an event inside 0 to 1.
    """
    if n < 1:
        return None
    held = min(max(p, 0.5 / n), 1 - 0.5 / n)
    reach = float(norm.ppf((1 + LEVEL) / 2) + norm.ppf(power))
    return min(1.0, reach * math.sqrt(2 * held * (1 - held) / n))
