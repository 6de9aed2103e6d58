"""Gun and 3D Gun: outlines and wall materials only."""

from __future__ import annotations

import numpy as np

from xray_vqa.simulation.primitives import Builder, smooth
from xray_vqa.simulation.shapes.parts import add_spring
from xray_vqa.simulation.shapes.registry import threat


@threat("Gun", "pistol", weight=2.0)
def pistol(b: Builder) -> None:
    """A self-loading pistol, 15 to 22 cm, with a polymer, light-metal or steel frame."""
    k, long = b.between(0.82, 1.1), b.between(0.85, 1.15)
    lean = b.between(-0.5, 0.8)
    stretch = np.array([k * long, k])
    high = b.between(2.6, 3.2)
    slide = [(-9, 0), (-9, high - 0.3), (-8.6, high), (8.2, high), (9, high - 0.4), (9, 0.4), (8.4, 0)]
    b.prism(slide * stretch, -1.15 * k, 1.15 * k, "steel")
    b.prism(
        [(-7.6, 0.5), (-7.6, high - 0.5), (7, high - 0.5), (7, 0.5)] * stretch, -0.82 * k, 0.82 * k, "steel", density=-1
    )
    if b.chance(0.5):
        port = b.between(0, 2.5)
        b.prism(
            [(port - 1.4, high - 1.2), (port - 1.4, high), (port + 1.4, high), (port + 1.4, high - 1.2)] * stretch,
            0.7 * k,
            1.16 * k,
            "steel",
            density=-1,
        )
    b.tube((1.2 * k * long, 1.6 * k, 0), "x", 0.75 * k, 7.6 * k * long, 0.3 * k, "steel")
    add_spring(b, (-2 * k, 0.75 * k, 0), 9 * k * long, 0.28 * k, 0.07, 7)
    frame_material = b.pick(("nylon", "nylon", "aluminium", "steel"))
    half = 0.38 * k if frame_material == "steel" else 1.3 * k
    frame = np.array(
        [
            (-8.8, 0),
            (8.3, 0),
            (8.2, -1.0),
            (1.6, -1.15),
            (0.9, -1.3),
            (-0.6, -1.4),
            (-2.2, -1.7),
            (-4.2 - lean, -8.6),
            (-4.6 - lean, -9.4),
            (-9.6 - lean, -9.2),
            (-9.9 - lean, -8.8),
            (-8.0, -2.3),
            (-9.6, -1.0),
        ]
    )
    grip = b.between(0.8, 1.05)
    frame[7:11, 1] *= grip
    b.prism(frame * stretch, -half, half, frame_material)
    if frame_material != "steel":
        hollow = [(-3, -2), (-5 - lean, -8.8 * grip), (-8.6 - lean, -8.8 * grip), (-6.8, -2)]
        b.prism(hollow * stretch, -half + 0.35 * k, half - 0.35 * k, frame_material, density=-1)
    guard = smooth(np.array([(1.4, -1.2), (1.6, -2.6), (0.6, -3.5), (-1.2, -3.6), (-2.6, -3.1)]) * stretch, 4)
    b.wire(guard, 0.32 * k, frame_material)
    b.prism([(-0.2, -0.8), (0.2, -0.8), (-0.3, -2.9), (-0.7, -2.7)] * stretch, -0.3, 0.3, "steel")
    if b.chance(0.8):
        magazine = np.array([(-3.0, -1.2), (-5.4 - lean, -9.2 * grip), (-9 - lean, -9.2 * grip), (-6.6, -1.2)])
        middle = magazine.mean(0)
        b.prism(magazine * stretch, -1.0 * k, 1.0 * k, "steel")
        b.prism((middle + 0.9 * (magazine - middle)) * stretch, -0.9 * k, 0.9 * k, "steel", density=-1)
        for i in range(b.count(0, 8)):
            share = (i + 0.7) / 9
            x, y = (1 - share) * (magazine[0] + magazine[3]) / 2 + share * (magazine[1] + magazine[2]) / 2
            b.cylinder((x * k * long - 0.4 * k, y * k, 0), "x", 0.44 * k, 0.9 * k, "brass", density=0.45)
            b.ellipsoid((x * k * long + 0.9 * k, y * k, 0), (0.7 * k, 0.42 * k, 0.42 * k), "lead", density=0.5)
    for x in (-8.2, 8.2):
        b.box((x * k * long, (high + 0.15) * k, 0), (0.35 * k, 0.22 * k, 0.25 * k), "steel")
    if b.chance(0.6):
        b.prism([(-9, 0.9), (-10, 1.9), (-9.6, 2.2), (-8.6, 1.5)] * stretch, -0.3, 0.3, "steel")
    b.thin_metal(b.between(0.3, 0.9))


