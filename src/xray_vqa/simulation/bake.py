"""Bake the physics tables that the simulator reads; run by hand when a material or the spectrum changes.

    pip install xraydb spekpy scipy && python -m xray_vqa.simulation.bake

Writes tables/spectrum.csv, tables/materials.csv and tables/detector.json beside this module. xraydb (Elam cross
sections, MIT) and spekpy (tungsten spectra, MIT) are needed here and nowhere else. Measured errors:
benchmarks/simulator_truth.py.
"""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np

from xray_vqa.simulation.spectrum import log_signal

TABLES_DIR = Path(__file__).parent / "tables"
ENERGIES_KEV = np.arange(15.0, 161.0)

# name: (formula, bulk density in g/cm3). Fibrous and powdery goods carry the density of the pile, not of the solid.
MATERIALS: dict[str, tuple[str, float]] = {
    "polyethylene": ("C2H4", 0.94),
    "polypropylene": ("C3H6", 0.90),
    "abs": ("C15H17N", 1.05),
    "pla": ("C3H4O2", 1.24),
    "nylon": ("C6H11NO", 1.14),
    "pet": ("C10H8O4", 1.38),
    "pvc": ("C2H3Cl", 1.40),
    "rubber": ("C5H8S0.05Zn0.02", 1.15),
    "fabric": ("C6H11NOC10H8O4C4H6Cl2", 1.05),
    "cotton": ("C6H10O5", 0.35),
    "leather": ("C3H5NO2", 0.90),
    "paper": ("C6H10O5", 0.75),
    "wood": ("C6H9O4", 0.65),
    "water": ("H2O", 1.0),
    "ethanol": ("C2H6O", 0.789),
    "butane": ("C4H10", 0.58),
    "sugar": ("C12H22O11", 1.1),
    "soap": ("C18H35NaO2", 1.0),
    "rdx": ("C3H6N6O6", 1.65),
    "tnt": ("C7H5N3O6", 1.60),
    "petn": ("C5H8N4O12", 1.60),
    "ammonium_nitrate": ("NH4NO3", 0.95),
    "black_powder": ("K1N1O3C0.7S0.35", 1.0),
    "glass": ("Si0.72O1.9Na0.27Ca0.11", 2.5),
    "fr4": ("Si1O3C3H4Ca0.15Br0.04", 1.85),
    "ceramic": ("Al2O3", 3.6),
    "aluminium": ("Al", 2.70),
    "titanium": ("Ti", 4.5),
    "steel": ("Fe", 7.85),
    "stainless": ("Fe70Cr19Ni9", 7.9),
    "zinc": ("Zn0.96Al0.04", 6.7),
    "brass": ("Cu63Zn37", 8.5),
    "copper": ("Cu", 8.96),
    "nickel": ("Ni", 8.9),
    "silver": ("Ag", 10.5),
    "lead": ("Pb", 11.34),
    "solder": ("Sn", 7.3),
    "lithium_cell": ("C6LiCoO2Al0.6Cu0.45C3H4O3", 2.3),
    "alkaline_cell": ("Mn1O2Zn0.8K0.2O0.5H0.5", 3.2),
    "ferrite": ("Fe2O3", 4.9),
}

K_EDGE_METALS = frozenset({"silver", "solder", "lead"})
"""An absorption edge inside the band (silver 25.5, tin 29.2, lead 88 keV) bends their spectrum as no mix of the basis
does; lead would come out organic. They are given copper alone: they are opaque or tiny in a bag, so it is the blue
that has to be right."""

FIT_P_MAX = 5.0
"""Materials are fitted up to this log reading; behind more, a scanner shows black."""
LADDER_Z = (6, 7.4, 8.5, 10, 11.5, 13, 15, 17, 20, 23, 26, 30, 36)
"""Atomic numbers of the calibration wedges between which the effective atomic number is interpolated."""
LADDER_NUM_P = 128
LADDER_P_MAX = 9.0


