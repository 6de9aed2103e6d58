"""What scores are worth for screening: detection and false alarm rates, ROC, and boxes against boxes.

Pure NumPy and SciPy over arrays with one row a scan and one column a category. A score that is missing or unsure is NaN
and counts against the model everywhere: a miss where the item is there, a false alarm where it is not.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from xray_vqa.core.geometry import Box
from xray_vqa.evaluation.intervals import FloatArray, over_groups, rate, ratio_over_groups
from xray_vqa.evaluation.records import ThresholdOrigin
from xray_vqa.evaluation.results import (
    BagScores,
    CategoryScores,
    Estimate,
    ItemScores,
    LocalisationScores,
    ScreeningScores,
    WorstCategory,
)

PFA_LEVELS = (0.01, 0.05, 0.10)
IOU_FROM = 0.5
CALIBRATION_BINS = 10
MAX_ROC_POINTS = 200

BoolArray = NDArray[np.bool_]


def auc(positives: FloatArray, negatives: FloatArray) -> float | None:
    """Return the chance that a positive scores above a negative, ties counting half; None without both."""
    if not len(positives) or not len(negatives):
        return None
    ranks = rankdata(np.concatenate([positives, negatives]))
    wins = ranks[: len(positives)].sum() - len(positives) * (len(positives) + 1) / 2
    return float(wins / (len(positives) * len(negatives)))


def weighted_auc(scores: FloatArray, truth: BoolArray) -> Callable[[FloatArray], float]:
    """Return the AUC as a function of how many times each observation counts; NaN without both kinds."""
    _, level = np.unique(scores, return_inverse=True)
    num_levels = int(level.max()) + 1 if len(level) else 0

    def statistic(weights: FloatArray) -> float:
        up = np.bincount(level[truth], weights[truth], num_levels)
        down = np.bincount(level[~truth], weights[~truth], num_levels)
        pairs = up.sum() * down.sum()
        if not pairs > 0:
            return math.nan
        return float((up * (np.cumsum(down) - down / 2)).sum() / pairs)

    return statistic


def auc_over_groups(scores: FloatArray, truth: BoolArray, groups: Sequence[str]) -> Estimate:
    """Return the AUC with its interval from drawing whole groups."""
    kinds = [{name for name, there in zip(groups, truth, strict=True) if there == kind} for kind in (True, False)]
    return over_groups(weighted_auc(scores, truth), groups, len(groups), num_independent=min(map(len, kinds)))


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


def pd_at_pfa(scores: FloatArray, truth: BoolArray, level: float) -> Estimate:
    """Return the highest detection rate whose false alarm rate does not exceed `level`. Nothing is interpolated."""
    num_positive, num_negative = int(truth.sum()), int((~truth).sum())
    if not num_positive or not num_negative:
        return Estimate(value=None, n=num_positive)
    hits, alarms = counts_down(scores, truth)
    allowed = hits[alarms <= level * num_negative + 1e-9]
    return rate(int(allowed.max(initial=0)), num_positive)


def worst_case(scores: FloatArray, truth: BoolArray) -> FloatArray:
    """Return scores with NaN replaced by what counts as wrong: -inf for a positive, +inf for a negative."""
    return np.where(np.isnan(scores), np.where(truth, -np.inf, np.inf), scores)


@dataclass(frozen=True, slots=True)
class ScoreTable:
    """Corrected scores of some scans."""

    categories: tuple[str, ...]
    scores: FloatArray
    """(scans, categories) float64, 0 to 1; NaN where there is no usable score."""
    truth: BoolArray
    """(scans, categories): whether the item is there."""
    annotated: BoolArray
    """(scans, categories): whether the scan's source labels the category at all. Nothing else is scored."""
    unlisted: BoolArray
    """(scans,): whether the scan has items outside the taxonomy."""
    groups: tuple[str, ...]

    @property
    def present(self) -> BoolArray:
        return self.truth & self.annotated


def score_screening(
    table: ScoreTable,
    thresholds: Mapping[str, float],
    origins: Mapping[str, ThresholdOrigin],
    covered: frozenset[str] = frozenset(),
) -> ScreeningScores:
    """Return the screening scores of a table, category by category, over all items, and by bag."""
    limits = np.array([thresholds[name] for name in table.categories])
    categories: dict[str, CategoryScores] = {}
    for column, name in enumerate(table.categories):
        rows = table.annotated[:, column]
        if rows.any():
            scores, truth = table.scores[rows, column], table.truth[rows, column]
            groups = [group for group, scored in zip(table.groups, rows, strict=True) if scored]
            categories[name] = _score_category(
                scores, truth, groups, float(limits[column]), origins[name], name in covered
            )
    aucs = {name: row.auc for name, row in categories.items() if row.auc is not None}
    precisions = [row.average_precision for row in categories.values() if row.average_precision is not None]
    rates = {name: row.pd.value for name, row in categories.items() if row.pd.value is not None}
    return ScreeningScores(
        bag=score_bags(table, limits),
        item_f1=_score_items(table, limits),
        macro_f1=_macro_f1(table, limits),
        calibration_error=calibration_error(table),
        macro_auc=_mean(list(aucs.values())),
        macro_average_precision=_mean(precisions),
        macro_pd=_mean(list(rates.values())),
        worst_auc=_worst(aucs),
        worst_pd=_worst(rates),
        categories=categories,
    )


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None


def _worst(values: Mapping[str, float]) -> WorstCategory | None:
    if not values:
        return None
    name = min(values, key=lambda key: (values[key], key))
    return WorstCategory(category=name, value=values[name])


