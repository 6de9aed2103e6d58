"""Scores against what is there, whatever the threshold: AUC, average precision, ROC, and rates at a fixed rate."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm, rankdata

from xray_vqa.evaluation.metrics.bootstrap import DRAWS, FloatArray, over_groups
from xray_vqa.evaluation.results import Estimate

PFA_LEVELS = (0.01, 0.05, 0.10)
PD_LEVELS = (0.90, 0.95)
MAX_ROC_POINTS = 200
_SLACK = 1e-9
"""Sums of weights may miss an allowed rate by rounding."""

BoolArray = NDArray[np.bool_]


def auc(positives: FloatArray, negatives: FloatArray) -> float | None:
    """Return the chance that a positive scores above a negative, ties counting half; None without both."""
    if not len(positives) or not len(negatives):
        return None
    ranks = rankdata(np.concatenate([positives, negatives]))
    wins = ranks[: len(positives)].sum() - len(positives) * (len(positives) + 1) / 2
    return float(wins / (len(positives) * len(negatives)))


class Ranking:
    """The numbers of one list of scores as functions of how many times each observation counts.

    Everything that needs sorting is done once; a block of draws costs two gathers and two cumulative sums.
    """

    names = ("auc", *(f"pd@{level:g}" for level in PFA_LEVELS), *(f"pfa@{level:g}" for level in PD_LEVELS))

    def __init__(self, scores: FloatArray, truth: BoolArray) -> None:
        self._positives = np.flatnonzero(truth)[np.argsort(-scores[truth], kind="stable")]
        self._negatives = np.flatnonzero(~truth)[np.argsort(-scores[~truth], kind="stable")]
        up, down = -scores[self._positives], -scores[self._negatives]  # both ascending: highest score first
        self._above = np.searchsorted(down, up, side="left")
        self._not_below = np.searchsorted(down, up, side="right")
        """How many negatives score higher, and at least as high, by positive."""
        self._hits_above = np.append(np.searchsorted(up, down, side="left"), len(up))
        """How many positives score higher than each negative, and than none at all."""

    def auc(self, weights: FloatArray) -> FloatArray:
        """Return the AUC, (draws,); NaN without both kinds. Weights: (draws, observations)."""
        return self._auc(weights[:, self._positives], _cumulated(weights[:, self._negatives]))

    def pd(self, weights: FloatArray, level: float) -> FloatArray:
        """Return the detection rate at a false alarm rate that is not exceeded, (draws,); NaN without both kinds."""
        hits, alarms = _cumulated(weights[:, self._positives]), _cumulated(weights[:, self._negatives])
        found = self._pd(hits, alarms, level)
        found[(hits[:, -1] <= 0) | (alarms[:, -1] <= 0)] = np.nan
        return found

    def __call__(self, weights: FloatArray) -> FloatArray:
        """Return (draws, names): the AUC, Pd at each Pfa that is not exceeded, Pfa at each Pd that is reached."""
        up, alarms = weights[:, self._positives], _cumulated(weights[:, self._negatives])
        hits = _cumulated(up)
        rows, num_hits, num_alarms = np.arange(len(weights)), hits[:, -1], alarms[:, -1]
        with np.errstate(invalid="ignore", divide="ignore"):
            found = [self._auc(up, alarms)]
            found += [self._pd(hits, alarms, level) for level in PFA_LEVELS]
            for level in PD_LEVELS:
                needed = _count_below(hits, level * num_hits - _SLACK)  # so many positives have to be flagged
                flagged = np.append([0], self._not_below)[np.minimum(needed, len(self._positives))]
                found.append(alarms[rows, flagged] / num_alarms)
        numbers = np.column_stack(found)
        numbers[(num_hits <= 0) | (num_alarms <= 0)] = np.nan
        return numbers

    def _pd(self, hits: FloatArray, alarms: FloatArray, level: float) -> FloatArray:
        last = _count_up_to(alarms, level * alarms[:, -1] + _SLACK) - 1
        with np.errstate(invalid="ignore", divide="ignore"):
            return hits[np.arange(len(hits)), self._hits_above[last]] / hits[:, -1]

    def _auc(self, up: FloatArray, alarms: FloatArray) -> FloatArray:
        total = up.sum(axis=1) * alarms[:, -1]
        lost = np.einsum("ij,ij->i", up, alarms[:, self._above])
        lost += np.einsum("ij,ij->i", up, alarms[:, self._not_below])
        return np.divide(total - lost / 2, total, out=np.full_like(total, np.nan), where=total > 0)


def _cumulated(weights: FloatArray) -> FloatArray:
    """Return sums over the first 0, 1, ... observations."""
    sums = np.empty((len(weights), weights.shape[1] + 1))
    sums[:, 0] = 0
    np.cumsum(weights, axis=1, out=sums[:, 1:])
    return sums


def _count_up_to(sums: FloatArray, limits: FloatArray) -> NDArray[np.intp]:
    """Return how many entries of each ascending row do not exceed its limit."""
    found = [np.searchsorted(row, limit, side="right") for row, limit in zip(sums, limits, strict=True)]
    return np.array(found, dtype=np.intp)


def _count_below(sums: FloatArray, limits: FloatArray) -> NDArray[np.intp]:
    """Return how many entries of each ascending row lie under its limit."""
    found = [np.searchsorted(row, limit, side="left") for row, limit in zip(sums, limits, strict=True)]
    return np.array(found, dtype=np.intp)


def independent_groups(truth: BoolArray, groups: Sequence[str]) -> tuple[int, int]:
    """Return in how many groups there is a positive, and in how many a negative."""
    names = np.asarray(groups, dtype=str)
    return len(np.unique(names[truth])), len(np.unique(names[~truth]))


def auc_over_groups(scores: FloatArray, truth: BoolArray, groups: Sequence[str], *, draws: int = DRAWS) -> Estimate:
    """Return the AUC with its interval from drawing whole groups."""
    ranking = Ranking(scores, truth)
    least = min(independent_groups(truth, groups))
    return over_groups(
        lambda weights: ranking.auc(weights)[:, None], groups, [len(groups)], num_independent=[least], draws=draws
    )[0]


def average_precision(scores: FloatArray, truth: BoolArray) -> float | None:
    """Return the area under the precision-recall steps, without interpolation; None without positives."""
    num_positive = int(truth.sum())
    if not num_positive:
        return None
    hits, alarms = counts_down(scores, truth)
    precision = hits / np.maximum(hits + alarms, 1)
    recall = hits / num_positive
    return float((np.diff(recall, prepend=0.0) * precision).sum())


def counts_down(scores: FloatArray, truth: BoolArray) -> tuple[FloatArray, FloatArray]:
    """Return hits and false alarms when everything from each distinct score up is flagged, highest score first."""
    order = np.argsort(-scores, kind="stable")
    ordered = scores[order]
    last_of_level = np.append(ordered[1:] != ordered[:-1], [True]) if len(ordered) else np.zeros(0, dtype=bool)
    hits = np.cumsum(truth[order])[last_of_level].astype(float)
    alarms = np.cumsum(~truth[order])[last_of_level].astype(float)
    return hits, alarms


def roc_points(scores: FloatArray, truth: BoolArray) -> list[tuple[float, float]]:
    """Return (Pfa, Pd) from (0, 0) to (1, 1), one point for each distinct score; empty without both kinds."""
    num_positive, num_negative = int(truth.sum()), int((~truth).sum())
    if not num_positive or not num_negative:
        return []
    hits, alarms = counts_down(scores, truth)
    points = zip(alarms / num_negative, hits / num_positive, strict=True)
    return [(0.0, 0.0), *((float(pfa), float(pd)) for pfa, pd in points)]


def det_points(roc: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return an ROC's (z(Pfa), z(1 - Pd)), on which equal normal distributions draw a line (Martin et al. 1997)."""
    return [(float(norm.ppf(pfa)), float(norm.ppf(1 - pd))) for pfa, pd in roc if 0 < pfa < 1 and 0 < pd < 1]


def thinned(points: list[tuple[float, float]], limit: int = MAX_ROC_POINTS) -> list[tuple[float, float]]:
    """Return at most so many of the points, the ends among them."""
    if len(points) <= limit:
        return points
    keep = np.unique(np.linspace(0, len(points) - 1, limit).round().astype(int))
    return [points[index] for index in keep]


def d_prime(hits: int, num_positive: int, alarms: int, num_negative: int) -> float | None:
    """Return z(Pd) - z(Pfa) with the log-linear correction (Hautus 1995); None without both kinds."""
    if not num_positive or not num_negative:
        return None
    pd, pfa = (hits + 0.5) / (num_positive + 1), (alarms + 0.5) / (num_negative + 1)
    found = float(norm.ppf(pd) - norm.ppf(pfa))
    return found if math.isfinite(found) else None


def worst_case(scores: FloatArray, truth: BoolArray) -> FloatArray:
    """Return scores with NaN replaced by what counts as wrong: -inf for a positive, +inf for a negative."""
    return np.where(np.isnan(scores), np.where(truth, -np.inf, np.inf), scores)
