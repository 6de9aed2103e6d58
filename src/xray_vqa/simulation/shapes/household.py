"""Harmless household goods and clothes; several are look-alikes of threats."""

# ruff: noqa: RUF005  (an array plus a tuple is addition)

from __future__ import annotations

from itertools import pairwise

import numpy as np

from xray_vqa.simulation.primitives import (
    Builder,
    Texture,
    circle,
    rotation_x,
    rotation_y,
    rotation_z,
    rounded_rectangle,
    smooth,
)
from xray_vqa.simulation.shapes.parts import add_cell
from xray_vqa.simulation.shapes.registry import benign


@benign("water bottle", weight=1.0, declared_as="bottled water")
def plastic_bottle(b: Builder) -> None:
    """A plastic bottle, part full."""
    radius, half, fill = b.between(2.8, 4.2), b.between(7, 11), b.between(0.2, 1.0)
    b.tube((0, 0, 0), "x", radius, half, 0.04, "pet", cap=0.04)
    b.cylinder((-half * (1 - fill), 0, 0), "x", radius - 0.05, half * fill * 0.99, b.pick(("water", "water", "sugar")))
    b.cone((half + 1.6, 0, 0), "x", radius, 1.3, 1.6, "pet")
    b.cone((half + 1.6, 0, 0), "x", radius - 0.05, 1.25, 1.6, "pet", density=-1)
    b.tube((half + 4, 0, 0), "x", 1.5, 0.9, 0.18, "polypropylene")
    for x in np.linspace(-half * 0.8, half * 0.8, b.count(3, 7)):
        b.ring((x, 0, 0), radius, 0.09, "pet", density=0.8, turn=rotation_y(np.pi / 2), num_pieces=16)


@benign("flask", weight=0.3, declared_as="flask")
def vacuum_flask(b: Builder) -> None:
    """A double-walled steel flask."""
    radius, half = b.between(3, 4), b.between(8, 11.5)
    wall = b.between(0.025, 0.05)
    b.tube((0, 0, 0), "x", radius, half, wall, "stainless", cap=0.06)
    b.tube((0, 0, 0), "x", radius - 0.5, half - 0.6, wall, "stainless", cap=0.06)
    b.tube((half + 1.5, 0, 0), "x", radius * 0.85, 1.8, 0.25, "polypropylene", cap=0.3)
    if b.chance(0.5):
        b.cylinder((-half * 0.2, 0, 0), "x", radius - 0.6, half * 0.7, "water")


@benign("glass bottle", weight=0.6, declared_as="perfume or spirits")
def glass_bottle(b: Builder) -> None:
    """A glass bottle of spirits or perfume."""
    radius, half = b.between(2.0, 3.6), b.between(4, 10)
    b.tube((0, 0, 0), "x", radius, half, 0.28, "glass", cap=0.5)
    b.cylinder((-half * 0.15, 0, 0), "x", radius - 0.3, half * 0.75, b.pick(("water", "ethanol")))
    b.cone((half + 1.2, 0, 0), "x", radius, 1.2, 1.2, "glass", density=0.5)
    b.tube((half + 3.4, 0, 0), "x", 1.2, 1.2, 0.3, "glass")
    b.tube((half + 4.2, 0, 0), "x", 1.35, 0.7, 0.06, b.pick(("aluminium", "polypropylene")))


@benign("can", weight=0.6, declared_as="canned drink")
def can(b: Builder) -> None:
    """A drinks can or a spray can."""
    radius, half = b.between(2.2, 3.3), b.between(5.5, 9)
    b.tube((0, 0, 0), "x", radius, half, 0.03, b.pick(("aluminium", "aluminium", "steel")), cap=0.05)
    b.cylinder((-0.3, 0, 0), "x", radius - 0.04, half * b.between(0.5, 0.93), b.pick(("water", "water", "ethanol")))
    b.tube((half + 0.1, 0, 0), "x", radius * 0.9, 0.15, 0.12, "aluminium")
    if b.chance(0.35):
        b.cylinder((half + 1.2, 0, 0), "x", radius * 0.7, 1.1, "polypropylene", density=0.4)
        b.wire([(-half, 0, 0), (half, 0, 0)], 0.12, "polypropylene")


