"""Fits how a model's raw scores are read: one correction for all categories, and a threshold and a limit of doubt each.

Measured on the development part of the training split, never on a test set. The correction is Platt's line in logit
space, held near "change nothing" by a prior, so that a handful of positives cannot bend it; or isotonic, for those who
have thousands of scores. A category's threshold is the one of best F1, drawn towards the one that is best for all
categories together, the more the fewer positives it has; or the highest one that proves a wanted Pd. Below it a score
is `unsure` as long as the item may well be there, by split conformal prediction (docs/decisions/0020).
"""

import bisect
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy.optimize import isotonic_regression, minimize
from scipy.special import expit, logit

from xray_vqa.core.calibration import Calibration, write_calibration
from xray_vqa.core.records import Strict
from xray_vqa.errors import ConfigError, DatasetError
from xray_vqa.evaluation.metrics.intervals import lower_bound, trials_to_prove
from xray_vqa.evaluation.metrics.ranking import counts_down
from xray_vqa.evaluation.metrics.screening import ScoreTable
from xray_vqa.evaluation.records import OperatingPoint, ScanPrediction
from xray_vqa.evaluation.score import score_table
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
"""At most this share of the clean development bags is flagged by all thresholds together, if no other is wanted."""
FEW_SCORES = 1000
"""Isotonic regression bends after single scores with fewer (Niculescu-Mizil and Caruana 2005)."""
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


class CalibrationAim(Strict):
    """How scores are corrected, and what the thresholds are to be good for."""

    method: Literal["temperature", "isotonic"] = "temperature"
    target_pd: float | None = Field(default=None, gt=0, lt=1)
    """Of each category, which its threshold has to prove; unset: thresholds of best F1."""
    confidence: float = Field(default=0.95, gt=0, lt=1)
    """Of that proof, one-sided."""
    target_pfa: float = Field(default=MAX_CLEAN_FLAGGED, gt=0, le=1)
    """Share of the clean bags that all thresholds of best F1 together may flag at most."""
    unsure_error: float = Field(default=0.05, gt=0, lt=1)
    """Share of the bags with an item that may score below what is called unsure."""


@dataclass(frozen=True, slots=True)
class PlattLine:
    """`scale * logit(p) + offset`."""

    scale: float
    offset: float


def fit_line(probabilities: FloatArray, truth: BoolArray) -> PlattLine:
    """Return the correction that makes raw probabilities fit what is there.

    Maximises the posterior with Platt's smoothed targets, log(scale) ~ N(0, 1) and offset ~ N(0, 2). Without both kinds
    there is nothing to fit and nothing is changed.
    """
    if truth.all() or not truth.any():
        return PlattLine(1.0, 0.0)
    z = logit(np.clip(probabilities, 1e-12, 1 - 1e-12))
    targets = _smoothed(truth)

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


def fit_knots(probabilities: FloatArray, truth: BoolArray) -> list[tuple[float, float]]:
    """Return (raw, corrected) logits of an isotonic correction, both rising; none where there is nothing to fit.

    Pool-adjacent-violators on Platt's smoothed targets, which keeps every level inside 0 to 1. Each pool stands at the
    mean of its raw logits; straight lines between the pools keep the order of scores that one step would make equal.
    """
    if truth.all() or not truth.any():
        return []
    raw, at, counts = np.unique(
        logit(np.clip(probabilities, 1e-12, 1 - 1e-12)), return_inverse=True, return_counts=True
    )
    pooled = isotonic_regression(np.bincount(at, _smoothed(truth)) / counts, weights=counts).x
    levels, pool = np.unique(np.round(logit(pooled), 6), return_inverse=True)
    centres = np.bincount(pool, raw * counts) / np.bincount(pool, counts)
    return list(zip(centres.tolist(), levels.tolist(), strict=True))


def _smoothed(truth: BoolArray) -> FloatArray:
    """Platt's targets (1999): (N+ + 1) / (N+ + 2) where the item is there, 1 / (N- + 2) where it is not."""
    num_positive, num_negative = int(truth.sum()), int((~truth).sum())
    return np.where(truth, (num_positive + 1) / (num_positive + 2), 1 / (num_negative + 2))


def proving_threshold(positives: FloatArray, target_pd: float, confidence: float) -> float | None:
    """Return the highest threshold that proves a Pd; None where so few positives prove it with no threshold.

    It lies under the k-th lowest score, k fixed by the number of scores alone: the largest k whose k - 1 misses leave
    Clopper and Pearson's lower bound at the target. The share of all bags that score below the k-th of n follows
    Beta(k, n - k + 1), from which that bound is made, so that the claim holds for a threshold chosen on these scores.

    Args:
        positives: (bags,) float64, the lowest score of each bag with the item.
        target_pd: Share of all such bags that the threshold has to flag.
        confidence: One-sided; at most 1 - confidence of such sets of bags give a threshold that flags fewer.
    """
    ordered, n = np.sort(positives), len(positives)
    if lower_bound(n, n, confidence) < target_pd:
        return None
    misses = bisect.bisect_left(range(1, n), 1, key=lambda k: int(lower_bound(n - k, n, confidence) < target_pd))
    return between(float(ordered[misses - 1]) if misses else None, float(ordered[misses]))


