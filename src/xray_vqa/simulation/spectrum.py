"""What the two-number model stands for: Beer-Lambert over the whole spectrum, from tabulated attenuation.

The table, spectrum.csv, is made by bake.py and holds the linear attenuation of every material at steps of 1 keV beside
what each energy weighs in the two detectors. Scans never read it; the model is fitted to it and measured against it.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

SPECTRUM_PATH = Path(__file__).parent / "tables" / "spectrum.csv"


@dataclass(frozen=True, eq=False)
class Spectrum:
    """Beam, detectors and materials by energy."""

    energies_kev: NDArray[np.float64]
    """(energies,) float64."""
    weights: NDArray[np.float64]
    """(2, energies) float64, share of each energy in what the front and the rear detector read in air."""
    attenuation_per_cm: dict[str, NDArray[np.float64]]
    """By material, (energies,) float64."""

    def log_readings(self, name: str, thickness_cm: ArrayLike) -> NDArray[np.float64]:
        """Return (2, ...) float64 -ln readings, front then rear, of slabs of one material, thicknesses (...)."""
        exponents = np.asarray(thickness_cm, float)[..., None] * self.attenuation_per_cm[name]
        return np.stack([log_signal(exponents, weights) for weights in self.weights])

    def thickness_cm(self, name: str, p_high: float) -> float:
        """Return how thick a slab of one material is that the rear detector reads as p_high."""
        return float(np.interp(p_high, self.log_readings(name, _THICKNESSES_CM)[1], _THICKNESSES_CM))


_THICKNESSES_CM = np.geomspace(1e-5, 1e3, 4000)


@cache
def load_spectrum() -> Spectrum:
    """Return the baked table."""
    with SPECTRUM_PATH.open(newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    names = [column.removesuffix("_per_cm") for column in header[3:]]
    energies, front, rear, *materials = np.array(rows, float).T
    return Spectrum(energies, np.stack([front, rear]), dict(zip(names, materials, strict=True)))


def log_signal(exponents: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return -ln of a detector's signal, (...), for attenuation exponents (..., energies) and weights (energies,)."""
    floor = exponents.min(-1, keepdims=True)
    return -np.log((weights * np.exp(-(exponents - floor))).sum(-1)) + floor[..., 0]
