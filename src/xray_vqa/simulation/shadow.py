"""What one object adds to a picture: its thicknesses where it casts its shadow, its mask and box, and how far it shows.

The truth of simulated scans and of threats projected into real ones comes from here, by the same rules.
"""

# ruff: noqa: D417  (arguments that belong together are described together, obvious ones not at all)

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from xray_vqa.core.geometry import Box
from xray_vqa.simulation.detector import coefficients, log_reading, log_readings
from xray_vqa.simulation.kernel import kernel
from xray_vqa.simulation.palette import TONE_COMPRESSION, Look
from xray_vqa.simulation.raster import COPPER_WEIGHT
from xray_vqa.simulation.sensor import LUMINANCE_SHARE_LOW, exp_of_negative

MASK_P_HIGH = 0.012
"""An object's mask is where its own log signal in the rear detector exceeds this."""
NOTICEABLE_LEVELS = 8.0
"""Change of brightness (of 255) by which a pixel of an object counts as visible."""
MIN_VISIBLE_SHARE = 0.25
"""An object of which less is visible cannot be seen by a person."""
MIN_MASK_PIXELS = 24


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
    shown, could = _count_visible(
        shadow.polyethylene,
        shadow.copper,
        np.ascontiguousarray(polyethylene),  # so that this compiles for one kind of array
        np.ascontiguousarray(copper),
        coefficients(),
        np.float32(look.log_signal(255 - NOTICEABLE_LEVELS)),
        np.float32(look.tone),
    )
    return Visibility(int(shown), int(could))


@kernel
def _count_visible(own_polyethylene, own_copper, all_polyethylene, all_copper, model, noticeable_p, tone):
    """Return how many pixels of an object change the picture noticeably, and how many would if nothing else were there.

    Row by row: pixels that could show are gathered, so that what follows, with and without the object, runs in vectors.

    Args:
        own_polyethylene, own_copper, all_polyethylene, all_copper: (height, width) float32, cm.
        model: (2, 14) float32, see coefficients(). noticeable_p: log signal that is noticeable on the empty belt.
    """
    height, width = own_polyethylene.shape
    front, rear = model[0], model[1]
    share_low, nothing = np.float32(LUMINANCE_SHARE_LOW), np.float32(0)
    could = np.empty(width, np.bool_)
    rays = np.empty((4, width), np.float32)
    num_shown, num_could = 0, 0
    for v in range(height):
        own_a, own_b = own_polyethylene[v], own_copper[v]
        for u in range(width):
            x, y = max(own_a[u], nothing), max(own_b[u], nothing)
            low, high = log_reading(x, y, front), log_reading(x, y, rear)
            could[u] = (high > MASK_P_HIGH) & (low * share_low + high * (1 - share_low) > noticeable_p)
        num = 0
        for u in range(width):
            if could[u]:
                rays[0, num], rays[1, num] = all_polyethylene[v, u], all_copper[v, u]
                rays[2, num], rays[3, num] = rays[0, num] - own_a[u], rays[1, num] - own_b[u]
                num += 1
        if num == 0:
            continue
        for k in range(0, 4, 2):
            a, b = rays[k, :num], rays[k + 1, :num]
            for i in range(num):
                x, y = max(a[i], nothing), max(b[i], nothing)
                p = share_low * log_reading(x, y, front) + (1 - share_low) * log_reading(x, y, rear)
                b[i] = exp_of_negative(tone * p / (1 + np.float32(TONE_COMPRESSION) * p))
        for i in range(num):
            num_shown += np.float32(255) * abs(rays[3, i] - rays[1, i]) > NOTICEABLE_LEVELS
        num_could += num
    return num_shown, num_could


def occlusion(shadow: Shadow, polyethylene: NDArray[np.float32], copper: NDArray[np.float32]) -> float:
    """Return the share (0 to 1) of the attenuation in the mask that other things own; the arrays as in `visibility`."""
    total = polyethylene + COPPER_WEIGHT * copper
    share = 1 - float(shadow.weight[shadow.mask].sum() / max(float(total[shadow.mask].sum()), 1e-6))
    return round(min(max(share, 0.0), 1.0), 3)
