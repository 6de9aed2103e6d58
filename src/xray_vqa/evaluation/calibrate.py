"""Fits how a model's raw scores are read: one correction for all categories and a threshold for each.

Measured on the development part of the training split, never on a test set. The correction is Platt's line in logit
space, held near "change nothing" by a prior, so that a handful of positives cannot bend it. A category's threshold is
the one of best F1, drawn towards the one that is best for all categories together, the more the fewer positives it has.
"""

import bisect
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit, logit

from xray_vqa.core.calibration import Calibration, write_calibration
from xray_vqa.errors import ConfigError, DatasetError
from xray_vqa.evaluation.records import OperatingPoint, ScanPrediction
from xray_vqa.evaluation.score import score_table
from xray_vqa.evaluation.metrics.ranking import counts_down
from xray_vqa.evaluation.metrics.screening import ScoreTable
from xray_vqa.inference.engine import EngineInfo

logger = logging.getLogger(__name__)

FEW_POSITIVES = 10
"""Fewer are said aloud."""
SHARED_POSITIVES = 50
"""A category with so many positives has a threshold half way between its own best one and the shared one.

The threshold of best F1 is a noisy thing: with 30 positives a category, nano's thresholds gave a micro F1 of 0.843 on
other scans when each was its own, 0.851 to 0.855 with 30 to 100 here (12 random halves of 1,200 simulated scans).
"""
MAX_CLEAN_FLAGGED = 0.2
"""At most this share of the clean development bags may be flagged by all thresholds together."""
MIN_CLEAN_BAGS = 20
"""With fewer, all development bags stand in for them, each without the categories that are in it."""
MIN_BAGS = 5
"""With fewer no such share can be measured."""
SCALE_SPREAD = 1.0
OFFSET_SPREAD = 2.0
"""Standard deviations of the prior on log(scale) and on the offset, around 0."""
_EDGE = 1e-9
"""Thresholds stay this far inside 0 to 1, where both logit and its inverse are exact enough."""

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class PlattLine:
    """`scale * logit(p) + offset`."""

    scale: float
    offset: float


def fit_line(probabilities: FloatArray, truth: BoolArray) -> PlattLine:
    """Return the correction that makes raw probabilities fit what is there.

    Maximises the posterior with Platt's smoothed targets (Platt 1999, (N+ + 1) / (N+ + 2) and 1 / (N- + 2)), log(scale)
    ~ N(0, 1) and offset ~ N(0, 2). Without both kinds there is nothing to fit and nothing is changed.
    """
    num_positive, num_negative = int(truth.sum()), int((~truth).sum())
    if not num_positive or not num_negative:
        return PlattLine(1.0, 0.0)
    z = logit(np.clip(probabilities, 1e-12, 1 - 1e-12))
    targets = np.where(truth, (num_positive + 1) / (num_positive + 2), 1 / (num_negative + 2))

    def loss(parameters: FloatArray) -> tuple[float, FloatArray]:
        scale, offset = math.exp(parameters[0]), parameters[1]
        logits = scale * z + offset
        value = float((np.logaddexp(0, logits) - targets * logits).sum())
        value += parameters[0] ** 2 / (2 * SCALE_SPREAD**2) + offset**2 / (2 * OFFSET_SPREAD**2)
        error = expit(logits) - targets
        gradient = np.array(
            [
                scale * float(error @ z) + parameters[0] / SCALE_SPREAD**2,
                float(error.sum()) + offset / OFFSET_SPREAD**2,
            ]
        )
        return value, gradient

    fitted = minimize(loss, np.zeros(2), jac=True, method="L-BFGS-B", bounds=[(-3, 3), (-12, 12)])
    return PlattLine(scale=math.exp(float(fitted.x[0])), offset=float(fitted.x[1]))


def best_f1_threshold(probabilities: FloatArray, truth: BoolArray) -> float | None:
    """Return the threshold of best F1, half way (in logits) to the next lower score; None without positives.

    Of equally good ones the lowest, which misses least.
    """
    num_positive = int(truth.sum())
    if not num_positive:
        return None
    levels = np.unique(probabilities)
    hits, alarms = (counts[::-1] for counts in counts_down(probabilities, truth))  # lowest level first
    f1 = 2 * hits / (hits + alarms + num_positive)
    index = int(np.flatnonzero(f1 >= f1.max() - 1e-12)[0])
    below = levels[index - 1] if index else None
    return between(None if below is None else float(below), float(levels[index]))


