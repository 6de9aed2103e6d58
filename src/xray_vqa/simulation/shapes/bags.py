"""Bags that keep their form: trolley cases, carton, tray. Centred in x and y, from z = 0 up; each returns its room."""

# ruff: noqa: RUF005  (an array plus a tuple is addition)

from __future__ import annotations

import numpy as np

from xray_vqa.simulation.primitives import MODE_STACK, Array, Builder, Texture, at_height, rounded_rectangle, smooth
from xray_vqa.simulation.shapes.fittings import (
    STREAKS,
    add_creases,
    add_panel,
    add_pocket,
    add_soft_rim,
    add_zip,
    part_of,
)
from xray_vqa.simulation.shapes.registry import Interior, bag


def _add_frame(b: Builder, outline: Array, depth: float, material: str, density: float) -> None:
    """Add the tube or wire that holds a case in form, at bottom and lid; the two show shifted."""
    radius = b.pick((0.12, 0.16, 0.22))
    for share in (0.06, 0.94) if b.chance(0.7) else (0.06, 0.5, 0.94):
        b.wire(at_height(outline * b.between(0.975, 0.995), depth * share), radius, material, density, closed=True)


def _add_rails(b: Builder, width: float, rail_y: float) -> None:
    """Add the telescopic handle: two pairs of thin tubes from end to end, their sleeves, screws and grip."""
    metal, density = b.pick((("aluminium", 1.3), ("aluminium", 1.0), ("aluminium", 0.8), ("steel", 0.3)))
    half_width, reach = b.between(0.9, 1.5), b.between(0.2, 0.42)
    for side in (1, -1):
        y = side * rail_y
        b.box((0, y, 1.4), (width * 0.47, half_width, 0.75), metal, density=density)
        b.box((0, y, 1.4), (width * 0.48, half_width - 0.13, 0.62), metal, density=-density)
        b.box((-width * (0.47 - reach), y, 1.4), (width * reach, half_width - 0.25, 0.5), metal, density=density * 0.4)
        b.box((0, y, 1.2), (width * 0.48, half_width + 0.5, 0.9), "polypropylene", density=0.2)
        for x in (-0.46, -0.44, 0.46, b.between(-0.2, 0.2)):
            b.cylinder((width * x, y, 1.2), "z", 0.28, 0.9, "steel")
    end = width * b.between(0.505, 0.53)
    b.wire([(width * 0.48, -rail_y, 1.6), (end, -rail_y, 1.6), (end, rail_y, 1.6), (width * 0.48, rail_y, 1.6)],
           b.between(0.6, 0.9), "abs", density=0.7)  # fmt: skip
    b.box((end, 0, 1.6), (0.3, rail_y * 0.6, 0.3), "steel", density=0.3)


def _add_wheels(b: Builder, width: float, height: float, depth: float) -> None:
    """Add two or four wheels with axles and housings at the lower end."""
    radius, is_pair = b.between(1.8, 2.6), b.chance(0.5)
    for side in (1, -1):
        for z in (1.5, depth - 2) if b.chance(0.6) else (1.5,):
            wheel = np.array([-width * 0.5 - radius * 0.6, side * height * 0.40, z])
            for y in (-0.9, 0.9) if is_pair else (0.0,):
                b.cylinder(wheel + (0, y, 0), "y", radius, 0.55 if is_pair else 1.0, "rubber")
                b.cylinder(wheel + (0, y, 0), "y", radius * 0.6, 0.6 if is_pair else 1.1, "rubber", density=-0.4)
            b.cylinder(wheel, "y", 0.35, 1.7, "steel")
            b.box((-width * 0.49, side * height * 0.40, z), (1.8, 2.2, 1.6), "polypropylene", density=0.4)


def _add_screws(b: Builder, width: float, height: float, depth: float) -> None:
    """Add rivets and screws: corners, feet, hinge, lining."""
    for x in (-0.46, 0.46):
        for y in (-0.45, 0.45):
            b.cylinder((width * x, height * y, depth * 0.5), "z", 0.25, 0.8, "steel")
    for side in (1, -1):
        for x in np.linspace(-width * 0.3, width * 0.3, b.count(0, 4)):
            b.cylinder((x, side * height * 0.48, 1), "z", 0.18, 0.4, "steel")
    for _ in range(b.count(2, 9)):
        b.cylinder((b.between(-0.45, 0.45) * width, b.between(-0.45, 0.45) * height, 0.6), "z", b.between(0.14, 0.26),
                   b.between(0.2, 0.6), b.pick(("steel", "zinc")))  # fmt: skip


