"""Cutter, Blade, Shaving Razor."""

# ruff: noqa: RUF005  (an array plus a tuple is addition)

from __future__ import annotations

import numpy as np

from xray_vqa.simulation.primitives import Builder, circle, rotation_y, rotation_z, rounded_rectangle, smooth
from xray_vqa.simulation.shapes.registry import threat


@threat("Cutter", "snap-off", weight=2.0)
def snap_off_cutter(b: Builder) -> None:
    """A box cutter with a snap-off blade, 12 to 17 cm."""
    length, width = b.between(11, 16), b.between(1.6, 3.2)
    body = smooth(
        [
            (-length / 2, -width * 0.4),
            (-length / 2, width * 0.4),
            (0, width * 0.5),
            (length / 2, width * 0.36),
            (length / 2 + 0.8, width * 0.1),
            (length / 2, -width * 0.36),
            (0, -width * 0.42),
        ],
        3,
        closed=True,
    )
    shell, density = ("abs", 1.0) if b.chance(0.75) else ("zinc", 0.3)
    b.prism(body, -0.7, 0.7, shell, density, rounding=0.4)
    b.prism(rounded_rectangle(length * 0.9, width * 0.45, 0.2), -0.45, 0.45, shell, -density)
    out, half = b.between(0.3, 4.5), width * 0.36
    tip = length / 2 + out
    b.prism([(-length * 0.3, half), (tip + 1.2, half), (tip, -half), (-length * 0.3, -half)], -0.03, 0.03, "steel")
    for x in np.arange(0.7 - length * 0.3, tip, b.between(0.7, 1.2)):  # score lines
        b.prism([(x, half), (x + 0.1, half), (x - 0.5, -half), (x - 0.6, -half)], -0.025, 0.025, "steel", density=-0.8)
    b.prism(rounded_rectangle(length * 0.82, width * 0.62, 0.2), -0.05, 0.05, "steel")
    b.prism(rounded_rectangle(length * 0.8, width * 0.3, 0.1), -0.05, 0.05, "steel", density=-1)
    b.box((b.between(-3, 2), width * 0.42, 0), (0.9, 0.3, 0.45), "steel", density=0.6)
    b.cylinder((-length * 0.4, 0, 0), "z", 0.3, 0.7, "steel")


@threat("Cutter", "carpet")
def carpet_cutter(b: Builder) -> None:
    """A sturdy knife with a trapezoid blade at its nose."""
    length, width = b.between(13, 17), b.between(2.6, 3.6)
    body = smooth(
        [
            (-length / 2, -width * 0.35),
            (-length / 2, width * 0.4),
            (0, width * 0.45),
            (length / 2, width * 0.5),
            (length / 2, -width * 0.1),
            (length * 0.2, -width * 0.5),
            (-length * 0.2, -width * 0.35),
        ],
        3,
        closed=True,
    )
    shell, density = ("zinc", 0.25) if b.chance(0.6) else ("abs", 1.0)
    b.prism(body, -0.9, 0.9, shell, density, rounding=0.5)
    b.prism(body * 0.8, -0.6, 0.6, shell, -density)
    b.prism(
        [(length * 0.3, 0.9), (length / 2 + 2.2, 0.9), (length / 2 + 0.9, -0.9), (length * 0.3 + 1, -0.9)],
        -0.04,
        0.04,
        "steel",
    )
    for _ in range(b.count(0, 3)):
        x = b.between(-length * 0.35, -length * 0.15)
        b.prism(np.array([(-2.8, 0.9), (2.8, 0.9), (1.6, -0.9), (-1.6, -0.9)]) * 0.8 + (x, 0), -0.035, 0.035, "steel")
    b.cylinder((b.between(-1, 1), 0, 0), "z", 0.35, 0.95, "steel")
    b.box((b.between(0, 3), width * 0.4, 0), (0.9, 0.3, 0.4), "steel", density=0.6)


