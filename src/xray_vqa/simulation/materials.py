"""What each material does to the beam, in two numbers.

The attenuation of nearly every material is, over the scanner's band, that of some thickness of polyethylene plus some
thickness of copper. A ray therefore needs two sums only. The table is made by bake.py from spectrum.py's and is part of
the generator's version.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from pathlib import Path

MATERIALS_PATH = Path(__file__).parent / "tables" / "materials.csv"


@dataclass(frozen=True)
class Material:
    """One row of the table."""

    name: str
    density_g_cm3: float
    polyethylene_cm: float
    """Centimetres of polyethylene that one centimetre of the material stands for."""
    copper_cm: float
    """Centimetres of copper that one centimetre of the material stands for."""


@cache
def load_materials() -> dict[str, Material]:
    """Return the table by name, in file order."""
    with MATERIALS_PATH.open(newline="", encoding="utf-8") as file:
        return {
            row["name"]: Material(
                row["name"], *(float(row[k]) for k in ("density_g_cm3", "polyethylene_cm", "copper_cm"))
            )
            for row in csv.DictReader(file)
        }


def material(name: str) -> Material:
    """Return one material. Raises KeyError, naming the known ones, for a name that is not in the table."""
    try:
        return load_materials()[name]
    except KeyError:
        raise KeyError(f"no material {name!r}; known: {', '.join(load_materials())}") from None
