"""Clothes: what fills most bags. scene.py packs them apart from the other goods, hence weight 0."""

from __future__ import annotations

import numpy as np

from xray_vqa.simulation.primitives import Array, Builder, Texture, at_height, blob, rounded_rectangle, smooth
from xray_vqa.simulation.shapes.fittings import CLOUD, CRUMPLE, FOLDS, LONG_FOLDS, STREAKS
from xray_vqa.simulation.shapes.registry import benign

WOVEN = (("cotton", 0.9, 1.7), ("cotton", 0.9, 1.7), ("fabric", 0.3, 0.6), ("fabric", 0.3, 0.6), ("nylon", 0.3, 0.5))
"""Cloth with the range of its density, pressed together as in a packed bag: some 0.4 to 0.7 g/cm3. Cotton of the table
is a loose pile; fabric is a solid mixture of synthetic fibres with dye, coating and finish, which reads greener."""
PRESSED = (("cotton", 0.9, 1.7), ("cotton", 0.9, 1.7), ("fabric", 0.3, 0.6))
"""The same for what is folded or rolled."""


def _weave(b: Builder, uneven: float) -> Texture:
    pattern = b.pick((CLOUD, CLOUD, FOLDS, LONG_FOLDS, STREAKS, CRUMPLE))
    return Texture(uneven, pattern, b.between(0.3, 1.2), b.count(0, 255))


def _add_folds(b: Builder, width: float, height: float, count: int, material: str, density: float) -> None:
    """Add lines where the cloth is doubled: along the garment, or anywhere."""
    for _ in range(count):
        y = b.between(-0.45, 0.45) * height
        line = np.c_[np.linspace(-0.46, 0.46, 4) * width * b.between(0.5, 1), y + b.rng.normal(0, 0.8, 4)]
        if b.chance(0.4):
            line = np.c_[line[:, 1] * width / height, line[:, 0] * height / width]
        b.wire(at_height(smooth(line, 3), 0), b.between(0.08, 0.25), material, density * b.between(2.0, 5.0))


def _layers(b: Builder, outline: Array, thick: float, count: int, material: str, density: float, uneven: float,
            rounding: float) -> None:  # fmt: skip
    """Add layers of cloth, each a little smaller or shifted, that are `thick` cm together."""
    for _ in range(count):
        scale, shift = b.between(0.86, 1.0), b.rng.normal(0, 0.5, 2)
        b.prism(outline * scale + shift, -thick / count / 2, thick / count / 2, material, density,
                rounding=rounding * b.between(0.6, 1.2), texture=_weave(b, uneven))  # fmt: skip


@benign("clothes", weight=0.0, large=True, declared_as="clothes")
def garment(b: Builder) -> None:
    """A garment thrown in: soft outline, folds, sometimes buttons or a zip."""
    width, height = b.between(13, 25), b.between(11, 19)
    material, low, high = b.pick(WOVEN)
    density = b.between(low, high)
    outline = blob(b.rng, width, height, 22, 0.12, b.between(2.2, 4.5))
    _layers(b, outline, b.between(2, 5), b.count(1, 2), material, density, b.between(0.2, 0.6), b.between(0.6, 2.5))
    _add_folds(b, width, height, b.count(2, 5), material, density)
    if b.chance(0.3):
        button = b.pick(("abs", "abs", "zinc"))
        for share in np.linspace(-0.35, 0.35, b.count(3, 6)):
            b.cylinder((share * width, b.between(-0.05, 0.05) * height, 0), "z", 0.5, 0.13, button)
    if b.chance(0.2):
        line = np.c_[np.linspace(-0.4, 0.4, 6) * width, b.rng.normal(0, 0.6, 6)]
        b.wire(line, 0.17, b.pick(("zinc", "brass", "nylon")), density=0.5)


@benign("folded clothes", weight=0.0, large=True, declared_as="clothes")
def folded_pile(b: Builder) -> None:
    """A pile of folded shirts or trousers: nearly a block, with the folds along one side."""
    width, height, thick = b.between(15, 25), b.between(12, 18), b.between(3, 7)
    material, low, high = b.pick(PRESSED)
    density = b.between(low, high)
    outline = rounded_rectangle(width, height, b.between(1.5, 4), 5)
    _layers(b, outline, thick, 1, material, density, b.between(0.15, 0.45), b.between(0.4, 1.2))
    side = b.pick((1, -1))
    for _ in range(b.count(3, 7)):
        y = side * height * b.between(0.36, 0.47)
        line = np.c_[np.linspace(-0.44, 0.44, 4) * width, y + b.rng.normal(0, 0.3, 4)]
        b.wire(
            at_height(smooth(line, 3), b.between(-0.4, 0.4) * thick),
            b.between(0.1, 0.25),
            material,
            density * b.between(2.0, 4.0),
        )
    _add_folds(b, width, height, b.count(0, 3), material, density)


