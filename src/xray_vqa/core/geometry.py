"""Boxes on a scan and the nine regions that people name them by."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

REGIONS = (
    "upper-left", "upper-center", "upper-right",
    "center-left", "center", "center-right",
    "lower-left", "lower-center", "lower-right",
)  # fmt: skip
"""Reading order: row by row from the upper left, one name for each third of the width and height."""


@dataclass(frozen=True, slots=True)
class Box:
    """An axis-parallel box in pixels of the image that it belongs to; `x` and `y` are its upper left corner."""

    x: float
    y: float
    w: float
    h: float

    def __post_init__(self) -> None:
        if not all(math.isfinite(value) for value in (self.x, self.y, self.w, self.h)):
            raise ValueError(f"box has a value that is not a number: {self.as_xywh()}")
        if self.w <= 0 or self.h <= 0:
            raise ValueError(f"box has no area: width {self.w}, height {self.h}")

    @classmethod
    def from_xyxy(cls, x0: float, y0: float, x1: float, y1: float) -> "Box":
        """Return the box between two corners. Raises ValueError where they span no area."""
        return cls(x0, y0, x1 - x0, y1 - y0)

    @classmethod
    def from_xywh(cls, values: Sequence[float]) -> "Box":
        """Return the box of four numbers `[x, y, w, h]`, as annotation files hold them."""
        if len(values) != 4:
            raise ValueError(f"a box is four numbers [x, y, w, h], found {len(values)}")
        return cls(*(float(value) for value in values))

    def as_xywh(self) -> tuple[float, float, float, float]:
        return (self.x, self.y, self.w, self.h)

    def as_xyxy(self) -> tuple[float, float, float, float]:
        return (self.x, self.y, self.x + self.w, self.y + self.h)

    @property
    def area(self) -> float:
        return self.w * self.h

    @property
    def center(self) -> tuple[float, float]:
        return (self.x + self.w / 2, self.y + self.h / 2)

    def scaled(self, factor_x: float, factor_y: float) -> "Box":
        """Return the box in the frame of an image that was resized by these factors."""
        return Box(self.x * factor_x, self.y * factor_y, self.w * factor_x, self.h * factor_y)

    def clipped(self, size_wh: tuple[int, int]) -> "Box | None":
        """Return the part inside an image of this size, or None where nothing of it is inside."""
        x0, y0, x1, y1 = self.as_xyxy()
        x0, y0 = max(0.0, x0), max(0.0, y0)
        x1, y1 = min(float(size_wh[0]), x1), min(float(size_wh[1]), y1)
        return Box.from_xyxy(x0, y0, x1, y1) if x1 > x0 and y1 > y0 else None

    def overlap(self, other: "Box") -> float:
        """Return the area that both boxes cover, in square pixels."""
        ax0, ay0, ax1, ay1 = self.as_xyxy()
        bx0, by0, bx1, by1 = other.as_xyxy()
        return max(0.0, min(ax1, bx1) - max(ax0, bx0)) * max(0.0, min(ay1, by1) - max(ay0, by0))

    def iou(self, other: "Box") -> float:
        """Return intersection over union, 0 (apart) to 1 (equal)."""
        shared = self.overlap(other)
        return shared / (self.area + other.area - shared)

    def region(self, size_wh: tuple[int, int]) -> str:
        """Return which of the nine `REGIONS` of an image of this size the box's center lies in.

        A center on a line between two thirds belongs to the right or lower one; one outside the image to the
        nearest region.
        """
        column, row = (min(2, max(0, int(3 * at // extent))) for at, extent in zip(self.center, size_wh, strict=True))
        return REGIONS[3 * row + column]