def unsure_limit(positives: FloatArray, error: float) -> float | None:
    """Return the score below which an item is implausible; None where so few positives cannot tell.

    By split conformal prediction within the class (Vovk 2012): the item is plausible in a new bag while
    (1 + number of positives that score no higher) / (1 + n) exceeds `error`. Over positives and new bag drawn together,
    at most this share of the bags with the item lies below the limit. It takes 1 / error - 1 positives: 19 for 0.05.
    """
    rank = math.floor(error * (len(positives) + 1) + 1e-9)
    return float(np.sort(positives)[rank - 1]) if rank else None


def lowest_by_group(scores: FloatArray, groups: Sequence[str]) -> FloatArray:
    """Return the lowest score of each group, (groups,) float64: several scans of one bag are one observation."""
    lowest: dict[str, float] = {}
    for value, group in zip(scores.tolist(), groups, strict=True):
        lowest[group] = min(value, lowest.get(group, value))
    return np.array(list(lowest.values()))


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
    predictions: Sequence[ScanPrediction],
    info: EngineInfo,
    measured_on: str,
    *,
    simulated: bool,
    aim: CalibrationAim | None = None,
) -> Calibration:
    """Return the calibration of an engine from its predictions on the development scans.

    A category that the model does not cover or the dataset does not annotate gets no threshold; nor does one that too
    few bags hold to prove a wanted Pd.

    Raises:
        DatasetError: The model covers categories, and none of them is among the scans with a usable score. A
            calibration file would say that the model was calibrated, and it was not.
    """
    aim = aim or CalibrationAim()
    raw = _raw_table(predictions)
    usable = raw.annotated & ~np.isnan(raw.scores)
    scores, truth = raw.scores[usable], raw.truth[usable]
    line = PlattLine(1.0, 0.0) if aim.method == "isotonic" else fit_line(scores, truth)
    correction = Calibration(
        identity=info.identity,
        scale=line.scale,
        offset=line.offset,
        knots=fit_knots(scores, truth) if aim.method == "isotonic" else [],
        thresholds={},
        unsure_error=aim.unsure_error,
        target_pd=aim.target_pd,
        confidence=None if aim.target_pd is None else aim.confidence,
        measured_on=measured_on,
        num_scans=len(predictions),
        simulated=simulated,
        num_positives={name: int(raw.present[:, column].sum()) for column, name in enumerate(raw.categories)},
    )
    corrected = np.full(raw.scores.shape, np.nan)
    corrected[usable] = [correction.correct(value) for value in scores]
    covered = [column for column, name in enumerate(raw.categories) if name in info.covered_categories]
    positives = {column: _positives(raw, corrected, usable, column) for column in covered}
    if covered and not any(map(len, positives.values())):
        raise DatasetError(
            f"nothing to calibrate on: of {len(raw.groups)} development scans none has an item that the model covers "
            f"and a score that can be read ({int((raw.annotated & ~usable).sum())} scores could not)"
        )
    notes: list[str] = []
    if aim.method == "isotonic" and len(scores) < FEW_SCORES:
        notes.append(f"isotonic from {len(scores)} scores bends after single ones; `temperature` is safer below 1,000")
    if aim.target_pd is None:
        thresholds, told = _thresholds(raw, corrected, usable, covered, aim.target_pfa)
    else:
        thresholds, told = _proving_thresholds(raw, positives, aim.target_pd, aim.confidence)
    limits = {column: unsure_limit(scores, aim.unsure_error) for column, scores in positives.items()}
    known = {raw.categories[column]: limit for column, limit in limits.items() if limit is not None}
    notes += [*told, *_notes_on(raw, usable, covered, info)]
    few = [f"{raw.categories[c]} ({len(positives[c])})" for c, limit in limits.items() if limit is None]
    if few:
        needed = math.ceil(1 / aim.unsure_error - 1 - 1e-9)
        notes.append(
            f"in too few bags to say which score rules it out ({needed} are needed), so that no bag can be cleared: "
            f"{', '.join(few)}"
        )
    calibration = correction.model_copy(update={"thresholds": thresholds, "unsure_from": known})
    notes.append(_outcome(raw, corrected, usable, covered, calibration))
    return calibration.model_copy(update={"notes": notes})


def save_calibration(model_dir: Path, calibration: Calibration) -> Path:
    """Write a calibration beside the weights it was measured on. Raises ConfigError where that cannot be."""
    try:
        path = write_calibration(model_dir, calibration)
    except OSError as error:
        raise ConfigError(
            f"{model_dir}: the calibration cannot be written beside the weights ({error.strerror}); "
            "copy the model to a folder of yours and give its path"
        ) from error
    how = f"isotonic, {len(calibration.knots)} knots"
    if not calibration.knots:
        how = f"scale {calibration.scale:.3f}, offset {calibration.offset:+.3f}"
    num = len(calibration.thresholds)
    logger.info("%s: %s, thresholds for %d categories, from %s", path, how, num, calibration.measured_on)
    for note in calibration.notes:
        logger.warning("%s: %s", path, note)
    return path


