"""Where a model is weak: detection by what was hard about a bag, and what the rule costs that makes a bag's score."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit, logit

from xray_vqa.core.geometry import Box
from xray_vqa.core.records import ScanRecord
from xray_vqa.evaluation.metrics.intervals import over_groups, rate
from xray_vqa.evaluation.records import OperatingPoint, ScanPrediction
from xray_vqa.evaluation.score import rounded, score_table
from xray_vqa.evaluation.metrics.screening import IOU_FROM, ScoreTable, match_boxes, weighted_auc

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]

PFA = 0.05
VISIBLE_EDGES = (0.0, 0.25, 0.4, 0.55, 0.7, 0.85, 1.001)
SIZE_EDGES_PX = (0, 20, 30, 45, 65, 90, 130, 100_000)
"""Of the square root of a box's area, in pixels of the scan as written."""
FOLDS = 5
RIDGE = 1e-3


@dataclass(frozen=True, slots=True)
class Item:
    """One threat in one scan, with what makes it hard and whether it was found."""

    found: bool
    """Whether its category was flagged."""
    placed: bool
    """Whether a box of its category meets its own with IoU 0.5 or more."""
    clutter_level: int
    concealment: int
    visible: float
    size_px: float


def items_of(predictions: Sequence[ScanPrediction], records: Sequence[ScanRecord], point: OperatingPoint) -> list[Item]:
    """Return every threat of simulated scans; predictions and records go in pairs."""
    items: list[Item] = []
    for prediction, record in zip(predictions, records, strict=True):
        factors = record.factors or {}
        boxes = [Box.from_xywh(values) for values in record.bboxes if values]
        placed: set[tuple[str, int]] = set()
        for name in prediction.present:
            own = [index for index, category in enumerate(record.categories) if category == name]
            for _, at, iou in match_boxes(prediction.boxes_of(name), [boxes[index] for index in own]):
                if iou >= IOU_FROM:
                    placed.add((name, own[at]))
        for index, (name, pose) in enumerate(zip(record.categories, factors["threats"], strict=True)):
            probability = prediction.probability(name)
            items.append(
                Item(
                    found=probability is not None and point.correct(probability) >= point.thresholds[name],
                    placed=(name, index) in placed,
                    clutter_level=factors["clutter_level"],
                    concealment=factors["concealment"],
                    visible=pose["visible"],
                    size_px=float(np.sqrt(boxes[index].w * boxes[index].h)),
                )
            )
    return items


def item_slices(items: Sequence[Item]) -> dict[str, object]:
    """Return Pd and the share of well placed boxes of the threats in each slice."""
    return {
        "clutter_level": _by(items, lambda item: str(item.clutter_level)),
        "concealment": _by(items, lambda item: str(item.concealment)),
        "visible_share": _by(items, lambda item: bin_name(item.visible, VISIBLE_EDGES)),
        "box_size_px": _by(items, lambda item: bin_name(item.size_px, SIZE_EDGES_PX)),
    }


def bin_name(value: float, edges: Sequence[float]) -> str:
    """Return the half-open bin that a value lies in, such as "0.4-0.55" or "90-"."""
    at = min(int(np.searchsorted(edges, value, side="right")), len(edges) - 1)
    high = "" if at == len(edges) - 1 else f"{edges[at]:g}"
    return f"{edges[at - 1]:g}-{high}"


def _by(items: Sequence[Item], key: Callable[[Item], str]) -> dict[str, object]:
    slices: dict[str, list[Item]] = {}
    for item in items:
        slices.setdefault(key(item), []).append(item)
    return {
        name: {
            "pd": rounded(rate(sum(item.found for item in each), len(each))),
            "acc_at_iou_05": rounded(rate(sum(item.placed for item in each), len(each))),
        }
        for name, each in sorted(slices.items(), key=lambda entry: float(entry[0].split("-")[0]))
    }


def margins(table: ScoreTable, thresholds: Mapping[str, float]) -> FloatArray:
    """Return each bag's score as the package makes it: the largest margin over a threshold."""
    limits = np.array([thresholds[name] for name in table.categories])
    return (_filled(table) - limits).max(axis=1)


def _filled(table: ScoreTable) -> FloatArray:
    """Scores without holes: what could not be read counts as wrong."""
    wrong = np.where(np.any(table.present, axis=1, keepdims=True), 0.0, 1.0)
    return np.where(np.isnan(table.scores), wrong, table.scores)


