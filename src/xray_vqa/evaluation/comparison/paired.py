"""Tests for pairs: exact McNemar, a bootstrap that draws whole groups for both sides at once, Holm's correction.

A group (a bag, all its scans and questions) is the unit. Questions that are asked twice, or scans of one bag from
several views, add no evidence.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest, norm, t

LEVEL = 0.95
POWER = 0.8
DRAWS = 10_000
BLOCK_WEIGHTS = 1 << 21
"""Weights in memory at once, 16 MiB."""

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.intp]
BoolArray = NDArray[np.bool_]
Statistic = Callable[[FloatArray], FloatArray]
"""From (groups, draws) float64 weights, how often each group was drawn, to (draws,); NaN where undefined."""


def mcnemar_exact(only_a: int, only_b: int) -> float:
    """Return the two-sided exact p-value of so many units that A alone got right, and B alone (McNemar 1947).

    >>> mcnemar_exact(0, 0), mcnemar_exact(5, 0)
    (1.0, 0.0625)
    """
    return float(binomtest(only_a, only_a + only_b, 0.5).pvalue) if only_a + only_b else 1.0


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values corrected for how many there are (Holm 1979), in the order given.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    corrected = [0.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda k: p_values[k])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = largest
    return corrected


@dataclass(frozen=True, slots=True)
class Side:
    """One metric of one model: the statistic, and what each group adds to it, to see where two models differ."""

    statistic: Statistic
    fingerprint: FloatArray
    """(groups, any): equal rows of two models mean that the group is the same for both."""
    num_groups: int
    """On how many groups the metric rests; for a ranking the fewer of those with a threat and those without."""


@dataclass(frozen=True, slots=True)
class Difference:
    """B less A."""

    a: float | None
    b: float | None
    difference: float | None
    low: float | None
    high: float | None
    p_value: float | None
    detectable: float | None
    """The smallest true difference that as many such groups would show with 80 % power at 5 %."""
    num_differing: int
    """Groups that are not the same for both."""


def paired_difference(a: Side, b: Side, num_groups: int, *, draws: int = DRAWS, seed: int = 0) -> Difference:
    """Return B less A with a 95 % interval and a two-sided p-value.

    Both sides are measured on the same draws of groups. The interval is the difference plus and minus Student's
    quantile times the standard deviation over the draws, and the p-value fits it. The degrees of freedom are the groups
    that differ, less one: groups that are equal for both say nothing of the spread of the difference, and with few that
    differ the normal would be too sure. Where none differs, the interval is the exact bound on the share of groups that
    could: no difference in three bags is no proof of none.
    """
    ones = np.ones((num_groups, 1))
    value_a, value_b = (float(side.statistic(ones)[0]) if num_groups else math.nan for side in (a, b))
    differing = int(np.any(a.fingerprint != b.fingerprint, axis=1).sum())
    if math.isnan(value_a) or math.isnan(value_b):
        found = [None if math.isnan(value) else value for value in (value_a, value_b)]
        return Difference(found[0], found[1], None, None, None, None, None, differing)
    delta = value_b - value_a
    if not differing:
        reach = 1 - ((1 - LEVEL) / 2) ** (1 / max(a.num_groups, 1))
        return Difference(value_a, value_b, delta, -reach, reach, 1.0, None, 0)
    drawn = _draw(lambda weights: b.statistic(weights) - a.statistic(weights), num_groups, draws, seed)
    drawn = drawn[~np.isnan(drawn)]
    if num_groups < 2 or len(drawn) < draws / 2:
        return Difference(value_a, value_b, delta, None, None, None, None, differing)
    error = float(drawn.std()) * math.sqrt(num_groups / (num_groups - 1))
    if error < 1e-9:  # every draw gives the same number, as where one model sorts perfectly: no spread to judge by
        return Difference(value_a, value_b, delta, None, None, None, None, differing)
    freedom = max(differing - 1, 1)
    reach = error * float(t.ppf((1 + LEVEL) / 2, freedom))
    p_value = 2 * float(t.sf(abs(delta) / error, freedom))
    detectable = error * float(norm.ppf((1 + LEVEL) / 2) + norm.ppf(POWER))
    return Difference(value_a, value_b, delta, delta - reach, delta + reach, p_value, detectable, differing)


def _draw(statistic: Statistic, size: int, draws: int, seed: int) -> FloatArray:
    generator = np.random.default_rng(seed)
    block = max(1, min(draws, BLOCK_WEIGHTS // size))
    parts: list[FloatArray] = []
    for start in range(0, draws, block):
        width = min(block, draws - start)
        # Draw by draw in one stream, so that the size of a block changes nothing.
        picked = generator.integers(0, size, (width, size)) + np.arange(width)[:, None] * size
        counts = np.bincount(picked.ravel(), minlength=width * size).reshape(width, size)
        parts.append(statistic(np.ascontiguousarray(counts.T, dtype=np.float64)))
    return np.concatenate(parts)


def ratio(above: FloatArray, below: FloatArray, member: IntArray, num_groups: int) -> Side:
    """Return sum(above) / sum(below) as a side: a mean, a rate, a micro F1.

    Args:
        above: (observations,).
        below: (observations,).
        member: (observations,), which group each belongs to.
        num_groups: How many there are.
    """
    top, bottom = (np.bincount(member, part, num_groups).astype(float) for part in (above, below))

    def statistic(weights: FloatArray) -> FloatArray:
        over, under = top @ weights, bottom @ weights
        return np.divide(over, under, out=np.full_like(over, np.nan), where=under > 0)

    return Side(statistic, np.column_stack([top, bottom]), int((bottom > 0).sum()))


def ranking(scores: FloatArray, truth: BoolArray, member: IntArray, num_groups: int, pfa: float | None = None) -> Side:
    """Return the AUC of some scores as a side or, with `pfa`, the detection rate where no more false alarms are made.

    Args:
        scores: (observations,); higher is more suspicious. Ties count half in the AUC.
        truth: (observations,), whether there is a threat.
        member: (observations,), which group each belongs to.
        num_groups: How many there are.
        pfa: The false alarm rate that is not exceeded; the threshold is set anew in every draw.
    """
    order = np.argsort(-scores, kind="stable")
    ordered, there, who = scores[order], truth[order], member[order]
    starts = np.flatnonzero(np.append([True], ordered[1:] != ordered[:-1])) if len(ordered) else np.zeros(0, np.intp)

    def statistic(weights: FloatArray) -> FloatArray:
        if not len(ordered):
            return np.full(weights.shape[1], np.nan)
        drawn = weights[who]
        up = np.add.reduceat(np.where(there[:, None], drawn, 0.0), starts)
        down = np.add.reduceat(np.where(there[:, None], 0.0, drawn), starts)
        num_up, num_down = up.sum(axis=0), down.sum(axis=0)
        if pfa is None:
            wins = (up * (num_down - np.cumsum(down, axis=0) + down / 2)).sum(axis=0)
            below = num_up * num_down
        else:
            allowed = np.cumsum(down, axis=0) <= pfa * num_down + 1e-9
            wins = np.where(allowed, np.cumsum(up, axis=0), 0.0).max(axis=0)
            below = np.where(num_down > 0, num_up, 0.0)
        return np.divide(wins, below, out=np.full_like(wins, np.nan), where=below > 0)

    # Ranks and not scores: a model whose scores are all a little higher sorts the bags alike.
    places = np.searchsorted(-ordered[starts], -scores) if len(scores) else scores
    fingerprint = np.bincount(member, np.asarray(places, float) * (1 + truth), num_groups).astype(float)
    independent = min(len(np.unique(member[kind])) for kind in (truth, ~truth))
    return Side(statistic, fingerprint[:, None], independent)