def _add_side_handle(b: Builder, width: float, height: float, depth: float) -> None:
    knots = [(width * 0.12, height * 0.5, depth * 0.5), (width * 0.1, height * 0.5 + 2.2, depth * 0.55),
             (-width * 0.1, height * 0.5 + 2.2, depth * 0.55), (-width * 0.12, height * 0.5, depth * 0.5)]  # fmt: skip
    b.wire(smooth(knots, 5), b.between(0.5, 0.8), b.pick(("abs", "rubber", "nylon")), density=0.7)


def _add_trolley(b: Builder, width: float, height: float, depth: float) -> None:
    """Add what makes a case roll: telescopic handle, wheels, their screws, and the handle to lift it by."""
    _add_rails(b, width, b.between(4.5, 8.5))
    _add_wheels(b, width, height, depth)
    _add_screws(b, width, height, depth)
    _add_side_handle(b, width, height, depth)


@bag("suitcase", weight=1.1)
def soft_suitcase(b: Builder) -> Interior:
    """A trolley case of cloth on a frame: zips all round, front pocket, rails, wheels."""
    width, height, depth = b.between(42, 56), b.between(29, 38), b.between(14, 22)
    outline = rounded_rectangle(width, height, b.between(2.5, 6), 8)
    cloth, density = b.pick(("fabric", "nylon", "fabric")), b.between(0.9, 1.7)
    for z in (0.2, depth):
        add_panel(b, outline * b.between(0.97, 1), z, cloth, density * b.between(0.8, 1.8), b.between(0.15, 0.5))
    add_panel(b, outline * 0.98, depth - 0.5, "pvc", b.between(0.2, 0.8), b.between(0.15, 0.5))  # the coat of the cloth
    add_soft_rim(b, outline, depth * 0.4, b.between(0.8, 1.8), cloth, density)
    _add_frame(b, outline, depth, b.pick(("steel", "steel", "polypropylene")), 0.7)
    for share in (b.between(0.55, 0.7), b.between(0.8, 0.95))[: b.count(1, 2)]:
        add_zip(b, outline * 1.003, depth * share, b.count(1, 3), closed=True)
    add_pocket(b, outline * 0.94, depth)
    add_creases(b, outline * 0.97, b.count(10, 20), depth)
    if b.chance(0.6):
        b.wire(at_height(part_of(b, outline * 0.99, 0.4, 1.0), depth * 0.03), 0.35, b.pick(("pvc", "rubber")), 0.7)
    _add_trolley(b, width, height, depth)
    return Interior(width / 2 - 1.2, height / 2 - 1.2, 2.2, depth - 1, squareness=10)


