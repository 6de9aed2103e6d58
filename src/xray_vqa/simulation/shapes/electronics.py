"""Harmless electronics."""

# ruff: noqa: RUF005  (an array plus a tuple is addition)

from __future__ import annotations

import numpy as np

from xray_vqa.simulation.primitives import Builder, rotation_z, rounded_rectangle, smooth
from xray_vqa.simulation.shapes.parts import add_board, add_cable, add_cell, wandering_path
from xray_vqa.simulation.shapes.registry import benign


@benign("laptop", weight=0.9, large=True, declared_as="laptop")
def laptop(b: Builder) -> None:
    """A closed laptop: screen, keyboard, board, cells, fan, heat pipe."""
    width, height = b.between(27, 36), b.between(19, 24)
    case, wall = b.pick((("aluminium", 0.08), ("abs", 0.16)))
    outline = rounded_rectangle(width, height, b.between(0.6, 1.4))
    b.hollow_prism(outline, -0.9, 0.9, wall, case)
    b.prism(outline, 0.4, 0.4 + wall, case)
    b.box((0, 0, 0.6), (width / 2 - 0.8, height / 2 - 0.8, 0.06), "glass")
    keys_y = height * b.between(0.08, 0.2)
    b.box((0, keys_y, -0.1), (width * 0.42, height * 0.2, 0.12), "abs")
    b.box((0, keys_y, -0.25), (width * 0.42, height * 0.2, 0.02), "steel", density=b.between(0.3, 1))
    columns = 13
    for i in range(columns):
        for j in range(4):
            spot = ((i - (columns - 1) / 2) * width * 0.84 / columns, keys_y + (j - 1.5) * height * 0.095, 0.1)
            b.box(spot, (width * 0.34 / columns, height * 0.036, 0.1), "abs")
    cells = b.count(2, 6)
    for i in range(cells):
        spot = ((i - (cells - 1) / 2) * width * 0.8 / cells, -height * 0.3, -0.35)
        b.box(spot, (width * 0.37 / cells, height * b.between(0.10, 0.14), 0.22), "lithium_cell")
    add_board(
        b,
        (width * b.between(-0.08, 0.08), height * 0.17, -0.4),
        width * b.between(0.5, 0.74),
        height * b.between(0.24, 0.36),
        b.count(40, 75),
    )
    fan = width * 0.32 * b.pick((-1, 1))
    b.cylinder((fan, height * 0.26, -0.4), "z", 2.4, 0.3, "polypropylene", density=0.5)
    b.cylinder((fan, height * 0.26, -0.4), "z", 0.8, 0.35, "steel", density=0.35)
    b.ring((fan, height * 0.26, -0.4), 2.5, 0.12, "steel", density=0.5, num_pieces=16)
    for i in range(14):
        angle = i * np.pi / 7
        spot = (fan + 1.6 * np.cos(angle), height * 0.26 + 1.6 * np.sin(angle), -0.4)
        b.box(spot, (0.75, 0.04, 0.25), "polypropylene", turn=rotation_z(angle + 0.5))
    b.wire(
        smooth([(fan, height * 0.33, -0.4), (0, height * 0.3, -0.4), (-fan * 0.4, height * 0.12, -0.4)], 5),
        0.3,
        "copper",
        density=0.45,
    )
    b.box((-fan * 0.35, height * 0.12, -0.3), (1.6, 1.6, 0.1), "copper")
    if b.chance(0.4):  # hard disk
        b.box((-fan, -height * 0.02, -0.4), (3.5, 2.3, 0.3), "aluminium", density=0.55)
        b.cylinder((-fan, -height * 0.02, -0.4), "z", 1.7, 0.12, "glass")
    for x in (-width * 0.33, width * 0.33):
        b.cylinder((x, height * 0.47, 0.2), "x", 0.35, 1.6, "steel", density=0.7)
    for _ in range(12):
        b.cylinder((b.between(-0.47, 0.47) * width, b.between(-0.46, 0.46) * height, -0.6), "z", 0.15, 0.25, "steel")


