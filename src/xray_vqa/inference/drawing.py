"""Draws what was found onto a scan, for people."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from xray_vqa.core.inspection import Finding

_COLOURS = ("#d00000", "#c2007a", "#6a00b8", "#202020")
"""Dark enough for white letters, and none of them the orange, green or blue that scanners give to materials."""


def draw_findings(image: Image.Image, findings: Sequence[Finding]) -> Image.Image:
    """Return a copy of a scan with each finding's box and a label ("knife 93 %"), one colour for each category.

    A finding without a place stands in a line at the lower edge, so that no picture looks cleaner than its answer.
    """
    drawn = image.convert("RGB")
    if drawn is image:
        drawn = image.copy()
    pen = ImageDraw.Draw(drawn)
    font = ImageFont.load_default(size=max(12, min(drawn.size) // 28))
    categories = list(dict.fromkeys(finding.category for finding in findings))
    line_width = max(2, min(drawn.size) // 200)
    bottom = float(drawn.height)
    for finding in findings:
        colour = _COLOURS[categories.index(finding.category) % len(_COLOURS)]
        label = f"{finding.category.lower()} {finding.probability:.0%}".replace("%", " %")
        if finding.box is None:
            bottom = _draw_label(pen, font, f"{label}, place not determined", colour, (0.0, bottom), drawn.size)
            continue
        x0, y0, x1, y1 = finding.box.as_xyxy()
        pen.rectangle((x0, y0, x1, y1), outline=colour, width=line_width)
        _draw_label(pen, font, label, colour, (x0, y0), drawn.size)
    return drawn


_HEAT = np.array([208, 0, 0], dtype=np.float32)
_MOST_HEAT = 0.6
"""Of the overlay's colour where a map is hottest, so that the scan stays visible below it."""


def draw_heat(image: Image.Image, heat: NDArray[np.float32]) -> Image.Image:
    """Return a scan in grey with a heat map laid over it in red.

    In grey, because on a dual-energy scan a colour of the map would read as a material.

    Args:
        image: The scan.
        heat: (height, width) of the scan, 0 to 1.
    """
    grey = np.asarray(image.convert("L").convert("RGB"), dtype=np.float32)
    share = heat[..., None] * _MOST_HEAT
    return Image.fromarray(np.rint(grey * (1 - share) + _HEAT * share).clip(0, 255).astype(np.uint8))


def _draw_label(
    pen: ImageDraw.ImageDraw,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    text: str,
    colour: str,
    corner: tuple[float, float],
    size_wh: tuple[int, int],
) -> float:
    """Write a label that stands on a corner, moved inside the image, and return where its upper edge is."""
    left, top, right, bottom = pen.textbbox((0, 0), text, font=font)
    width, height = right - left + 6, bottom - top + 6
    x = max(0.0, min(corner[0], size_wh[0] - width))
    y = corner[1] - height if corner[1] >= height else min(corner[1], size_wh[1] - height)
    y = max(0.0, y)
    pen.rectangle((x, y, x + width, y + height), fill=colour)
    pen.text((x + 3 - left, y + 3 - top), text, fill="white", font=font)
    return y