def _raw_table(predictions: Sequence[ScanPrediction]) -> ScoreTable:
    names = list(dict.fromkeys(name for p in predictions for name in p.annotated_categories))
    return score_table(
        predictions, OperatingPoint(thresholds=dict.fromkeys(names, 0.5), origins=dict.fromkeys(names, "default"))
    )


def _positives(raw: ScoreTable, corrected: FloatArray, usable: BoolArray, column: int) -> FloatArray:
    there = raw.truth[:, column] & usable[:, column]
    groups = [group for group, is_there in zip(raw.groups, there, strict=True) if is_there]
    return lowest_by_group(corrected[there, column], groups)


def _proving_thresholds(
    raw: ScoreTable, positives: dict[int, FloatArray], target_pd: float, confidence: float
) -> tuple[dict[str, float], list[str]]:
    found = {column: proving_threshold(scores, target_pd, confidence) for column, scores in positives.items()}
    unproven = [f"{raw.categories[c]} ({len(positives[c])})" for c, threshold in found.items() if threshold is None]
    notes: list[str] = []
    if unproven:
        needed = trials_to_prove(target_pd, 0, confidence)
        notes.append(
            f"in too few bags to claim Pd {target_pd:g} at {confidence:.0%} confidence ({needed} are needed), so that "
            f"it has no threshold and no bag can be cleared: {', '.join(unproven)}"
        )
    return {raw.categories[c]: threshold for c, threshold in found.items() if threshold is not None}, notes


def _outcome(
    raw: ScoreTable, corrected: FloatArray, usable: BoolArray, covered: Sequence[int], calibration: Calibration
) -> str:
    """What becomes of the development scans that the calibration was fitted on, in words."""
    names = [raw.categories[column] for column in covered]
    limits = np.array([calibration.thresholds.get(name, np.inf) for name in names])
    doubts = np.array([calibration.unsure_from[name] if calibration.may_clear(name) else 0.0 for name in names])
    scores = np.where(usable, corrected, np.nan)[:, covered]
    flagged = (scores >= limits).any(axis=1)
    unsure = (scores >= doubts).any(axis=1) & ~flagged
    threat = raw.present[:, covered].any(axis=1)
    clean = ~raw.present.any(axis=1) & ~raw.unlisted
    return (
        f"of {int(clean.sum())} clean development scans these thresholds flag {int((clean & flagged).sum())} and leave "
        f"{int((clean & unsure).sum())} more unsure; of {int(threat.sum())} with an item "
        f"{int((threat & flagged).sum())} and {int((threat & unsure).sum())}"
    )


def _thresholds(
    raw: ScoreTable, corrected: FloatArray, usable: BoolArray, covered: Sequence[int], target_pfa: float
) -> tuple[dict[str, float], list[str]]:
    if not covered:
        return {}, ["the model covers no category that is annotated here; no threshold was set"]
    cells = usable[:, covered]
    shared = best_f1_threshold(corrected[:, covered][cells], raw.truth[:, covered][cells])
    assert shared is not None, "the caller looks for positives"
    chosen: list[float] = []
    for column in covered:
        rows = usable[:, column]
        own = best_f1_threshold(corrected[rows, column], raw.truth[rows, column])
        chosen.append(shrunk(own, shared, int(raw.truth[rows, column].sum())))
    before = np.array(chosen)
    notes: list[str] = []
    counts = {raw.categories[column]: int(raw.present[:, column].sum()) for column in covered}
    few = [f"{name} ({count})" for name, count in counts.items() if count < FEW_POSITIVES]
    if few:
        notes.append(f"fewer than {FEW_POSITIVES} positives, close to the shared threshold: {', '.join(few)}")
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
        return _by_name(raw, covered, before), [*notes, "too few development bags to hold down false alarms"]
    clean = quiet[is_clean]
    after = raise_to_floor(before, clean, target_pfa)
    raised = [raw.categories[column] for column, a, b in zip(covered, before, after, strict=True) if b > a]
    if raised:
        notes.append(f"raised to flag at most {target_pfa:.0%} of clean bags: {', '.join(raised)}")
    return _by_name(raw, covered, after), notes


def _by_name(raw: ScoreTable, covered: Sequence[int], thresholds: FloatArray) -> dict[str, float]:
    return {raw.categories[column]: float(value) for column, value in zip(covered, thresholds, strict=True)}


def _notes_on(raw: ScoreTable, usable: BoolArray, covered: Sequence[int], info: EngineInfo) -> list[str]:
    notes: list[str] = []
    names = [raw.categories[column] for column in covered]
    without = [name for name in info.covered_categories if name not in names]
    if without:
        notes.append(f"covered by the model but not annotated here, without a threshold: {', '.join(without)}")
    unused = int((raw.annotated & ~usable).sum())
    if unused:
        notes.append(f"{unused} scores could not be read and were left out of the fit")
    return notes