def between(lower: float | None, upper: float) -> float:
    """Return a threshold t with lower < t <= upper, half way in logits; one logit under `upper` without a lower."""
    top = float(logit(np.clip(upper, _EDGE, 1 - _EDGE)))
    bottom = top - 2 if lower is None else float(logit(np.clip(lower, _EDGE, 1 - _EDGE)))
    middle = float(expit((top + bottom) / 2))
    return middle if (lower is None or lower < middle) and middle <= upper else upper


def shrunk(own: float | None, shared: float, num_positive: int) -> float:
    """Return a category's threshold drawn towards the shared one, in logits, the more the fewer positives it has."""
    if own is None:
        return shared
    weight = num_positive / (num_positive + SHARED_POSITIVES)
    return float(expit(weight * logit(own) + (1 - weight) * logit(shared)))


def raise_to_floor(thresholds: FloatArray, clean: FloatArray, share: float = MAX_CLEAN_FLAGGED) -> FloatArray:
    """Return thresholds that flag at most `share` of the clean bags together, raised where they have to be.

    First no category alone may flag more than that share, so that one that cannot tell clean bags apart does not set
    the rest; then one floor under all thresholds rises until they flag few enough. One number is all that a few bags
    can carry: a floor of its own for each category would be the noise of its highest clean score.

    Args:
        thresholds: (categories,) float64.
        clean: (bags, categories) float64, corrected scores of clean bags; NaN where there is none.
        share: Of the bags.
    """
    allowed = math.floor(share * len(clean) + 1e-9)
    if allowed >= len(clean):
        return thresholds
    filled = np.where(np.isnan(clean), -1.0, clean)
    highest_first = -np.sort(-filled, axis=0)
    alone = [just_above(float(column[allowed]), column) for column in highest_first.T]
    too_many = (filled >= thresholds).sum(axis=0) > allowed
    raised = np.where(too_many, np.maximum(thresholds, alone), thresholds)

    def num_flagged(floor: float) -> int:
        return int((filled >= np.maximum(raised, floor)).any(axis=1).sum())

    flagged = np.unique(filled[filled >= raised])
    floors = [0.0, *(just_above(float(level), flagged) for level in flagged)]
    # Flagging falls as the floor rises, and the last floor stands above every clean score.
    chosen = bisect.bisect_left(range(len(floors) - 1), 1, key=lambda index: int(num_flagged(floors[index]) <= allowed))
    return np.maximum(raised, floors[chosen])


def just_above(level: float, scores: FloatArray) -> float:
    """Return a threshold over `level`: half way to the next higher score, or half a logit up where there is none."""
    if level < 0:
        return 0.0
    higher = scores[scores > level]
    if len(higher):
        return between(level, float(higher.min()))
    over = max(float(expit(logit(np.clip(level, _EDGE, 1 - _EDGE)) + 0.5)), float(np.nextafter(level, 1.0)))
    return min(over, float(np.nextafter(1.0, 0.0)))


def fit_calibration(
    predictions: Sequence[ScanPrediction], info: EngineInfo, measured_on: str, *, simulated: bool
) -> Calibration:
    """Return the calibration of an engine from its predictions on the development scans.

    A category that the model does not cover or the dataset does not annotate gets no threshold.

    Raises:
        DatasetError: The model covers categories, and none of them is among the scans with a usable score. A
            calibration file would say that the model was calibrated, and it was not.
    """
    raw = _raw_table(predictions)
    usable = raw.annotated & ~np.isnan(raw.scores)
    line = fit_line(raw.scores[usable], raw.truth[usable])
    correction = Calibration(
        identity=info.identity, scale=line.scale, offset=line.offset, thresholds={}, measured_on="", num_scans=0
    )
    corrected = np.full(raw.scores.shape, np.nan)
    corrected[usable] = [correction.correct(value) for value in raw.scores[usable]]
    covered = [column for column, name in enumerate(raw.categories) if name in info.covered_categories]
    positives = {name: int(raw.present[:, column].sum()) for column, name in enumerate(raw.categories)}
    thresholds, notes = _thresholds(raw, corrected, usable, covered)
    notes += _notes_on(raw, usable, covered, positives, info)
    return Calibration(
        identity=info.identity,
        scale=line.scale,
        offset=line.offset,
        thresholds=thresholds,
        measured_on=measured_on,
        num_scans=len(predictions),
        simulated=simulated,
        num_positives=positives,
        notes=notes,
    )


