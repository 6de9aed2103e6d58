"""Gun and 3D Gun: outlines and wall materials only."""

from __future__ import annotations

import numpy as np

from xray_vqa.simulation.primitives import Builder, circle, smooth
from xray_vqa.simulation.shapes.parts import add_spring
from xray_vqa.simulation.shapes.registry import threat


@threat("Gun", "steel pistol", weight=1.5)
def steel_pistol(b: Builder) -> None:
    """A full-size pistol all of steel, 17 to 24 cm: frame, straps and slide are dark, the grip plates faint."""
    k, high = b.between(0.85, 1.1), b.between(2.3, 3.0)
    back, front = -b.between(7.2, 8.6) * k, b.between(8.2, 11) * k
    lean, depth, wide = b.between(0.8, 3.0), b.between(7.5, 9.5), b.between(4.2, 5.2)
    _add_slide(b, back, front, high * k, b.between(0.9, 1.2) * k)
    _add_barrel(b, front - 11 * k, front + b.between(-0.2, 1.6) * k, 0.62 * high * k, 0.7 * k)
    b.prism(
        [(back, 0), (front * b.between(0.6, 0.95), 0), (front * 0.6, -0.9 * k), (back, -1.1 * k)], -0.7, 0.7, "steel"
    )
    grip = _grip_outline(back / k + 1.2, wide, lean, depth) * k
    b.prism(grip, -0.85 * k, 0.85 * k, "steel", density=b.between(0.6, 1.0))
    b.prism(_inset(grip, 0.62, 0.88), -0.85 * k, 0.85 * k, "steel", density=-0.55)
    b.prism(grip, -1.5 * k, 1.5 * k, b.pick(("wood", "nylon", "rubber")), density=0.6, rounding=0.5)
    if b.chance(0.85):
        _add_magazine(b, _inset(grip, 0.6, 0.95), 0.85 * k)
    _add_trigger_guard(b, back + (1.2 + wide) * k, 4.2 * k, b.between(2.2, 2.9) * k, "steel")
    if b.chance(0.7):
        _add_hammer_spur(b, back, k)
    b.thin_metal(b.between(0.45, 1.0))


@threat("Gun", "polymer pistol", weight=1.5)
def polymer_pistol(b: Builder) -> None:
    """A pistol with a steel slide and magazine in a plastic frame, 16 to 21 cm."""
    k, high = b.between(0.85, 1.1), b.between(2.5, 3.1)
    back, front = -b.between(7.5, 8.8) * k, b.between(7.5, 10) * k
    lean, depth, wide = b.between(1.2, 3.2), b.between(7.5, 9.5), b.between(4.6, 5.6)
    _add_slide(b, back, front, high * k, 1.2 * k)
    _add_barrel(b, front - 10 * k, front + 0.2 * k, 0.6 * high * k, 0.7 * k)
    dust_cover = [(back - 0.6 * k, 0), (front * 0.95, 0), (front * 0.95, -1.3 * k), (back, -1.4 * k)]
    b.prism(dust_cover, -1.2 * k, 1.2 * k, "nylon", density=1.2)
    for x in (back + 1.5 * k, -0.5 * k):  # rails
        b.box((x, -0.3 * k, 0), (1.6 * k, 0.3 * k, 0.9 * k), "steel", density=0.5)
    grip = _grip_outline(back / k + 1.0, wide, lean, depth) * k
    b.prism(grip, -1.45 * k, 1.45 * k, "nylon", density=1.2, rounding=0.4)
    inner = _inset(grip, 0.72, 0.96)
    b.prism(inner, -1.1 * k, 1.1 * k, "nylon", density=-1.2)
    if b.chance(0.9):
        _add_magazine(b, inner, 1.0 * k)
    _add_trigger_guard(b, back + (1.0 + wide) * k, 4.4 * k, b.between(2.4, 3.0) * k, "nylon")
    b.thin_metal(b.between(0.5, 1.0))


