"""Ways in which a scan may differ from those that a model was measured on, each with strengths from 0 (unchanged).

A perturbed scan is a function of (seed, scan, kind, strength) alone. Where pixels move, boxes move with them. Noise and
patches grow with the strength out of one draw, so that a scan's conditions differ by the strength and nothing else.
"""

import hashlib
import io
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from xray_vqa.core.geometry import Box
from xray_vqa.core.records import ScanRecord
from xray_vqa.simulation.palette_inverse import estimate_air
from xray_vqa.simulation.writer import decode_mask

PERTURBATION_VERSION = "1"
"""Raised when the same kind and strength give other pixels, so that no prediction of another one is gone on with."""

QUARTER_TURNS = (90, 180)
"""Degrees at which Pillow moves pixels without mixing them."""

MIN_SIDE = 32
"""Pixels that a reduced scan keeps at least; below it nothing is a scan any more (see `core.images`)."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One way to change a scan, and the strengths that are tried by default."""

    name: str
    unit: str
    about: str
    strengths: tuple[float, ...]
    limit: float
    """The largest strength that has a meaning."""


KINDS: Mapping[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind("jpeg", "points below quality 100", "compressed as JPEG", (30, 60, 80, 90), 99),
        Kind("noise", "grey levels", "Gaussian noise of this standard deviation in each channel", (5, 10, 20, 40), 255),
        Kind("hue", "degrees", "all hues turned by this angle", (15, 30, 60, 120), 180),
        Kind("scale", "halvings", "width and height halved so many times", (0.5, 1, 1.5, 2), 6),
        Kind("rotation", "degrees", "turned counter-clockwise; the frame grows, nothing is cut", (5, 15, 45, 90), 180),
        Kind("scanner", "share of the way", "the colours of another scanner profile", (0.25, 0.5, 0.75, 1), 1),
        Kind("occlusion", "share of the scan", "covered by opaque dark patches", (0.05, 0.1, 0.2, 0.4), 0.9),
    )
}


@dataclass(frozen=True, slots=True)
class Condition:
    """One kind at one strength."""

    kind: str
    strength: float

    @property
    def name(self) -> str:
        return f"{self.kind}-{self.strength:g}"