@benign("phone", weight=1.0, declared_as="mobile phone", resembles=("Powerbank",))
def phone(b: Builder) -> None:
    """A smartphone."""
    width, height = b.between(13.5, 16.5), b.between(6.6, 8)
    case, wall = b.pick((("aluminium", 0.07), ("abs", 0.12)))
    b.hollow_prism(rounded_rectangle(width, height, 0.9), -0.38, 0.38, wall, case)
    b.box((0, 0, 0.3), (width / 2 - 0.2, height / 2 - 0.2, 0.06), "glass")
    b.prism(
        rounded_rectangle(width * 0.58, height * 0.52, 0.2) + (-width * 0.08, height * 0.14), -0.2, 0.2, "lithium_cell"
    )
    add_board(b, (width * 0.34, 0, 0), width * 0.26, height * 0.85, b.count(16, 30))
    add_board(b, (-width * 0.05, -height * 0.32, 0), width * 0.6, height * 0.22, b.count(6, 16))
    for y in (0.3, 0.12)[: b.count(1, 2)]:
        b.tube((width * 0.4, height * y, -0.2), "z", 0.5, 0.25, 0.15, "steel")
        b.cylinder((width * 0.4, height * y, -0.2), "z", 0.3, 0.2, "glass")
    if b.chance(0.4):
        b.ring((-0.1 * width, 0, -0.3), 2.0, 0.1, "copper", density=0.3, num_pieces=20)
    b.box((-width * 0.46, 0, 0), (0.35, 0.6, 0.2), "steel", density=0.3)


@benign("tablet", weight=0.4, large=True, declared_as="tablet computer")
def tablet(b: Builder) -> None:
    """A tablet computer."""
    width, height = b.between(20, 27), b.between(13, 19)
    b.hollow_prism(rounded_rectangle(width, height, 1), -0.35, 0.35, 0.07, "aluminium")
    b.box((0, 0, 0.28), (width / 2 - 0.2, height / 2 - 0.2, 0.07), "glass")
    for side in (-1, 1):
        b.box((width * 0.08, side * height * 0.22, -0.05), (width * 0.33, height * 0.18, 0.17), "lithium_cell")
    add_board(b, (-width * 0.38, 0, 0), width * 0.16, height * 0.8, b.count(18, 32))


@benign("charger", weight=1.0, declared_as="charger", resembles=("Powerbank",))
def charger(b: Builder) -> None:
    """A power supply: plastic brick with transformer and capacitors, and its cable."""
    width, height, thick = b.between(5, 11), b.between(3.6, 5.5), b.between(2.2, 3.2)
    b.hollow_prism(rounded_rectangle(width, height, 0.6), -thick / 2, thick / 2, 0.22, "abs")
    b.box((-width * 0.12, 0, 0), (1.3, 1.2, 0.9), "ferrite", density=0.8)
    b.box((-width * 0.12, 0, 0), (0.9, 1.5, 0.8), "copper", density=0.35)
    for _ in range(5):
        spot = (b.between(-0.4, 0.4) * width, b.between(-0.35, 0.35) * height, 0)
        b.cylinder(spot, b.pick(("x", "y", "z")), b.between(0.3, 0.6), b.between(0.6, 1), "aluminium", density=0.8)
    add_board(b, (0, 0, -thick * 0.3), width * 0.85, height * 0.8, b.count(12, 24))
    b.box((width * 0.2, 0, 0), (0.1, height * 0.35, thick * 0.35), "aluminium")
    add_cable(b, wandering_path(b, (width / 2, 0, 0), b.count(6, 14)), b.between(0.14, 0.24))