@threat("Gun", "compact pistol")
def compact_pistol(b: Builder) -> None:
    """A pocket pistol, 11 to 15 cm."""
    k, high = b.between(0.8, 1.05), b.between(2.2, 2.8)
    back, front = -b.between(5.2, 6.2) * k, b.between(5.2, 7.4) * k
    lean, depth, wide = b.between(0.4, 2.0), b.between(5.5, 7.5), b.between(3.6, 4.6)
    _add_slide(b, back, front, high * k, b.between(0.8, 1.1) * k)
    _add_barrel(b, front - 7 * k, front + b.between(0, 0.6) * k, 0.6 * high * k, 0.55 * k)
    frame, density = b.pick((("nylon", 1.2), ("aluminium", 0.6), ("steel", 0.35)))
    grip = _grip_outline(back / k + 0.8, wide, lean, depth) * k
    b.prism([(back, 0), (front * 0.9, 0), (front * 0.9, -0.8 * k), (back, -1.2 * k)], -0.9 * k, 0.9 * k, frame, density)
    b.prism(grip, -1.2 * k, 1.2 * k, frame, density, rounding=0.3)
    if b.chance(0.9):
        _add_magazine(b, _inset(grip, 0.6, 0.97), 0.8 * k)
    _add_trigger_guard(b, back + (0.8 + wide) * k, 3.6 * k, b.between(2.0, 2.5) * k, frame)
    if b.chance(0.5):
        _add_hammer_spur(b, back, 0.8 * k)
    b.thin_metal(b.between(0.5, 1.0))


@threat("Gun", "thin-barrelled pistol")
def thin_barrelled_pistol(b: Builder) -> None:
    """An old or a target pistol: bare tapered barrel, raked grip, 18 to 26 cm."""
    k, barrel = b.between(0.85, 1.1), b.between(7, 13)
    b.prism(np.array([(-6, -0.2), (-6, 2.2), (-5, 2.7), (1.4, 2.6), (2.0, 2.2), (2.0, -0.4)]) * k, -0.9, 0.9, "steel")
    b.prism(np.array([(-4.6, 0.5), (-4.6, 1.8), (0.6, 1.8), (0.6, 0.5)]) * k, -0.55, 0.55, "steel", density=-1)
    b.cone(((2 + barrel / 2) * k, 1.5 * k, 0), "x", b.between(0.8, 1.0) * k, 0.55 * k, barrel / 2 * k, "steel")
    b.cylinder(((2 + barrel / 2) * k, 1.5 * k, 0), "x", 0.38 * k, barrel / 2 * k, "steel", density=-1)
    b.prism(
        np.array([(-0.5, 0), (0.5, 0), (0.1, 1.4), (-0.2, 1.4)]) * k + ((1.4 + barrel) * k, 2 * k), -0.2, 0.2, "steel"
    )
    grip = _grip_outline(-6.2, b.between(3.8, 4.6), b.between(3.0, 5.2), b.between(7.5, 9.5)) * k
    b.prism(grip, -0.9 * k, 0.9 * k, "steel", density=b.between(0.5, 0.9))
    b.prism(_inset(grip, 0.6, 0.85), -0.9 * k, 0.9 * k, "steel", density=-0.45)
    b.prism(grip, -1.4 * k, 1.4 * k, b.pick(("wood", "nylon")), density=0.7, rounding=0.5)
    if b.chance(0.7):
        _add_magazine(b, _inset(grip, 0.55, 1.0), 0.75 * k)
    _add_trigger_guard(b, -2.0 * k, 3.8 * k, b.between(2.2, 2.8) * k, "steel")
    if b.chance(0.5):
        b.cylinder((-5 * k, 2.4 * k, 0), "z", 0.9 * k, 1.0 * k, "steel", density=0.6)
    b.thin_metal(b.between(0.5, 1.0))