@benign("cosmetics", weight=1.2, declared_as="cosmetics", resembles=("Bullet", "Lighter"))
def cosmetics(b: Builder) -> None:
    """A tube of cream, a jar, lipsticks."""
    if b.chance(0.45):
        tube = [(-7, 1.2), (-7, -1.2), (0, -2.3), (6, -2.6), (6, 2.6), (0, 2.3)]
        b.prism(smooth(tube, 2, closed=True), -1.4, 1.4, "soap", rounding=1.6, density=1.05)
        b.cylinder((-8, 0, 0), "x", 1.2, 1.1, "polypropylene")
    elif b.chance(0.5):
        radius, half = b.between(2.4, 3.4), b.between(1.6, 3)
        b.tube((0, 0, 0), "z", radius, half, 0.3, b.pick(("polypropylene", "glass")))
        b.cylinder((0, 0, -0.4), "z", radius - 0.35, half * 0.8, "soap")
        b.tube((0, 0, half), "z", radius + 0.15, 0.7, 0.15, "abs", cap=0.2)
    else:
        for i in range(b.count(1, 3)):
            b.tube((b.between(-0.5, 0.5), i * 2.5, 0), "x", 1.1, b.between(2.8, 3.8), 0.08, "aluminium")
            b.cylinder((0, i * 2.5, 0), "x", 0.7, 2.2, "soap")


@benign("keys", weight=0.9, declared_as="keys", resembles=("Nail Cutter",))
def keys(b: Builder) -> None:
    """A ring of keys."""
    b.ring((0, 0, 0), 1.5, 0.12, "steel", num_pieces=14)
    for i in range(b.count(2, 5)):
        turn, metal, height = rotation_z(b.between(0, 6.28)), b.pick(("brass", "nickel", "steel")), 0.2 * i
        b.prism(circle(b.between(1, 1.3), 10, (2.4, 0)), -0.1, 0.1, metal, turn=turn, centre=(0, 0, height))
        b.prism(circle(0.4, 8, (1.8, 0)), -0.1, 0.1, metal, density=-1, turn=turn, centre=(0, 0, height))
        teeth = np.c_[np.linspace(3.4, 6.4, 8), -0.15 - 0.22 * b.rng.random(8)]
        b.prism(np.r_[teeth, [(6.7, 0), (6.4, 0.4), (3.4, 0.4)]], -0.1, 0.1, metal, turn=turn, centre=(0, 0, height))
    if b.chance(0.4):
        b.prism(rounded_rectangle(5, 2.6, 0.8) + (-4, 0), -0.5, 0.5, b.pick(("abs", "leather")))


@benign("coins", weight=0.6)
def coins(b: Builder) -> None:
    """A few loose coins."""
    for _ in range(b.count(2, 10)):
        spot = (b.between(-2.5, 2.5), b.between(-2.5, 2.5), b.between(-0.5, 0.5))
        b.cylinder(
            spot,
            "z",
            b.between(0.8, 1.3),
            b.between(0.07, 0.11),
            b.pick(("nickel", "brass", "copper")),
            turn=rotation_x(b.between(-0.4, 0.4)),
        )


@benign("wallet", weight=0.7, declared_as="wallet")
def wallet(b: Builder) -> None:
    """A wallet with cards and coins."""
    b.prism(rounded_rectangle(11, 9, 0.6), -0.8, 0.8, "leather", density=0.8, rounding=0.3)
    for _ in range(b.count(2, 6)):
        b.prism(rounded_rectangle(8.5, 5.4, 0.3) + (b.between(-0.8, 0.8), b.between(-1.4, 1.4)), -0.04, 0.04, "pvc")
    for _ in range(b.count(0, 6)):
        b.cylinder((b.between(-3, 3), b.between(-3, 3), 0), "z", b.between(0.8, 1.25), 0.1, b.pick(("nickel", "brass")))


@benign("book", weight=1.1, large=True, declared_as="books")
def book(b: Builder) -> None:
    """A book or a spiral notebook."""
    width, height, thick = b.between(14, 25), b.between(10, 18), b.between(0.8, 4.5)
    pages = Texture(b.between(0.02, 0.12), b.pick((1, 3)), b.between(0.6, 1.5), b.count(0, 255))
    b.box((0, 0, 0), (width / 2, height / 2, thick / 2), "paper", density=b.between(0.8, 1.2), texture=pages)
    b.box((0, 0, 0), (width / 2 + 0.3, height / 2 + 0.3, thick / 2 + 0.15), "paper", density=0.12)
    if b.chance(0.3):
        x = np.linspace(-width / 2, width / 2, 40)
        b.wire(np.c_[x, np.full(40, height / 2), 0.3 * np.cos(x * 6)], 0.08, "steel")


