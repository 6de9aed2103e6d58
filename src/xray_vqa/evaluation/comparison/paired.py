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

from xray_vqa.core.records import Strict
from xray_vqa.evaluation.metrics.bootstrap import DRAWS, FloatArray, Weights, drawn_counts, ratios
from xray_vqa.evaluation.metrics.intervals import LEVEL
from xray_vqa.evaluation.metrics.ranking import BoolArray, Ranking

POWER = 0.8

IntArray = NDArray[np.intp]
Statistic = Callable[[Weights], FloatArray]
"""From (groups, draws) weights, how often each group was drawn, to (draws,); NaN where undefined."""


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


class Difference(Strict):
    """One number of both models; the difference is B less A, with its 95 % interval."""

    a: float | None = None
    b: float | None = None
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    p_value: float | None = None
    """Two-sided, by the paired bootstrap over groups; not corrected for how many numbers stand here."""
    detectable: float | None = None
    """The smallest true difference that so many such groups show with 80 % power at 5 %; null where none differs."""
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
        known = {name: v for name, v in (("a", value_a), ("b", value_b)) if not math.isnan(v)}
        return Difference(**known, num_differing=differing)
    delta = value_b - value_a
    bare = Difference(a=value_a, b=value_b, difference=delta, num_differing=differing)
    if not differing:
        reach = 1 - ((1 - LEVEL) / 2) ** (1 / max(a.num_groups, 1))
        return bare.model_copy(update={"low": -reach, "high": reach, "p_value": 1.0})
    counts = (block.T for block in drawn_counts(num_groups, draws, seed))
    drawn = np.concatenate([b.statistic(block) - a.statistic(block) for block in counts])
    drawn = drawn[~np.isnan(drawn)]
    if num_groups < 2 or len(drawn) < draws / 2:
        return bare
    error = float(drawn.std()) * math.sqrt(num_groups / (num_groups - 1))
    if error < 1e-9:  # every draw gives the same number, as where one model sorts perfectly: no spread to judge by
        return bare
    freedom = max(differing - 1, 1)
    reach = error * float(t.ppf((1 + LEVEL) / 2, freedom))
    found = {
        "low": delta - reach,
        "high": delta + reach,
        "p_value": 2 * float(t.sf(abs(delta) / error, freedom)),
        "detectable": error * float(norm.ppf((1 + LEVEL) / 2) + norm.ppf(POWER)),
    }
    return bare.model_copy(update=found)


def ratio(above: FloatArray, below: FloatArray, member: IntArray, num_groups: int) -> Side:
    """Return sum(above) / sum(below) as a side: a mean, a rate, a micro F1.

    Args:
        above: (observations,).
        below: (observations,).
        member: (observations,), which group each belongs to.
        num_groups: How many there are.
    """
    top, bottom = (np.bincount(member, part, num_groups).astype(float)[:, None] for part in (above, below))
    share = ratios(top, bottom)
    return Side(lambda weights: share(weights.T)[:, 0], np.hstack([top, bottom]), int((bottom > 0).sum()))


def ranking(scores: FloatArray, truth: BoolArray, member: IntArray, num_groups: int, pfa: float | None = None) -> Side:
    """Return the AUC of some scores as a side or, with `pfa`, the detection rate where no more false alarms are made.

    Args:
        scores: (observations,); higher is more suspicious. Ties count half in the AUC.
        truth: (observations,), whether there is a threat.
        member: (observations,), which group each belongs to.
        num_groups: How many there are.
        pfa: The false alarm rate that is not exceeded; the threshold is set anew in every draw.
    """
    ranked = Ranking(scores, truth)

    def statistic(weights: Weights) -> FloatArray:
        drawn = weights.T[:, member]
        return ranked.auc(drawn) if pfa is None else ranked.pd(drawn, pfa)

    # Ranks and not scores: a model whose scores are all a little higher sorts the bags alike.
    places = np.unique(-scores, return_inverse=True)[1]
    fingerprint = np.bincount(member, places * (1 + truth), num_groups).astype(float)
    independent = min(len(np.unique(member[kind])) for kind in (truth, ~truth))
    return Side(statistic, fingerprint[:, None], independent)
