"""Lighter, Injection, Nail Cutter, Handcuffs, Bullet."""

# ruff: noqa: RUF005  (an array plus a tuple is addition)

from __future__ import annotations

import numpy as np

from xray_vqa.simulation.primitives import Builder, rotation_x, rotation_y, rotation_z, rounded_rectangle, smooth
from xray_vqa.simulation.shapes.registry import threat


@threat("Lighter", "disposable", weight=2.0)
def disposable_lighter(b: Builder) -> None:
    """A plastic gas lighter with a metal hood; now and then two of them."""
    for i in range(1 if b.chance(0.75) else 2):
        shift = np.array([0.4 * i, 2.7 * i])
        x, y = shift
        length, width = b.between(5.4, 6.4), b.between(2.0, 2.6)
        b.prism(rounded_rectangle(length, width, 0.9) + shift, -0.6, 0.6, "nylon", rounding=0.5)
        b.prism(
            rounded_rectangle(length - 0.5, width - 0.4, 0.7) + shift, -0.46, 0.46, "nylon", density=-1, rounding=0.4
        )
        fill = b.between(0.3, 0.95) * (length - 0.5)
        b.prism(
            rounded_rectangle(fill, width - 0.4, 0.7) + shift - ((length - 0.5 - fill) / 2, 0),
            -0.46,
            0.46,
            "butane",
            rounding=0.4,
        )
        b.box((x - 0.2, y, 0), (length / 2 - 0.1, 0.05, 0.45), "nylon")
        top = length / 2
        hood = np.array([(0, 1.2), (1.4, 1.1), (1.4, -0.4), (0.8, -1.1), (0, -1.2)]) + (top, 0)
        b.prism(hood + shift, -0.6, 0.6, "steel", density=b.between(0.1, 0.2))
        b.cylinder((x + top + 0.7, y - 0.5, 0), "z", 0.45, 0.4, "steel", density=0.8)
        b.cylinder((x + top + 0.3, y + 0.4, 0), "x", 0.16, 0.7, "brass")
        b.cylinder((x + top - 0.5, y - 0.5, 0), "x", 0.18, 0.7, "steel", density=0.6)


@threat("Lighter", "flip-top")
def flip_lighter(b: Builder) -> None:
    """A metal lighter with a hinged lid, shut or open."""
    metal, wall, length = b.pick(("brass", "zinc", "stainless")), b.between(0.05, 0.08), b.between(5.3, 6.0)
    b.hollow_prism(rounded_rectangle(length, 3.7, 0.3), -0.62, 0.62, wall, metal)
    b.box((-1, 0, 0), (1.7, 1.6, 0.5), "cotton", density=2)
    b.prism(rounded_rectangle(2.0, 1.8, 0.2) + (1.6, 0), -0.4, 0.4, "stainless", density=0.3)
    b.cylinder((1.8, 0.7, 0), "z", 0.4, 0.35, "steel")
    b.box((0.45, 1.9, 0), (0.6, 0.12, 0.5), "steel")
    if b.chance(0.4):
        b.hollow_prism(rounded_rectangle(2.0, 3.7, 0.3) + (3.2, 3.0), -0.62, 0.62, wall, metal)


@threat("Lighter", "stick", weight=0.8)
def stick_lighter(b: Builder) -> None:
    """A long-nosed kitchen lighter."""
    b.prism(rounded_rectangle(12, 2.6, 1.0), -0.9, 0.9, "abs", rounding=0.6)
    b.prism(rounded_rectangle(11, 2.0, 0.8), -0.7, 0.7, "abs", density=-1, rounding=0.5)
    b.prism(rounded_rectangle(5, 1.9, 0.7) - (2.5, 0), -0.65, 0.65, "butane", rounding=0.4)
    b.tube((6 + b.between(3, 5), 0, 0), "x", 0.45, 5, 0.05, "steel")
    b.wire([(0, 0.3, 0), (13, 0.1, 0)], 0.1, "copper")
    b.box((2.5, -0.5, 0), (0.9, 0.5, 0.4), "steel", density=0.7)
    b.ring((2, -1.2, 0), 1.1, 0.3, "abs", num_pieces=10)