@threat("Gun", "revolver", weight=1.5)
def revolver(b: Builder) -> None:
    """A revolver with a 5 to 17 cm barrel; the grip plates are faint over a frame that is often an open loop."""
    k, barrel = b.between(0.8, 1.1), b.between(5, 15)
    middle = (2.8 + barrel / 2) * k
    heavy = b.chance(0.5)
    b.tube((middle, 1.9 * k, 0), "x", b.between(0.65, 0.9) * k, barrel / 2 * k + 0.6, 0.35 * k, "steel")
    if heavy:  # lug and rib beneath and above the barrel
        b.box((middle, 0.8 * k, 0), (barrel / 2 * k * b.between(0.4, 1.0), 0.4 * k, 0.4), "steel")
        b.box((middle, 2.8 * k, 0), (barrel / 2 * k, 0.25, 0.25), "steel")
    else:
        b.wire(np.array([(2.6, 0.7), (2.6 + barrel * 0.6, 0.7)]) * k, 0.25 * k, "steel")
    b.box(((2.2 + barrel) * k, 3.0 * k, 0), (0.5 * k, 0.4 * k, 0.15), "steel")
    frame = [(3.4, 3.2), (-3.2, 3.2), (-4.4, 2.4), (-4.6, -0.8), (-2.6, -2.2), (3.2, -1.8)]
    b.prism(np.array(frame) * k, -0.6, 0.6, "steel")
    b.prism(np.array([(2.1, 2.5), (-2, 2.5), (-2, -1.1), (2.1, -1.1)]) * k, -0.6, 0.6, "steel", density=-1)
    b.cylinder((0.1 * k, 0.7 * k, 0), "x", b.between(1.7, 2.0) * k, 2.0 * k, "steel", density=0.8)
    loaded = b.chance(0.6)
    for i in range(6):
        y, z = (0.7 + 1.15 * np.sin(i * np.pi / 3)) * k, 1.15 * k * np.cos(i * np.pi / 3)
        b.cylinder((0.1 * k, y, z), "x", 0.44 * k, 2.0 * k, "steel", density=-0.8)
        if loaded:
            b.cylinder((-0.5 * k, y, z), "x", 0.4 * k, 1.2 * k, "brass", density=0.6)
    _add_trigger_guard(b, -2.2 * k, 4.4 * k, b.between(2.0, 2.6) * k, "steel", top=-1.8 * k)
    drop = b.between(0.75, 1.1)
    grip = np.array(
        [(-2.4, -2), (-4.6, -0.6), (-5.4, -2.4), (-7.4, -6.4), (-8.4, -8.6), (-5.4, -9.2), (-4.4, -7), (-3.2, -4)]
    )
    outline = smooth(grip * (k, drop * k), 3, closed=True)
    b.prism(outline, -1.3 * k, 1.3 * k, b.pick(("wood", "rubber", "nylon")), density=b.between(0.6, 1.1), rounding=0.9)
    centre = outline.mean(0)
    b.prism(centre + (outline - centre) * 0.9, -0.45, 0.45, "steel")
    b.prism(centre + (outline - centre) * b.between(0.4, 0.65), -0.45, 0.45, "steel", density=-1)
    _add_hammer_spur(b, -4 * k, k, lift=1.4 * k)
    b.thin_metal(b.between(0.5, 1.0))


def _add_slide(b: Builder, back: float, front: float, high: float, half: float) -> None:
    """Add a hollow slide with its nose, port, grooves and sights; its lower edge lies at y = 0."""
    nose, snout = b.between(0.3, 2.5), b.between(0.55, 1.0)
    outline = [
        (back, 0),
        (back, high - 0.4),
        (back + 0.5, high),
        (front - nose, high),
        (front, snout * high),
        (front, 0),
    ]
    b.prism(outline, -half, half, "steel")
    inner = [(back + 1, 0), (back + 1, 0.75 * high), (front - nose - 0.5, 0.75 * high), (front - nose - 0.5, 0)]
    b.prism(inner, -0.68 * half, 0.68 * half, "steel", density=-1)
    port = (front + back) / 2 + b.between(-1, 1)
    b.box((port, 0.8 * high, 0.84 * half), (b.between(1.0, 1.7), 0.2 * high, 0.16 * half), "steel", density=-1)
    if b.chance(0.7):
        for i in range(b.count(4, 7)):
            b.box(
                (back + 0.5 + 0.38 * i, 0.55 * high, 0.86 * half), (0.1, 0.4 * high, 0.13 * half), "steel", density=-1
            )
    for x in (back + 0.7, front - max(nose, 0.8)):
        b.box((x, high + 0.12, 0), (0.35, b.between(0.12, 0.3), 0.25), "steel")


def _add_barrel(b: Builder, start: float, end: float, y: float, radius: float) -> None:
    """Add a barrel with a spring beneath it."""
    b.tube(((start + end) / 2, y, 0), "x", radius, (end - start) / 2, 0.45 * radius, "steel")
    add_spring(b, (start, max(y - 1.1 * radius - 0.3, 0.3), 0), 0.8 * (end - start), 0.28, 0.07, 5)


def _grip_outline(back: float, wide: float, lean: float, depth: float) -> np.ndarray:
    """Return the outline of a grip that hangs from y = -0.6 and leans backwards, (8, 2)."""
    front = back + wide
    return np.array([
        (front, -0.6), (front - 0.15 * lean - 0.3, -2.0), (front - 0.6 * lean - 0.4, -0.6 * depth),
        (front - lean, -depth), (back - lean - 0.2, -depth + 0.2), (back - 0.6 * lean - 0.1, -0.6 * depth),
        (back - 0.15 * lean + 0.3, -2.2), (back - 0.6, -0.6),
    ])  # fmt: skip