@benign("documents", weight=0.7, large=True, declared_as="documents")
def documents(b: Builder) -> None:
    """Loose sheets and folders."""
    for i in range(b.count(1, 3)):
        b.box(
            (b.between(-1, 1), b.between(-1, 1), i * 0.3),
            (b.between(10, 14.8), b.between(7, 10.5), b.between(0.05, 0.3)),
            "paper",
            turn=rotation_z(b.between(-0.08, 0.08)),
        )


@benign("shoe", weight=1.0, large=True, declared_as="shoes")
def shoe(b: Builder) -> None:
    """A shoe: patterned sole, upper, eyelets, sometimes a steel shank."""
    k = b.between(0.82, 1.1)
    sole = np.array(
        [
            (-13.5, 0),
            (-12.5, 3.3),
            (-6, 3.4),
            (0, 3.2),
            (6, 4.6),
            (11, 4.4),
            (13.5, 1.5),
            (13, -2.2),
            (8, -4.3),
            (0, -3.4),
            (-7, -3.2),
            (-12.5, -3),
        ]
    )
    outline = smooth(sole * k, 2, closed=True)
    b.prism(outline, -4.6, -2.6, "rubber", density=0.42)
    b.prism(outline * 0.9, -4.0, -3.2, "rubber", density=-0.4)
    for x in np.arange(-11, 12, b.between(1.2, 2.2)):
        b.box((x * k, 0, -4.3), (0.25, 3 * k, 0.4), "rubber", density=0.35)
    b.prism(outline, -2.6, 5, "leather", density=0.28, rounding=2.2)
    b.prism(outline * 0.86, -2.4, 4.8, "leather", density=-0.24, rounding=2.0)
    b.prism(outline * (0.3, 0.8) + (-8 * k, 0), -2.6, 4.5, "leather", density=0.2)
    for i in range(5):
        for side in (1, -1):
            b.tube((k + i * 1.5 * k, side * 1.4 * k, 4), "z", 0.3, 0.1, 0.12, "steel")
    if b.chance(0.5):
        b.box((-k, 0, -3), (5 * k, 0.6, 0.06), "steel")


@benign("belt", weight=0.6, declared_as="belt", resembles=("Handcuffs",))
def belt(b: Builder) -> None:
    """A rolled leather belt with its buckle."""
    t = np.linspace(0, 2 * np.pi * b.between(1.6, 2.6), 56)
    swing = b.between(3.4, 5.4) + t * 0.15
    path = np.c_[swing * np.cos(t), swing * np.sin(t) * b.between(0.6, 1), 0 * t]
    with b.part():
        for start, end in pairwise(path):
            step = end - start
            b.box(
                (start + end) / 2,
                (float(np.hypot(*step[:2])) / 2 + 0.1, 0.18, 1.6),
                "leather",
                turn=rotation_z(np.arctan2(step[1], step[0])),
            )
    b.ring(path[-1], 2.2, 0.25, "zinc", radius_2=1.9, turn=rotation_x(np.pi / 2 * b.between(0, 1)), num_pieces=8)
    b.wire([path[-1] + (-2, 0, 0), path[-1] + (2, 0, 0)], 0.2, "steel")


@benign("coat hanger", weight=0.3, large=True)
def coat_hanger(b: Builder) -> None:
    """A wire or plastic coat hanger."""
    material, radius = ("steel", 0.13) if b.chance(0.6) else ("polypropylene", 0.4)
    k = b.between(0.75, 0.95)
    bar = smooth(
        np.array([(-20, -4), (-10, 0), (0, 4), (10, 0), (20, -4), (19, -5.5), (0, -5.2), (-19, -5.5)]) * k,
        3,
        closed=True,
    )
    b.wire(bar, radius, material, density=1.2, closed=True)
    b.wire(smooth(np.array([(0, 4), (0, 7), (2, 9.5), (4, 8.5), (4.2, 7)]) * k, 4), 0.14, "steel", density=1.2)


