"""What one object adds to a picture: its thicknesses where it casts its shadow, its mask and box, and how far it shows.

The truth of simulated scans and of threats projected into real ones comes from here, by the same rules.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from xray_vqa.core.geometry import Box
from xray_vqa.simulation.detector import log_readings
from xray_vqa.simulation.palette import Look
from xray_vqa.simulation.sensor import signal_of

MASK_P_HIGH = 0.012
"""An object's mask is where its own log signal in the rear detector exceeds this."""
NOTICEABLE_LEVELS = 8.0
"""Change of brightness (of 255) by which a pixel of an object counts as visible."""
MIN_VISIBLE_SHARE = 0.25
"""An object of which less is visible cannot be seen by a person."""
MIN_MASK_PIXELS = 24
COPPER_WEIGHT = 15.0
"""Thin copper attenuates the front detector this many times as much as polyethylene."""


@dataclass(frozen=True, eq=False)
class Shadow:
    """Thicknesses of one object at its place in the picture."""

    top: int
    left: int
    polyethylene: NDArray[np.float32]
    """(height, width) float32, cm; its upper left pixel is (top, left) of the picture."""
    copper: NDArray[np.float32]
    """(height, width) float32, cm."""

    @cached_property
    def own_p(self) -> NDArray[np.float32]:
        """(2, height, width) float32 log readings of the object alone."""
        return log_readings(self.polyethylene, self.copper)

    @cached_property
    def mask(self) -> NDArray[np.bool_]:
        """(height, width) bool, where the object is."""
        return self.own_p[1] > MASK_P_HIGH

    @cached_property
    def weight(self) -> NDArray[np.float32]:
        """(height, width) float32, how much it attenuates, in cm of polyethylene."""
        return np.add(self.polyethylene, COPPER_WEIGHT * self.copper, dtype=np.float32)

    @property
    def window(self) -> tuple[slice, slice]:
        """Rows and columns of the picture that the object's arrays cover."""
        height, width = self.polyethylene.shape
        return slice(self.top, self.top + height), slice(self.left, self.left + width)

    @property
    def box(self) -> Box:
        """Bounds of the mask in the picture; the mask must not be empty."""
        rows, columns = np.flatnonzero(self.mask.any(1)), np.flatnonzero(self.mask.any(0))
        return Box(
            float(self.left + columns[0]),
            float(self.top + rows[0]),
            float(columns[-1] - columns[0] + 1),
            float(rows[-1] - rows[0] + 1),
        )

    def moved(self, top: int, left: int) -> Shadow:
        """Return the same object elsewhere."""
        return Shadow(top, left, self.polyethylene, self.copper)


@dataclass(frozen=True, slots=True)
class Visibility:
    """How far an object shows among everything on the same rays."""

    num_shown: int
    """Pixels that change the picture noticeably."""
    num_could: int
    """Pixels that would if nothing else were there."""

    @property
    def share(self) -> float:
        """Share (0 to 1) of what it could show that it shows."""
        return self.num_shown / max(self.num_could, 1)

    @property
    def is_seen(self) -> bool:
        """Whether a person could see it."""
        return self.num_shown >= MIN_MASK_PIXELS and self.num_shown >= MIN_VISIBLE_SHARE * self.num_could


def visibility(
    shadow: Shadow, polyethylene: NDArray[np.float32], copper: NDArray[np.float32], look: Look
) -> Visibility:
    """Return how far an object shows among all that lies on its rays.

    polyethylene and copper are of everything there, the object included: (height, width) float32, cm.
    """
    with_it = look.brightness(signal_of(log_readings(polyethylene, copper)))
    without = look.brightness(signal_of(log_readings(polyethylene - shadow.polyethylene, copper - shadow.copper)))
    could_show = shadow.mask & (255 - look.brightness(signal_of(shadow.own_p)) > NOTICEABLE_LEVELS)
    shown = could_show & (np.abs(without - with_it) > NOTICEABLE_LEVELS)
    return Visibility(int(shown.sum()), int(could_show.sum()))


def occlusion(shadow: Shadow, polyethylene: NDArray[np.float32], copper: NDArray[np.float32]) -> float:
    """Return the share (0 to 1) of the attenuation in the mask that other things own; the arrays as in `visibility`."""
    total = polyethylene + COPPER_WEIGHT * copper
    share = 1 - float(shadow.weight[shadow.mask].sum() / max(float(total[shadow.mask].sum()), 1e-6))
    return round(min(max(share, 0.0), 1.0), 3)