@threat("Injection", "syringe", weight=2.0)
def syringe(b: Builder) -> None:
    """A plastic syringe, 8 to 20 cm, empty to full, with or without its needle."""
    k = b.between(0.75, 1.5)
    half, radius = b.between(3.4, 4.6) * k, b.between(0.6, 0.95) * k
    b.tube((0, 0, 0), "x", radius, half, 0.11, "polypropylene", density=1.2)
    fill = b.between(0, 1)
    plunger = half * (0.9 - 1.7 * fill)
    liquid = (half - plunger) / 2
    if fill > 0.1:
        b.cylinder((half - liquid, 0, 0), "x", radius - 0.1, liquid, "water")
    b.cylinder((plunger, 0, 0), "x", radius - 0.1, 0.4, "rubber", density=1.2)
    end = plunger - half * 1.9
    b.box(((plunger + end) / 2, 0, 0), ((plunger - end) / 2, radius * 0.75, 0.09), "polypropylene")
    b.box(((plunger + end) / 2, 0, 0), ((plunger - end) / 2, 0.09, radius * 0.75), "polypropylene")
    b.cylinder((end, 0, 0), "x", radius * 1.1, 0.12, "polypropylene")
    b.box((-half, 0, 0), (0.13, radius * 1.9, radius), "polypropylene")
    b.cone((half + 0.4, 0, 0), "x", 0.5, 0.22, 0.5, "polypropylene", density=1.2)
    if b.chance(0.75):
        b.wire([(half + 0.6, 0, 0), (half + 0.9 + b.between(2, 4) * k, 0, 0)], 0.05, "stainless", density=2.0)
        if b.chance(0.5):
            b.tube((half + 2.4 * k, 0, 0), "x", 0.4, 2 * k, 0.08, "polypropylene")


@threat("Injection", "pen")
def injection_pen(b: Builder) -> None:
    """A pen injector with a glass cartridge."""
    b.tube((0, 0, 0), "x", b.between(0.75, 0.95), b.between(6.5, 8), 0.15, "abs")
    b.tube((3, 0, 0), "x", 0.5, 3.2, 0.12, "glass", cap=0.1)
    b.cylinder((3, 0, 0), "x", 0.4, 3, "water")
    b.cylinder((0.4, 0, 0), "x", 0.4, 0.3, "rubber")
    b.wire([(-1, 0.25, 0), (-6, 0.25, 0)], 0.13, "steel")
    angle = np.linspace(0, 2 * np.pi * 9, 70)
    b.wire(np.c_[np.linspace(-6, -1.5, 70), 0.45 * np.sin(angle), 0.45 * np.cos(angle)], 0.07, "steel")
    b.wire([(6.6, 0, 0), (9.5, 0, 0)], 0.05, "stainless", density=2)


@threat("Injection", "vial set", weight=0.7)
def vial_and_syringe(b: Builder) -> None:
    """A small syringe beside one or two glass vials."""
    syringe(b)
    for i in range(b.count(1, 2)):
        x, y = b.between(-2, 2) + 4 * i - 2, 2.6 + b.between(0, 0.6)
        b.tube((x, y, 0), "x", 0.9, 1.8, 0.12, "glass", cap=0.12)
        b.cylinder((x - 0.3, y, 0), "x", 0.78, 1.3, "water")
        b.tube((x + 2.1, y, 0), "x", 0.75, 0.35, 0.08, "aluminium", density=2)


@threat("Nail Cutter", "lever", weight=2.0)
def nail_clipper(b: Builder) -> None:
    """A lever nail clipper, 5 to 9 cm."""
    k = b.between(0.8, 1.35)
    jaw = np.array([(-3, 0.45), (1.8, 0.62), (3, 0.75), (3, -0.75), (1.8, -0.62), (-3, -0.45)]) * k
    b.prism(jaw, -0.1, 0.1, "steel", centre=(0, 0, 0.25), turn=rotation_y(0.06))
    b.prism(jaw, -0.1, 0.1, "steel", centre=(0, 0, -0.25), turn=rotation_y(-0.06))
    swing = rotation_z(0.0 if b.chance(0.6) else b.between(0.3, np.pi))
    lever = np.array([(-5, 0.4), (0, 0.5), (0.3, 0.3), (0.3, -0.3), (0, -0.5), (-5, -0.4)]) * k
    b.prism(lever, -0.1, 0.1, "steel", centre=(2.2 * k, 0, 0.7), turn=swing @ rotation_y(b.between(0.05, 0.3)))
    b.cylinder((2.2 * k, 0, 0.1), "z", 0.3 * k, 0.8, "steel")
    b.box((3.0 * k, 0, 0), (0.12, 0.75 * k, 0.35), "steel")
    if b.chance(0.6):
        b.prism(
            rounded_rectangle(4.2 * k, 0.5, 0.2),
            -0.06,
            0.06,
            "steel",
            turn=rotation_z(0.0 if b.chance(0.7) else b.between(0, 1.5)),
        )
    b.cylinder((-2.4 * k, 0, 0), "z", 0.15, 0.4, "steel")
    if b.chance(0.3):
        b.ring((-3.8 * k, 0, 0), 0.9, 0.08, "steel", num_pieces=12)