def _score_category(
    scores: FloatArray,
    truth: BoolArray,
    groups: Sequence[str],
    threshold: float,
    origin: ThresholdOrigin,
    covered: bool,
) -> CategoryScores:
    filled = worst_case(scores, truth)
    flagged = filled >= threshold
    hits, alarms = int((flagged & truth).sum()), int((flagged & ~truth).sum())
    num_positive, num_negative = int(truth.sum()), int((~truth).sum())
    either = hits + alarms + num_positive
    return CategoryScores(
        num_positive=num_positive,
        num_negative=num_negative,
        num_unscored=int(np.isnan(scores).sum()),
        covered=covered,
        threshold=threshold,
        threshold_from=origin,
        auc=auc(filled[truth], filled[~truth]),
        auc_interval=auc_over_groups(filled, truth, groups),
        average_precision=average_precision(filled, truth),
        pd=rate(hits, num_positive),
        pfa=rate(alarms, num_negative),
        pd_at_pfa={f"{level:g}": pd_at_pfa(filled, truth, level) for level in PFA_LEVELS},
        f1=2 * hits / either if either else None,
    )


def _score_items(table: ScoreTable, limits: FloatArray) -> ItemScores:
    flagged = (worst_case(table.scores, table.truth) >= limits) & table.annotated
    hits = (flagged & table.present).sum(axis=1)
    both = flagged.sum(axis=1) + table.present.sum(axis=1)
    num_flagged, num_there = int(flagged.sum()), int(table.present.sum())
    return ItemScores(
        precision=float(hits.sum() / num_flagged) if num_flagged else None,
        recall=float(hits.sum() / num_there) if num_there else None,
        f1=ratio_over_groups(list(2 * hits), list(both), table.groups, num_there),
    )


def _macro_f1(table: ScoreTable, limits: FloatArray) -> Estimate:
    flagged = (worst_case(table.scores, table.truth) >= limits) & table.annotated
    hits = (flagged & table.present).astype(float)
    both = flagged.astype(float) + table.present

    def statistic(weights: FloatArray) -> float:
        there = weights @ both
        return float(np.mean((2 * (weights @ hits))[there > 0] / there[there > 0])) if there.any() else math.nan

    return over_groups(statistic, table.groups, int(table.present.sum()))


def calibration_error(table: ScoreTable) -> float | None:
    """Return the expected calibration error of all usable scores together; None where there is none."""
    usable = table.annotated & ~np.isnan(table.scores)
    scores, truth = table.scores[usable], table.truth[usable]
    if not len(scores):
        return None
    bins = np.minimum((scores * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    return float(np.abs(np.bincount(bins, scores - truth)).sum() / len(scores))


def score_bags(table: ScoreTable, limits: FloatArray) -> BagScores:
    """Return the scores of bags: threat if any annotated category is there, clean if nothing is."""
    is_threat: BoolArray = np.any(table.present, axis=1)
    counted = (is_threat | ~table.unlisted) & table.annotated.any(axis=1)
    truth = is_threat[counted]
    margins = np.where(table.annotated, table.scores - limits, -np.inf)[counted]
    margins = worst_case(margins, truth[:, None])
    scores = margins.max(axis=1, initial=-np.inf)
    flagged = scores >= 0
    groups = [name for name, keep in zip(table.groups, counted, strict=True) if keep]
    return BagScores(
        num_threat=int(truth.sum()),
        num_clean=int((~truth).sum()),
        num_left_out=int((~counted).sum()),
        auc=auc_over_groups(scores, truth, groups),
        pd=rate(int((flagged & truth).sum()), int(truth.sum())),
        pfa=rate(int((flagged & ~truth).sum()), int((~truth).sum())),
        pd_at_pfa={f"{level:g}": pd_at_pfa(scores, truth, level) for level in PFA_LEVELS},
        roc=_thinned(roc_points(scores, truth)),
    )


def _thinned(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    if len(points) <= MAX_ROC_POINTS:
        return points
    keep = np.unique(np.linspace(0, len(points) - 1, MAX_ROC_POINTS).round().astype(int))
    return [points[index] for index in keep]


def match_boxes(predicted: Sequence[Box], annotated: Sequence[Box]) -> list[tuple[int, int, float]]:
    """Return (predicted index, annotated index, IoU), each box used once, best overlap first; none without overlap."""
    overlaps = sorted(
        ((box.iou(other), i, j) for i, box in enumerate(predicted) for j, other in enumerate(annotated)),
        key=lambda entry: (-entry[0], entry[1], entry[2]),
    )
    taken_predicted: set[int] = set()
    taken_annotated: set[int] = set()
    matches: list[tuple[int, int, float]] = []
    for iou, i, j in overlaps:
        if iou > 0 and i not in taken_predicted and j not in taken_annotated:
            taken_predicted.add(i)
            taken_annotated.add(j)
            matches.append((i, j, iou))
    return matches


@dataclass(frozen=True, slots=True)
class PlacedCategory:
    """The boxes of one category on one scan."""

    predicted: Sequence[Box]
    annotated: Sequence[Box]
    group: str


def score_localisation(placed: Sequence[PlacedCategory]) -> LocalisationScores:
    """Return how well boxes were placed. Scans whose source names a category without a box are not passed in."""
    met: list[int] = []
    ious: list[float] = []
    for item in placed:
        matches = match_boxes(item.predicted, item.annotated)
        met.append(sum(iou >= IOU_FROM for _, _, iou in matches))
        ious.extend(iou for _, _, iou in matches)
    num_annotated = sum(len(item.annotated) for item in placed)
    num_predicted = sum(len(item.predicted) for item in placed)
    return LocalisationScores(
        accuracy=ratio_over_groups(
            met, [len(item.annotated) for item in placed], [item.group for item in placed], num_annotated
        ),
        mean_iou=sum(ious) / num_annotated if num_annotated else None,
        num_predicted=num_predicted,
        precision=sum(met) / num_predicted if num_predicted else None,
    )
