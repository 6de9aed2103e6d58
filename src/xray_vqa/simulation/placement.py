"""Where a projected threat may lie in a scan from outside: inside a bag, visible, and not on top of what is labelled.

The scan is all that is known of the bag. Its outline comes from the readings, its scale from an assumption about its
size, and what is opaque stays closed: a threat that nobody could see must not be annotated.
"""

# ruff: noqa: D417  (arguments that belong together are described together, obvious ones not at all)

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from xray_vqa.core.geometry import Box
from xray_vqa.simulation.detector import log_readings
from xray_vqa.simulation.packing import NUM_VARIANTS, draw_tilt
from xray_vqa.simulation.palette_inverse import equivalent_thickness
from xray_vqa.simulation.raster import LineIntegrals
from xray_vqa.simulation.scene import PlacedItem
from xray_vqa.simulation.sensor import signal_of
from xray_vqa.simulation.shadow import MIN_MASK_PIXELS, Shadow, occlusion, visibility
from xray_vqa.simulation.shapes import THREATS, build_item, draw_shape
from xray_vqa.simulation.tip import Host
from xray_vqa.simulation.view import REFERENCE_Z_CM, open_view

BAG_SIGNAL = 0.04
"""Log signal (mean of 5 by 5 pixels) above which a pixel belongs to something on the belt: about 5 grey levels, which
compression seldom makes of air."""
MIN_BAG_SHARE = 0.02
"""Smaller things on the belt, as a share of the picture, are no bag: straps, trays' rims."""
MIN_BAG_MEDIAN = 0.12
"""Things with a smaller median log signal are no bag: streaks and shading of air."""
BAG_LENGTH_CM = 50.0
"""What the longer side of a scan's largest bag is taken to measure where nobody says how large a pixel is."""
MIN_INSIDE_SHARE = 0.99
"""Share of a threat's mask that has to lie inside a bag."""
MAX_AIR_SHARE = 0.3
"""Share of a threat's mask that may lie over a hole in the bag's picture: gaps between touching bags are holes too."""
MAX_BOX_OVERLAP = 0.3
"""Share of the smaller of two boxes that a threat may have in common with another item's."""
OPAQUE_SIGNAL = 4.5
"""Log signal beyond which nothing can be told apart; a threat alone may be opaque, a threat and its surroundings
together only on a small part."""
MAX_OPAQUE_SHARE = 0.25
NUM_PLACES, NUM_SHAPES = 30, 4
FLAT_SHARE = 0.8
"""Share of threats that lie flat."""
_OUTLINE_PIXELS = 512  # longer side of the grid that outlines are found on


@dataclass(frozen=True, eq=False)
class Bags:
    """The bags of one scan."""

    inside: NDArray[np.bool_]
    """(height, width) bool, holes filled."""
    pixel_cm: float
    """Width of a pixel on the belt."""

    @cached_property
    def rooms(self) -> NDArray[np.int64]:
        """(num, 2) int64, row and column of every pixel inside a bag."""
        return np.argwhere(self.inside)


def find_bags(host: Host, pixel_cm: float | None = None) -> Bags:
    """Return where a scan's bags are; `inside` is empty where there is none.

    Args:
        pixel_cm: width of a pixel on the belt; by default the longest bag is taken to be BAG_LENGTH_CM long.
    """
    height, width = host.image.shape[:2]
    step = max(1, round(max(height, width) / _OUTLINE_PIXELS))
    signal = ndimage.uniform_filter(signal_of(host.p), 5 * step)[::step, ::step]
    radius = max(2, round(0.006 * max(signal.shape)))
    disc = np.hypot(*np.mgrid[-radius : radius + 1, -radius : radius + 1]) <= radius + 0.5
    filled = ndimage.binary_fill_holes(
        ndimage.binary_closing(np.pad(signal > BAG_SIGNAL, radius), np.ones((3, 3), bool))
    )
    inside = np.asarray(ndimage.binary_opening(filled, disc, iterations=3), bool)[radius:-radius, radius:-radius]
    labels = np.asarray(ndimage.label(inside)[0])  # type: ignore[index]
    longest, kept = 0, np.zeros_like(inside)
    for number, found in enumerate(ndimage.find_objects(labels), start=1):
        one = labels == number
        if one.mean() < MIN_BAG_SHARE or np.median(signal[one]) < MIN_BAG_MEDIAN:
            continue
        kept |= one
        longest = max(longest, found[0].stop - found[0].start, found[1].stop - found[1].start)
    shrunk = np.asarray(ndimage.binary_erosion(kept, disc, iterations=2), bool)
    whole = np.repeat(np.repeat(shrunk, step, axis=0), step, axis=1)[:height, :width]
    return Bags(whole, pixel_cm or BAG_LENGTH_CM / (longest * step or max(height, width)))


@dataclass(frozen=True, eq=False)
class PlacedThreat:
    """A threat that has found its place."""

    category: str
    item: PlacedItem
    shadow: Shadow
    box: Box
    """Bounds of its mask."""
    occlusion: float
    """Share (0 to 1) of the attenuation along its pixels that other things own."""
    visible: float
    """Share (0 to 1) of its pixels that change the picture noticeably."""