@threat("Nail Cutter", "nipper")
def nail_nipper(b: Builder) -> None:
    """A small nipper with sprung handles."""
    k, opening = b.between(0.8, 1.1), b.between(0.08, 0.35)
    for side in (1, -1):
        flip, turn = np.array([k, side * k]), rotation_z(side * opening)
        b.prism(
            [(-0.5, -0.3), (-0.4, 0.8), (0.8, 0.9), (2.2, 0.1), (0.4, -0.2)] * flip,
            -0.3,
            0.3,
            "stainless",
            turn=turn,
            density=0.8,
        )
        handle = np.array([(0, 0), (-1.5, -0.8), (-4, -1.3), (-7, -0.8)]) * flip @ turn[:2, :2].T
        b.wire(handle, 0.26 * k, "stainless")
        b.wire(np.array([(-1, -0.2), (-3.5, -0.5)]) * flip @ turn[:2, :2].T, 0.08, "steel")
    b.cylinder((0, 0, 0), "z", 0.45 * k, 0.4, "steel")


@threat("Nail Cutter", "with catcher", weight=0.8)
def catcher_clipper(b: Builder) -> None:
    """A wide clipper for toenails in a plastic housing that catches the parings, 7 to 10 cm."""
    k = b.between(0.9, 1.2)
    jaw = np.array([(-3.4, 0.6), (2.6, 0.8), (3.4, 0.9), (3.4, -0.9), (2.6, -0.8), (-3.4, -0.6)]) * k
    for z in (0.3, -0.3):
        b.prism(jaw, -0.11, 0.11, "stainless", centre=(0, 0, z), turn=rotation_y(0.06 * np.sign(z)))
    lever = np.array([(-5.2, 0.6), (2.4, 0.6), (2.4, -0.6), (-5.2, -0.6)]) * k
    b.prism(lever, -0.1, 0.1, "steel", centre=(0, 0, 0.8), turn=rotation_y(b.between(0.02, 0.2)))
    b.hollow_prism(rounded_rectangle(7 * k, 2.2 * k, 0.5) - (0.6 * k, 0), -0.7, 0.7, 0.14, "abs")
    b.cylinder((2.2 * k, 0, 0.1), "z", 0.3 * k, 0.9, "steel")


@threat("Nail Cutter", "folded set", weight=0.6)
def folding_nail_set(b: Builder) -> None:
    """A key-ring clipper of flat plates with its file and opener swung out."""
    k = b.between(0.8, 1.1)
    for angle, length, density in ((0.0, 5.2, 1.0), (b.between(0.5, 2.4), 4.6, 0.7), (-b.between(0.4, 2.2), 4.2, 0.7)):
        turn = rotation_z(angle)
        plate = np.array([(-0.5, 0.5), (length, 0.4), (length + 0.5, 0), (length, -0.4), (-0.5, -0.5)]) * k
        b.prism(plate, -0.08, 0.08, "steel", density, centre=(0, 0, 0.1 * angle), turn=turn)
    b.box((5.2 * k, 0, 0.1), (0.2, 0.7 * k, 0.35), "steel")
    b.cylinder((0, 0, 0), "z", 0.22, 0.5, "steel")
    b.ring((-1.6 * k, 0, 0), 1.1, 0.08, "steel", num_pieces=12)


