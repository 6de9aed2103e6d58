"""Knife, Cutter, Blade, Shaving Razor, Scissors, Other Sharp Item."""

# ruff: noqa: RUF005  (an array plus a tuple is addition)

from __future__ import annotations

import numpy as np

from xray_vqa.simulation.primitives import Builder, circle, rotation_y, rotation_z, rounded_rectangle, smooth
from xray_vqa.simulation.shapes.parts import add_grip, add_spring
from xray_vqa.simulation.shapes.registry import threat


@threat("Knife", "kitchen", weight=1.5)
def kitchen_knife(b: Builder) -> None:
    """A kitchen knife, 20 to 34 cm."""
    length, width = b.between(9, 21), b.between(1.8, 5.0)
    drop = b.between(-0.3, 0.35)
    blade = smooth(
        [
            (0, width / 2),
            (length * 0.5, width / 2),
            (length * 0.85, width * (0.5 - 0.2 * (drop + 0.3))),
            (length, width * drop),
            (length * 0.9, -width * 0.42),
            (length * 0.5, -width / 2),
            (0, -width / 2),
        ],
        3,
    )
    b.prism(blade, -b.between(0.08, 0.2), 0.13, "stainless", taper=(0.4, 1.0))
    add_grip(
        b,
        0.3,
        b.between(9, 12.5),
        b.between(2, 2.8),
        b.between(1.4, 2),
        b.pick(("polypropylene", "wood", "abs")),
        tang=b.chance(0.7),
    )
    b.thin_metal(b.between(0.8, 1.3))


@threat("Knife", "cleaver")
def cleaver(b: Builder) -> None:
    """A broad chopping knife."""
    length, width = b.between(13, 19), b.between(6, 9)
    b.prism(
        [(0, width * 0.5), (length, width * 0.5), (length, -width * 0.5), (0.6, -width * 0.5), (0, -width * 0.2)],
        -0.13,
        0.13,
        "stainless",
        taper=(0.5, 1),
    )
    if b.chance(0.6):
        b.cylinder((length - 1.5, width * 0.33, 0), "z", b.between(0.3, 0.6), 0.14, "stainless", density=-0.95)
    add_grip(b, 0.3, b.between(10, 12.5), 2.6, 2, b.pick(("wood", "polypropylene", "stainless")), tang=True)
    b.thin_metal(b.between(0.8, 1.3))


@threat("Knife", "folding")
def folding_knife(b: Builder) -> None:
    """A pocket knife, open or half open, 15 to 22 cm."""
    length, width = b.between(6.5, 9.5), b.between(1.5, 2.4)
    angle = 0.0 if b.chance(0.6) else b.between(0.3, 2.6)
    turn = rotation_z(angle)
    blade = smooth(
        [(0, width / 2), (length * 0.6, width / 2), (length, 0), (length * 0.8, -width * 0.4), (0, -width / 2)], 3
    )
    b.prism(blade, -0.14, 0.14, "stainless", taper=(0.4, 1), turn=turn)
    centre = np.array([-length * 0.6, 0])
    b.prism(
        rounded_rectangle(length * 1.25, width * 1.15, 0.8) + centre,
        -0.65,
        0.65,
        b.pick(("nylon", "wood", "aluminium")),
        rounding=0.5,
    )
    b.prism(rounded_rectangle(length * 1.15, width * 0.8, 0.6) + centre, -0.12, 0.12, "stainless")
    b.cylinder((-0.2, 0, 0), "z", 0.4, 0.7, "steel")
    b.cylinder((-length * 1.1, 0, 0), "z", 0.25, 0.65, "steel")
    b.thin_metal(b.between(0.8, 1.3))


@threat("Knife", "dagger")
def dagger(b: Builder) -> None:
    """A double-edged knife with a cross guard."""
    length, width = b.between(11, 18), b.between(1.8, 3.2)
    blade = smooth(
        [(0, width / 2), (length * 0.7, width * 0.42), (length, 0), (length * 0.7, -width * 0.42), (0, -width / 2)], 3
    )
    b.prism(blade, -0.22, 0.22, "steel", rounding=width * 0.6)
    b.box((-0.3, 0, 0), (0.4, b.between(1.6, 3.6), 0.5), b.pick(("steel", "brass")))
    add_grip(b, -0.6, b.between(8.5, 11), 2, 1.7, b.pick(("wood", "leather", "nylon")), tang=True)
    b.ellipsoid((-10.6, 0, 0), (0.9, 1.0, 0.8), b.pick(("steel", "zinc")))
    b.thin_metal(b.between(0.5, 1.0))