def spectral_weights() -> tuple[np.ndarray, np.ndarray, Any]:
    """Return the energy-integrating weights of the front and the rear detector, and the xraydb module.

    160 kV tungsten tube behind 3 mm Al and 0.2 mm Cu; 0.3 mm GOS screen, 0.6 mm copper filter, 4 mm CsI.
    """
    import spekpy  # pyright: ignore[reportMissingImports]
    import xraydb  # pyright: ignore[reportMissingImports]

    tube = spekpy.Spek(kvp=160, th=20, dk=1.0)
    tube.filter("Al", 3.0)
    tube.filter("Cu", 0.2)
    energies, fluence = tube.get_spectrum(edges=False)
    spectrum = np.interp(ENERGIES_KEV, energies, fluence, left=0, right=0)

    def mu(formula: str, density: float) -> np.ndarray:
        return xraydb.material_mu(formula, ENERGIES_KEV * 1e3, density=density)

    front_mu = mu("Gd2O2S", 7.3 * 0.5)  # powder screen, packed to a half
    front = 1 - np.exp(-front_mu * 0.03)
    behind = np.exp(-front_mu * 0.03) * np.exp(-mu("Cu", 8.96) * 0.06)
    rear = behind * (1 - np.exp(-mu("CsI", 4.51) * 0.4))
    low, high = spectrum * front * ENERGIES_KEV, spectrum * rear * ENERGIES_KEV
    return low / low.sum(), high / high.sum(), xraydb