@threat("Handcuffs", "chain", weight=2.0)
def chain_handcuffs(b: Builder) -> None:
    """Two cuffs on a short chain."""
    apart, bow = b.between(6.0, 9), b.between(2.9, 3.7)
    for side in (1, -1):
        turn = rotation_z(b.between(-0.6, 0.6)) @ rotation_x(b.between(-0.5, 0.5))
        centre = np.array([side * apart / 1.5, b.between(-1, 1), 0])
        b.ring(centre, bow, 0.32, "steel", radius_2=bow * 0.86, turn=turn, num_pieces=20)
        arc = (np.pi / 2, np.pi / 2 + 3.6) if side > 0 else (-np.pi / 2, -np.pi / 2 + 3.6)
        b.ring(centre + (0, 0, 0.6), bow, 0.25, "steel", radius_2=bow * 0.86, turn=turn, arc=arc, num_pieces=20)
        b.box(centre - (side * bow * 0.83, 0, 0), (1.1, 1.8, 0.55), "steel", turn=turn, density=0.7)
    for i in range(-2, 3):
        b.ring(
            (i * 0.9, b.between(-0.2, 0.2), 0),
            0.75,
            0.18,
            "steel",
            radius_2=0.5,
            turn=rotation_x((i % 2) * np.pi / 2),
            num_pieces=8,
        )
    b.thin_metal(b.between(0.45, 1.0))


@threat("Handcuffs", "hinged")
def hinged_handcuffs(b: Builder) -> None:
    """Two cuffs on a rigid hinge, folded or flat."""
    bow = b.between(2.9, 3.5)
    fold = b.between(0, 1.2)
    for side in (1, -1):
        turn = rotation_z(side * fold)
        centre = turn @ np.array([side * (bow + 2.2), 0, 0])
        b.ring(centre, bow, 0.34, "steel", radius_2=bow * 0.85, turn=turn, num_pieces=20)
        b.ring(
            centre + (0, 0, 0.7),
            bow * 0.96,
            0.26,
            "steel",
            radius_2=bow * 0.82,
            turn=turn,
            arc=(0.4, 3.6),
            num_pieces=18,
        )
        b.box(turn @ np.array([side * 2.0, 0, 0]), (1.3, 1.7, 0.6), "steel", turn=turn, density=0.7)
    for y in (-0.7, 0, 0.7):
        b.cylinder((0, y, 0), "y", 0.4, 0.3, "steel")
    b.thin_metal(b.between(0.45, 0.95))


@threat("Handcuffs", "rigid", weight=0.8)
def rigid_handcuffs(b: Builder) -> None:
    """Two cuffs in line on a stiff plastic body with a metal core."""
    bow, reach = b.between(2.9, 3.4), b.between(3.4, 5.0)
    body = rounded_rectangle(2 * reach + 1.4, b.between(3.4, 4.6), 0.9)
    b.prism(body, -1.1, 1.1, b.pick(("nylon", "abs")), density=b.between(0.7, 1.1), rounding=0.4)
    b.prism(body * 0.75, -0.5, 0.5, "steel", density=0.35)
    for side in (1, -1):
        centre = (side * (reach + 0.8 * bow), b.between(-0.3, 0.3), 0)
        b.ring(centre, bow, 0.32, "steel", radius_2=0.88 * bow, num_pieces=16)
        b.ring((*centre[:2], 0.65), bow * 0.98, 0.26, "steel", radius_2=0.84 * bow, arc=(0.5, 3.6), num_pieces=10)
        for y in (-0.8, 0.8):
            b.cylinder((side * reach * 0.7, y, 0), "z", 0.25, 1.0, "steel", density=0.8)
    b.thin_metal(b.between(0.45, 1.0))


@threat("Handcuffs", "disposable", weight=0.8)
def disposable_cuffs(b: Builder) -> None:
    """Double loops of nylon strap on one locking block, drawn wide or narrow."""
    block = rounded_rectangle(b.between(3, 4.4), b.between(1.6, 2.4), 0.3)
    b.prism(block, -0.7, 0.7, "nylon", density=b.between(1.0, 1.4))
    b.prism(block * 0.5, -0.3, 0.3, "steel", density=b.between(0.05, 0.25))
    for side in (1, -1):
        bow, tail = b.between(2.6, 4.2), b.between(2, 9)
        b.ring(
            (side * (bow + 1.2), 0.2, 0), bow, 0.32, "nylon", 1.3, radius_2=bow * b.between(0.75, 1.0), num_pieces=14
        )
        end = smooth(
            [
                (-side * 0.6, 0.3, 0.3),
                (-side * (1 + tail / 2), b.between(0.6, 2), 0.4),
                (-side * (1 + tail), b.between(0, 3), 0.4),
            ],
            3,
        )
        b.wire(end, 0.3, "nylon", density=1.3)