@benign("cutlery", weight=0.7, declared_as="cutlery", resembles=("Knife", "Other Sharp Item"))
def cutlery(b: Builder) -> None:
    """Spoons and table forks."""
    for i in range(b.count(1, 4)):
        shift = np.array([b.between(-0.5, 0.5), i * 1.6, 0])
        if b.chance(0.6):
            b.ellipsoid(shift + (8, 0, 0), (3.0, 1.9, 0.08), "stainless")
        else:
            b.prism(rounded_rectangle(3.4, 2.2, 0.8) + shift[:2] + (7, 0), -0.08, 0.08, "stainless")
            for y in (-0.8, -0.27, 0.27, 0.8):
                b.wire([shift + (8.5, y, 0), shift + (11.5, y, 0)], 0.13, "stainless")
        b.prism(np.array([(5.2, 0.4), (-8, 0.8), (-9, 0), (-8, -0.8), (5.2, -0.4)]) + shift[:2], -0.1, 0.1, "stainless")


@benign("umbrella", weight=0.7, declared_as="umbrella", resembles=("Screwdriver",))
def umbrella(b: Builder) -> None:
    """A folded umbrella: shaft, ribs, handle."""
    half = b.between(10, 14)
    b.tube((0, 0, 0), "x", 0.5, half, 0.06, "steel")
    b.tube((2, 0, 0), "x", 0.35, half * 0.8, 0.06, "steel")
    b.cylinder((-half - 2.5, 0, 0), "x", 1.5, 2.6, "abs", density=0.8)
    for i in range(8):
        angle = i * np.pi / 4
        c, s = np.cos(angle), np.sin(angle)
        b.wire([(half, 0.5 * c, 0.5 * s), (-half * 0.6, 1.6 * c, 1.6 * s)], 0.1, "steel")
        b.wire([(half * 0.2, 0.5 * c, 0.5 * s), (-half * 0.5, 1.2 * c, 1.2 * s)], 0.09, "steel")
    b.cylinder((0, 0, 0), "x", 2.2, half * 0.95, "nylon", density=0.25, texture=Texture(0.5, 0, 1.0))


@benign("glasses", weight=0.7, declared_as="glasses", resembles=("Scissors",))
def glasses(b: Builder) -> None:
    """Spectacles, loose or in a case."""
    rim, lens = b.pick(("nickel", "abs")), b.pick(("abs", "abs", "glass"))
    width, height = b.between(2.2, 2.7), b.between(1.6, 2.3)
    for side in (1, -1):
        b.ring((side * 3, 0, 0), width, 0.12, rim, radius_2=height, num_pieces=14)
        b.cylinder((side * 3, 0, 0), "z", width - 0.1, 0.12, lens, radius_2=height - 0.1)
        b.wire([(side * 5.5, 0, 0), (side * 5.7, -7, -1)], 0.14, rim)
    if b.chance(0.5):
        outline = rounded_rectangle(16, 6.5, 2.5)
        b.hollow_prism(outline, -2.2, 2.2, 0.2, "abs", rounding=2)
        b.box((0, 3.2, 0), (7, 0.05, 1), "steel")


@benign("pens", weight=1.0, declared_as="stationery", resembles=("Injection", "Screwdriver"))
def pens(b: Builder) -> None:
    """One to five pens: a tube, a refill, a spring, a metal tip."""
    for i in range(b.count(1, 5)):
        turn, centre = rotation_z(b.between(-0.4, 0.4)), np.array([0, i * 1.3, 0])
        body, wall = b.pick((("polypropylene", 0.12), ("polypropylene", 0.12), ("aluminium", 0.06), ("brass", 0.03)))
        b.tube(centre, "x", 0.5, 6.3, wall, body, turn=turn)
        b.cylinder(centre, "x", 0.16, 5.5, "soap", turn=turn)
        b.cone(centre + turn @ (6.8, 0, 0), "x", 0.35, 0.08, 0.6, "brass", density=0.7, turn=turn)
        if b.chance(0.6):
            b.wire([centre + turn @ (-5.5, 0.6, 0), centre + turn @ (-2, 0.6, 0)], 0.1, "steel")
        if b.chance(0.5):
            x = np.linspace(3, 5.5, 24)
            b.wire(centre + np.c_[x, 0.25 * np.sin(x * 9), 0.25 * np.cos(x * 9)] @ turn.T, 0.06, "steel")