@threat("Gun", "revolver")
def revolver(b: Builder) -> None:
    """A revolver with a 5 to 15 cm barrel and a wooden or rubber grip."""
    k = b.between(0.8, 1.1)
    barrel = b.between(4, 13) * k
    middle = 3 * k + barrel / 2
    b.tube((middle, 1.6 * k, 0), "x", 0.85 * k, barrel / 2 + 1.5 * k, 0.38 * k, "steel")
    b.box((middle, 2.5 * k, 0), (barrel / 2 + 1, 0.2, 0.25), "steel")
    b.box((middle, 0.5 * k, 0), (barrel / 2 + 0.6, 0.3, 0.4), "steel")
    b.prism(
        np.array([(3.6, 3.1), (-3.4, 3.1), (-4.2, 2.2), (-4.4, -1.2), (-2.6, -2.2), (3.6, -1.9)]) * k,
        -0.55,
        0.55,
        "steel",
    )
    b.prism(np.array([(2.2, 2.4), (-2, 2.4), (-2, -1.2), (2.2, -1.2)]) * k, -0.55, 0.55, "steel", density=-1)
    b.cylinder((0.1 * k, 0.6 * k, 0), "x", 1.9 * k, 2.0 * k, "steel", density=0.85)
    loaded = b.chance(0.6)
    for i in range(6):
        y, z = 0.6 * k + 1.2 * k * np.sin(i * np.pi / 3), 1.2 * k * np.cos(i * np.pi / 3)
        b.cylinder((0.1 * k, y, z), "x", 0.46 * k, 2.0 * k, "steel", density=-0.85)
        if loaded:
            b.cylinder((-0.5 * k, y, z), "x", 0.42 * k, 1.2 * k, "brass", density=0.6)
    b.wire(smooth(np.array([(2.4, -2), (2.4, -3.4), (1, -4.1), (-0.9, -3.9), (-2, -2.6)]) * k, 4), 0.3 * k, "steel")
    b.prism(np.array([(0.2, -1.6), (0.6, -1.6), (0.1, -3.3), (-0.3, -3.1)]) * k, -0.25, 0.25, "steel")
    drop = b.between(0.75, 1.05)
    grip = np.array(
        [(-2.6, -1.9), (-4.4, -1.0), (-5.6, -2.6), (-7.6, -6.6), (-8.2, -8.6), (-5.2, -9), (-4.4, -7), (-3.2, -3.6)]
    )
    grip[:, 1] *= drop
    outline = smooth(grip * k, 3, closed=True)
    b.prism(outline, -1.3 * k, 1.3 * k, b.pick(("wood", "rubber", "nylon")), rounding=0.9)
    b.prism(outline * 0.82 + np.array([-0.85, -0.7]) * k, -0.3, 0.3, "steel")
    b.prism(np.array([(-4, 2.2), (-5.6, 3.6), (-6, 3.2), (-4.4, 1.2)]) * k, -0.25, 0.25, "steel")
    b.thin_metal(b.between(0.3, 0.8))


