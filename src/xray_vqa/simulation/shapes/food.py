"""Food, loose or boxed."""

# ruff: noqa: RUF005  (an array plus a tuple is addition)

from __future__ import annotations

import numpy as np

from xray_vqa.simulation.primitives import Builder, blob, rotation_z, rounded_rectangle
from xray_vqa.simulation.shapes.registry import benign


@benign("food box", weight=0.9, declared_as="food")
def food_box(b: Builder) -> None:
    """A lunch box, plastic or steel, with food."""
    width, height, thick = b.between(12, 19), b.between(9, 13), b.between(3, 6)
    case, wall = ("stainless", 0.06) if b.chance(0.35) else ("polypropylene", 0.18)
    outline = rounded_rectangle(width, height, 2)
    b.hollow_prism(outline, -thick / 2, thick / 2, wall, case)
    b.wire(np.c_[outline * 1.01, np.full(len(outline), thick / 2 - 0.3)], 0.25, case, density=0.5, closed=True)
    for _ in range(b.count(3, 14)):
        spot = (b.between(-0.36, 0.36) * width, b.between(-0.34, 0.34) * height, b.between(-0.3, 0) * thick)
        b.ellipsoid(
            spot,
            (b.between(1, 2), b.between(1, 2), b.between(0.6, 1.4)),
            b.pick(("sugar", "water", "soap")),
            density=0.8,
        )


@benign("fruit", weight=0.8, declared_as="food")
def fruit(b: Builder) -> None:
    """Apples, oranges or bananas."""
    if b.chance(0.7):
        for _ in range(b.count(1, 4)):
            radius, spot = b.between(2.6, 4), (b.between(-4, 4), b.between(-4, 4), 0)
            b.ellipsoid(spot, (radius, radius, radius * 0.93), "water", density=0.85)
            b.ellipsoid(spot, (radius * 0.25, radius * 0.4, radius * 0.3), "water", density=-0.3)
    else:
        angle = np.linspace(0.4, 2.6, 8)
        for i in range(b.count(1, 3)):
            b.wire(np.c_[8 * np.cos(angle), 8 * np.sin(angle) + 2.4 * i, 0 * angle], 1.6, "water", density=0.9)


@benign("snacks", weight=0.8, declared_as="food")
def snacks(b: Builder) -> None:
    """A bag of biscuits, nuts or sweets."""
    size = b.between(4.5, 9)
    b.prism(blob(b.rng, size * 2.2, size * 1.5), -0.04, 0.04, "polypropylene")
    for _ in range(b.count(8, 28)):
        spot = (b.between(-0.8, 0.8) * size, b.between(-0.5, 0.5) * size, b.between(-1, 1))
        b.ellipsoid(
            spot,
            (b.between(0.6, 1.4), b.between(0.5, 1.2), b.between(0.4, 0.8)),
            "sugar",
            density=0.9,
            turn=rotation_z(b.between(0, 3)),
        )


@benign("chocolate", weight=0.6, declared_as="food", resembles=("Explosive",))
def block_of_food(b: Builder) -> None:
    """A block of chocolate, cheese or soap: an organic brick, which is what an explosive block looks like."""
    for i in range(b.count(1, 3)):
        outline = rounded_rectangle(b.between(8, 17), b.between(4, 7), 0.5) + (b.between(-0.5, 0.5), i * 6)
        b.prism(
            outline,
            -b.between(0.4, 1.8),
            b.between(0.4, 1.8),
            b.pick(("sugar", "soap", "water")),
            density=b.between(0.9, 1.25),
            rounding=0.3,
        )
        if b.chance(0.4):
            b.prism(outline * 1.02, -0.02, 0.02, "aluminium", density=0.2)
