"""Pictures for a page that refers to nothing outside itself: small enough, whatever is on them."""

import base64
import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from xray_vqa.core.images import decode_image, jpeg_uri

SIZES = ((560, 80), (560, 68), (480, 65), (400, 60), (320, 55), (240, 45), (160, 40))
"""Longest side in pixels and JPEG quality, best first."""

HEAT_SIDE = 96
"""Pixels. A heat map is a smooth thing of a few hundred patches, and the browser enlarges it smoothly."""

HeatMap = NDArray[np.floating] | bytes
"""(height, width) of any size with 0 for nothing and 1 for most, or the bytes of a greyscale PNG of it."""

_RAMP = np.array(
    [(0.0, 66, 10, 104), (0.35, 147, 38, 103), (0.6, 221, 81, 58), (0.85, 252, 165, 10), (1.0, 252, 255, 164)]
)
"""Dark violet to light yellow, lightness rising with heat, so that it can be read without seeing colours."""


def thumbnail_uri(image: Image.Image, max_bytes: int) -> str:
    """Return the best JPEG data URI of an image that has at most so many characters, or the smallest there is."""
    uri = ""
    for side, quality in SIZES:
        uri = jpeg_uri(image, side, quality)
        if len(uri) <= max_bytes:
            break
    return uri


def heat_uri(heat: HeatMap) -> str:
    """Return a heat map as a PNG data URI to lay over a scan: cold is clear, hot is light and opaque.

    Raises:
        ImageUnreadable: Bytes are no picture.
        ValueError: An array does not have two axes.
    """
    if isinstance(heat, bytes):
        heat = np.asarray(decode_image(heat).convert("L"), dtype=np.float32) / 255
    if heat.ndim != 2:
        raise ValueError(f"a heat map has two axes, found shape {heat.shape}")
    values = np.clip(np.nan_to_num(heat.astype(np.float32)), 0, 1)
    grey = Image.fromarray((255 * values).astype(np.uint8))
    grey.thumbnail((HEAT_SIDE, HEAT_SIDE), Image.Resampling.BOX)
    share = np.asarray(grey, dtype=np.float32) / 255
    layers = [np.interp(share, _RAMP[:, 0], _RAMP[:, channel]) for channel in (1, 2, 3)]
    rgba = np.stack([*layers, 210 * np.sqrt(share)], axis=-1).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(rgba).save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