@threat("Knife", "butterfly", weight=0.6)
def butterfly_knife(b: Builder) -> None:
    """A knife between two pierced handles that swing apart, 18 to 24 cm open."""
    length, width, spread = b.between(8, 10.5), b.between(1.5, 2.1), b.between(0.0, 0.5)
    blade = [
        (-0.5, width / 2),
        (length * 0.6, width / 2),
        (length, -0.1),
        (length * 0.7, -width / 2),
        (-0.5, -width / 2),
    ]
    b.prism(smooth(blade, 3), -0.14, 0.14, "stainless", taper=(0.4, 1))
    for side in (1, -1):
        turn = rotation_z(-side * spread)
        handle = rounded_rectangle(length * 1.15, width * 0.55, 0.3) + (-length * 0.56, side * width * 0.33)
        b.prism(handle, -0.5, 0.5, "zinc", density=0.5, turn=turn)
        for share in (0.25, 0.5, 0.75):
            hole = circle(width * 0.17, 8, (-length * 1.1 * share, side * width * 0.33))
            b.prism(hole, -0.5, 0.5, "zinc", density=-0.5, turn=turn)
        b.cylinder((-0.2, side * width * 0.3, 0), "z", 0.2, 0.6, "steel")


@threat("Knife", "throwing", weight=0.8)
def one_piece_dagger(b: Builder) -> None:
    """A slim dagger cut from one plate of steel, 15 to 26 cm, with swept guard horns and a pierced handle."""
    length, width, grip = b.between(8, 14), b.between(1.2, 2.6), b.between(6.5, 11)
    horn, sweep = b.between(0.8, 2.4), b.between(-1.5, 1.5)
    upper = [(length, 0), (length * 0.6, width * 0.5), (0.8, width * 0.32), (0.4 + sweep, width * 0.3 + horn),
             (-0.4 + sweep, width * 0.3 + horn), (-0.6, 0.45), (-grip * 0.6, 0.65), (-grip, b.between(0.3, 0.8))]  # fmt: skip
    outline = np.r_[upper, np.array(upper[:0:-1]) * (1, -1)]
    b.prism(outline, -0.2, 0.2, "steel", density=b.between(0.6, 1.1))
    for share in (0.35, 0.6, 0.85)[: b.count(0, 3)]:
        b.prism(circle(0.3, 8, (-grip * share, 0)), -0.2, 0.2, "steel", density=-0.5)
    if b.chance(0.4):
        cord = rounded_rectangle(grip * 0.8, 1.9, 0.5) - (grip * 0.5, 0)
        b.prism(cord, -0.6, 0.6, b.pick(("nylon", "leather", "wood")), rounding=0.5)


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
    for x in np.arange(-length * 0.28, tip, b.between(0.7, 1.2)):  # score lines
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
        b.prism(rounded_rectangle(3.2, 0.3, 0.1), -half, half, "steel", density=-1, centre=centre, turn=turn)
        for x in (-1, 1):
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
            b.prism(circle(0.25, 8, (x, 0.5)), -0.035, 0.035, "steel", density=-0.9, centre=centre, turn=turn)


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


@threat("Scissors", "household", weight=2.0)
def household_scissors(b: Builder) -> None:
    """Scissors of 12 to 24 cm with plastic or steel bows, closed to half open."""
    k, opening = b.between(0.65, 1.25), b.between(0.03, 0.4)
    plastic = b.chance(0.65)
    reach = b.between(7.5, 11)
    bow_x, bow_y = b.between(2.0, 3.0) * k, b.between(1.3, 1.8) * k
    for side in (1, -1):
        turn, flip = rotation_z(side * opening), np.array([k, side * k])
        blade = [(-1.5, -0.55), (-1, 0.7), (reach, 0.12), (reach + 0.5, -0.1), (2, -0.5)]
        b.prism(blade * flip, -0.1, 0.1, "stainless", turn=turn, centre=(0, 0, 0.12 * side), taper=(0.8, 1))
        b.prism(
            [(-1, 0.5), (-1.5, -0.6), (-4.4, -1.6), (-4.6, -0.9), (-2.6, 0.3)] * flip,
            -0.14,
            0.14,
            "stainless",
            turn=turn,
        )
        centre = turn @ np.array([-6.4 * k, -1.8 * k * side, 0])
        ring_turn = turn @ rotation_z(-side * 0.15)
        b.ring(
            centre,
            bow_x,
            (0.5 if plastic else 0.36) * k,
            "abs" if plastic else "stainless",
            radius_2=bow_y,
            turn=ring_turn,
            num_pieces=14,
        )
    b.cylinder((0, 0, 0), "z", 0.5 * k, 0.35, "steel")
    b.thin_metal(b.between(0.7, 1.05))