@bag("hard suitcase", weight=0.9)
def hard_suitcase(b: Builder) -> Interior:
    """A trolley case of moulded plastic: two ribbed shells, zip or frame between them, lining, rails, wheels."""
    width, height, depth = b.between(42, 56), b.between(29, 38), b.between(15, 23)
    shell, wall = b.pick(("polypropylene", "abs", "abs")), b.between(0.26, 0.42)
    outline = rounded_rectangle(width, height, b.between(3, 7), 7)
    shrink = 1 - 2 * wall / height
    with b.part(MODE_STACK):  # straight walls along the rays would show as black lines: shells bulge in three steps
        levels, factors = (0, 0.16, 0.84, 1), (0.965, 1.0, 0.965)
        for low, high, factor in zip(levels[:-1], levels[1:], factors, strict=True):
            b.prism(outline * factor, low * depth, high * depth, shell, density=0.8)
            b.prism(outline * factor * shrink, low * depth + (wall if low == 0 else 0),
                    high * depth - (wall if high == 1 else 0), shell, density=-0.8)  # fmt: skip
    ribs, along = b.count(4, 11), b.chance(0.5)
    for share in np.linspace(-0.38, 0.38, ribs):
        half = (width * 0.42, b.between(0.15, 0.4), 0.1) if along else (b.between(0.15, 0.4), height * 0.42, 0.1)
        for z in (0.0, depth):
            b.box((0, share * height, z) if along else (share * width, 0, z), half, shell)
    lining, low, high = b.pick((("nylon", 1.0, 2.0), ("fabric", 1.0, 2.0), ("pvc", 0.4, 1.0)))
    add_panel(b, outline * 0.97, 0.4, lining, b.between(low, high), b.between(0.4, 0.9))
    add_creases(b, outline * 0.95, b.count(4, 10), depth)
    middle = outline * 1.003
    if b.chance(0.7):
        add_zip(b, middle, depth * 0.5, b.count(1, 2), closed=True)
    else:
        b.wire(at_height(middle, depth * 0.5), 0.3, "aluminium", density=0.5, closed=True)
        for side in (1, -1):
            b.box((side * width * 0.25, height * 0.5, depth * 0.5), (1.4, 0.5, 1.2), "zinc", density=0.35)
    for y in (-0.2, 0.2):
        if b.chance(0.5):  # straps that hold the clothes down, with their clips
            b.box((0, y * height, depth * 0.45), (width * 0.45, 1.2, 0.06), "nylon", density=0.8)
    _add_trolley(b, width, height, depth)
    return Interior(width / 2 - 1.4, height / 2 - 1.4, 2.2, depth - 1, squareness=9)


@bag("carton", weight=0.35)
def carton(b: Builder) -> Interior:
    """A cardboard box with flaps and tape."""
    width, height, depth = b.between(34, 46), b.between(24, 33), b.between(12, 18)
    density = b.between(0.5, 0.9)
    grain = Texture(b.between(0.1, 0.3), STREAKS, b.between(0.5, 1.2), b.count(0, 255))
    half = np.array([width / 2, height / 2, depth / 2])
    b.box((0, 0, depth / 2), half, "paper", density=density)
    b.box((0, 0, depth / 2), half - (0.4, 0.4, 0.4), "paper", density=-density)
    for z in (0.4, depth):
        b.box((0, 0, z), (width / 2, height * 0.25, 0.2), "paper", density=density, texture=grain)
    b.box((0, 0, depth + 0.2), (width / 2, 2.4, 0.03), "polypropylene", density=1.5)
    if b.chance(0.4):
        for x in np.linspace(-width * 0.45, width * 0.45, 4):
            b.wire([(x - 0.8, 0.7, depth), (x + 0.8, 0.7, depth)], 0.1, "copper")
    if b.chance(0.5):
        add_panel(b, rounded_rectangle(width - 2, height - 2, 1), 1, "polypropylene", b.between(0.1, 0.4), 0.9)
    return Interior(width / 2 - 1.2, height / 2 - 1.2, 1.2, depth - 1, squareness=12)


@bag("tray", weight=0.35)
def tray(b: Builder) -> Interior:
    """A checkpoint tray: shallow plastic with a raised rim and moulded ribs; a coat may lie in it."""
    width, height, depth = b.between(42, 54), b.between(30, 38), b.between(6, 10)
    outline = rounded_rectangle(width, height, b.between(3, 5), 6)
    wall = b.between(0.3, 0.48)
    shrink = 1 - 2 * wall / height
    with b.part(MODE_STACK):
        levels, factors = (0, 0.3, 1), (0.92, 0.97)
        for low, high, factor in zip(levels[:-1], levels[1:], factors, strict=True):
            b.prism(outline * factor, low * depth, high * depth, "polypropylene")
            b.prism(outline * factor * shrink, low * depth + (wall if low == 0 else 0), high * depth, "polypropylene",
                    density=-1)  # fmt: skip
    b.wire(at_height(outline, depth), b.between(0.5, 0.8), "polypropylene", closed=True)
    for x in np.linspace(-width * 0.4, width * 0.4, b.count(0, 9)):
        b.box((x, 0, 0.3), (0.25, height * 0.4, 0.15), "polypropylene")
    for side in (1, -1):
        b.prism(rounded_rectangle(3, 10, 1.2) + (side * width * 0.47, 0), depth - 0.8, depth - 0.3, "polypropylene")
    return Interior(width / 2 * 0.9, height / 2 * 0.9, 0.8, depth + 6, squareness=8)
