"""Percentiles and rates of measured times, with 95 % intervals. Pure functions over numbers."""

import math
from collections.abc import Sequence

import numpy as np

from xray_vqa.core.records import Strict
from xray_vqa.evaluation.results import Estimate

LEVEL = 0.95
DRAWS = 500
ORDER_STATISTICS = "order statistics (binomial ranks), for times that do not depend on each other"
BLOCK_BOOTSTRAP = "bootstrap of blocks of consecutive requests, since those in one line wait together"


class LatencySummary(Strict):
    """Times of inspections that succeeded, in milliseconds."""

    n: int
    mean_ms: float | None
    p50_ms: Estimate
    p95_ms: Estimate
    p99_ms: Estimate
    max_ms: float | None
    interval: str
    """How the 95 % intervals were made. A side is null where the sample is too small to bound it."""


def summarise(latencies_ms: Sequence[float]) -> LatencySummary:
    """Return percentiles of independent times, with exact intervals by order statistics."""
    return _summary(latencies_ms, [_by_order(latencies_ms, share) for share in (0.5, 0.95, 0.99)], ORDER_STATISTICS)


def summarise_queued(latencies_ms: Sequence[float]) -> LatencySummary:
    """Return percentiles of times in the order of arrival, with intervals by a bootstrap of blocks."""
    return _summary(latencies_ms, _by_blocks(latencies_ms, (0.5, 0.95, 0.99)), BLOCK_BOOTSTRAP)


def rate_per_s(counts: Sequence[int], seconds: Sequence[float], seed: int = 0) -> Estimate:
    """Return sum(counts) / sum(seconds) with the interval of a bootstrap over the calls."""
    total_s = sum(seconds)
    if not seconds or total_s <= 0:
        return Estimate(value=None, n=len(seconds))
    value = round(sum(counts) / total_s, 3)
    if len(seconds) < 2:
        return Estimate(value=value, n=len(seconds))
    drawn = np.random.default_rng(seed).integers(0, len(seconds), (DRAWS, len(seconds)))
    rates = np.asarray(counts)[drawn].sum(axis=1) / np.asarray(seconds)[drawn].sum(axis=1)
    low, high = np.quantile(rates, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(value=value, n=len(seconds), low=round(float(low), 3), high=round(float(high), 3))


def _summary(latencies_ms: Sequence[float], estimates: Sequence[Estimate], interval: str) -> LatencySummary:
    n = len(latencies_ms)
    p50, p95, p99 = estimates
    return LatencySummary(
        n=n,
        mean_ms=round(sum(latencies_ms) / n, 2) if n else None,
        p50_ms=p50,
        p95_ms=p95,
        p99_ms=p99,
        max_ms=round(max(latencies_ms), 2) if n else None,
        interval=interval,
    )


def _by_order(latencies_ms: Sequence[float], share: float) -> Estimate:
    """Return a percentile; between ranks l and u it lies with the probability P(l <= Binomial(n, share) < u)."""
    n = len(latencies_ms)
    if not n:
        return Estimate(value=None, n=0)
    from scipy.stats import binom

    ordered = np.sort(np.asarray(latencies_ms, dtype=float))
    low = int(binom.ppf((1 - LEVEL) / 2, n, share))
    high = int(binom.ppf((1 + LEVEL) / 2, n, share)) + 1
    return Estimate(
        value=round(float(np.quantile(ordered, share)), 2),
        n=n,
        low=round(float(ordered[low - 1]), 2) if low >= 1 else None,
        high=round(float(ordered[high - 1]), 2) if high <= n else None,
    )


def _by_blocks(latencies_ms: Sequence[float], shares: Sequence[float], seed: int = 0) -> list[Estimate]:
    n = len(latencies_ms)
    if not n:
        return [Estimate(value=None, n=0) for _ in shares]
    times = np.asarray(latencies_ms, dtype=float)
    values = np.quantile(times, shares)
    length = max(1, math.isqrt(n))
    if n < 2 * length:
        return [Estimate(value=round(float(value), 2), n=n) for value in values]
    generator = np.random.default_rng(seed)
    within = np.arange(length)
    drawn = np.empty((DRAWS, len(shares)))
    for draw in range(DRAWS):
        starts = generator.integers(0, n - length + 1, math.ceil(n / length))
        drawn[draw] = np.quantile(times[(starts[:, None] + within).ravel()[:n]], shares)
    lows, highs = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    return [
        Estimate(value=round(float(value), 2), n=n, low=round(float(low), 2), high=round(float(high), 2))
        for value, low, high in zip(values, lows, highs, strict=True)
    ]