@threat("Scissors", "small")
def small_scissors(b: Builder) -> None:
    """Nail or embroidery scissors of 8 to 11 cm, all steel."""
    k, opening, bend = b.between(0.9, 1.2), b.between(0.05, 0.45), b.between(0, 0.6)
    for side in (1, -1):
        turn, flip = rotation_z(side * opening), np.array([k, side * k])
        b.prism(
            [(-0.6, -0.3), (-0.5, 0.35), (3.4, 0.1 + bend), (3.6, bend), (1, -0.25)] * flip,
            -0.1,
            0.1,
            "stainless",
            turn=turn,
        )
        b.wire((smooth([(-0.4, 0), (-2, -0.5), (-3.6, -0.8)], 4) * flip) @ turn[:2, :2].T, 0.18 * k, "stainless")
        centre = turn @ np.array([-4.6 * k, -0.9 * k * side, 0])
        b.ring(centre, 1.25 * k, 0.17 * k, "stainless", radius_2=0.95 * k, turn=turn, num_pieces=14)
    b.cylinder((0, 0, 0), "z", 0.28 * k, 0.25, "steel")


@threat("Other Sharp Item", "trowel")
def trowel(b: Builder) -> None:
    """A pointed trowel."""
    width, length = b.between(2.4, 4), b.between(9, 13)
    b.prism(
        smooth([(0, width), (3, width + 0.3), (length, 0), (3, -width - 0.3), (0, -width)], 3), -0.08, 0.08, "steel"
    )
    b.wire(smooth([(0, 0, 0), (-2, 0, 0.5), (-4, 0, 2), (-6, 0, 2.2)], 4), 0.4, "steel", density=0.8)
    b.cone((-11, 0, 2.2), "x", 1.2, 1.5, 5, b.pick(("wood", "polypropylene")))


@threat("Other Sharp Item", "awl")
def awl(b: Builder) -> None:
    """An awl or ice pick with a bulb handle."""
    b.wire([(0, 0, 0), (b.between(6, 13), 0, 0)], b.between(0.13, 0.24), "steel")
    b.ellipsoid((-4, 0, 0), (b.between(3.5, 5), 1.4, 1.4), b.pick(("wood", "abs")))
    b.cylinder((0, 0, 0), "x", 0.7, 0.5, "brass", density=0.5)


@threat("Other Sharp Item", "fork")
def carving_fork(b: Builder) -> None:
    """A carving fork: two long prongs, where a table fork has four short tines."""
    reach, apart = b.between(8, 13), b.between(0.5, 0.9)
    for y in (-apart, apart):
        prong = smooth([(-1.5, 0.3 * y), (0, y), (reach * 0.6, y), (reach, y * b.between(0.8, 1.0))], 4)
        b.wire(prong, b.between(0.13, 0.18), "stainless")
    grip = rounded_rectangle(b.between(10, 12), 1.5, 0.5) - (7, 0)
    if b.chance(0.6):
        b.prism(grip, -0.6, 0.6, b.pick(("wood", "abs")), rounding=0.5)
    b.prism(grip * (1, 0.6), -0.12, 0.12, "stainless")


@threat("Other Sharp Item", "star", weight=0.6)
def throwing_star(b: Builder) -> None:
    """A flat star of four to eight points."""
    points = b.count(4, 8)
    angle = np.arange(2 * points) * np.pi / points
    radius = np.where(np.arange(2 * points) % 2 == 0, b.between(3, 5), b.between(1.1, 1.8))
    b.prism(np.c_[radius * np.cos(angle), radius * np.sin(angle)], -0.13, 0.13, "steel", density=b.between(0.5, 1))
    b.prism(circle(0.6), -0.13, 0.13, "steel", density=-0.5)


@threat("Other Sharp Item", "chisel")
def chisel(b: Builder) -> None:
    """A wood chisel."""
    width, length = b.between(0.5, 1.5), b.between(8, 13)
    b.prism(
        [
            (0, width * 0.5),
            (length * 0.3, width),
            (length, width),
            (length, -width),
            (length * 0.3, -width),
            (0, -width * 0.5),
        ],
        -0.2,
        0.2,
        "steel",
    )
    b.cone((-6, 0, 0), "x", 1.5, 1.1, 6, b.pick(("wood", "abs", "polypropylene")))
    b.tube((-11.6, 0, 0), "x", 1.5, 0.3, 0.2, "steel")
    add_spring(b, (-1, 0, 0), 1.0, 0.8, 0.1, 1)