def draw_item(category: str, rng: np.random.Generator) -> PlacedItem:
    """Return an object of a category in a random pose, as they lie in simulated bags."""
    shape = draw_shape(THREATS[category], rng)
    theta, pitch = draw_tilt(rng, FLAT_SHARE)
    return PlacedItem(
        shape=shape.key,
        variant=int(rng.integers(NUM_VARIANTS)),
        position_cm=(0.0, 0.0, float(REFERENCE_Z_CM + rng.uniform(-6, 6))),
        phi=float(rng.uniform(0, 2 * np.pi)),
        theta=theta,
        pitch=pitch,
        mirrored=bool(rng.random() < 0.5),
        scale=float(rng.uniform(0.93, 1.07)),
        density=float(rng.uniform(0.85, 1.15)),
    )


def render_item(item: PlacedItem, pixel_cm: float, max_size_wh: tuple[int, int]) -> Shadow | None:
    """Return an object's shadow, cut to its mask; None where it has none or does not fit into a picture."""
    built = build_item(item.shape, item.variant)
    extent = float(np.linalg.norm(built.hull, axis=1).max()) * item.scale
    side = int(np.ceil(2.4 * extent / pixel_cm)) + 8
    if side > 2 * max(max_size_wh):
        return None
    canvas = LineIntegrals((side, side))
    view = open_view((side, side), pixel_cm)
    if canvas.draw(built, item.rotation(), np.array(item.position_cm), item.scale, item.density, view) is None:
        return None
    whole = Shadow(0, 0, canvas.polyethylene, canvas.copper)
    rows, columns = (np.flatnonzero(whole.mask.any(axis)) for axis in (1, 0))
    if not len(rows) or len(rows) < 2 or len(columns) < 2:
        return None
    window = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    cut = Shadow(0, 0, canvas.polyethylene[window].copy(), canvas.copper[window].copy())
    if cut.mask.shape[0] > max_size_wh[1] or cut.mask.shape[1] > max_size_wh[0]:
        return None
    return cut


class Placer:
    """Places threats in one scan, one after the other; each sees those before it."""

    def __init__(self, host: Host, bags: Bags, taken: Sequence[Box]) -> None:
        self._host, self._bags = host, bags
        self._taken = list(taken)
        self._behind = equivalent_thickness(host.p)
        self._signal = ndimage.uniform_filter(signal_of(host.p), 5)

    def place(self, category: str, rng: np.random.Generator) -> PlacedThreat | None:
        """Return a threat of a category at a place where it may lie; None if none was found."""
        for _ in range(NUM_SHAPES):
            item = draw_item(category, rng)
            shadow = render_item(item, self._bags.pixel_cm, self._host.size_wh)
            if shadow is None or shadow.mask.sum() < MIN_MASK_PIXELS:
                continue
            placed = self._find_place(category, item, shadow, rng)
            if placed is not None:
                self._taken.append(placed.box)
                self._behind[(0, *placed.shadow.window)] += placed.shadow.polyethylene
                self._behind[(1, *placed.shadow.window)] += placed.shadow.copper
                return placed
        return None

    def _find_place(
        self, category: str, item: PlacedItem, shadow: Shadow, rng: np.random.Generator
    ) -> PlacedThreat | None:
        width, height = self._host.size_wh
        mask_height, mask_width = shadow.mask.shape
        for _ in range(NUM_PLACES):
            row, column = self._bags.rooms[int(rng.integers(len(self._bags.rooms)))]
            top, left = int(row) - mask_height // 2, int(column) - mask_width // 2
            if top < 0 or left < 0 or top + mask_height > height or left + mask_width > width:
                continue
            here = shadow.moved(top, left)
            if self._bags.inside[here.window][shadow.mask].mean() < MIN_INSIDE_SHARE:
                continue
            if (self._signal[here.window][shadow.mask] <= BAG_SIGNAL).mean() > MAX_AIR_SHARE:
                continue
            box = Box(float(left), float(top), float(mask_width), float(mask_height))
            if any(box.overlap(other) > MAX_BOX_OVERLAP * min(box.area, other.area) for other in self._taken):
                continue
            measured = self._measure(here)
            if measured is not None:
                covered, visible = measured
                x = round((left + mask_width / 2 - width / 2) * self._bags.pixel_cm, 2)
                y = round((top + mask_height / 2 - height / 2) * self._bags.pixel_cm, 2)
                item = item.model_copy(update={"position_cm": (x, y, round(item.position_cm[2], 2))})
                return PlacedThreat(category, item, here, box, covered, visible)
        return None

    def _measure(self, shadow: Shadow) -> tuple[float, float] | None:
        """Return occlusion and visible share of a threat at its place; None if a person could not see it there."""
        behind = self._behind[(slice(None), *shadow.window)]
        polyethylene, copper = behind[0] + shadow.polyethylene, behind[1] + shadow.copper
        total, own = signal_of(log_readings(polyethylene, copper)), signal_of(shadow.own_p)
        newly_opaque = shadow.mask & (total > OPAQUE_SIGNAL) & (own <= OPAQUE_SIGNAL)
        if newly_opaque.sum() > MAX_OPAQUE_SHARE * shadow.mask.sum():
            return None
        seen = visibility(shadow, polyethylene, copper, self._host.fit.look)
        return (occlusion(shadow, polyethylene, copper), round(seen.share, 3)) if seen.is_seen else None
