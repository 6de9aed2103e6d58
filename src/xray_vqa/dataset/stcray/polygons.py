"""Labelme polygons as masks, run-length encoded as records hold them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from xray_vqa.core.geometry import Box
from xray_vqa.core.images import DEFAULT_LIMITS

Points = Sequence[tuple[float, float]]


def bounding_xywh(points: Points) -> tuple[float, float, float, float]:
    xs, ys = ([point[axis] for point in points] for axis in (0, 1))
    return (min(xs), min(ys), round(max(xs) - min(xs), 6), round(max(ys) - min(ys), 6))


def polygon_mask(points: Points, size_wh: tuple[int, int]) -> dict[str, Any] | None:
    """Return COCO's uncompressed run-length encoding of a polygon; None where it covers no pixel of the image."""
    width, height = size_wh
    if len(points) < 3 or width * height > DEFAULT_LIMITS.max_pixels or not np.isfinite(points).all():
        return None
    x, y, w, h = bounding_xywh(points)
    left, top = max(0, int(x)), max(0, int(y))
    right, bottom = min(width, int(x + w) + 1), min(height, int(y + h) + 1)
    if right <= left or bottom <= top:
        return None
    # Only the part around the polygon is drawn: items are small, and there are tens of thousands of them.
    window = Image.new("1", (right - left, bottom - top))
    ImageDraw.Draw(window).polygon([(px - left, py - top) for px, py in points], fill=1, outline=1)
    mask = np.zeros((width, height), bool)  # columns first, as the encoding runs
    mask[left:right, top:bottom] = np.asarray(window).T
    flat = mask.ravel()
    if not flat.any():
        return None
    changes = np.flatnonzero(np.diff(flat)) + 1
    runs = np.diff(np.r_[0, changes, flat.size]).tolist()
    return {"size": [height, width], "counts": [0, *runs] if flat[0] else runs}


def match_polygons(
    boxes: Sequence[tuple[str, tuple[float, float, float, float] | None]], polygons: Sequence[tuple[str, Points]]
) -> list[int | None]:
    """Return for each labelled box the index of the polygon that outlines the same item, each used once.

    Of the same label, those that overlap most go together, down to an IoU of a half.
    """
    pairs: list[tuple[float, int, int]] = []
    for i, (label, xywh) in enumerate(boxes):
        for j, (other, points) in enumerate(polygons):
            if xywh is None or label != other or len(points) < 3:
                continue
            try:
                overlap = Box.from_xywh(xywh).iou(Box.from_xywh(bounding_xywh(points)))
            except ValueError:
                continue  # no area
            if overlap >= 0.5:
                pairs.append((-overlap, i, j))
    chosen: list[int | None] = [None] * len(boxes)
    used: set[int] = set()
    for _, i, j in sorted(pairs):
        if chosen[i] is None and j not in used:
            chosen[i] = j
            used.add(j)
    return chosen