def fit_material(mu: np.ndarray, basis: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return how much of each basis material reads like one centimetre of this one.

    What is fitted is what the detectors read, of slabs up to FIT_P_MAX; the error is weighted by 1 / sqrt(reading).

    Args:
        mu: (energies,) per cm.
        basis: (materials, energies) per cm.
        weights: (2, energies), front and rear detector.

    Returns:
        (materials,), not negative.
    """
    from scipy.optimize import least_squares

    thickness = np.geomspace(0.003, 3 * FIT_P_MAX, 200) / (mu @ weights[1])

    def readings(attenuation: np.ndarray) -> np.ndarray:
        return np.stack([log_signal(thickness[:, None] * attenuation, detector) for detector in weights])

    expected = readings(mu)
    weight = (expected < FIT_P_MAX) / np.sqrt(expected)
    start = np.full(len(basis), (mu @ weights[1]) / (basis @ weights[1]).sum())
    return least_squares(
        lambda amounts: ((readings(amounts @ basis) - expected) * weight).ravel(),
        start,
        bounds=(0, np.inf),
        x_scale="jac",
        xtol=1e-12,
        ftol=1e-12,
        gtol=1e-12,
    ).x


def fit_rational(basis: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, float]:
    """Fit -ln(signal) as a rational function of both line integrals; return 14 coefficients and the largest error.

    Iterated least squares: divided by the last denominator (Sanathanan-Koerner), and weighted more wherever the error
    was large (Lawson), so that the largest error shrinks. What counts as large is a share of p, and above p = 2.6 that
    of 2.6: thin things need the right hue, thick ones the right brightness; behind p = 7 it is let go. It is five times
    less for plastic than for metal, because organic matter differs by little in hue.

    Args:
        basis: (2, energies) per cm, polyethylene and copper.
        weights: (energies,) of one detector.
    """
    from scipy.optimize import lsq_linear

    a, b = (np.r_[0, np.geomspace(lo, hi, 150)] for lo, hi in ((1e-4, 110), (1e-5, 8)))
    x, y = (grid.ravel() for grid in np.meshgrid(a, b, indexing="ij"))
    x, y = x[1:], y[1:]
    p = log_signal(x[:, None] * basis[0] + y[:, None] * basis[1], weights)
    x, y, p = x[p < 14], y[p < 14], p[p < 14]
    sx, sy = np.sqrt(x), np.sqrt(y)
    top = np.stack([x, y, x * sx, x * sy, y * sx, y * sy, x * x, x * y, y * y], 1)
    bottom = np.stack([sx, sy, x, y, sx * sy], 1)
    lowest = np.r_[np.full(9, -np.inf), np.zeros(5)]  # of the denominator none is negative, so that it has no root
    copper = y * (basis[1] @ weights)
    metal = copper / (copper + x * (basis[0] @ weights))
    tolerance = np.clip(p, 0.013, 2.6) * np.maximum(1, p / 7) ** 2 * (0.2 + 0.8 * metal)
    emphasis, denominator = np.ones(len(p)), np.ones(len(p))
    best, least = np.zeros(14), np.inf
    for _ in range(200):
        row_weight = np.sqrt(emphasis) / (tolerance * denominator)
        rows = np.concatenate([top, -p[:, None] * bottom], 1) * row_weight[:, None]
        q, r = np.linalg.qr(rows)
        fit = lsq_linear(r, q.T @ (p * row_weight), bounds=(lowest, np.inf), method="bvls").x
        denominator = 1 + bottom @ fit[9:]
        error = np.abs(top @ fit[:9] / denominator - p) / tolerance
        if error.max() < least:
            best, least = fit, error.max()
        emphasis *= error / error.max() + 1e-3
        emphasis /= emphasis.mean()
    error = np.abs((top @ best[:9]) / (1 + bottom @ best[9:]) - p)[p < 7].max()
    return best, float(error)


def main() -> None:
    """Write the three tables."""
    low, high, xraydb = spectral_weights()
    weights = np.stack([low, high])
    mu = {n: xraydb.material_mu(f, ENERGIES_KEV * 1e3, density=d) for n, (f, d) in MATERIALS.items()}
    basis = np.stack([mu["polyethylene"], mu["copper"]])

    TABLES_DIR.mkdir(exist_ok=True)
    with (TABLES_DIR / "spectrum.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("energy_kev", "front_weight", "rear_weight", *(f"{name}_per_cm" for name in mu)))
        for energy, *values in zip(ENERGIES_KEV, low, high, *mu.values(), strict=True):
            writer.writerow((f"{energy:g}", *(f"{value:.5g}" for value in values)))
    with (TABLES_DIR / "materials.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("name", "formula", "density_g_cm3", "polyethylene_cm", "copper_cm"))
        for name, (formula, density) in MATERIALS.items():
            if name in K_EDGE_METALS:
                a, b = 0.0, fit_material(mu[name], basis[1:], weights)[0]
            else:
                a, b = fit_material(mu[name], basis, weights)
            writer.writerow((name, formula, density, round(a, 5), round(b, 6)))

    elements = {z: xraydb.material_mu(xraydb.atomic_symbol(z), ENERGIES_KEV * 1e3, density=1.0) for z in range(5, 40)}
    p_grid = np.linspace(0, 1, LADDER_NUM_P) ** 2 * LADDER_P_MAX
    p_grid[0] = 1e-4
    ratios = []
    for z in LADDER_Z:
        below, part = int(z), z - int(z)
        element = np.exp((1 - part) * np.log(elements[below]) + part * np.log(elements[below + 1]))
        thickness = np.geomspace(1e-5, 1e4, 3000) / (element * high).sum()
        p_low, p_high = (log_signal(thickness[:, None] * element, detector) for detector in weights)
        ratios.append(np.interp(p_grid, p_high, p_low / p_high).round(4).tolist())

    coefficients, errors = zip(*(fit_rational(basis, detector) for detector in weights), strict=True)
    table = {
        "about": "160 kV W, 3 mm Al + 0.2 mm Cu; GOS 0.3 mm / Cu 0.6 mm / CsI 4 mm; made by bake.py",
        "low": [float(f"{c:.7g}") for c in coefficients[0]],
        "high": [float(f"{c:.7g}") for c in coefficients[1]],
        "max_error_below_p7": [round(e, 4) for e in errors],
        "ladder_z": LADDER_Z,
        "ladder_p_max": LADDER_P_MAX,
        "ladder_ratio": ratios,
    }
    (TABLES_DIR / "detector.json").write_text(json.dumps(table) + "\n")


if __name__ == "__main__":
    main()
