"""Harmless metal from the workshop; much of it looks like tools."""

# ruff: noqa: RUF005  (an array plus a tuple is addition)

from __future__ import annotations

import numpy as np

from xray_vqa.simulation.primitives import Builder, rotation_x, rotation_z, rounded_rectangle, smooth
from xray_vqa.simulation.shapes.registry import benign


@benign("metal parts", weight=1.1, resembles=("Wrench", "Screwdriver", "Explosive"))
def metal_parts(b: Builder) -> None:
    """Rods, strips and tubes lying beside each other."""
    length, metal = b.between(6, 15), b.pick(("steel", "steel", "aluminium", "brass", "stainless"))
    count = b.count(2, 7)
    for i in range(count):
        turn = rotation_z(b.rng.normal(0, 0.25))
        centre = np.array([b.between(-2, 2), (i - count / 2) * b.between(0.8, 1.8), b.between(-1, 1)])
        kind = b.between(0, 1)
        if kind < 0.5:
            b.tube(
                centre, "x", b.between(0.3, 0.9), length * b.between(0.4, 0.8), b.between(0.06, 0.2), metal, turn=turn
            )
        elif kind < 0.8:
            b.box(centre, (length * b.between(0.4, 0.8), b.between(0.3, 1.2), b.between(0.05, 0.2)), metal, turn=turn)
        else:
            b.cylinder(centre, "x", b.between(0.15, 0.4), length * b.between(0.4, 0.8), metal, turn=turn)
        if b.chance(0.35):
            b.cylinder(
                centre + turn @ (length * 0.6, 0, 0),
                "x",
                b.between(0.6, 1.2),
                b.between(0.6, 2),
                "polypropylene",
                density=0.8,
                turn=turn,
            )


@benign("socket set", weight=0.3, resembles=("Wrench", "Bullet"))
def socket_set(b: Builder) -> None:
    """A row of sockets in a plastic tray."""
    count, axis, wall = b.count(4, 9), b.pick(("z", "z", "x")), b.between(0.25, 0.42)
    for i in range(count):
        radius = 0.7 + 0.08 * i
        b.tube(((i - count / 2) * 2.6, 0, 0), axis, radius, 1.3, wall * radius, "steel", density=0.6)
    tray = rounded_rectangle(count * 2.8, 5, 0.8) - (1.3, 0)
    b.prism(tray, -1.8, -1.4, "polypropylene")
    b.prism(tray, 1.4, 1.7, "polypropylene")


@benign("bolts", weight=0.6, resembles=("Bullet", "Screwdriver"))
def bolts(b: Builder) -> None:
    """A handful of screws, nuts and washers."""
    for _ in range(b.count(4, 16)):
        turn = rotation_z(b.between(0, 6.28))
        centre = np.array([b.between(-3, 3), b.between(-2.5, 2.5), b.between(-0.5, 0.5)])
        kind = b.between(0, 1)
        if kind < 0.6:
            half = b.between(0.7, 2.2)
            b.cylinder(centre, "x", b.between(0.1, 0.25), half, "steel", turn=turn)
            b.cylinder(centre + turn @ (half, 0, 0), "x", b.between(0.3, 0.5), 0.18, "steel", turn=turn)
        else:
            b.tube(centre, "z", b.between(0.4, 0.9), b.between(0.08, 0.3), 0.25, "steel")


@benign("curtain rings", weight=0.25, resembles=("Handcuffs",))
def metal_rings(b: Builder) -> None:
    """Large rings, as on a curtain or a harness."""
    for _ in range(b.count(2, 5)):
        b.ring((b.between(-4, 4), b.between(-3, 3), b.between(-0.5, 0.5)), b.between(1.6, 3), b.between(0.14, 0.3),
               b.pick(("steel", "brass", "polypropylene")), num_pieces=16)  # fmt: skip


@benign("padlock", weight=0.4, resembles=("Handcuffs",))
def padlock(b: Builder) -> None:
    """A padlock, sometimes on a chain."""
    width = b.between(3, 5)
    body = b.pick(("brass", "steel", "zinc"))
    b.prism(rounded_rectangle(width, width * 0.85, 0.4), -0.8, 0.8, body, density=b.between(0.4, 0.9))
    b.cylinder((0, 0, 0), "y", 0.45, width * 0.3, "steel", density=0.6)
    half = width * 0.32
    b.wire(smooth([(-half, 0.4), (-half, 2.6), (0, 3.6), (half, 2.6), (half, 0.4)], 4), 0.32, "steel")
    if b.chance(0.4):
        heading, place = b.between(0, 6.28), np.array([0.0, 3.6, 0.0])
        for i in range(b.count(6, 16)):
            heading += b.between(-0.5, 0.5)
            place = place + 1.5 * np.array([np.cos(heading), np.sin(heading), 0])
            turn = rotation_z(heading) @ rotation_x((i % 2) * np.pi / 2)
            b.ring(place, 1.0, 0.18, "steel", radius_2=0.6, turn=turn, num_pieces=8)


@benign("motor", weight=0.5, declared_as="household appliance", resembles=("Gun",))
def motor(b: Builder) -> None:
    """An electric motor or pump as in a drill, a mixer or a fan."""
    radius, half = b.between(1.4, 2.8), b.between(2, 4.5)
    b.tube((0, 0, 0), "x", radius, half, 0.2, "steel", cap=0.15)
    b.cylinder((0, 0, 0), "x", radius * 0.75, half * 0.6, "copper", density=b.between(0.15, 0.35))
    b.cylinder((0, 0, 0), "x", radius * 0.5, half * 0.7, "steel", density=0.5)
    b.cylinder((half, 0, 0), "x", 0.3, half * 0.8, "steel")
    if b.chance(0.6):
        b.tube((-half * 0.3, 0, 0), "x", radius + 1.2, half * 1.6, 0.25, "abs", cap=0.3)
        grip = rounded_rectangle(3.2, 9, 1.2) + (-half * 0.6, -radius - 4)
        b.prism(grip, -1.4, 1.4, "abs", density=0.5, rounding=0.6)
    for _ in range(b.count(2, 6)):
        b.cylinder((b.between(-1, 1) * half, b.between(-1, 1) * radius, b.between(-1, 1)), "z", 0.2, 0.6, "steel")


@benign("gear", weight=0.35)
def gear(b: Builder) -> None:
    """Machine parts: gear wheels, flanges, bearings."""
    for i in range(b.count(1, 3)):
        teeth, radius, half = b.count(9, 20), b.between(1.5, 3.5), b.between(0.2, 0.7)
        angle = np.arange(4 * teeth) * np.pi / (2 * teeth)
        edge = radius * np.where(np.arange(4 * teeth) % 4 < 2, 1.0, 0.86)
        centre = (b.between(-3, 3) * min(i, 1), b.between(-3, 3) * min(i, 1), i * 0.8)
        metal, density = b.pick((("steel", 0.8), ("aluminium", 1.0), ("brass", 0.5), ("nylon", 1.0)))
        b.prism(np.c_[edge * np.cos(angle), edge * np.sin(angle)], -half, half, metal, density, centre=centre)
        b.cylinder(centre, "z", radius * 0.25, half, metal, density=-density)
        for k in range(b.count(0, 6)):
            at = np.array(centre) + 0.55 * radius * np.array([np.cos(k * 1.05), np.sin(k * 1.05), 0])
            b.cylinder(at, "z", radius * 0.13, half, metal, density=-density)