def draws_of(seed: int, record: ScanRecord, kind: str) -> np.random.Generator:
    """Return the draws of one kind for one scan, the same for all strengths and on every machine."""
    digest = hashlib.sha256(f"{seed}:{record.image_path}:{kind}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "big"))


def perturb(
    image: Image.Image,
    record: ScanRecord,
    condition: Condition,
    seed: int = 0,
    other_look: Callable[[ScanRecord, Image.Image], Image.Image] | None = None,
) -> Image.Image:
    """Return a scan under a condition, RGB.

    Args:
        image: The scan as it is, RGB.
        record: Its record; the draws are made from its path.
        condition: What is done to it. Strength 0 is the scan itself.
        seed: Of noise and patches.
        other_look: Gives the same scan in another scanner's colours, for the kind `scanner`.
    """
    strength = condition.strength
    if strength == 0:
        return image
    match condition.kind:
        case "jpeg":
            return _compressed(image, round(100 - strength))
        case "noise":
            noise = draws_of(seed, record, "noise").standard_normal((image.height, image.width, 3), dtype=np.float32)
            noisy = np.asarray(image, dtype=np.float32) + strength * noise
            return Image.fromarray(noisy.round().clip(0, 255).astype(np.uint8))
        case "hue":
            return _hue_turned(image, strength)
        case "scale":
            return image.resize(scaled_size(image.size, strength), Image.Resampling.BOX)
        case "rotation":
            air = tuple(round(level) for level in estimate_air(np.asarray(image)))
            return image.rotate(strength, Image.Resampling.BICUBIC, expand=True, fillcolor=air)
        case "scanner":
            if other_look is None:
                raise ValueError("another scanner's look is needed for the kind scanner")
            return Image.blend(image, other_look(record, image), strength)
        case "occlusion":
            return _covered(image, draws_of(seed, record, "occlusion"), strength)
        case kind:
            raise ValueError(f"no perturbation {kind!r}; there are {', '.join(KINDS)}")


def perturbed_record(record: ScanRecord, condition: Condition) -> ScanRecord:
    """Return a scan's record under a condition: size and boxes where its pixels then are.

    A turned item's box is drawn around its turned mask. Without a mask nobody knows it: the smallest upright box around
    the turned corners is larger than the item, by up to twice its area, so that the item keeps its label alone. Quarter
    turns move boxes exactly.
    """
    size = perturbed_size(record.size_wh, condition)
    if condition.strength == 0 or condition.kind not in ("scale", "rotation"):
        return record
    masks = record.masks if record.masks and len(record.masks) == len(record.bboxes) else [None] * len(record.bboxes)
    boxes: list[tuple[float, float, float, float] | None] = []
    for values, mask in zip(record.bboxes, masks, strict=True):
        moved = None
        if values is not None and values[2] > 0 and values[3] > 0:
            if condition.kind == "scale" or condition.strength in QUARTER_TURNS:
                moved = moved_box(Box.from_xywh(values), record.size_wh, condition)
            elif mask is not None:
                moved = turned_mask_box(mask, record.size_wh, condition.strength)
        boxes.append(None if moved is None else moved.as_xywh())
    changed = {"width": size[0], "height": size[1], "bboxes": boxes, "masks": None}
    return record.model_copy(update=changed)


def turned_mask_box(encoded: Mapping[str, Any], size_wh: tuple[int, int], degrees: float) -> Box | None:
    """Return the upright box around a turned mask, in the frame that grew; None where the mask cannot be read."""
    mask = decode_mask(encoded)
    if mask is None or mask.shape != size_wh[::-1]:
        return None
    around = Image.fromarray(mask).rotate(degrees, expand=True).getbbox()
    return None if around is None else Box.from_xyxy(*around)


def perturbed_size(size_wh: tuple[int, int], condition: Condition) -> tuple[int, int]:
    """Return (width, height) of a scan under a condition."""
    if condition.strength == 0:
        return size_wh
    if condition.kind == "scale":
        return scaled_size(size_wh, condition.strength)
    if condition.kind == "rotation":
        return turned_size(size_wh, condition.strength)
    return size_wh


def moved_box(box: Box, size_wh: tuple[int, int], condition: Condition) -> Box:
    """Return where a box of the scan lies when the scan is scaled or turned by a quarter or two, exactly."""
    width, height = size_wh
    x0, y0, x1, y1 = box.as_xyxy()
    if condition.kind == "scale":
        scaled_width, scaled_height = scaled_size(size_wh, condition.strength)
        return box.scaled(scaled_width / width, scaled_height / height)
    if condition.strength == 90:
        return Box.from_xyxy(y0, width - x1, y1, width - x0)
    return Box.from_xyxy(width - x1, height - y1, width - x0, height - y0)


def scaled_size(size_wh: tuple[int, int], halvings: float) -> tuple[int, int]:
    """Return the size after so many halvings, at least `MIN_SIDE` a side."""
    width, height = (min(side, max(MIN_SIDE, round(side * 2**-halvings))) for side in size_wh)
    return width, height


def turned_size(size_wh: tuple[int, int], degrees: float) -> tuple[int, int]:
    """Return the frame that Pillow's `rotate(expand=True)` gives: the outermost whole pixels around the corners."""
    return Image.new("1", size_wh).rotate(degrees, expand=True).size


def _compressed(image: Image.Image, quality: int) -> Image.Image:
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=quality)
    stream.seek(0)
    return Image.open(stream, formats=("JPEG",)).convert("RGB")


def _hue_turned(image: Image.Image, degrees: float) -> Image.Image:
    """Turn chroma in the plane of equal luma (BT.601): greys stay, brightness stays but where a channel clips."""
    luma, blue, red = (np.asarray(part, np.float32) for part in image.convert("YCbCr").split())
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    blue, red = blue - 128, red - 128
    turned = np.stack([luma, cos * blue - sin * red + 128, sin * blue + cos * red + 128], axis=-1)
    return Image.fromarray(turned.round().clip(0, 255).astype(np.uint8), "YCbCr").convert("RGB")


PATCH_COLOUR = (12, 14, 40)
"""Nearly black with the blue of metal: what a steel plate looks like in most palettes."""
_PATCHES = 400
_PATCH_SIDES = (0.08, 0.25)
"""Of the scan's width and height."""


def _covered(image: Image.Image, draws: np.random.Generator, share: float) -> Image.Image:
    """Lay patches over a scan, in one order for all strengths, until they cover this share of it."""
    pixels = np.array(image)
    height, width = pixels.shape[:2]
    covered = np.zeros((height, width), dtype=bool)
    wanted = share * covered.size
    for _ in range(_PATCHES):
        w, h = (max(1, round(side * draws.uniform(*_PATCH_SIDES))) for side in (width, height))
        x, y = int(draws.integers(0, width - w + 1)), int(draws.integers(0, height - h + 1))
        fresh = h * w - int(covered[y : y + h, x : x + w].sum())
        missing = wanted - covered.sum()
        if fresh > missing:  # the last patch is cut to what is still wanted
            h = max(1, round(h * missing / fresh))
            covered[y : y + h, x : x + w] = True
            break
        covered[y : y + h, x : x + w] = True
    pixels[covered] = PATCH_COLOUR
    return Image.fromarray(pixels)
