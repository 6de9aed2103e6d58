"""From predictions under several conditions to curves, each point with its paired change from the unperturbed scans.

Every draw of the bootstrap takes the same bags under all conditions, so that what makes a bag hard does not widen the
interval of a change.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from xray_vqa.evaluation.metrics.bootstrap import FloatArray, drawn_estimate
from xray_vqa.evaluation.metrics.intervals import LEVEL, rate
from xray_vqa.evaluation.metrics.localisation import IOU_FROM, match_boxes
from xray_vqa.evaluation.metrics.ranking import Ranking
from xray_vqa.evaluation.metrics.screening import bag_table
from xray_vqa.evaluation.records import OperatingPoint, ScanPrediction
from xray_vqa.evaluation.results import Estimate
from xray_vqa.evaluation.robustness.results import Curve, CurvePoint, DropPoint
from xray_vqa.evaluation.score import placed_categories, score_table

DROP = 0.05
"""The fall of Pd, as a share of all threats, whose strength is looked for."""

METRICS = ("pd", "pfa", "item_pd", "auc", "localisation")
_AUC_DRAWS = 200
"""Ranked at once, which bounds the memory."""

CHANGES = ("pd", "pfa", "auc")
"""Numbers whose paired change is told with an interval."""


@dataclass(frozen=True, slots=True)
class Measured:
    """One condition's numbers: over the scans as they are, over each draw, and how many each was measured on."""

    values: Mapping[str, float]
    drawn: Mapping[str, FloatArray]
    """By metric, (draws,) float64; NaN where a draw leaves it undefined."""
    counts: Mapping[str, int]
    num_failed: int


def measure(predictions: Sequence[ScanPrediction], point: OperatingPoint, weights: FloatArray) -> Measured:
    """Return the numbers of one condition.

    Args:
        predictions: In the order of the columns of `weights`.
        point: The unperturbed model's calibration and thresholds.
        weights: From `draw_weights`.
    """
    table = score_table(predictions, point)
    limits = np.array([point.thresholds[name] for name in table.categories])
    bags = bag_table(table, limits)
    of_bags = weights[:, bags.counted]
    ranking, parts = Ranking(bags.margins, bags.truth), range(0, len(weights), _AUC_DRAWS)
    item_hits = (table.flagged(limits) & table.present).sum(axis=1)
    met, boxes = _boxes(predictions)
    all_values = {
        "pd": _share(of_bags, bags.flagged & bags.truth, bags.truth),
        "pfa": _share(of_bags, bags.flagged & ~bags.truth, ~bags.truth),
        "item_pd": _share(weights, item_hits, table.present.sum(axis=1)),
        "auc": np.concatenate([ranking.auc(of_bags[at : at + _AUC_DRAWS]) for at in parts]),
        "localisation": _share(weights, met, boxes),
    }
    counts = {
        "pd": int(bags.truth.sum()),
        "pfa": int((~bags.truth).sum()),
        "item_pd": int(table.present.sum()),
        "auc": len(bags.truth),
        "localisation": int(boxes.sum()),
    }
    return Measured(
        values={name: float(values[0]) for name, values in all_values.items()},
        drawn={name: values[1:] for name, values in all_values.items()},
        counts=counts,
        num_failed=sum(prediction.failure is not None for prediction in predictions),
    )


def _share(weights: FloatArray, above: ArrayLike, below: ArrayLike) -> FloatArray:
    top, bottom = weights @ np.asarray(above, float), weights @ np.asarray(below, float)
    return np.divide(top, bottom, out=np.full(len(weights), np.nan), where=bottom > 0)


def _boxes(predictions: Sequence[ScanPrediction]) -> tuple[FloatArray, FloatArray]:
    """For each scan the annotated boxes that were met, and all of them, (scans,) float64 each."""
    met, there = np.zeros(len(predictions)), np.zeros(len(predictions))
    for row, prediction in enumerate(predictions):
        for placed in placed_categories([prediction]):
            there[row] += len(placed.annotated)
            met[row] += sum(iou >= IOU_FROM for _, _, iou in match_boxes(placed.predicted, placed.annotated))
    return met, there


def curve_of(kind: str, unit: str, unperturbed: Measured, points: Sequence[tuple[float, Measured]]) -> Curve:
    """Return one kind's curve, from strength 0 up. `points` are (strength, measured) in rising order."""
    everything = [(0.0, unperturbed), *points]
    return Curve(
        kind=kind,
        unit=unit,
        points=[_point(strength, measured, unperturbed) for strength, measured in everything],
        drop=drop_point([strength for strength, _ in everything], [measured for _, measured in everything]),
    )


def _point(strength: float, measured: Measured, unperturbed: Measured) -> CurvePoint:
    estimates = {name: _bounded(measured, name) for name in METRICS}
    changes = {
        name: drawn_estimate(
            measured.values[name] - unperturbed.values[name],
            measured.drawn[name] - unperturbed.drawn[name],
            measured.counts[name],
        )
        for name in CHANGES
    }
    return CurvePoint(strength=strength, changes=changes, num_failed=measured.num_failed, **estimates)


def _bounded(measured: Measured, name: str) -> Estimate:
    """Every draw of a value of exactly 0 or 1 gives it again, which is no certainty: Wilson's interval is told then."""
    found = drawn_estimate(measured.values[name], measured.drawn[name], measured.counts[name])
    if found.value not in (0.0, 1.0):
        return found
    independent = min(measured.counts["pd"], measured.counts["pfa"]) if name == "auc" else measured.counts[name]
    edge = rate(independent if found.value else 0, independent)
    return found.model_copy(update={"low": edge.low, "high": edge.high, "method": edge.method})


def drop_point(strengths: Sequence[float], measured: Sequence[Measured]) -> DropPoint:
    """Return the strength at which Pd has fallen by `DROP`, straight lines between the points.

    Its interval comes from the same draws. An end of it that is null lies beyond the largest strength that was tried.
    """
    values = np.array([[one.values["pd"]] for one in measured])
    drawn = np.array([one.drawn["pd"] for one in measured])
    if np.isnan(values).any():
        return DropPoint(drop=DROP, strength=None, low=None, high=None, within=False, largest=strengths[-1])
    (found,) = first_crossings(strengths, values[0] - values)
    crossings = first_crossings(strengths, (drawn[0] - drawn)[:, ~np.isnan(drawn).any(axis=0)])
    low = high = None
    if len(crossings):
        low, high = (
            _finite(float(value))
            for value in np.quantile(crossings, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], method="inverted_cdf")
        )
    return DropPoint(
        drop=DROP, strength=_finite(found), low=low, high=high, within=bool(np.isfinite(found)), largest=strengths[-1]
    )


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def first_crossings(strengths: Sequence[float], falls: FloatArray) -> FloatArray:
    """Return where each column first reaches `DROP`, (columns,) float64; infinite where it never does.

    Args:
        strengths: Rising, (points,).
        falls: (points, columns) float64, 0 in the first row.
    """
    crossings = np.full(falls.shape[1], np.inf)
    for left in reversed(range(len(strengths) - 1)):
        before, after = falls[left], falls[left + 1]
        crosses = (before < DROP - 1e-12) & (after >= DROP - 1e-12)
        rise = np.where(crosses, after - before, 1.0)
        at = strengths[left] + (DROP - before) / rise * (strengths[left + 1] - strengths[left])
        crossings = np.where(crosses, at, crossings)
    return crossings
