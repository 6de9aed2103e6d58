"""How far probabilities can be taken at their word: calibration error, reliability, Brier score, risk and coverage."""

import numpy as np
from numpy.typing import NDArray

from xray_vqa.evaluation.metrics.bootstrap import FloatArray
from xray_vqa.evaluation.metrics.intervals import rate
from xray_vqa.evaluation.metrics.ranking import BoolArray
from xray_vqa.evaluation.results import CalibrationScores, ReliabilityBin

CALIBRATION_BINS = 10
COVERAGES = tuple(round(0.05 * step, 2) for step in range(1, 21))


def calibration_error(probabilities: FloatArray, truth: BoolArray, *, equal_mass: bool = False) -> float | None:
    """Return the expected calibration error (Naeini et al. 2015); None without probabilities.

    Over ten bins, half-open to the right but for the last, the mean distance of a bin's mean probability from the share
    of its probes whose item is there, weighted by its size. `equal_mass` makes bins of as many probes each and moves
    equal probabilities into one bin, so that their order changes nothing.
    """
    if not len(probabilities):
        return None
    bins = _equal_mass_bins(probabilities) if equal_mass else _equal_width_bins(probabilities)
    return float(np.abs(np.bincount(bins, probabilities - truth)).sum() / len(probabilities))


def brier_score(probabilities: FloatArray, truth: BoolArray) -> float | None:
    """Return the mean squared distance from what is there (Brier 1950); None without probabilities."""
    return float(np.mean((probabilities - truth) ** 2)) if len(probabilities) else None


def score_calibration(probabilities: FloatArray, truth: BoolArray) -> CalibrationScores:
    """Return everything about usable probabilities, (probes,) float64 in 0 to 1."""
    curve, area = risk_coverage(probabilities, truth)
    return CalibrationScores(
        n=len(probabilities),
        error_equal_width=calibration_error(probabilities, truth),
        error_equal_mass=calibration_error(probabilities, truth, equal_mass=True),
        brier=brier_score(probabilities, truth),
        reliability=_reliability(probabilities, truth),
        risk_coverage=curve,
        area_under_risk_coverage=area,
    )


def risk_coverage(probabilities: FloatArray, truth: BoolArray) -> tuple[list[tuple[float, float]], float | None]:
    """Return (coverage, risk) points and the area under all of them (Geifman and El-Yaniv 2017).

    Probes are kept from the surest, |p - 1/2|, down; of equally sure ones each counts with their mean error.
    """
    if not len(probabilities):
        return [], None
    sureness = np.abs(probabilities - 0.5)
    levels, at = np.unique(-sureness, return_inverse=True)
    wrong = np.where(probabilities == 0.5, 0.5, (probabilities > 0.5) != truth)
    mean = np.bincount(at, wrong, len(levels)) / np.bincount(at, minlength=len(levels))
    risks = np.cumsum(mean[np.sort(at)]) / np.arange(1, len(at) + 1)
    kept = [max(1, round(share * len(at))) for share in COVERAGES]
    return [(share, float(risks[count - 1])) for share, count in zip(COVERAGES, kept, strict=True)], float(risks.mean())


def _equal_width_bins(probabilities: FloatArray) -> NDArray[np.intp]:
    return np.minimum((probabilities * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)


def _equal_mass_bins(probabilities: FloatArray) -> NDArray[np.intp]:
    _, at, counts = np.unique(probabilities, return_inverse=True, return_counts=True)
    before = np.cumsum(counts) - counts
    return (before * CALIBRATION_BINS // len(probabilities))[at]


def _reliability(probabilities: FloatArray, truth: BoolArray) -> list[ReliabilityBin]:
    bins = _equal_width_bins(probabilities)
    return [
        ReliabilityBin(
            low=number / CALIBRATION_BINS,
            high=(number + 1) / CALIBRATION_BINS,
            n=int(inside.sum()),
            mean_probability=float(probabilities[inside].mean()),
            share_there=rate(int(truth[inside].sum()), int(inside.sum())),
        )
        for number in range(CALIBRATION_BINS)
        if (inside := bins == number).any()
    ]