def bag_slices(
    predictions: Sequence[ScanPrediction], records: Sequence[ScanRecord], point: OperatingPoint
) -> dict[str, object]:
    """Return the Pd of threat bags in each slice, at the one margin that flags at most 5 % of all clean bags."""
    table = score_table(predictions, point)
    scores = margins(table, point.thresholds)
    truth: BoolArray = np.any(table.present, axis=1)
    if truth.all() or not truth.any():
        return {}
    flagged = scores >= margin_at(scores, truth)
    factors = [record.factors or {} for record in records]
    best = [max((pose["visible"] for pose in each["threats"]), default=0.0) for each in factors]
    keys = {
        "clutter_level": [str(each["clutter_level"]) for each in factors],
        "concealment": [str(each["concealment"]) for each in factors],
        "num_threats": [str(len(record.categories)) for record in records],
        "visible_share_of_best_seen": [bin_name(value, VISIBLE_EDGES) for value in best],
        "profile": [record.source for record in records],
    }
    found: dict[str, object] = {}
    for name, values in keys.items():
        column = np.array(values)
        each = {
            value: rounded(rate(int(flagged[rows].sum()), int(rows.sum())))
            for value in sorted(set(values))
            if (rows := (column == value) & truth).any()
        }
        if name in ("clutter_level", "profile"):
            clean = {value: (column == value) & ~truth for value in each}
            each = {
                value: {"pd": pd, "pfa": rounded(rate(int(flagged[clean[value]].sum()), int(clean[value].sum())))}
                for value, pd in each.items()
            }
        found[name] = each
    return found


def margin_at(scores: FloatArray, truth: BoolArray, weights: FloatArray | None = None) -> float:
    """Return the lowest threshold that flags at most 5 % of the clean bags."""
    counted = np.ones(len(scores)) if weights is None else weights
    order = np.argsort(-scores, kind="stable")
    alarms = np.cumsum(np.where(truth, 0.0, counted)[order])
    allowed = PFA * np.where(truth, 0.0, counted).sum() + 1e-9
    too_many = np.flatnonzero(alarms > allowed)
    if not len(too_many):
        return float(scores.min())
    return float(np.nextafter(scores[order[too_many[0]]], np.inf))


def combining_rules(table: ScoreTable, thresholds: Mapping[str, float]) -> dict[str, object]:
    """Return what a bag's score is worth when it is made from the twenty probabilities in other ways.

    `fitted` is a logistic regression on probabilities and logits, each fifth of the bags judged by the other four:
    about what any rule could get out of these probabilities. Intervals are by bag and draw the threshold anew.
    """
    filled = _filled(table)
    truth: BoolArray = np.any(table.present, axis=1)
    if truth.all() or not truth.any():
        return {}
    p = np.clip(filled, 1e-6, 1 - 1e-6)
    limits = np.clip([thresholds[name] for name in table.categories], 1e-6, 1 - 1e-6)
    rules: dict[str, FloatArray] = {
        "largest_margin": margins(table, thresholds),
        "largest_logit_margin": (logit(p) - logit(limits)).max(axis=1),
        "largest_probability": p.max(axis=1),
        "noisy_or": -np.log1p(-p).sum(axis=1),
        "sum_of_logits": logit(p).sum(axis=1),
    }
    if min(truth.sum(), (~truth).sum()) >= FOLDS:
        rules["fitted"] = _cross_fitted(np.hstack([p, logit(p)]), truth)
    return {
        name: rounded(
            {
                "auc": over_groups(weighted_auc(scores, truth), table.groups, len(truth)),
                "pd_at_pfa_5": over_groups(
                    lambda w, s=scores: _weighted_pd(s, truth, w), table.groups, int(truth.sum()), draws=400
                ),
            }
        )
        for name, scores in rules.items()
    }


def _weighted_pd(scores: FloatArray, truth: BoolArray, weights: FloatArray) -> float:
    total = weights[truth].sum()
    if not total or not weights[~truth].sum():
        return float("nan")
    return float(weights[truth & (scores >= margin_at(scores, truth, weights))].sum() / total)


def _cross_fitted(features: FloatArray, truth: BoolArray) -> FloatArray:
    scaled = (features - features.mean(axis=0)) / (features.std(axis=0) + 1e-9)
    inputs = np.hstack([scaled, np.ones((len(scaled), 1))])
    fold = np.arange(len(truth)) % FOLDS
    scores = np.zeros(len(truth))
    for number in range(FOLDS):
        seen, held = fold != number, fold == number

        def loss(w: FloatArray, x: FloatArray = inputs[seen], y: BoolArray = truth[seen]) -> tuple[float, FloatArray]:
            z = x @ w
            value = float(np.mean(np.logaddexp(0, z) - y * z)) + RIDGE * float(w @ w)
            return value, x.T @ (expit(z) - y) / len(y) + 2 * RIDGE * w

        fitted = minimize(loss, np.zeros(inputs.shape[1]), jac=True, method="L-BFGS-B")
        scores[held] = inputs[held] @ fitted.x
    return scores


def reliability(table: ScoreTable, num_bins: int = 10) -> list[dict[str, float]]:
    """Return, for bins of the corrected probability, how many probes lie in it, their mean and how many are true."""
    usable = ~np.isnan(table.scores) & table.annotated
    scores, truth = table.scores[usable], table.truth[usable]
    bins = np.minimum((scores * num_bins).astype(int), num_bins - 1)
    return [
        {
            "probes": int((bins == number).sum()),
            "mean_probability": round(float(scores[bins == number].mean()), 4),
            "share_there": round(float(truth[bins == number].mean()), 4),
        }
        for number in range(num_bins)
        if (bins == number).any()
    ]
