"""Battery, Powerbank."""

# ruff: noqa: RUF005  (an array plus a tuple is addition)

from __future__ import annotations

import numpy as np

from xray_vqa.simulation.primitives import Builder, rounded_rectangle
from xray_vqa.simulation.shapes.parts import CELL_SIZES, add_block_cell, add_board, add_cell
from xray_vqa.simulation.shapes.registry import threat


@threat("Battery", "round cells", weight=3.0)
def round_cells(b: Builder) -> None:
    """One to six round cells side by side or scattered."""
    size = b.pick(("AA", "AA", "AAA", "18650", "C", "D"))
    radius = CELL_SIZES[size][0]
    count = b.count(1, 6 if radius < 1 else 3)
    for i in range(count):
        add_cell(b, size, (b.between(-0.4, 0.4), (i - (count - 1) / 2) * 2.12 * radius, 0))


@threat("Battery", "block")
def block_battery(b: Builder) -> None:
    """One or two 9 V blocks."""
    for i in range(b.count(1, 2)):
        add_block_cell(b, (b.between(-0.4, 0.4), 2.9 * i, 0))


@threat("Battery", "pack")
def battery_pack(b: Builder) -> None:
    """A camera or tool battery: flat cells or a brick of round ones in a plastic case."""
    if b.chance(0.5):
        width, height, thick = b.between(4, 7), b.between(3, 5), b.between(0.8, 2)
        b.hollow_prism(rounded_rectangle(width, height, 0.4), -thick / 2, thick / 2, 0.12, "abs")
        b.box(
            (-0.3, 0, 0),
            (width / 2 - 0.6, height / 2 - 0.3, thick / 2 - 0.2),
            "lithium_cell",
            density=b.between(0.8, 1.1),
        )
        add_board(b, (width / 2 - 0.4, 0, 0), 0.6, height - 0.6, 4)
        for y in (-0.6, 0, 0.6):
            b.box((width / 2, y, 0), (0.12, 0.2, 0.3), "brass", density=0.8)
    else:
        columns = b.count(2, 5)
        b.hollow_prism(rounded_rectangle(7.6, columns * 1.95 + 0.6, 0.6), -1.3, 1.3, 0.2, "abs")
        for i in range(columns):
            add_cell(b, "18650", (0, (i - (columns - 1) / 2) * 1.92, 0))
        b.box((3.6, 0, 0), (0.03, columns * 0.9, 0.6), "nickel")


@threat("Powerbank", "pouch")
def flat_powerbank(b: Builder) -> None:
    """A flat power bank with one or two pouch cells."""
    width, height, thick = b.between(9, 16), b.between(6, 7.8), b.between(1.0, 1.8)
    _add_powerbank_case(b, width, height, thick)
    cells = b.count(1, 2)
    room = width - 3
    for i in range(cells):
        x = -width / 2 + 0.5 + room * (i + 0.5) / cells
        b.prism(
            rounded_rectangle(room / cells - 0.3, height - 0.7, 0.3) + (x, 0),
            -thick / 2 + 0.2,
            thick / 2 - 0.2,
            "lithium_cell",
            density=b.between(0.85, 1.1),
        )
    add_board(b, (width / 2 - 1.4, 0, 0), 1.9, height - 0.8, b.count(10, 22))


@threat("Powerbank", "round cells")
def cell_powerbank(b: Builder) -> None:
    """A power bank with a row of round cells."""
    height = b.between(4.3, 8.2)
    width, thick = b.between(9.5, 12), b.between(2.1, 2.6)
    _add_powerbank_case(b, width, height, thick)
    count = int((height - 0.4) // 1.9)
    for i in range(count):
        add_cell(b, "18650", (-width / 2 + 3.7, (i - (count - 1) / 2) * 1.9, 0))
    add_board(b, (width / 2 - 1.4, 0, 0), 2.0, height - 0.8, b.count(8, 18))


def _add_powerbank_case(b: Builder, width: float, height: float, thick: float) -> None:
    case, wall = b.pick((("aluminium", 0.1), ("abs", 0.2)))
    b.hollow_prism(rounded_rectangle(width, height, b.between(0.4, 1.2)), -thick / 2, thick / 2, wall, case)
    for y in (-1.5, 0.6)[: b.count(1, 2)]:
        b.box((width / 2 - 0.7, y, 0), (0.65, 0.6, 0.25), "stainless", density=0.16)


@threat("Powerbank", "stick", weight=0.8)
def stick_powerbank(b: Builder) -> None:
    """A power bank around a single round cell, 8 to 11 cm, in a tube or a bar."""
    half = b.between(4.2, 5.4)
    if b.chance(0.5):
        b.tube((0, 0, 0), "x", b.between(1.05, 1.35), half, 0.1, b.pick(("aluminium", "abs")), cap=0.15)
    else:
        b.hollow_prism(rounded_rectangle(2 * half, 2.5, 0.5), -1.15, 1.15, 0.12, b.pick(("aluminium", "abs")))
    add_cell(b, "18650", (-half + 3.6, 0, 0))
    add_board(b, (half - 0.7, 0, 0), 1.0, 1.6, b.count(4, 9))
    b.box((half - 0.3, 0, 0.3), (0.5, 0.6, 0.25), "stainless", density=0.2)


@threat("Powerbank", "wireless", weight=0.8)
def wireless_powerbank(b: Builder) -> None:
    """A flat power bank with a charging coil, a magnet ring or a solar panel on its face."""
    width, height, thick = b.between(9.5, 15), b.between(6.4, 8), b.between(1.2, 2.2)
    _add_powerbank_case(b, width, height, thick)
    cell = rounded_rectangle(width - 3.2, height - 0.8, 0.3) - (0.9, 0)
    b.prism(cell, -thick / 2 + 0.2, thick / 2 - 0.45, "lithium_cell", density=b.between(0.8, 1.1))
    top = thick / 2 - 0.3
    if b.chance(0.6):
        for radius in (1.5, 1.9, 2.3):
            b.ring((-0.9, 0, top), radius, 0.09, "copper", density=0.6, num_pieces=14)
        if b.chance(0.5):
            b.ring((-0.9, 0, top), 2.8, 0.16, "ferrite", num_pieces=14)
    else:
        b.box((0, 0, top), (width * 0.42, height * 0.4, 0.04), "glass")
        for x in np.linspace(-0.38, 0.38, 5):
            b.box((x * width, 0, top + 0.06), (0.06, height * 0.38, 0.02), "copper")
    add_board(b, (width / 2 - 1.4, 0, 0), 1.8, height - 1, b.count(8, 18))
