"""From line integrals to what a dual-energy detector reads, and from its reading to an atomic number.

The forward model is a rational function of the two line integrals, fitted offline to 146-bin Beer-Lambert (error in
-ln T below 0.016 / 0.011 for p < 7). The way back is the scanner's: the ratio of the two readings against calibrated
wedges, at equal reading of the rear detector, because beam hardening moves the curves.
"""

# ruff: noqa: D417  (arguments that belong together are described together, obvious ones not at all)

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict

from xray_vqa.simulation.kernel import kernel, part_of_kernel

DETECTOR_PATH = Path(__file__).parent / "tables" / "detector.json"

NUM_P, NUM_RATIO = 128, 256
P_MAX = 9.0
RATIO_MIN, RATIO_MAX = 0.85, 2.6


class DetectorTable(BaseModel):
    """Contents of detector.json."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    about: str
    low: tuple[float, ...]
    """14 coefficients of the front (soft) detector: 9 of the numerator, 5 of the denominator, these not negative."""
    high: tuple[float, ...]
    """14 coefficients of the rear (hard) detector."""
    max_error_below_p7: tuple[float, float]
    ladder_z: tuple[float, ...]
    """Atomic numbers of the calibration wedges."""
    ladder_p_max: float
    ladder_ratio: tuple[tuple[float, ...], ...]
    """p_low / p_high of each wedge on the grid linspace(0, 1)^2 * ladder_p_max of p_high."""


@cache
def load_detector() -> DetectorTable:
    """Return the baked table."""
    return DetectorTable.model_validate_json(DETECTOR_PATH.read_text(encoding="utf-8"))


@cache
def coefficients() -> NDArray[np.float32]:
    """Return the forward model, (2, 14) float32, front detector first."""
    table = load_detector()
    return np.array([table.low, table.high], np.float32)


@part_of_kernel
def log_reading(polyethylene, copper, model):
    """Return -ln(signal / air signal) of one ray in one detector, float32.

    Args:
        polyethylene, copper: float32, cm, not negative.
        model: (14,) float32, a row of coefficients().
    """
    x, y, m = polyethylene, copper, model
    sx, sy = np.sqrt(x), np.sqrt(y)
    top = x * (m[0] + m[2] * sx + m[3] * sy + m[6] * x + m[7] * y) + y * (m[1] + m[4] * sx + m[5] * sy + m[8] * y)
    return top / (np.float32(1) + m[9] * sx + m[10] * sy + m[11] * x + m[12] * y + m[13] * sx * sy)


@kernel
def attenuate(polyethylene, copper, model, p):
    """Write -ln(signal / air signal) of both detectors.

    Args:
        polyethylene, copper: (height, width) float32, cm; negative values count as 0.
        model: (2, 14) float32, see coefficients().
        p: (2, height, width) float32, written: front, rear.
    """
    num = polyethylene.size
    a = polyethylene.reshape(num)
    b = copper.reshape(num)
    for c in range(2):
        m = model[c]
        out = p[c].reshape(num)
        for i in range(num):
            out[i] = log_reading(max(a[i], np.float32(0)), max(b[i], np.float32(0)), m)


def log_readings(polyethylene_cm: ArrayLike, copper_cm: ArrayLike) -> NDArray[np.float32]:
    """Return (2, height, width) float32 -ln readings, front then rear, of line integrals (height, width) in cm."""
    a = np.atleast_2d(np.asarray(polyethylene_cm, np.float32))
    b = np.atleast_2d(np.asarray(copper_cm, np.float32))
    p = np.empty((2, *a.shape), np.float32)
    attenuate(np.ascontiguousarray(a), np.ascontiguousarray(b), coefficients(), p)
    return p


@cache
def atomic_number_table() -> NDArray[np.float64]:
    """Return the atomic number for (p_high, p_low / p_high), (NUM_P, NUM_RATIO) float64.

    Rows on linspace(0, 1)^2 * P_MAX, columns evenly from RATIO_MIN to RATIO_MAX.
    """
    table = load_detector()
    ratios = np.array(table.ladder_ratio)
    columns = np.linspace(RATIO_MIN, RATIO_MAX, NUM_RATIO)
    return np.stack([np.interp(columns, ratios[:, row], table.ladder_z) for row in range(NUM_P)])


def p_grid() -> NDArray[np.float64]:
    """Return p_high at the rows of atomic_number_table, (NUM_P,) float64."""
    return np.linspace(0, 1, NUM_P) ** 2 * P_MAX


def estimate_atomic_number(p_low: ArrayLike, p_high: ArrayLike) -> NDArray[np.float64]:
    """Return the effective atomic number that the wedges give for a pair of readings, as tests and TIP need it."""
    high = np.maximum(np.asarray(p_high, float), 2e-3)
    row = np.minimum(np.sqrt(high / P_MAX) * (NUM_P - 1), NUM_P - 1).round().astype(int)
    column = (np.asarray(p_low, float) / high - RATIO_MIN) / (RATIO_MAX - RATIO_MIN) * (NUM_RATIO - 1)
    return atomic_number_table()[row, np.clip(column.round().astype(int), 0, NUM_RATIO - 1)]