def _inset(grip: np.ndarray, narrow: float, short: float) -> np.ndarray:
    """Return a grip's outline made narrower and shorter along its own slanted axis."""
    top, foot = grip[[0, -1]].mean(0), grip[[3, 4]].mean(0)
    middle, slope = (top + foot) / 2, (foot - top)[0] / (foot - top)[1]
    y = middle[1] + short * (grip[:, 1] - middle[1])
    aside = grip[:, 0] - middle[0] - slope * (grip[:, 1] - middle[1])
    return np.c_[middle[0] + slope * (y - middle[1]) + narrow * aside, y]


def _add_magazine(b: Builder, outline: np.ndarray, half: float) -> None:
    """Add a magazine of the outline, steel walls with nothing to a full column of cartridges inside."""
    b.prism(outline, -half, half, "steel", density=0.8)
    b.prism(_inset(outline, 0.85, 0.97), -half + 0.12, half - 0.12, "steel", density=-0.8)
    top, foot = outline[[0, -1]].mean(0), outline[[3, 4]].mean(0)
    for i in range(b.count(0, 8)):
        x, y = top + (foot - top) * (i + 0.8) / 9
        b.cylinder((x - 0.4, y, 0), "x", 0.42, 0.9, "brass", density=0.45)
        b.ellipsoid((x + 0.9, y, 0), (0.6, 0.4, 0.4), "lead", density=0.5)


def _add_trigger_guard(b: Builder, x: float, reach: float, drop: float, material: str, top: float = -0.8) -> None:
    """Add the bow that starts at x before the grip, and the trigger in it."""
    square = b.between(0.0, 0.5)
    bow = [(x - 0.3, top), (x + 0.1, top - 0.85 * drop), (x + 0.45 * reach, top - drop),
           (x + (0.75 + 0.2 * square) * reach, top - (0.75 + 0.2 * square) * drop), (x + reach, top)]  # fmt: skip
    density = 1.2 if material == "nylon" else 1.0
    b.wire(smooth(bow, 3), 0.28 if material == "steel" else 0.38, material, density)
    trigger = smooth(
        [(x + 0.45 * reach, top), (x + 0.4 * reach, top - 0.4 * drop), (x + 0.55 * reach, top - 0.8 * drop)], 2
    )
    b.wire(trigger, 0.22, "steel")


def _add_hammer_spur(b: Builder, x: float, k: float, lift: float = 0.0) -> None:
    spur = np.array([(0.3, 0.6), (-0.9, 1.9), (-1.7, 2.1), (-1.5, 1.5), (-0.7, 0.9), (-0.2, 0.2)])
    b.prism(spur * k + (x, lift), -0.3, 0.3, "steel")


@threat("3D Gun", "blocky", weight=2.0)
def printed_pistol(b: Builder) -> None:
    """A printed plastic pistol with a bulky body; a few small metal parts."""
    k, plastic = b.between(0.85, 1.12), b.pick(("pla", "abs", "nylon"))
    high, back = b.between(3.6, 4.8), b.between(-9, -7)
    body = (
        np.array(
            [
                (back, 1),
                (back, high),
                (9, high),
                (9.4, high - 0.6),
                (9.4, 0.8),
                (2.2, 0.6),
                (1.8, -0.3),
                (-3, -0.6),
                (-4.6, -6.8),
                (-8.8, -6.6),
                (-7.6, -0.6),
            ]
        )
        * k
    )
    b.prism(body, -1.5 * k, 1.5 * k, plastic, density=b.between(0.6, 1.0))
    b.prism(
        np.array([(-6.6, 1.8), (-6.6, high - 0.7), (-0.5, high - 0.7), (-0.5, 1.8)]) * k,
        -1.0 * k,
        1.0 * k,
        plastic,
        density=-0.6,
    )
    b.cylinder((4.5 * k, 2.6 * k, 0), "x", b.between(0.45, 0.7) * k, 4.6 * k, plastic, density=-0.6)
    b.prism(
        np.array([(-4.2, -1.5), (-5.4, -6), (-7.8, -6), (-6.8, -1.5)]) * k, -0.8 * k, 0.8 * k, plastic, density=-0.6
    )
    b.wire(smooth(np.array([(2, -0.2), (2, -2), (0.6, -2.9), (-1.6, -2.8), (-3, -2)]) * k, 4), 0.4 * k, plastic)
    b.prism(np.array([(-0.4, 0), (0.2, 0), (-0.4, -2), (-0.9, -1.8)]) * k, -0.35, 0.35, plastic)
    _add_small_metal(b, k)