@benign("watch", weight=0.5, declared_as="watch")
def watch(b: Builder) -> None:
    """A wrist watch."""
    b.tube((0, 0, 0), "z", b.between(1.6, 2.2), 0.5, 0.3, "stainless", cap=0.12)
    b.cylinder((0, 0, 0), "z", 1.3, 0.25, "brass", density=0.5)
    strap = b.pick(("stainless", "leather", "rubber"))
    path = smooth(
        [
            (0, 2, 0),
            (0, 4, -0.8),
            (0, 6, -2.5),
            (0, 4, -5),
            (0, 0, -5.6),
            (0, -4, -5),
            (0, -6, -2.5),
            (0, -4, -0.8),
            (0, -2, 0),
        ],
        3,
    )
    with b.part():
        for start, end in pairwise(path):
            along = (end - start) / np.linalg.norm(end - start)
            turn = np.stack([np.array([1.0, 0, 0]), along, np.cross([1.0, 0, 0], along)], 1)
            b.box((start + end) / 2, (0.9, float(np.linalg.norm(end - start)) / 2 + 0.05, 0.12), strap, turn=turn)


@benign("toy", weight=0.5, declared_as="toys")
def toy(b: Builder) -> None:
    """A soft toy with a battery box, or a small plastic car."""
    if b.chance(0.6):
        for _ in range(6):
            b.ellipsoid(
                b.rng.normal(0, 4, 3) * (1, 1, 0.4),
                b.between(2, 4) * np.array([1, b.between(0.7, 1.2), 0.8]),
                "cotton",
                density=0.3,
                texture=Texture(0.3, 0, 1.0),
            )
        if b.chance(0.5):
            b.box((0, 0, 0), (2, 1.5, 1), "abs", density=0.4)
            add_cell(b, "AAA", (0, 0, 0))
    else:
        b.hollow_prism(
            rounded_rectangle(9, 4.2, 1.2), -1.2, 1.2, 0.15, b.pick(("abs", "zinc")), density=0.5, rounding=0.6
        )
        for x in (-2.8, 2.8):
            b.wire([(x, -2.3, -1), (x, 2.3, -1)], 0.12, "steel")
            for y in (-2.1, 2.1):
                b.cylinder((x, y, -1), "y", 1.0, 0.4, "rubber")


@benign("comb", weight=0.5, resembles=("Knife", "Shaving Razor"))
def comb(b: Builder) -> None:
    """A hairbrush or comb."""
    length = b.between(7, 11)
    b.prism(rounded_rectangle(length * 2, 1.6, 0.6), -0.25, 0.25, "abs")
    bristle = b.pick(("nylon", "nylon", "steel"))
    for x in np.arange(-length * 0.9, length * b.between(0, 0.9), 0.45):
        b.wire([(x, -0.6, 0), (x, -2.8, 0)], 0.09, bristle, density=0.6 if bristle == "steel" else 1.5)


@benign("tube", weight=0.5, resembles=("Explosive", "Injection"))
def plastic_tube(b: Builder) -> None:
    """A capped tube: markers, tablets, a cigar. Has the outline of a stick or a pipe."""
    for i in range(b.count(1, 3)):
        half, radius = b.between(4, 9), b.between(0.8, 1.8)
        y = i * 3.8
        b.tube((0, y, 0), "x", radius, half, 0.12, b.pick(("polypropylene", "aluminium", "paper")), cap=0.12)
        if b.chance(0.6):
            b.cylinder(
                (-half * 0.2, y, 0),
                "x",
                radius - 0.15,
                half * 0.7,
                b.pick(("sugar", "soap", "paper")),
                density=b.between(0.5, 1),
            )


@benign("jewellery", weight=0.4, declared_as="jewellery", resembles=("Handcuffs",))
def jewellery(b: Builder) -> None:
    """A chain and a few rings."""
    angle = np.linspace(0, 2 * np.pi, 40)
    swing = b.between(2.5, 5) * (1 + 0.25 * np.sin(3 * angle + b.between(0, 6)) + 0.1 * np.cos(5 * angle))
    b.wire(
        np.c_[swing * np.cos(angle), 0.7 * swing * np.sin(angle)],
        b.between(0.08, 0.16),
        b.pick(("brass", "nickel", "silver")),
        density=0.8,
    )
    for _ in range(b.count(1, 4)):
        place = (b.between(-3, 3), b.between(-2, 2), 0)
        b.ring(place, b.between(0.8, 1.1), 0.15, b.pick(("brass", "silver")), num_pieces=10)
