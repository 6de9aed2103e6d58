"""Pieces that several objects share: cells, circuit boards, cables, handles."""

# ruff: noqa: RUF005  (an array plus a tuple is addition)

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from xray_vqa.simulation.primitives import Array, Builder, rotation_z, smooth

CELL_SIZES = {"AA": (0.70, 2.40), "AAA": (0.52, 2.15), "C": (1.30, 2.40), "D": (1.65, 2.90), "18650": (0.92, 3.25)}
"""Radius and half length of round cells, cm."""


def add_cell(b: Builder, size: str, centre: ArrayLike, axis: str = "x") -> None:
    """Add a round battery cell: steel can, filling, terminal."""
    radius, half = CELL_SIZES[size]
    middle = np.asarray(centre, float)
    along = {"x": (1.0, 0, 0), "y": (0, 1.0, 0), "z": (0, 0, 1.0)}[axis]
    b.tube(middle, axis, radius, half, 0.03, "steel", cap=0.04)
    if size == "18650":
        b.cylinder(middle, axis, radius - 0.04, half * 0.94, "lithium_cell")
    else:
        b.cylinder(middle, axis, radius - 0.04, half * 0.94, "alkaline_cell", density=0.6)
        b.cylinder(middle, axis, radius * 0.5, half * 0.86, "zinc", density=0.12)
        b.cylinder(middle, axis, 0.07, half * 0.7, "brass")
    b.cylinder(middle + np.multiply(along, half + 0.08), axis, radius * 0.38, 0.1, "steel")


def add_block_cell(b: Builder, centre: ArrayLike) -> None:
    """Add a 9 V block: a steel jacket with six small cells in a row."""
    middle = np.asarray(centre, float)
    b.box(middle, (2.3, 1.3, 0.85), "steel")
    b.box(middle, (2.26, 1.26, 0.81), "steel", density=-1)
    for i in range(6):
        b.box(middle + (-1.85 + 0.74 * i, 0, 0), (0.33, 1.15, 0.75), "alkaline_cell", density=0.6)
    for y in (-0.6, 0.6):
        b.cylinder(middle + (2.5, y, 0), "x", 0.35, 0.15, "steel", density=0.6)


def add_board(b: Builder, centre: tuple[float, float, float], width: float, height: float, num_parts: int) -> None:
    """Add a circuit board: laminate, copper, and a crowd of chips, joints, capacitors and coils."""
    x0, y0, z = centre
    b.box((x0, y0, z), (width / 2, height / 2, 0.07), "fr4")
    b.box((x0, y0, z), (width / 2, height / 2, 0.012), "copper", density=b.between(0.3, 0.8))
    for _ in range(num_parts):
        half_a, half_b = b.between(0.08, 0.5), b.between(0.08, 0.5)
        x = x0 + b.between(-0.5, 0.5) * max(width - 1, 0.2)
        y = y0 + b.between(-0.5, 0.5) * max(height - 1, 0.2)
        kind = b.between(0, 1)
        if kind < 0.45:
            b.box((x, y, z + 0.15), (half_a, half_b, 0.08), "fr4", density=1.6)
        elif kind < 0.70:
            b.box((x, y, z + 0.12), (half_a * 0.4, half_b * 0.4, 0.1), "solder", density=0.4)
        elif kind < 0.85:
            b.cylinder((x, y, z + 0.4), "z", half_a * 0.7, 0.4, "aluminium", density=0.8)
        elif kind < 0.93:
            b.box((x, y, z + 0.1), (half_a * 1.6, 0.12, 0.12), "copper", density=0.7)
        else:
            b.box((x, y, z + 0.3), (half_a * 1.1, half_b * 1.1, 0.3), "ferrite", density=0.7)


def add_cable(b: Builder, points: ArrayLike, radius: float | None = None) -> None:
    """Add an insulated cable with a copper core."""
    radius = radius or b.between(0.14, 0.28)
    b.wire(points, radius, "pvc")
    b.wire(points, radius * 0.4, "copper", density=1.3)


def wandering_path(
    b: Builder, start: tuple[float, float, float], num_steps: int, step: float = 2.6, heading: float = 0.0
) -> Array:
    """Return a smooth path of a loose cable that curls around its start instead of leaving the bag, (points, 3)."""
    points = [np.array(start, float)]
    bend = b.pick((-1, 1)) * b.between(0.25, 0.6)
    for _ in range(num_steps):
        heading += bend + b.between(-0.7, 0.7)
        points.append(points[-1] + (step * np.cos(heading), step * np.sin(heading), b.between(-0.3, 0.3)))
    return smooth(points, 4)


def add_spring(
    b: Builder, start: tuple[float, float, float], length: float, radius: float, wire: float, num_turns: float
) -> None:
    """Add a coil spring along x."""
    t = np.linspace(0, 1, max(int(num_turns * 7), 8))
    angle = 2 * np.pi * num_turns * t
    b.wire(
        np.c_[start[0] + length * t, start[1] + radius * np.sin(angle), start[2] + radius * np.cos(angle)],
        wire,
        "steel",
    )


def add_grip(
    b: Builder, start_x: float, length: float, width: float, thickness: float, material: str, *, tang: bool
) -> None:
    """Add a handle that runs from start_x towards -x, with the tang and rivets of a better knife on request."""
    along = np.linspace(0, 1, 6)
    top = width / 2 * (1 + 0.14 * np.sin(along * 6.3 * b.between(0.6, 1.2) + b.between(0, 6)))
    bottom = -width / 2 * (1 + 0.12 * np.cos(along * b.between(3, 6)))
    outline = np.r_[np.c_[start_x - along * length, top], np.c_[(start_x - along * length)[::-1], bottom[::-1]]]
    b.prism(smooth(outline, 2, closed=True), -thickness / 2, thickness / 2, material, rounding=width * 0.3)
    if tang:
        end = start_x - length * b.between(0.6, 0.95)
        b.prism(
            [(start_x, width * 0.3), (end, width * 0.18), (end, -width * 0.18), (start_x, -width * 0.3)],
            -0.1,
            0.1,
            "steel",
        )
        rivet = b.pick(("steel", "brass"))
        for share in (0.2, 0.5, 0.8)[: b.count(2, 3)]:
            b.cylinder((start_x - length * share, 0, 0), "z", b.between(0.18, 0.32), thickness / 2, rivet, density=0.6)


def turned_2d(points: ArrayLike, angle: float) -> Array:
    """Return (points, 2) turned about the origin."""
    return np.asarray(points, float) @ rotation_z(angle)[:2, :2].T