@threat("Blade", "razor blade", weight=2.0)
def razor_blade(b: Builder) -> None:
    """One to four double-edged razor blades, loose or fanned."""
    for i in range(b.count(1, 4)):
        centre = np.array([b.between(-1.4, 1.4), b.between(-1.4, 1.4), 0.05 * i]) * min(i, 1)
        turn = rotation_z(b.between(-0.6, 0.6) * min(i, 1))
        half = b.between(0.010, 0.016)
        b.prism(rounded_rectangle(4.3, 2.2, 0.25), -half, half, "steel", centre=centre, turn=turn)
        b.prism(rounded_rectangle(1.4, 0.3, 0.1), -half, half, "steel", density=-1, centre=centre, turn=turn)
        for x in (-1.1, 1.1):
            b.prism(circle(0.25, 10, (x, 0)), -half, half, "steel", density=-1, centre=centre, turn=turn)
        for y in (-0.98, 0.98):
            b.prism(
                rounded_rectangle(4.3, 0.25, 0.05) + (0, y), -half, half, "steel", density=2, centre=centre, turn=turn
            )


@threat("Blade", "trapezoid blade")
def trapezoid_blade(b: Builder) -> None:
    """One to five loose trapezoid blades."""
    for i in range(b.count(1, 5)):
        centre = np.array([b.between(-1.5, 1.5), b.between(-1.8, 1.8), 0.1 * i]) * min(i, 1)
        turn = rotation_z(b.between(-1, 1) * min(i, 1))
        b.prism(
            [(-2.9, 0.95), (2.9, 0.95), (1.7, -0.95), (-1.7, -0.95)],
            -0.035,
            0.035,
            "steel",
            centre=centre,
            turn=turn,
            taper=(0.3, 1),
        )
        for x in (-0.7, 0.7):
            b.prism(circle(0.25, 8, (x, 0.5)), -0.025, 0.025, "steel", density=-1, centre=centre, turn=turn)


@threat("Blade", "strip blade")
def strip_blade(b: Builder) -> None:
    """A spare snap-off blade or scalpel blade, 8 to 13 cm."""
    length, half = b.between(7, 13), b.between(0.45, 1.0)
    b.prism(
        [(-length / 2, half), (length / 2 + 1, half), (length / 2, -half), (-length / 2, -half)],
        -0.035,
        0.035,
        "steel",
        density=1.2,
    )
    for x in np.arange(-length / 2 + 1.2, length / 2, b.between(0.7, 1.2)):
        b.prism([(x, half), (x + 0.12, half), (x - 0.4, -half), (x - 0.52, -half)], -0.03, 0.03, "steel", density=-0.9)
    b.prism(circle(0.3, 10, (-length / 2 + 0.6, 0)), -0.035, 0.035, "steel", density=-1.2)


@threat("Shaving Razor", "safety razor")
def safety_razor(b: Builder) -> None:
    """A metal razor with a T-shaped head and a knurled handle."""
    length = b.between(7.5, 11)
    metal = b.pick(("zinc", "brass", "stainless"))
    b.tube((0, 0, 0), "x", b.between(0.42, 0.62), length / 2, 0.2, metal, density=0.7)
    for x in np.linspace(-length * 0.45, length * 0.1, b.count(6, 14)):
        b.ring((x, 0, 0), 0.55, 0.07, metal, turn=rotation_y(np.pi / 2), num_pieces=8)
    b.box((length / 2 + 0.6, 0, 0), (0.45, 2.1, 0.28), metal, density=0.8, turn=rotation_y(b.between(0, 0.5)))
    b.box((length / 2 + 0.7, 0, 0.25), (0.9, 2.1, 0.02), "steel")


@threat("Shaving Razor", "cartridge razor", weight=1.5)
def cartridge_razor(b: Builder) -> None:
    """A plastic razor with two to five narrow blades across its head."""
    length = b.between(8, 12)
    path = smooth([(-length / 2, 0), (-length / 6, b.between(0.2, 0.9)), (length / 4, 0.2), (length / 2, -0.3)], 5)
    b.wire(path, b.between(0.4, 0.6), b.pick(("polypropylene", "abs", "rubber")))
    if b.chance(0.4):
        b.wire(path[5:-3], 0.22, "zinc")
    head = length / 2 + 0.5
    b.box((head, -0.3, 0), (0.6, 2.0, 0.35), "abs")
    for i in range(b.count(2, 5)):
        b.box((head - 0.4 + 0.25 * i, -0.3, 0.1), (0.12, 1.8, 0.02), "steel", turn=rotation_y(0.6))
    b.box((head, -0.3, 0.3), (0.55, 0.08, 0.1), "steel", density=0.8)
    b.box((head + 0.9, -0.3, 0), (0.15, 1.9, 0.2), "rubber")


