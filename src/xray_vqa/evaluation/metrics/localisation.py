"""Boxes against boxes: how well items were placed, and COCO's average precision of scored boxes."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from xray_vqa.core.geometry import Box
from xray_vqa.evaluation.metrics.bootstrap import DRAWS, FloatArray, ratios_over_groups
from xray_vqa.evaluation.results import DetectionScores, LocalisationScores

IOU_FROM = 0.5
IOU_LEVELS = (0.3, 0.5, 0.7)
COCO_IOUS = tuple(round(0.5 + 0.05 * step, 2) for step in range(10))
_LEVELS = np.array(COCO_IOUS) - 1e-10
"""As pycocotools compares."""
_RECALLS = np.linspace(0, 1, 101)
_MAX_BOXES = 100
"""A category and scan, as COCO has it."""


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
    category: str = ""
    score: float | None = None
    """That all predicted boxes share: the category's corrected probability."""


def score_localisation(placed: Sequence[PlacedCategory], *, draws: int = DRAWS) -> LocalisationScores:
    """Return how well boxes were placed. Scans whose source names a category without a box are not passed in."""
    ious = [[iou for _, _, iou in match_boxes(item.predicted, item.annotated)] for item in placed]
    num_annotated = sum(len(item.annotated) for item in placed)
    num_predicted = sum(len(item.predicted) for item in placed)
    above = np.array(
        [[sum(iou >= level for iou in each) for level in IOU_LEVELS] + [sum(each)] for each in ious], dtype=float
    ).reshape(-1, len(IOU_LEVELS) + 1)
    below = np.repeat(np.array([[len(item.annotated)] for item in placed], dtype=float).reshape(-1, 1), 4, axis=1)
    *rates, mean_iou = ratios_over_groups(
        above, below, [item.group for item in placed], [num_annotated] * below.shape[1], draws=draws
    )
    at_iou = {f"{level:g}": estimate for level, estimate in zip(IOU_LEVELS, rates, strict=True)}
    num_met = sum(iou >= IOU_FROM for each in ious for iou in each)
    return LocalisationScores(
        accuracy=at_iou[f"{IOU_FROM:g}"],
        mean_iou=mean_iou.value,
        num_predicted=num_predicted,
        precision=num_met / num_predicted if num_predicted else None,
        accuracy_at_iou=at_iou,
        mean_iou_estimate=mean_iou,
        average_precision=detection_scores(placed),
    )


def detection_scores(placed: Sequence[PlacedCategory]) -> DetectionScores | None:
    """Return COCO's mean average precision (Lin et al. 2014; pycocotools' numbers), None where no box has a score.

    Boxes of one category and scan share a score and keep the order in which the engine gave them.
    """
    by_category: dict[str, list[PlacedCategory]] = defaultdict(list)
    for item in placed:
        by_category[item.category].append(item)
    if all(item.score is None for item in placed if item.predicted):
        return None
    found = {
        name: precisions
        for name, items in sorted(by_category.items())
        if (precisions := _average_precisions(items)) is not None
    }
    means = np.mean(list(found.values()), axis=0) if found else None
    return DetectionScores(
        map=None if means is None else float(means.mean()),
        map_50=None if means is None else float(means[COCO_IOUS.index(0.5)]),
        map_75=None if means is None else float(means[COCO_IOUS.index(0.75)]),
        by_category={name: float(values.mean()) for name, values in found.items()},
    )


def _average_precisions(items: Sequence[PlacedCategory]) -> FloatArray | None:
    """Return the average precision of one category at each of `COCO_IOUS`; None where nothing is annotated."""
    num_annotated = sum(len(item.annotated) for item in items)
    if not num_annotated:
        return None
    scores: list[float] = []
    met: list[FloatArray] = []
    for item in items:
        if item.score is not None and item.predicted:
            kept = item.predicted[:_MAX_BOXES]
            scores += [item.score] * len(kept)
            met.append(_met(kept, item.annotated))
    if not met:
        return np.zeros(len(COCO_IOUS))
    order = np.argsort(-np.array(scores), kind="mergesort")
    hits = np.cumsum(np.vstack(met)[order], axis=0)
    precision = hits / np.arange(1, len(order) + 1)[:, None]
    precision = np.maximum.accumulate(precision[::-1], axis=0)[::-1]
    recall = hits / num_annotated
    return np.array([_interpolated(recall[:, at], precision[:, at]) for at in range(len(COCO_IOUS))])


def _met(predicted: Sequence[Box], annotated: Sequence[Box]) -> FloatArray:
    """Return (boxes, IoU levels), 1 where a box meets one not yet taken; each takes the best that is left."""
    met = np.zeros((len(predicted), len(COCO_IOUS)))
    if not annotated:
        return met
    overlaps = np.array([[box.iou(other) for other in annotated] for box in predicted])
    if overlaps.size == 1:  # most often, and then nothing has to be shared out
        return (overlaps >= _LEVELS).astype(float)
    for at, level in enumerate(_LEVELS):
        free = np.ones(len(annotated), dtype=bool)
        for row, overlap in enumerate(overlaps):
            left = np.where(free, overlap, -1.0)
            best = len(left) - 1 - int(np.argmax(left[::-1]))  # of equal ones the last, as COCO's loop takes
            if left[best] >= level:
                free[best] = False
                met[row, at] = 1
    return met


def _interpolated(recall: FloatArray, precision: FloatArray) -> float:
    at = np.searchsorted(recall, _RECALLS, side="left")
    return float(np.append(precision, 0.0)[at].mean())