def save_calibration(model_dir: Path, calibration: Calibration) -> Path:
    """Write a calibration beside the weights it was measured on. Raises ConfigError where that cannot be."""
    try:
        path = write_calibration(model_dir, calibration)
    except OSError as error:
        raise ConfigError(
            f"{model_dir}: the calibration cannot be written beside the weights ({error.strerror}); "
            "copy the model to a folder of yours and give its path"
        ) from error
    logger.info(
        "%s: scale %.3f, offset %+.3f, thresholds for %d categories, from %s",
        path, calibration.scale, calibration.offset, len(calibration.thresholds), calibration.measured_on,
    )  # fmt: skip
    for note in calibration.notes:
        logger.warning("%s: %s", path, note)
    return path


def _raw_table(predictions: Sequence[ScanPrediction]) -> ScoreTable:
    names = list(dict.fromkeys(name for p in predictions for name in p.annotated_categories))
    return score_table(
        predictions, OperatingPoint(thresholds=dict.fromkeys(names, 0.5), origins=dict.fromkeys(names, "default"))
    )


def _thresholds(
    raw: ScoreTable, corrected: FloatArray, usable: BoolArray, covered: Sequence[int]
) -> tuple[dict[str, float], list[str]]:
    if not covered:
        return {}, ["the model covers no category that is annotated here; no threshold was set"]
    cells = usable[:, covered]
    shared = best_f1_threshold(corrected[:, covered][cells], raw.truth[:, covered][cells])
    if shared is None:
        raise DatasetError(
            f"nothing to calibrate on: of {len(raw.groups)} development scans none has an item that the model covers "
            f"and a score that can be read ({int((raw.annotated & ~usable).sum())} scores could not)"
        )
    chosen: list[float] = []
    for column in covered:
        rows = usable[:, column]
        own = best_f1_threshold(corrected[rows, column], raw.truth[rows, column])
        chosen.append(shrunk(own, shared, int(raw.truth[rows, column].sum())))
    before = np.array(chosen)
    notes: list[str] = []
    quiet = np.where(usable & ~raw.present, corrected, np.nan)[:, covered]
    is_bag = ~raw.unlisted & usable.any(axis=1)
    is_clean = is_bag & ~raw.present.any(axis=1)
    if is_clean.sum() < MIN_CLEAN_BAGS:
        notes.append(
            f"{int(is_clean.sum())} clean development bags are few to hold down false alarms; all {int(is_bag.sum())} "
            "bags stood in for them, each without the categories that are in it"
        )
        is_clean = is_bag
    if is_clean.sum() < MIN_BAGS:
        return _by_name(raw, covered, before), ["too few development bags to hold down false alarms"]
    clean = quiet[is_clean]
    after = raise_to_floor(before, clean)
    raised = [raw.categories[column] for column, a, b in zip(covered, before, after, strict=True) if b > a]
    if raised:
        notes.append(f"raised to flag at most {MAX_CLEAN_FLAGGED:.0%} of clean bags: {', '.join(raised)}")
    return _by_name(raw, covered, after), notes


def _by_name(raw: ScoreTable, covered: Sequence[int], thresholds: FloatArray) -> dict[str, float]:
    return {raw.categories[column]: float(value) for column, value in zip(covered, thresholds, strict=True)}


def _notes_on(
    raw: ScoreTable, usable: BoolArray, covered: Sequence[int], positives: dict[str, int], info: EngineInfo
) -> list[str]:
    notes: list[str] = []
    names = [raw.categories[column] for column in covered]
    few = [f"{name} ({positives[name]})" for name in names if positives[name] < FEW_POSITIVES]
    if few:
        notes.append(f"fewer than {FEW_POSITIVES} positives, close to the shared threshold: {', '.join(few)}")
    without = [name for name in info.covered_categories if name not in names]
    if without:
        notes.append(f"covered by the model but not annotated here, without a threshold: {', '.join(without)}")
    unused = int((raw.annotated & ~usable).sum())
    if unused:
        notes.append(f"{unused} scores could not be read and were left out of the fit")
    return notes
