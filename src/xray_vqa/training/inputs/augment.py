"""Other looks of a scan that a bag may have just as well: mirrored on the belt, and in another scanner's colours.

Whatever is said about a scan is mirrored with it. Names of regions in a text are turned round; a text that speaks of
places in other words, or in another language than English, cannot be and is left out of a mirrored scan.
"""

import re
from dataclasses import replace

import torch

from xray_vqa.core.geometry import REGIONS, Box
from xray_vqa.core.records import Annotation
from xray_vqa.training.inputs.scans import TrainingScan

MIRRORINGS = ((False, False), (True, False), (False, True), (True, True))
"""Left-right and upside-down; a bag may lie on the belt in any of them."""

RECOLOURING = 5
"""Numbers that say how a scan is recoloured: gamma, gains of red, green and blue, and whether it is grey."""

_REGION = re.compile("|".join(sorted(REGIONS, key=len, reverse=True)), re.IGNORECASE)
_PLACE = re.compile(
    r"\b(left|right|upper|lower|top|bottom|above|below|over|under|underneath|beneath|beside|corner|edge|side|up|down"
    r"|(?:left|right|top|bottom|upper|lower|inner|outer)most|(?:up|down|left|right|back|for)wards?"
    r"|(?:anti|counter)?clockwise|north|south|east|west|pixels?|coordinates?)\b",
    re.IGNORECASE,
)
_TURNED = {"left": "right", "right": "left", "upper": "lower", "lower": "upper"}


def mirrored(box: Box, size_wh: tuple[int, int], mirroring: tuple[bool, bool]) -> Box:
    """Return a box of an image after the image was mirrored left-right and/or upside-down."""
    x = size_wh[0] - box.x - box.w if mirroring[0] else box.x
    y = size_wh[1] - box.y - box.h if mirroring[1] else box.y
    return Box(x, y, box.w, box.h)


def mirrored_text(text: str, mirroring: tuple[bool, bool]) -> str | None:
    """Return a text about a scan as it holds for the mirrored scan, or None where it speaks of places in other words.

    Only the names of the nine regions are turned round: `In the Upper-left.` becomes `In the Upper-right.`
    """
    if not any(mirroring):
        return text
    if _PLACE.search(_REGION.sub(" ", text)):
        return None
    turned = [word for word, wanted in zip(("left right", "upper lower"), mirroring, strict=True) if wanted]
    words = {word for pair in turned for word in pair.split()}

    def turn(match: re.Match[str]) -> str:
        parts = match.group().split("-")
        return "-".join(_like(part, _TURNED[part.lower()]) if part.lower() in words else part for part in parts)

    return _REGION.sub(turn, text)


def _like(model: str, word: str) -> str:
    """Return a word in upper or lower case as a model has it."""
    return word.upper() if model.isupper() else word.capitalize() if model[0].isupper() else word


def mirrored_scan(scan: TrainingScan, mirroring: tuple[bool, bool]) -> TrainingScan:
    """Return what is known of a scan after its image was mirrored, without the pairs that cannot be mirrored."""
    if not any(mirroring):
        return scan
    annotations = [
        Annotation(a.category, mirrored(a.box, scan.size_wh, mirroring) if a.box else None) for a in scan.annotations
    ]
    pairs: list[tuple[str, str]] = []
    for (question, answer), language in zip(scan.pairs, scan.languages, strict=True):
        if language == "en":
            turned = mirrored_text(question, mirroring), mirrored_text(answer, mirroring)
            if turned[0] is not None and turned[1] is not None:
                pairs.append((turned[0], turned[1]))
    return replace(scan, annotations=tuple(annotations), pairs=tuple(pairs), languages=("en",) * len(pairs))


def draw_recolouring(size: int, generator: torch.Generator) -> torch.Tensor:
    """Return (size, RECOLOURING) float32 on the CPU: how each of some scans is to be recoloured."""

    def uniform(low: float, high: float, *shape: int) -> torch.Tensor:
        return low + (high - low) * torch.rand(shape, generator=generator)

    gamma, gains = uniform(0.75, 1.35, size, 1), uniform(0.9, 1.1, size, 3)
    return torch.cat([gamma, gains, (uniform(0, 1, size, 1) < 0.05).float()], dim=1)


def recolour(images: torch.Tensor, recolouring: torch.Tensor) -> torch.Tensor:
    """Return images with gamma and channel gains changed, some in grey.

    Colour is the first cue to break between scanners, so no class may own a hue.

    Args:
        images: (images, height, width, 3) uint8.
        recolouring: (images, RECOLOURING), from `draw_recolouring`.
    """
    gamma, gains, grey = recolouring.to(images.device)[:, None, None].split((1, 3, 1), dim=-1)
    pixels = (images.float() / 255) ** gamma
    pixels = 1 - (1 - pixels) * gains  # from white: air stays white
    pixels = torch.where(grey > 0, pixels.mean(dim=-1, keepdim=True), pixels)
    return (pixels.clamp(0, 1) * 255).round().to(torch.uint8)


def jitter(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Return (images, height, width, 3) uint8 images, each recoloured at random."""
    return recolour(images, draw_recolouring(images.shape[0], generator))
