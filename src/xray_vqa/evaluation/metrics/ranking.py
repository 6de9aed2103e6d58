"""Scores against what is there, whatever the threshold: AUC, average precision, ROC, and rates at a fixed rate."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm, rankdata

from xray_vqa.evaluation.metrics.bootstrap import DRAWS, FloatArray, Weights, over_groups, shares
from xray_vqa.evaluation.metrics.intervals import Names
from xray_vqa.evaluation.metrics.kernels import walk_down
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

    Everything that needs sorting is done once, so that a draw costs one pass down the list.
    """

    names = ("auc", *(f"pd@{level:g}" for level in PFA_LEVELS), *(f"pfa@{level:g}" for level in PD_LEVELS))

    def __init__(self, scores: FloatArray, truth: BoolArray) -> None:
        self._order = np.argsort(-scores, kind="stable")
        self._is_positive = truth[self._order]
        ordered = scores[self._order]
        self._ends_level = np.append(ordered[1:] != ordered[:-1], [True])[: len(scores)]
        self._positives = np.flatnonzero(truth)

    def auc(self, weights: Weights) -> FloatArray:
        """Return the AUC, (draws,); NaN without both kinds. Weights: (draws, observations)."""
        return self._auc(self._walk(weights))

    def pd(self, weights: Weights, level: float) -> FloatArray:
        """Return the detection rate at a false alarm rate that is not exceeded, (draws,); NaN without both kinds."""
        found = self._walk(weights, pfa_levels=(level,))
        return np.where(found[:, 1] > 0, shares(found[:, 3], found[:, 0]), np.nan)

    def __call__(self, weights: Weights) -> FloatArray:
        """Return (draws, names): the AUC, Pd at each Pfa that is not exceeded, Pfa at each Pd that is reached."""
        found = self._walk(weights, PFA_LEVELS, PD_LEVELS)
        hits, alarms = found[:, 3 : 3 + len(PFA_LEVELS)], found[:, 3 + len(PFA_LEVELS) :]
        rates = shares(hits, found[:, :1]), shares(alarms, found[:, 1:2])
        numbers = np.column_stack([self._auc(found), *rates])
        numbers[(found[:, :2] <= 0).any(axis=1)] = np.nan
        return numbers

    def _walk(self, weights: Weights, pfa_levels: Sequence[float] = (), pd_levels: Sequence[float] = ()) -> FloatArray:
        found = np.zeros((len(weights), 3 + len(pfa_levels) + len(pd_levels)))
        levels = np.array(pfa_levels, dtype=float), np.array(pd_levels, dtype=float)
        walk_down(weights, self._order, self._is_positive, self._ends_level, self._positives, *levels, _SLACK, found)
        return found

    def _auc(self, found: FloatArray) -> FloatArray:
        total = found[:, 0] * found[:, 1]
        return shares(total - found[:, 2] / 2, total)


def independent_groups(truth: BoolArray, groups: Names) -> tuple[int, int]:
    """Return in how many groups there is a positive, and in how many a negative."""
    names = np.asarray(groups)
    return len(np.unique(names[truth])), len(np.unique(names[~truth]))


def auc_over_groups(scores: FloatArray, truth: BoolArray, groups: Names, *, draws: int = DRAWS) -> Estimate:
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