@threat("3D Gun", "blocky", weight=2.0)
def printed_pistol(b: Builder) -> None:
    """A printed plastic pistol with a bulky body; a few small metal parts."""
    k, plastic = b.between(0.85, 1.12), b.pick(("pla", "abs", "nylon"))
    high, back = b.between(3.6, 4.8), b.between(-9, -7)
    body = (
        np.array(
            [
                (back, 1),
                (back, high),
                (9, high),
                (9.4, high - 0.6),
                (9.4, 0.8),
                (2.2, 0.6),
                (1.8, -0.3),
                (-3, -0.6),
                (-4.6, -6.8),
                (-8.8, -6.6),
                (-7.6, -0.6),
            ]
        )
        * k
    )
    b.prism(body, -1.5 * k, 1.5 * k, plastic, density=b.between(0.6, 1.0))
    b.prism(
        np.array([(-6.6, 1.8), (-6.6, high - 0.7), (-0.5, high - 0.7), (-0.5, 1.8)]) * k,
        -1.0 * k,
        1.0 * k,
        plastic,
        density=-0.6,
    )
    b.cylinder((4.5 * k, 2.6 * k, 0), "x", b.between(0.45, 0.7) * k, 4.6 * k, plastic, density=-0.6)
    b.prism(
        np.array([(-4.2, -1.5), (-5.4, -6), (-7.8, -6), (-6.8, -1.5)]) * k, -0.8 * k, 0.8 * k, plastic, density=-0.6
    )
    b.wire(smooth(np.array([(2, -0.2), (2, -2), (0.6, -2.9), (-1.6, -2.8), (-3, -2)]) * k, 4), 0.4 * k, plastic)
    b.prism(np.array([(-0.4, 0), (0.2, 0), (-0.4, -2), (-0.9, -1.8)]) * k, -0.35, 0.35, plastic)
    _add_small_metal(b, k)


@threat("3D Gun", "slim")
def printed_slim(b: Builder) -> None:
    """A printed copy of a pistol's outline: separate slide and frame, thin walls."""
    k, plastic = b.between(0.8, 1.1), b.pick(("pla", "abs", "nylon"))
    slide = np.array([(-8.5, 0.2), (-8.5, 3.0), (8.6, 3.0), (9.2, 2.2), (9.2, 0.2)]) * k
    b.hollow_prism(slide, -1.3 * k, 1.3 * k, 0.45 * k, plastic, density=b.between(0.8, 1.1))
    lean = b.between(0, 1)
    frame = (
        np.array(
            [
                (-8.5, 0),
                (8.6, 0),
                (8.4, -1.2),
                (0.8, -1.4),
                (-2.4, -1.8),
                (-4 - lean, -8.8),
                (-9 - lean, -8.6),
                (-7.6, -2),
            ]
        )
        * k
    )
    b.prism(frame, -1.25 * k, 1.25 * k, plastic, density=b.between(0.6, 1.0))
    b.prism(
        np.array([(-3.4, -2.2), (-5 - lean, -8), (-8 - lean, -7.9), (-6.8, -2.2)]) * k,
        -0.85 * k,
        0.85 * k,
        plastic,
        density=-0.6,
    )
    b.wire(
        smooth(np.array([(1.6, -1.2), (1.8, -2.8), (0.4, -3.6), (-1.6, -3.5), (-2.8, -2.9)]) * k, 4), 0.38 * k, plastic
    )
    if b.chance(0.5):
        b.tube((2 * k, 1.6 * k, 0), "x", 0.6 * k, b.between(3, 6.5) * k, 0.15, "steel", density=0.5)
    _add_small_metal(b, k)


def _add_small_metal(b: Builder, k: float) -> None:
    """Add the screws, spring and pin that even a printed gun has."""
    b.cylinder((-3.4 * k, 2.4 * k, 0), "x", 0.14, b.between(1, 2.2) * k, "steel")
    if b.chance(0.7):
        add_spring(b, (-6.2 * k, 2.4 * k, 0), 4 * k, 0.38, 0.07, 5)
    for _ in range(b.count(2, 7)):
        x = b.between(-7, 8) * k
        y = (b.between(1, 3) if x > -3 * k else b.between(-5, 3)) * k
        if b.chance(0.5):
            b.cylinder((x, y, 0), "z", 0.16, 1.2 * k, "steel")
        else:
            b.cylinder((x, y, 0), "y", 0.14, 0.7, "steel")
    if b.chance(0.4):
        b.cylinder((2.2 * k, 2.4 * k, 0), "x", 0.45 * k, 1.1 * k, "brass", density=0.4)