@benign("rolled clothes", weight=0.0, large=True, declared_as="clothes")
def rolls(b: Builder) -> None:
    """Two to five garments rolled up side by side."""
    length, radius = b.between(14, 22), b.between(2.0, 3.2)
    material, low, high = b.pick(PRESSED)
    density, count = b.between(low, high), b.count(2, 4)
    for index in range(count):
        y = (index - (count - 1) / 2) * 2 * radius
        b.cylinder((b.rng.normal(0, 0.6), y, 0), "x", radius * b.between(0.85, 1.05), length / 2, material, density,
                   radius_2=radius * b.between(0.6, 1.0), texture=_weave(b, b.between(0.15, 0.45)))  # fmt: skip


@benign("jacket", weight=0.0, large=True, declared_as="clothes")
def jacket(b: Builder) -> None:
    """A padded or lined jacket, folded: thick soft body, quilting, zip, snap buttons."""
    width, height = b.between(19, 29), b.between(15, 20)
    outline = blob(b.rng, width, height, 20, 0.1, b.between(2.6, 5))
    material, low, high = b.pick((("cotton", 0.8, 1.4), ("fabric", 0.25, 0.5), ("fabric", 0.25, 0.5)))
    _layers(
        b,
        outline,
        b.between(3, 6),
        b.count(1, 2),
        material,
        b.between(low, high),
        b.between(0.2, 0.5),
        b.between(0.8, 2.5),
    )
    for share in np.linspace(-0.4, 0.4, b.count(3, 8)):
        line = np.c_[np.full(4, share * width), np.linspace(-0.42, 0.42, 4) * height]
        b.wire(smooth(line + b.rng.normal(0, 0.4, (4, 2)), 3), b.between(0.15, 0.3), "nylon", density=0.7)
    zip_line = np.c_[np.linspace(-0.45, 0.45, 7) * width, b.rng.normal(0.1 * height, 0.7, 7)]
    b.wire(zip_line, 0.16, b.pick(("zinc", "brass", "nylon", "aluminium")), density=0.6)
    for _ in range(b.count(0, 5)):
        b.cylinder((b.between(-0.4, 0.4) * width, b.between(-0.4, 0.4) * height, 0), "z", 0.6, 0.18, "zinc")


@benign("towel", weight=0.0, large=True, declared_as="towel")
def towel(b: Builder) -> None:
    """A folded towel or blanket: even and thick."""
    width, height, thick = b.between(16, 26), b.between(13, 19), b.between(3, 6)
    outline = rounded_rectangle(width, height, b.between(2, 5), 5)
    texture = Texture(b.between(0.1, 0.25), b.pick((CLOUD, STREAKS)), b.between(0.3, 0.7), b.count(0, 255))
    b.prism(
        outline, -thick / 2, thick / 2, "cotton", b.between(0.9, 1.5), rounding=b.between(0.5, 1.5), texture=texture
    )
    _add_folds(b, width, height, b.count(1, 3), "cotton", 1.0)


@benign("small clothes", weight=0.0, declared_as="clothes")
def small_clothes(b: Builder) -> None:
    """Socks, underwear, a scarf: a soft wad that is stuffed into corners."""
    width, height = b.between(9, 18), b.between(7, 14)
    outline = blob(b.rng, width, height, 16, 0.15, b.between(2.0, 4))
    material, low, high = b.pick(WOVEN)
    density = b.between(low, high)
    _layers(b, outline, b.between(2, 6), 1, material, density, b.between(0.2, 0.5), b.between(0.5, 1.6))
    _add_folds(b, width, height, b.count(1, 3), material, density)


CLOTHING = (
    "clothes", "clothes", "folded clothes", "folded clothes", "small clothes", "small clothes", "rolled clothes",
    "jacket", "towel",
)  # fmt: skip
"""What a bag is filled with, by how often."""
