"""Knife, Scissors, Other Sharp Item."""

# ruff: noqa: RUF005  (an array plus a tuple is addition)

from __future__ import annotations

import numpy as np

from xray_vqa.simulation.primitives import Builder, circle, rotation_z, rounded_rectangle, smooth
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
    if b.chance(0.2):  # all of steel, the grip a hollow shell
        b.hollow_prism(
            rounded_rectangle(b.between(9, 12), b.between(1.8, 2.6), 0.8) - (4.8, 0), -0.7, 0.7, 0.1, "stainless"
        )
    else:
        add_grip(b, 0.3, b.between(9, 12.5), b.between(2, 2.8), b.between(1.4, 2),
                 b.pick(("polypropylene", "wood", "abs")), tang=b.chance(0.8))  # fmt: skip
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
        b.cylinder((length - 1.5, width * 0.33, 0), "z", b.between(0.3, 0.6), 0.11, "stainless", density=-1)
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
             (-0.4 + sweep, width * 0.3 + horn), (-0.6, 0.45), (-grip * 0.6, 0.65),
             (-grip, b.between(0.3, 0.8))]  # fmt: skip
    outline = np.r_[upper, np.array(upper[:0:-1]) * (1, -1)]
    b.prism(outline, -0.2, 0.2, "steel", density=b.between(0.6, 1.1))
    for share in (0.35, 0.6, 0.85)[: b.count(0, 3)]:
        b.prism(circle(0.3, 8, (-grip * share, 0)), -0.2, 0.2, "steel", density=-0.5)
    if b.chance(0.4):
        cord = rounded_rectangle(grip * 0.8, 1.9, 0.5) - (grip * 0.5, 0)
        b.prism(cord, -0.6, 0.6, b.pick(("nylon", "leather", "wood")), rounding=0.5)


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


@threat("Scissors", "shears")
def tailor_shears(b: Builder) -> None:
    """Heavy shears of 20 to 30 cm, one bow round, one long for several fingers."""
    k, opening = b.between(0.85, 1.2), b.between(0.04, 0.35)
    material, gauge = b.pick((("stainless", 0.4), ("zinc", 0.45), ("abs", 0.6)))
    for side, reach, bow in ((1, 12.5, 1.5), (-1, 12.0, 2.8)):
        turn, flip = rotation_z(side * opening), np.array([k, side * k])
        blade = [(-1.8, -0.7), (-1.2, 1.0), (reach * 0.5, 0.9), (reach, 0.1), (reach + 0.3, -0.15), (2, -0.7)]
        b.prism(blade * flip, -0.14, 0.14, "stainless", turn=turn, centre=(0, 0, 0.15 * side), taper=(0.8, 1))
        shank = smooth([(-1, 0), (-3.2, -0.8), (-5, -1.2)] * flip, 3) @ turn[:2, :2].T
        b.wire(shank, 0.45 * k, "stainless", density=0.8)
        centre = turn @ np.array([(-5 - bow) * k, -2.0 * k * side, 0])
        b.ring(centre, (bow + 0.4) * k, gauge * k, material, radius_2=1.5 * k, turn=turn, num_pieces=12)
    b.cylinder((0, 0, 0), "z", 0.6 * k, 0.45, "steel")
    b.thin_metal(b.between(0.6, 1.05))


@threat("Scissors", "bandage", weight=0.7)
def bandage_scissors(b: Builder) -> None:
    """Scissors of 14 to 20 cm with angled blades, one of them blunt-nosed, in steel or plastic grips."""
    k, opening, bend = b.between(0.85, 1.1), b.between(0.05, 0.35), b.between(0.3, 0.7)
    plastic = b.chance(0.6)
    angled = rotation_z(bend)
    for side in (1, -1):
        turn, flip = rotation_z(side * opening), np.array([k, side * k])
        nose = [(7.2, 0.25), (7.6, -0.1)] if side > 0 else [(7.6, 0.45), (8.1, 0.1), (7.8, -0.2)]
        blade = [(-0.8, -0.5), (-0.6, 0.6), (3, 0.5), *nose, (2, -0.4)]
        b.prism(blade * flip, -0.1, 0.1, "stainless", turn=angled @ turn, centre=(0, 0, 0.1 * side))
        shank = smooth([(-0.5, 0), (-2.5, -0.7), (-4, -1.1)] * flip, 3) @ turn[:2, :2].T
        b.wire(shank, (0.45 if plastic else 0.25) * k, "abs" if plastic else "stainless")
        centre = turn @ np.array([-5.8 * k, -1.7 * k * side, 0])
        b.ring(centre, 2.0 * k, (0.45 if plastic else 0.22) * k, "abs" if plastic else "stainless",
               radius_2=1.3 * k, turn=turn, num_pieces=12)  # fmt: skip
    b.cylinder((0, 0, 0), "z", 0.4 * k, 0.3, "steel")


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
