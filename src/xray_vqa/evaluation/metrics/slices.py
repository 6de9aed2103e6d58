"""Where a model is weak: detection by what made a bag or an item hard, at the thresholds in force.

Slices come from what the predictions carry. A factor that no scan tells is absent, and a scan or item that does not
tell one is in none of its slices.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from xray_vqa.evaluation.metrics.bootstrap import FloatArray
from xray_vqa.evaluation.metrics.intervals import rate_over_groups
from xray_vqa.evaluation.metrics.ranking import BoolArray
from xray_vqa.evaluation.metrics.screening import ScoreTable, bag_table
from xray_vqa.evaluation.records import ScanPrediction, TruthItem
from xray_vqa.evaluation.results import SliceScores

SHARE_EDGES = (0.0, 0.25, 0.5, 0.75, 1.0)
SIZE_EDGES = (0.0, 0.05, 0.1, 0.2, 1.0)
"""Of the square root of the box's share of the image."""
BAG_FACTORS = ("clutter_level", "concealment", "view")
"""Of the scan's `factors`, those that sort bags by difficulty; others, as a seed, only tell them apart."""
MAX_VALUES = 40
"""A factor with more values is no slice."""


@dataclass(frozen=True, slots=True)
class _Cases:
    """Bags or items, and which of them have which value of a factor."""

    scans: NDArray[np.integer]
    groups: NDArray[np.integer]
    threats: BoolArray
    flagged: BoolArray
    factors: Mapping[str, Mapping[str, list[int]]]

    def scores(self, value: str, cases: Sequence[int]) -> SliceScores:
        groups, threats, flagged = self.groups[cases], self.threats[cases], self.flagged[cases]
        return SliceScores(
            value=value,
            num_scans=len(np.unique(self.scans[cases])),
            pd=rate_over_groups(flagged[threats], groups[threats]),
            pfa=rate_over_groups(flagged[~threats], groups[~threats]),
        )


def score_slices(
    predictions: Sequence[ScanPrediction], table: ScoreTable, thresholds: Mapping[str, float]
) -> dict[str, list[SliceScores]]:
    """Return Pd, and for factors of bags Pfa, of each value of each factor.

    Args:
        predictions: Scans, with what is told of them.
        table: Their corrected scores.
        thresholds: By category.
    """
    limits = np.array([thresholds[name] for name in table.categories])
    parts = (_bags(predictions, table, limits), _items(predictions, table, limits))
    return {
        factor: [
            part.scores(value, part.factors[factor][value]) for value in sorted(part.factors[factor], key=_in_order)
        ]
        for factor, part in sorted((factor, part) for part in parts for factor in part.factors)
        if len(part.factors[factor]) <= MAX_VALUES
    }


def _bags(predictions: Sequence[ScanPrediction], table: ScoreTable, limits: FloatArray) -> _Cases:
    bags = bag_table(table, limits)
    scans = np.flatnonzero(bags.counted)
    factors: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for case, scan in enumerate(scans.tolist()):
        prediction = predictions[scan]
        values = {f"bag {name}": str(prediction.factors[name]) for name in BAG_FACTORS if name in prediction.factors}
        if prediction.source:
            values["source"] = prediction.source
        values["number of items"] = str(len(prediction.truth))
        for factor, value in values.items():
            factors[factor][value].append(case)
    return _Cases(scans, bags.groups, bags.truth, bags.flagged, factors)


def _items(predictions: Sequence[ScanPrediction], table: ScoreTable, limits: FloatArray) -> _Cases:
    column_of = {name: column for column, name in enumerate(table.categories)}
    places: list[tuple[int, int]] = []
    factors: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for scan, prediction in enumerate(predictions):
        for item in prediction.truth:
            column = column_of.get(item.category)
            if column is None or not table.annotated[scan, column]:
                continue
            for factor, of in _ITEM_FACTORS.items():
                if (value := of(prediction, item)) is not None:
                    factors[factor][value].append(len(places))
            places.append((scan, column))
    scans, columns = np.array(places, dtype=np.intp).reshape(-1, 2).T
    flagged = table.flagged(limits)[scans, columns]
    return _Cases(scans, table.groups[scans], np.ones(len(places), dtype=bool), flagged, factors)


def _binned(value: float | None, edges: Sequence[float]) -> str | None:
    if value is None or not math.isfinite(value):
        return None
    at = next((k for k in range(1, len(edges) - 1) if value < edges[k]), len(edges) - 1)
    return f"{edges[at - 1]:g} to {edges[at]:g}"


def _size(prediction: ScanPrediction, item: TruthItem) -> str | None:
    if item.box is None:
        return None
    return _binned(math.sqrt(item.box[2] * item.box[3] / (prediction.width * prediction.height)), SIZE_EDGES)


_ITEM_FACTORS: Mapping[str, Callable[[ScanPrediction, TruthItem], str | None]] = {
    "item visible share": lambda _, item: _binned(item.visible, SHARE_EDGES),
    "item occlusion": lambda _, item: _binned(item.occlusion, SHARE_EDGES),
    "item size": _size,
}


def _in_order(value: str) -> tuple[float, str]:
    try:
        return float(value.split(" ")[0]), value
    except ValueError:
        return math.inf, value