@benign("cable", weight=1.3, declared_as="cables", resembles=("Explosive",))
def cable_coil(b: Builder) -> None:
    """A coiled cable with a plug at each end."""
    turns, radius, flat = b.count(2, 6), b.between(2.5, 6), b.between(0.4, 1)
    t = np.linspace(0, 2 * np.pi * turns, 16 * turns)
    swing = radius * (1 + 0.09 * np.sin(t * 1.3 + b.between(0, 6)) + 0.05 * np.cos(t * 0.37))
    path = np.c_[
        swing * np.cos(t) + 0.5 * np.sin(t * 0.21),
        flat * swing * np.sin(t) + 0.5 * np.cos(t * 0.17),
        0.25 * np.sin(t * 0.7),
    ]
    add_cable(b, path, b.between(0.12, 0.26))
    for end in (path[0], path[-1]):
        b.box(end, (1.1, 0.5, 0.3), "abs")
        b.box(end + (0.8, 0, 0), (0.7, 0.4, 0.15), "stainless", density=0.5)


@benign("headphones", weight=0.5, declared_as="headphones")
def headphones(b: Builder) -> None:
    """Over-ear headphones."""
    for side in (1, -1):
        b.ring((0, side * 7.5, 0), 3.6, 0.8, "leather", density=0.5, radius_2=3, num_pieces=14)
        b.cylinder((0, side * 7.5, 0), "z", 3, 1.0, "abs", density=0.35)
        b.cylinder((0, side * 7.5, 0), "z", 1.6, 0.4, "ferrite", density=0.8)
        add_board(b, (0, side * 7.5, 0.6), 3, 3, 8)
    band = smooth([(0, 7.5, 0), (6, 8, 0), (10, 5, 0), (11.5, 0, 0), (10, -5, 0), (6, -8, 0), (0, -7.5, 0)], 5)
    b.wire(band, 0.5, "abs")
    b.wire(band, 0.12, "steel", density=1.2)


@benign("computer mouse", weight=0.5)
def computer_mouse(b: Builder) -> None:
    """A mouse, cordless or with its cable."""
    b.ellipsoid((0, 0, 0), (5.3, 3.1, 1.8), "abs")
    b.ellipsoid((0, 0, 0), (5.1, 2.9, 1.6), "abs", density=-1)
    add_board(b, (0, 0, -0.6), 7, 3.6, 16)
    b.cylinder((3, 0, 0.8), "y", 0.9, 0.3, "rubber")
    if b.chance(0.4):
        add_cable(b, wandering_path(b, (5, 0, 0), 8), 0.16)


@benign("camera", weight=0.45, declared_as="camera")
def camera(b: Builder) -> None:
    """A camera with a lens."""
    width = b.between(9, 13)
    b.hollow_prism(rounded_rectangle(width, 8, 1), -2, 2, 0.3, "abs")
    add_board(b, (0, 0, -1), width - 2, 6, 36)
    b.box((-width * 0.35, 0, 0), (1.2, 2.6, 1.2), "lithium_cell")
    b.tube((1, -0.5, 3.4), "z", 3.2, 2.2, 0.2, "aluminium")
    for i in range(b.count(3, 6)):
        b.cylinder((1, -0.5, 1.8 + i * 0.7), "z", 2.7, 0.18, "glass")


@benign("radio", weight=1.1, large=True, declared_as="electronic device", resembles=("Explosive",))
def electronic_box(b: Builder) -> None:
    """A router, radio or game console: boards and metal blocks in a case."""
    width, height, thick = b.between(12, 25), b.between(9, 17), b.between(2.2, 5)
    case, wall = b.pick((("abs", 0.2), ("aluminium", 0.12)))
    b.hollow_prism(rounded_rectangle(width, height, 0.8), -thick / 2, thick / 2, wall, case)
    for z in (-0.5, 0.6) if b.chance(0.4) else (0,):
        add_board(b, (b.between(-1, 1), b.between(-1, 1), z * thick * 0.4), width * 0.85, height * 0.8, b.count(40, 90))
    for _ in range(b.count(1, 5)):
        spot = (b.between(-0.35, 0.35) * width, b.between(-0.35, 0.35) * height, 0.2)
        b.box(
            spot,
            (b.between(0.6, 2), b.between(0.6, 2), b.between(0.2, 0.8)),
            b.pick(("aluminium", "aluminium", "ferrite")),
            density=0.7,
        )
    for _ in range(6):
        b.cylinder((b.between(-0.45, 0.45) * width, b.between(-0.42, 0.42) * height, 0), "z", 0.18, 0.5, "steel")


