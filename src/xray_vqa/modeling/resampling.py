"""Pillow's bicubic resizing on any device, to the last bit.

Pillow resizes 8-bit pictures in whole numbers, along one side and then along the other, each time as a sum of some
pixels with weights of 22 bits, rounded to 8. The same sums on a GPU take a hundredth of the time. Which side comes
first depends on Pillow's version and on the sizes, so the Pillow that is installed is asked once for each pair of
sizes; where it does neither, it does the work. So the model sees the same pixels wherever a scan was resized.
"""

import logging
import math
from functools import lru_cache

import numpy as np
import torch
from PIL import Image
from torch import Tensor

logger = logging.getLogger(__name__)

_WEIGHT_BITS = 32 - 8 - 2
_SUPPORT = 2.0
"""Of the cubic kernel, in pixels of the coarser picture."""
_ORDERS = ((1, 0), (0, 1))


def resize_bicubic(pixels: Tensor, size_wh: tuple[int, int]) -> Tensor:
    """Return a picture as `Image.resize(size_wh, Image.Resampling.BICUBIC)` makes it.

    Args:
        pixels: (height, width, 3) uint8.
        size_wh: Width and height of the result.
    """
    height, width, _ = pixels.shape
    if (width, height) == size_wh:
        return pixels
    order = _order((width, height), size_wh)
    if order is None:
        return torch.from_numpy(_by_pillow(pixels.cpu().numpy(), size_wh)).to(pixels.device)
    return _resize(pixels, size_wh, order)


@lru_cache(maxsize=4096)
def _order(source_wh: tuple[int, int], size_wh: tuple[int, int]) -> tuple[int, int] | None:
    """Which side this Pillow resizes first, of a picture where that makes a difference; None where it does neither."""
    noise = np.random.default_rng(0).integers(0, 256, (source_wh[1], source_wh[0], 3), dtype=np.uint8)
    expected = _by_pillow(noise, size_wh)
    for order in _ORDERS:
        if np.array_equal(_resize(torch.from_numpy(noise), size_wh, order).numpy(), expected):
            return order
    logger.warning(
        "this Pillow resizes %s to %s in a way that is not known here; it does so itself", source_wh, size_wh
    )
    return None


def _by_pillow(pixels: np.ndarray, size_wh: tuple[int, int]) -> np.ndarray:
    return np.array(Image.fromarray(pixels).resize(size_wh, Image.Resampling.BICUBIC))


def _resize(pixels: Tensor, size_wh: tuple[int, int], order: tuple[int, int]) -> Tensor:
    for dim in order:
        length = size_wh[1 - dim]
        if pixels.shape[dim] != length:
            pixels = _resample(pixels, length, dim)
    return pixels


def _resample(pixels: Tensor, length: int, dim: int) -> Tensor:
    places, weights = _weights(pixels.shape[dim], length, pixels.device)
    shape = [1, 1, 1]
    shape[dim] = length
    total = torch.full_like(pixels.narrow(dim, 0, 1), 0, dtype=torch.int32) + (1 << (_WEIGHT_BITS - 1))
    for tap in range(places.shape[1]):
        total = total + pixels.index_select(dim, places[:, tap]).int() * weights[:, tap].view(shape)
    return (total >> _WEIGHT_BITS).clamp(0, 255).to(torch.uint8)


@lru_cache(maxsize=256)
def _weights(source: int, length: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Which source pixels each pixel of the result is made of, and how: (length, taps) int64 and int32."""
    scale = source / length
    stretch = max(scale, 1.0)
    support = _SUPPORT * stretch
    taps = math.ceil(support) * 2 + 1
    places = np.zeros((length, taps), np.int64)
    weights = np.zeros((length, taps), np.int32)
    for at in range(length):
        centre = (at + 0.5) * scale
        first = max(int(centre - support + 0.5), 0)
        count = min(int(centre + support + 0.5), source) - first
        own = [_cubic((tap + first - centre + 0.5) * (1.0 / stretch)) for tap in range(count)]
        total = sum(own)
        places[at, :count] = range(first, first + count)
        scaled = (weight / total * (1 << _WEIGHT_BITS) for weight in own)
        weights[at, :count] = [int(weight - 0.5) if weight < 0 else int(weight + 0.5) for weight in scaled]
    return torch.from_numpy(places).to(device), torch.from_numpy(weights).to(device)


def _cubic(x: float) -> float:
    """The kernel of Keys with a = -1/2."""
    x = abs(x)
    if x < 1:
        return (1.5 * x - 2.5) * x * x + 1
    if x < 2:
        return (((x - 5) * x + 8) * x - 4) * -0.5
    return 0.0