@threat("3D Gun", "slim")
def printed_slim(b: Builder) -> None:
    """A printed copy of a pistol's outline: separate slide and frame, thin walls."""
    k, plastic = b.between(0.8, 1.1), b.pick(("pla", "abs", "nylon"))
    slide = np.array([(-8.5, 0.2), (-8.5, 3.0), (8.6, 3.0), (9.2, 2.2), (9.2, 0.2)]) * k
    b.hollow_prism(slide, -1.3 * k, 1.3 * k, 0.45 * k, plastic, density=b.between(0.8, 1.1))
    lean = b.between(0, 1)
    frame = (
        np.array(
            [
                (-8.5, 0),
                (8.6, 0),
                (8.4, -1.2),
                (0.8, -1.4),
                (-2.4, -1.8),
                (-4 - lean, -8.8),
                (-9 - lean, -8.6),
                (-7.6, -2),
            ]
        )
        * k
    )
    b.prism(frame, -1.25 * k, 1.25 * k, plastic, density=b.between(0.6, 1.0))
    b.prism(
        np.array([(-3.4, -2.2), (-5 - lean, -8), (-8 - lean, -7.9), (-6.8, -2.2)]) * k,
        -0.85 * k,
        0.85 * k,
        plastic,
        density=-0.6,
    )
    b.wire(
        smooth(np.array([(1.6, -1.2), (1.8, -2.8), (0.4, -3.6), (-1.6, -3.5), (-2.8, -2.9)]) * k, 4), 0.38 * k, plastic
    )
    if b.chance(0.5):
        b.tube((2 * k, 1.6 * k, 0), "x", 0.6 * k, b.between(3, 6.5) * k, 0.15, "steel", density=0.5)
    _add_small_metal(b, k)


@threat("3D Gun", "drum", weight=0.8)
def printed_drum_gun(b: Builder) -> None:
    """A printed gun with a drum of four to six plastic barrels."""
    k, plastic = b.between(0.85, 1.1), b.pick(("pla", "abs", "nylon"))
    radius, half, barrels = b.between(2.0, 2.8) * k, b.between(2.8, 5) * k, b.count(4, 6)
    b.cylinder((4.2 * k, 2 * k, 0), "x", radius, half, plastic, density=b.between(0.7, 1.0))
    for i in range(barrels):
        angle = 2 * np.pi * i / barrels
        place = (4.2 * k, 2 * k + 0.62 * radius * np.cos(angle), 0.62 * radius * np.sin(angle))
        b.cylinder(place, "x", b.between(0.4, 0.55) * k, half, plastic, density=-0.7)
    frame = np.array([(0, 3.6), (-5.5, 3.8), (-6.8, 2.4), (-7.2, -1), (-10, -7), (-6.4, -7.8), (-4, -1.6), (1.2, -0.8)])
    b.prism(smooth(frame * k, 2, closed=True), -1.3 * k, 1.3 * k, plastic, density=b.between(0.6, 1.0))
    b.prism(circle(1.1 * k, 10, (-3.4 * k, 1.6 * k)), -0.8 * k, 0.8 * k, plastic, density=-0.6)
    b.wire(smooth(np.array([(-3.6, -1.2), (-3, -3), (-1.4, -3.4), (0.4, -2.6), (0.8, -0.9)]) * k, 3), 0.36 * k, plastic)
    b.wire(np.array([(-1.4, -0.8), (-1.6, -2.6)]) * k, 0.28 * k, plastic)
    _add_small_metal(b, k)


def _add_small_metal(b: Builder, k: float) -> None:
    """Add the screws, spring and pin that even a printed gun has."""
    b.cylinder((-3.4 * k, 2.4 * k, 0), "x", 0.14, b.between(1, 2.2) * k, "steel")
    if b.chance(0.7):
        add_spring(b, (-6.2 * k, 2.4 * k, 0), 4 * k, 0.38, 0.07, 5)
    for _ in range(b.count(2, 7)):
        x = b.between(-7, 8) * k
        y = (b.between(1, 3) if x > -3 * k else b.between(-5, 3)) * k
        if b.chance(0.5):
            b.cylinder((x, y, 0), "z", 0.16, 1.2 * k, "steel")
        else:
            b.cylinder((x, y, 0), "y", 0.14, 0.7, "steel")
    if b.chance(0.4):
        b.cylinder((2.2 * k, 2.4 * k, 0), "x", 0.45 * k, 1.1 * k, "brass", density=0.4)