def _add_cartridge(
    b: Builder, centre: np.ndarray, turn: np.ndarray, radius: float, half: float, k: float, *, rifle: bool
) -> None:
    def at(x: float) -> np.ndarray:
        return centre + turn @ np.array([x, 0.0, 0.0])

    b.cylinder(at(0), "x", radius, half, "brass", turn=turn)
    b.cylinder(at(0.1), "x", radius - 0.07, half - 0.12, "brass", density=-1, turn=turn)
    b.cylinder(at(-half + 0.15), "x", radius * 1.08, 0.12, "brass", turn=turn)
    b.cylinder(at(-0.2), "x", radius - 0.08, half * 0.7, "black_powder", turn=turn)
    nose = 0.7 if rifle else 0.95
    b.ellipsoid(at(half), ((1.5 if rifle else 0.9) * k, radius * nose, radius * nose), "lead", turn=turn, density=0.8)


@threat("Bullet", "row", weight=1.5)
def cartridge_row(b: Builder) -> None:
    """Two to ten cartridges side by side, as in a box, a clip or a belt."""
    k, rifle = b.between(0.8, 1.25), b.chance(0.4)
    radius, half = (0.58 * k, 2.3 * k) if rifle else (0.5 * k, 1.0 * k)
    count = b.count(2, 10)
    rows = 2 if count > 5 and not rifle and b.chance(0.6) else 1
    for i in range(count):
        line, place = i % rows, i // rows
        turn = rotation_z(b.between(-0.1, 0.1) + (np.pi if b.chance(0.1) else 0))
        centre = np.array([line * 3.6 * k + b.between(-0.2, 0.2), place * 2.4 * radius, 0])
        _add_cartridge(b, centre, turn, radius, half, k, rifle=rifle)
    if b.chance(0.3):
        width = count / rows * 2.4 * radius
        b.hollow_prism(
            rounded_rectangle(rows * 3.6 * k + 1.2, width + 0.8, 0.2) + ((rows - 1) * 1.8 * k, width / 2 - radius),
            -0.9,
            0.9,
            0.08,
            b.pick(("paper", "polypropylene")),
        )


@threat("Bullet", "loose")
def loose_cartridges(b: Builder) -> None:
    """A small heap of loose cartridges."""
    k, rifle = b.between(0.8, 1.3), b.chance(0.4)
    radius, half = (0.58 * k, 2.3 * k) if rifle else (0.5 * k, 1.0 * k)
    spread = b.between(1.0, 2.6)
    for i in range(b.count(2, 9)):
        centre = np.array([b.rng.normal(0, spread), b.rng.normal(0, spread), b.between(-0.5, 0.5)]) * min(i, 1)
        _add_cartridge(b, centre, rotation_z(b.between(0, 6.28)), radius, half, k, rifle=rifle)


@threat("Bullet", "single large", weight=0.5)
def large_round(b: Builder) -> None:
    """One or two large-calibre rounds or shotgun shells."""
    shell = b.chance(0.5)
    for i in range(b.count(1, 4)):
        turn = rotation_z(b.between(-0.3, 0.3))
        centre = np.array([b.between(-0.5, 0.5), 2.4 * i, 0])
        if shell:
            b.tube(centre, "x", 1.0, 3.2, 0.1, "polypropylene", turn=turn)
            b.tube(centre - turn @ (2.4, 0, 0), "x", 1.05, 0.8, 0.06, "brass", cap=0.1, turn=turn)
            for _ in range(b.count(12, 26)):
                spot = turn @ np.array([b.between(-0.2, 2.8), b.between(-0.7, 0.7), b.between(-0.7, 0.7)])
                b.ellipsoid(centre + spot, (0.2, 0.2, 0.2), "lead")
            b.cylinder(centre - turn @ (1.5, 0, 0), "x", 0.85, 0.6, "black_powder", turn=turn)
        else:
            _add_cartridge(b, centre, turn, 0.8, 3.4, 1.5, rifle=True)
