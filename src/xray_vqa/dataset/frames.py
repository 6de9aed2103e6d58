"""In which frame the boxes of a scan were drawn, and how they become pixels of its image.

Annotations are made on resized copies, on pictures that a viewer turned as their EXIF tag says, in fractions of the
image. Where that is known the boxes are converted. Where it is not, they are not kept: a box that is clipped into an
image that it was not drawn on is wrong and looks right.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from xray_vqa.core.geometry import Box
from xray_vqa.dataset.importers.source import SourceScan

_REACH = 1.1
"""A box that ends beyond this many widths or heights of its image was hardly drawn on it."""
_SHARE = 0.05
"""Where more than this share of the scans without a stated size has such a box, none of them is trusted."""
_TURNED = frozenset({5, 6, 7, 8})
"""EXIF orientations that swap width and height."""


class Frame(NamedTuple):
    """How the boxes of one scan become pixels of its image."""

    scale: tuple[float, float] | None = (1.0, 1.0)
    """None where the boxes cannot be kept."""
    orientation: int = 1
    """The EXIF orientation under which the boxes were drawn; 1 where they were drawn on the pixels as stored."""
    message: str = ""
    """What was done, or why nothing can be; empty where the boxes are taken as they stand."""

    def place(self, box: Box, size_wh: tuple[int, int]) -> Box:
        """Return a box in pixels of the stored image. Raises ValueError where nothing of it is left."""
        assert self.scale is not None
        if self.scale == (1.0, 1.0):
            return box if self.orientation == 1 else turned_back(box, self.orientation, size_wh)
        scaled = box.scaled(*self.scale)
        return Box(*(round(value, 3) for value in scaled.as_xywh()))  # fractions have six digits; 12.000000000000002


@dataclass(frozen=True, slots=True)
class Frames:
    """What holds for all scans of a source."""

    scale_boxes: bool
    factor: float | None
    reach: float = 0.0
    """How many widths or heights of its image the farthest box ends at, among scans without a stated size."""
    all_in_doubt: bool = False

    def of(self, scan: SourceScan, size_wh: tuple[int, int], orientation: int) -> Frame:
        """Return the frame of a scan's boxes.

        Args:
            scan: The scan as its source has it.
            size_wh: Of the stored image.
            orientation: Its EXIF orientation, 1 where it has none.
        """
        stated = scan.size_wh
        if orientation != 1 and (turned := _turned_frame(stated, size_wh, orientation)) is not None:
            return turned
        if scan.relative:
            return Frame((float(size_wh[0]), float(size_wh[1])))
        if stated == size_wh:
            return Frame()
        (width, height), what = size_wh, f"is {size_wh[0]}x{size_wh[1]}, its annotation"
        if stated is not None:
            what = f"{what} was made for {stated[0]}x{stated[1]}"
            if stated == (height, width):
                return Frame(
                    None, message=f"{what}, which is this image on its side; its labels are kept without boxes"
                )
            if self.scale_boxes:
                return Frame((width / stated[0], height / stated[1]), message=f"{what}; its boxes are scaled")
            return Frame(None, message=f"{what}; its labels are kept without boxes, --scale-boxes scales them")
        if self.factor is not None:
            return Frame(
                (self.factor, self.factor),
                message=f"is {width}x{height}; its boxes are multiplied by {self.factor:g} as --box-factor says",
            )
        reach = farthest(scan, size_wh)
        if not (scan.frame_doubt or self.all_in_doubt or reach > _REACH):
            return Frame()
        why = scan.frame_doubt or f"has boxes that end at {reach:.2f} times its size"
        if not scan.frame_doubt and reach <= _REACH:
            why = "is of the same kind as others whose boxes leave their images"
        return Frame(None, message=f"{what} {why}; its labels are kept without boxes, {self._advice}")

    @property
    def _advice(self) -> str:
        times = max(1, math.ceil(self.reach - 0.01))
        if times == 1:
            return "--box-factor 1 takes them as they stand"
        return (
            f"--box-factor F multiplies them: all fit into their images from {times} times on, "
            f"which would be --box-factor {1 / times:.6g}"
        )


def find_frames(
    scans: Sequence[tuple[SourceScan, tuple[int, int]]], *, scale_boxes: bool, factor: float | None
) -> Frames:
    """Return what the scans of a source, each with its image's size, tell about the frames of all of them."""
    reaches = [
        farthest(scan, size_wh)
        for scan, size_wh in scans
        if scan.size_wh is None and not scan.relative and any(item.box_xywh for item in scan.items)
    ]
    num_far = sum(reach > _REACH for reach in reaches)
    return Frames(scale_boxes, factor, max(reaches, default=0.0), num_far > _SHARE * len(reaches))


def farthest(scan: SourceScan, size_wh: tuple[int, int]) -> float:
    """Return at how many widths or heights of the image the farthest box of a scan ends."""
    ends = [
        max((box[0] + box[2]) / size_wh[0], (box[1] + box[3]) / size_wh[1])
        for item in scan.items
        if (box := item.box_xywh) is not None and all(map(math.isfinite, box))
    ]
    return max(ends, default=0.0)


def _turned_frame(stated: tuple[int, int] | None, size_wh: tuple[int, int], orientation: int) -> Frame | None:
    """Return the frame where an EXIF tag turns or mirrors the picture; None where the stated size is the stored one."""
    swapped = (size_wh[1], size_wh[0])
    if orientation in _TURNED and stated is not None and swapped != size_wh:
        if stated == size_wh:
            return None
        if stated == swapped:
            what = f"is {size_wh[0]}x{size_wh[1]} and was annotated as its EXIF tag (orientation {orientation}) turns"
            return Frame(orientation=orientation, message=f"{what} it; its boxes are turned back")
    what = (
        f"has an EXIF tag (orientation {orientation}) and nothing says whether it was annotated as stored or as shown"
    )
    return Frame(None, message=f"{what}; its labels are kept without boxes. Remove the tag from a copy and import that")


def turned_back(box: Box, orientation: int, size_wh: tuple[int, int]) -> Box:
    """Return a box that was drawn on the shown picture in pixels of the stored one, of which `size_wh` is the size.

    The orientations are those from 5 to 8, as the TIFF 6.0 specification numbers them.
    """
    x, y, w, h = box.as_xywh()
    width, height = size_wh
    stored_x = width - (y + h) if orientation in (7, 8) else y
    stored_y = height - (x + w) if orientation in (6, 7) else x
    return Box(stored_x, stored_y, h, w)