@benign("hairdryer", weight=0.45, declared_as="hairdryer", resembles=("Gun", "3D Gun"))
def hairdryer(b: Builder) -> None:
    """A hairdryer; its outline is that of a pistol, which is the point."""
    radius = b.between(2.8, 3.8)
    b.tube((0, 0, 0), "x", radius, 7.5, 0.22, "abs")
    angle = np.linspace(6, 36, 50)
    b.wire(np.c_[np.linspace(1, 6, 50), 2.2 * np.sin(angle), 2.2 * np.cos(angle)], 0.1, "nickel")
    b.cylinder((-4, 0, 0), "x", 1.7, 2.0, "steel", density=0.4)
    b.cylinder((-4, 0, 0), "x", 1.9, 1.6, "copper", density=0.2)
    b.tube((-2, -radius - 4.5, 0), "y", 1.9, 5.5, 0.22, "abs")
    add_board(b, (-2, -radius - 4.5, 0), 2, 6, 10)
    add_cable(b, wandering_path(b, (-2, -radius - 10, 0), b.count(8, 14), heading=-1.5), 0.28)


@benign("torch", weight=0.4, declared_as="torch", resembles=("Explosive", "Bullet"))
def torch(b: Builder) -> None:
    """A hand torch; a metal tube with cells."""
    half, radius = b.between(5, 9), b.between(1.5, 2.2)
    b.tube((0, 0, 0), "x", radius, half, 0.15, "aluminium")
    for i in range(b.count(1, 3)):
        add_cell(
            b,
            "AA",
            (-half * 0.4 + b.between(-0.5, 0.5), (radius - 0.8) * np.cos(i * 2.1), (radius - 0.8) * np.sin(i * 2.1)),
        )
    b.tube((half + 1.5, 0, 0), "x", radius * 1.35, 1.6, 0.25, "aluminium")
    b.cylinder((half + 2.8, 0, 0), "x", radius * 1.2, 0.15, "glass")


@benign("toothbrush", weight=0.4, declared_as="toiletries", resembles=("Injection", "Shaving Razor"))
def electric_toothbrush(b: Builder) -> None:
    """An electric toothbrush or shaver."""
    b.tube((0, 0, 0), "x", b.between(1.2, 1.6), b.between(5.6, 7.5), b.between(0.15, 0.25), "abs")
    add_cell(b, "AA", (b.between(-2.5, -1.5), 0, 0))
    b.cylinder((2.8, 0, 0), "x", 0.9, 1.3, "steel", density=0.4)
    b.cylinder((2.8, 0, 0), "x", 0.6, 1.2, "copper", density=0.3)
    b.wire([(6, 0, 0), (12, 0, 0)], 0.35, "abs")
    b.wire([(5, 0, 0), (11, 0, 0)], 0.13, "steel")
    b.cylinder((12.2, 0, 0), "z", 0.8, 0.5, "nylon", density=0.5)


@benign("wire tangle", weight=0.7, declared_as="cables", resembles=("Explosive",))
def wire_tangle(b: Builder) -> None:
    """A nest of cables, fairy lights or headphones."""
    radius, flat, gauge = b.between(3, 6.5), b.between(0.5, 1), b.between(0.08, 0.2)
    for _ in range(b.count(1, 3)):
        knots = b.rng.normal(0, radius * 0.5, (b.count(8, 18), 3)) * (1, flat, 0.25)
        path = smooth(np.clip(knots, -1.2 * radius, 1.2 * radius), 4)
        b.wire(path, gauge, "pvc")
        b.wire(path, gauge * b.between(0.35, 0.6), "copper")
        if b.chance(0.3):
            for spot in path[:: b.count(4, 8)]:
                b.cylinder(spot, "z", 0.3, 0.5, b.pick(("abs", "brass")), density=0.6)
        for end in (path[0], path[-1]):
            b.box(end, (0.9, 0.5, 0.3), "abs")
            b.box(end + (0.6, 0, 0), (0.5, 0.35, 0.15), "stainless", density=0.5)