@threat("Shaving Razor", "straight razor", weight=0.7)
def straight_razor(b: Builder) -> None:
    """A folding barber's razor."""
    length, angle = b.between(6.5, 8), b.between(0.2, 2.8)
    b.prism(
        [(0, 0.9), (length, 0.9), (length + 0.3, -0.9), (0.6, -0.9), (0, -0.2)],
        -0.2,
        0.2,
        "stainless",
        taper=(0.2, 1),
        turn=rotation_z(angle),
    )
    b.box((-1.6, 0, 0), (1.8, 0.35, 0.2), "stainless", turn=rotation_z(angle))
    b.prism(
        rounded_rectangle(length * 1.9, 1.9, 0.9) + (-length * 0.6, 0),
        -0.5,
        0.5,
        b.pick(("abs", "wood", "stainless")),
        density=b.between(0.4, 0.9),
        rounding=0.4,
    )
    b.cylinder((0, 0, 0), "z", 0.25, 0.6, "steel")


@threat("Cutter", "ring pull", weight=0.7)
def safety_cutter(b: Builder) -> None:
    """A flat safety cutter with a finger hole and a short edge in its hook, 9 to 15 cm."""
    length, width = b.between(8, 13), b.between(2.6, 3.6)
    shell, density = b.pick((("abs", 1.0), ("nylon", 1.0), ("aluminium", 0.4)))
    body = rounded_rectangle(length, width, 0.4)
    b.prism(body, -0.45, 0.45, shell, density)
    b.prism(circle(width * 0.32, 12, (-length / 2 + width * 0.6, 0)), -0.45, 0.45, shell, -density)
    notch = [
        (length / 2 - 2.2, -width * 0.1),
        (length / 2, -width * 0.1),
        (length / 2, -width * 0.3),
        (length / 2 - 1.6, -width * 0.3),
    ]
    b.prism(notch, -0.45, 0.45, shell, -density)
    b.prism(
        [(length / 2 - 3, 0.5), (length / 2 - 0.4, 0.5), (length / 2 - 1.2, -0.9), (length / 2 - 2.4, -0.9)],
        -0.03,
        0.03,
        "steel",
        density=1.4,
    )
    for x in (length / 2 - 2.6, length / 2 - 0.9):
        b.cylinder((x, width * 0.3, 0), "z", 0.18, 0.5, "steel")


@threat("Cutter", "folding utility", weight=0.8)
def folding_utility_knife(b: Builder) -> None:
    """A metal handle into which a holder with a trapezoid blade folds, 10 to 17 cm."""
    length, width, angle = b.between(9, 11), b.between(2.2, 3.0), b.pick((0.0, 0.0, b.between(0.5, 2.8)))
    for z in (-0.55, 0.4):
        plate = rounded_rectangle(length, width, 0.8) - (length / 2, 0)
        b.prism(plate, z, z + 0.15, "aluminium")
        b.prism(
            rounded_rectangle(length * 0.5, width * 0.3, 0.3) - (length * 0.5, 0), z, z + 0.15, "aluminium", density=-1
        )
    turn = rotation_z(angle)
    b.prism(rounded_rectangle(4.2, 2.0, 0.3) + (2.0, 0), -0.3, 0.3, "steel", density=0.4, turn=turn)
    b.prism([(1.4, 0.9), (6.6, 0.9), (5.2, -0.95), (2.4, -0.95)], -0.04, 0.04, "steel", turn=turn)
    b.cylinder((0, 0, 0), "z", 0.4, 0.6, "steel", density=0.7)
    if b.chance(0.6):
        b.prism(rounded_rectangle(5.5, 0.7, 0.2) - (length * 0.5, width * 0.5), -0.06, 0.06, "steel")
