"""Where a model is weak: detection by what made a bag or an item hard, at the thresholds in force.

Slices come from what the predictions carry. A factor that no scan tells is absent, and a scan or item that does not tell
one is in none of its slices.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from xray_vqa.evaluation.metrics.intervals import rate_over_groups
from xray_vqa.evaluation.records import OperatingPoint, ScanPrediction, TruthItem
from xray_vqa.evaluation.results import SliceScores

SHARE_EDGES = (0.0, 0.25, 0.5, 0.75, 1.0)
SIZE_EDGES = (0.0, 0.05, 0.1, 0.2, 1.0)
"""Of the square root of the box's share of the image."""
BAG_FACTORS = ("clutter_level", "concealment", "view")
"""Of the scan's `factors`, those that sort bags by difficulty; others, as a seed, only tell them apart."""
MAX_VALUES = 40
"""A factor with more values is no slice."""


@dataclass(frozen=True, slots=True)
class _Case:
    """A threat, a clean bag or an item: which scan and bag it is of, and whether it was flagged."""

    scan: int
    group: str
    is_threat: bool
    flagged: bool


def score_slices(predictions: Sequence[ScanPrediction], point: OperatingPoint) -> dict[str, list[SliceScores]]:
    """Return Pd, and for factors of bags Pfa, of each value of each factor."""
    slices: dict[str, dict[str, list[_Case]]] = defaultdict(lambda: defaultdict(list))
    for number, prediction in enumerate(predictions):
        _add_bag(slices, number, prediction, point)
        for item in prediction.truth:
            if item.category in prediction.annotated_categories and item.category in point.thresholds:
                case = _Case(number, prediction.group, True, _is_flagged(prediction, item.category, point, there=True))
                for factor, of in _ITEM_FACTORS.items():
                    if (value := of(prediction, item)) is not None:
                        slices[factor][value].append(case)
    return {
        factor: [_scores(value, values[value]) for value in sorted(values, key=_in_order)]
        for factor, values in sorted(slices.items())
        if len(values) <= MAX_VALUES
    }


def _add_bag(
    slices: Mapping[str, dict[str, list[_Case]]], number: int, prediction: ScanPrediction, point: OperatingPoint
) -> None:
    names = [name for name in prediction.annotated_categories if name in point.thresholds]
    is_threat = any(name in prediction.present for name in names)
    if not names or (not is_threat and prediction.num_unlisted):
        return
    flagged = any(_is_flagged(prediction, name, point, there=is_threat) for name in names)
    case = _Case(number, prediction.group, is_threat, flagged)
    values = {f"bag {name}": str(prediction.factors[name]) for name in BAG_FACTORS if name in prediction.factors}
    if prediction.source:
        values["source"] = prediction.source
    values["number of items"] = str(len(prediction.truth))
    for factor, value in values.items():
        slices[factor][value].append(case)


def _is_flagged(prediction: ScanPrediction, name: str, point: OperatingPoint, *, there: bool) -> bool:
    """Return whether a category is flagged; without a usable score, what counts as wrong."""
    probability = prediction.probability(name)
    return not there if probability is None else point.correct(probability) >= point.thresholds[name]


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


def _scores(value: str, cases: Sequence[_Case]) -> SliceScores:
    threats = [case for case in cases if case.is_threat]
    clean = [case for case in cases if not case.is_threat]
    return SliceScores(
        value=value,
        num_scans=len({case.scan for case in cases}),
        pd=rate_over_groups([case.flagged for case in threats], [case.group for case in threats]),
        pfa=rate_over_groups([case.flagged for case in clean], [case.group for case in clean]),
    )
