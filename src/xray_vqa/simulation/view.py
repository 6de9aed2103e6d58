"""Where the rays run: a fan beam across the belt, parallel along it.

The generator stands under the belt and the detector bar above it; one image row is one detector element, one column
one step of the belt. So what lies higher in the bag appears smaller in y and never in x, and a shell shows two shifted
outlines. A second generator of the same make beside the belt gives the side view.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

SOURCE_Z_CM = -62.0
DETECTOR_Z_CM = 50.0
REFERENCE_Z_CM = 12.0
"""Height at which a row is as high as a column is wide."""

BELT_MIDDLE_Z_CM = 10.0
"""Height over the belt that the side view has in its middle row."""
ViewName = Literal["top", "side"]
_TO_SIDE = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])
"""Turns the world so that what the side generator sees across its rays (the height, upside down) is y."""

# Entries of View.frame; those up to PIXEL are lengths.
SOURCE_Y, SOURCE_Z, X_START, PIXEL, MAGNIFY, ROW_CENTRE = range(6)


@dataclass(frozen=True, eq=False)
class View:
    """Rays of one generator for one image size."""

    size_wh: tuple[int, int]
    frame: NDArray[np.float64]
    """(6,) float64: source y and z, x at the left edge, column width, rows per unit of (y / distance), row of y = 0;
    in cm."""
    rays: NDArray[np.float64]
    """(height, 2) float64, unit direction (y, z) of each row."""


@lru_cache(maxsize=64)
def open_view(size_wh: tuple[int, int], pixel_cm: float) -> View:
    """Return the rays for an image size and the width of one column on the belt."""
    width, height = size_wh
    scale = (REFERENCE_Z_CM - SOURCE_Z_CM) / (DETECTOR_Z_CM - SOURCE_Z_CM)
    y_at_detector = (np.arange(height) + 0.5 - height / 2) * pixel_cm / scale
    rays = np.stack([y_at_detector, np.full(height, DETECTOR_Z_CM - SOURCE_Z_CM)], 1)
    rays /= np.linalg.norm(rays, axis=1, keepdims=True)
    magnify = (REFERENCE_Z_CM - SOURCE_Z_CM) / pixel_cm
    frame = np.array([0.0, SOURCE_Z_CM, -width * pixel_cm / 2, pixel_cm, magnify, height / 2])
    return View(size_wh, frame, rays)


def into_view(
    name: ViewName, rotation: NDArray[np.float64], position_cm: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return an object's rotation (3, 3) and position (3,) as the named generator stands to it."""
    if name == "top":
        return rotation, position_cm
    return _TO_SIDE @ rotation, _TO_SIDE @ position_cm + (0, BELT_MIDDLE_Z_CM, REFERENCE_Z_CM)
