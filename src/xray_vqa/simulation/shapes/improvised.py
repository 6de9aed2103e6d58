"""Explosive: a mass of organic material of explosive-like density beside wires, a cell and a board.

Generic shapes of the kind that training material for screeners shows. Nothing here says how such a thing would be made
to work.
"""

# ruff: noqa: RUF005  (an array plus a tuple is addition)

from __future__ import annotations

import numpy as np

from xray_vqa.simulation.primitives import Builder, Texture, circle, rounded_rectangle, smooth
from xray_vqa.simulation.shapes.parts import add_block_cell, add_board, add_cell
from xray_vqa.simulation.shapes.registry import threat

_FILLINGS = ("rdx", "tnt", "petn", "ammonium_nitrate", "black_powder")


def _grain(b: Builder) -> Texture:
    return Texture(b.between(0.02, 0.10), b.pick((1, 3)), b.between(0.5, 1.2), b.count(0, 255))


@threat("Explosive", "blocks")
def blocks(b: Builder) -> None:
    """One to four blocks with attachments."""
    filling, count, pitch = b.pick(_FILLINGS), b.count(1, 4), b.between(4.6, 5.8)
    for i in range(count):
        outline = rounded_rectangle(b.between(10, 17), b.between(3.6, 6), 0.6) + (
            b.between(-0.6, 0.6),
            (i - (count - 1) / 2) * pitch,
        )
        b.prism(outline, -b.between(1.2, 2.6), b.between(1.2, 2.2), filling, rounding=0.4, texture=_grain(b))
    _add_attachments(b, 2.6)


@threat("Explosive", "sticks")
def sticks(b: Builder) -> None:
    """A bundle of two to seven sticks held by tape."""
    filling, count, radius = b.pick(_FILLINGS), b.count(2, 7), b.between(1.2, 1.8)
    half = b.between(7, 11)
    layers = 2 if count > 4 else 1
    for i in range(count):
        y, z = (i // layers - (count / layers - 1) / 2) * 2.1 * radius, (i % layers) * 2 * radius
        b.cylinder((b.between(-0.4, 0.4), y, z), "x", radius, half, filling, texture=_grain(b))
        b.tube((0, y, z), "x", radius + 0.1, half, 0.1, "paper")
    for x in (-half * 0.4, half * 0.4):
        b.box(
            (x, 0, (layers - 1) * radius),
            (0.6, count / layers * radius * 1.05, layers * radius + 0.2),
            "pvc",
            density=0.12,
        )
    _add_attachments(b, 2 * radius * layers)


@threat("Explosive", "pipe")
def pipe(b: Builder) -> None:
    """A capped pipe."""
    half, radius, wall = b.between(6, 11), b.between(1.6, 2.6), b.pick(("steel", "steel", "pvc", "aluminium"))
    b.tube((0, 0, 0), "x", radius, half, 0.3, wall, density=b.between(0.6, 1))
    b.cylinder((0, 0, 0), "x", radius - 0.3, half - 0.3, b.pick(_FILLINGS))
    for end in (-1, 1):
        b.tube((end * half, 0, 0), "x", radius + 0.5, 1.2, 0.6, wall, density=0.8)
    if b.chance(0.5):
        for _ in range(b.count(10, 40)):
            b.ellipsoid(
                (b.between(-0.8, 0.8) * half, b.between(-1, 1) * radius, b.between(-1, 1) * radius),
                (0.25, 0.25, 0.25),
                "steel",
            )
    _add_attachments(b, radius + 1)


@threat("Explosive", "slab")
def slab(b: Builder) -> None:
    """A flat sheet or a filled bag with attachments."""
    filling = b.pick(_FILLINGS)
    width, height = b.between(12, 20), b.between(8, 14)
    outline = rounded_rectangle(width, height, b.between(1, 4))
    b.prism(outline, -b.between(0.6, 1.6), b.between(0.6, 1.6), filling, rounding=b.between(0.5, 2), texture=_grain(b))
    _add_attachments(b, 1.8)


def _add_attachments(b: Builder, z: float) -> None:
    """Add a board or timer, a cell, a small metal tube, and the wires between them."""
    board = np.array([b.between(-4, 4), b.between(-3, 3), z])
    x, y = board[:2]
    kind = b.between(0, 1)
    if kind < 0.5:
        add_board(b, (x, y, z), b.between(4, 8), b.between(3, 5), b.count(14, 30))
    elif kind < 0.8:
        b.hollow_prism(rounded_rectangle(11, 5, 0.7) + (x, y), z - 0.5, z + 0.5, 0.15, "abs")
        add_board(b, (x + 2, y, z), 5, 4, 20)
        b.box((x - 2.5, y, z), (2.3, 1.9, 0.25), "lithium_cell")
    else:
        b.prism(circle(2.8, 24, (x, y)), z - 1.0, z + 1.0, "abs", density=0.3)
        b.cylinder(board, "z", 1, 0.5, "brass", density=0.3)
        b.ring(board, 2.6, 0.1, "steel", num_pieces=14)
    cell = np.array([b.between(-6, 6), b.pick((-1, 1)) * b.between(3, 6), z * 0.7])
    if b.chance(0.6):
        add_block_cell(b, cell)
    else:
        add_cell(b, "AA", cell)
        add_cell(b, "AA", cell + (0, 1.5, 0))
    tube = np.array([b.between(-5, 5), b.between(-1.5, 1.5), z * 0.3])
    b.tube(tube, "x", 0.38, 2.6, 0.06, "aluminium")
    b.cylinder(tube, "x", 0.3, 2.2, "petn")
    for start, end in ((board, tube), (board, tube + (0, 0.2, 0)), (board, cell), (tube, cell)):
        bends = [start + (end - start) * share + b.rng.normal(0, 2.0, 3) * (1, 1, 0.3) for share in (0.35, 0.7)]
        b.wire(smooth([start, *bends, end], 6), 0.09, "copper", density=0.8)
