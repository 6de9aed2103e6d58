"""Hammer, Pliers, Wrench, Screwdriver."""

# ruff: noqa: RUF005  (an array plus a tuple is addition)

from __future__ import annotations

import numpy as np

from xray_vqa.simulation.primitives import Builder, circle, rotation_z, rounded_rectangle, smooth
from xray_vqa.simulation.shapes.parts import turned_2d
from xray_vqa.simulation.shapes.registry import threat


def _add_hammer_handle(b: Builder, k: float, length: float) -> None:
    kind = b.pick(("wood", "fr4", "steel"))
    if kind == "steel":
        b.cylinder((-length * 0.35, 0, 0), "x", 0.8 * k, length * 0.35, "steel", radius_2=0.55 * k, density=0.8)
        b.prism(
            rounded_rectangle(length * 0.45, 2.8 * k, 1.0) - (length * 0.78, 0),
            -1.5 * k,
            1.5 * k,
            "rubber",
            rounding=1.0,
        )
    else:
        b.cylinder((-length * 0.5, 0, 0), "x", 1.15 * k, length * 0.5, kind, radius_2=1.5 * k)
        if b.chance(0.6):
            b.cylinder((-length * 0.82, 0, 0), "x", 1.35 * k, length * 0.2, "rubber", radius_2=1.7 * k, density=0.5)


@threat("Hammer", "claw")
def claw_hammer(b: Builder) -> None:
    """A carpenter's hammer with a split claw."""
    k = b.between(0.75, 1.1)
    b.cylinder((0, 3.6 * k, 0), "y", 1.35 * k, 1.1 * k, "steel")
    b.cylinder((0, 2.1 * k, 0), "y", 0.95 * k, 0.8 * k, "steel")
    b.box((0, 0.3 * k, 0), (1.2 * k, 1.5 * k, 1.1 * k), "steel")
    claw = np.array([(1, -1), (1.2, -3), (-0.6, -6.4), (-1.2, -6.6), (-0.4, -3.4), (-1.2, -1)])
    b.prism(smooth(claw * k, 3, closed=True), -0.9 * k, 0.9 * k, "steel", density=0.7)
    b.prism(np.array([(-0.85, -6.1), (-0.1, -3.6), (0.25, -3.6), (-0.65, -6.0)]) * k, -0.3, 0.3, "steel", density=-0.6)
    _add_hammer_handle(b, k, b.between(18, 28) * k)
    b.thin_metal(b.between(0.4, 0.9))


@threat("Hammer", "peen")
def peen_hammer(b: Builder) -> None:
    """A locksmith's hammer: a square face and a wedge or a ball."""
    k = b.between(0.6, 1.05)
    face = b.between(1.0, 1.6)
    b.box((0, 2.6 * k, 0), (face * k, 2.0 * k, face * k), "steel")
    b.box((0, 0, 0), (1.25 * k, 1.2 * k, 1.1 * k), "steel")
    if b.chance(0.6):
        b.prism(np.array([(1.2, -1), (0.25, -4.6), (-0.25, -4.6), (-1.2, -1)]) * k, -1.1 * k, 1.1 * k, "steel")
    else:
        b.cylinder((0, -1.8 * k, 0), "y", 0.9 * k, 0.8 * k, "steel")
        b.ellipsoid((0, -3.2 * k, 0), (1.3 * k, 1.3 * k, 1.3 * k), "steel")
    _add_hammer_handle(b, k, b.between(18, 27) * k)
    b.thin_metal(b.between(0.4, 0.9))


@threat("Hammer", "mallet")
def mallet(b: Builder) -> None:
    """A club hammer or rubber mallet."""
    k = b.between(0.8, 1.1)
    material = b.pick(("steel", "rubber", "rubber"))
    b.cylinder(
        (0, 0, 0),
        "y",
        b.between(1.8, 2.8) * k,
        b.between(3.5, 5) * k,
        material,
        density=1.0 if material == "rubber" else 0.6,
    )
    if material == "rubber" and b.chance(0.5):
        b.cylinder((0, 0, 0), "y", 1.0 * k, 3 * k, "steel", density=0.4)
    _add_hammer_handle(b, k, b.between(18, 26) * k)
    b.thin_metal(b.between(0.4, 0.8))


@threat("Pliers", "combination", weight=2.0)
def combination_pliers(b: Builder) -> None:
    """Pliers with short or long jaws and insulated handles."""
    k, opening, slim = b.between(0.75, 1.2), b.between(0.04, 0.35), b.chance(0.4)
    jaw = b.between(6, 8) if slim else b.between(3.4, 4.8)
    for side in (1, -1):
        flip, turn = np.array([k, side * k]), rotation_z(side * opening)
        head = [(-1, -0.6), (-1.2, 1.2), (0, 1.6), (jaw, 0.45 if slim else 0.9), (jaw, 0.06), (1, 0.04), (0, -0.7)]
        b.prism(head * flip, -0.45 * k, 0.45 * k, "steel", turn=turn)
        handle = (
            smooth([(0, 0), (-2.2, -1.4), (-5, -2.6), (-9, -b.between(2.2, 3)), (-13, -b.between(1.4, 2.6))] * flip, 4)
            @ turn[:2, :2].T
        )
        b.wire(handle, 0.42 * k, "steel")
        b.wire(handle[7:], b.between(0.6, 0.8) * k, "pvc", density=0.8)
    b.cylinder((0, 0, 0), "z", 1.0 * k, 0.55 * k, "steel")
    b.thin_metal(b.between(0.4, 0.9))


@threat("Pliers", "cutter")
def side_cutter(b: Builder) -> None:
    """Side cutters: short broad jaws."""
    k, opening = b.between(0.75, 1.15), b.between(0.05, 0.4)
    for side in (1, -1):
        flip, turn = np.array([k, side * k]), rotation_z(side * opening)
        b.prism(
            [(-1, -0.5), (-1, 1.6), (1.2, 1.9), (3.2, 0.3), (3.2, 0.02), (0, -0.6)] * flip,
            -0.5 * k,
            0.5 * k,
            "steel",
            turn=turn,
        )
        handle = smooth([(0, 0), (-2, -1.6), (-5, -2.8), (-8, -2.6), (-11, -1.9)] * flip, 4) @ turn[:2, :2].T
        b.wire(handle, 0.38 * k, "steel")
        b.wire(handle[6:], 0.72 * k, b.pick(("pvc", "rubber")), density=0.8)
    b.cylinder((0, 0, 0), "z", 1.0 * k, 0.6 * k, "steel")
    b.thin_metal(b.between(0.4, 0.9))


@threat("Pliers", "slip joint")
def slip_joint_pliers(b: Builder) -> None:
    """Water pump pliers with angled jaws."""
    k, opening = b.between(0.8, 1.15), b.between(0.1, 0.4)
    for side in (1, -1):
        flip, turn = np.array([k, side * k]), rotation_z(side * opening - 0.35)
        b.prism(
            [(-1.5, -0.8), (-1, 1.0), (2.2, 1.8), (4.8, 0.9), (4.6, 0.15), (1, 0.1)] * flip,
            -0.5 * k,
            0.5 * k,
            "steel",
            turn=turn,
        )
        handle = (
            smooth([(-0.5, 0), (-4, -1.4), (-9, -2.2), (-16, -1.6)] * flip, 5) @ rotation_z(side * opening)[:2, :2].T
        )
        b.wire(handle, 0.5 * k, "steel", density=0.8)
        if b.chance(0.8):
            b.wire(handle[6:], 0.72 * k, "pvc", density=0.8)
    for x in (-1.2, 0, 1.2):
        b.cylinder((x * k, 0.5 * x * k, 0), "z", 0.5 * k, 0.55 * k, "steel", density=0.6)
    b.thin_metal(b.between(0.4, 0.85))


_OPEN_JAW = np.array(
    [
        (0, -0.9),
        (0.5, -1.7),
        (1.9, -1.8),
        (2.9, -1.2),
        (2.5, -0.75),
        (1.1, -0.75),
        (0.9, 0),
        (1.1, 0.75),
        (2.5, 0.75),
        (2.9, 1.2),
        (1.9, 1.8),
        (0.5, 1.7),
        (0, 0.9),
    ]
)


@threat("Wrench", "combination", weight=2.4)
def combination_wrench(b: Builder) -> None:
    """A spanner: open jaw at one end, ring or second jaw at the other, 10 to 26 cm."""
    k = b.between(0.6, 1.3)
    length = b.between(10, 18) * k
    width = b.between(1.0, 1.5) * k
    shaft = [(-length / 2, width / 2), (length / 2, width * 0.4), (length / 2, -width * 0.4), (-length / 2, -width / 2)]
    b.prism(shaft, -0.32 * k, 0.32 * k, "steel")
    b.prism(
        [
            (-length / 2 + 1, width / 4),
            (length / 2 - 1, width / 4),
            (length / 2 - 1, -width / 4),
            (-length / 2 + 1, -width / 4),
        ],
        -0.1 * k,
        0.1 * k,
        "steel",
        density=-1,
    )
    b.prism(turned_2d(_OPEN_JAW * k, 0.25) + (length / 2 - 0.2, 0), -0.45 * k, 0.45 * k, "steel")
    if b.chance(0.6):
        b.prism(circle(1.6 * k, 18, (-length / 2 - 1.2 * k, 0)), -0.5 * k, 0.5 * k, "steel")
        b.prism(circle(1.0 * k, 12, (-length / 2 - 1.2 * k, 0)), -0.5 * k, 0.5 * k, "steel", density=-1)
    else:
        b.prism(
            turned_2d(_OPEN_JAW * (-0.85 * k, k * 0.85), 0.25) + (-length / 2 + 0.2, 0), -0.45 * k, 0.45 * k, "steel"
        )
    b.thin_metal(b.between(0.5, 1.1))


@threat("Wrench", "double open", weight=1.2)
def double_open_wrench(b: Builder) -> None:
    """A flat spanner with an open jaw of its own size at each end, 10 to 28 cm."""
    k = b.between(0.6, 1.3)
    length, thick = b.between(9, 17) * k, b.between(0.22, 0.4) * k
    width = b.between(1.2, 2.0) * k
    b.prism(rounded_rectangle(length + 1, width, 0.3), -thick, thick, "steel")
    if b.chance(0.5):
        b.prism(rounded_rectangle(length * 0.75, width * 0.5, 0.3), 0.4 * thick, thick, "steel", density=-1)
    lean = b.pick((1, -1)) * b.between(0.2, 0.3)
    for side, size in ((1, 1.0), (-1, b.between(0.7, 0.95))):
        jaw = turned_2d(_OPEN_JAW * k * size * (1.0, b.between(0.9, 1.15)), lean) + (length / 2, 0)
        b.prism(jaw * (side, side), -1.2 * thick, 1.2 * thick, "steel")
    b.thin_metal(b.between(0.5, 1.1))


@threat("Wrench", "ring", weight=0.6)
def ring_wrench(b: Builder) -> None:
    """A spanner with a ring at each end, 12 to 30 cm."""
    k = b.between(0.6, 1.2)
    length, width = b.between(11, 19) * k, b.between(0.8, 1.3) * k
    b.prism(rounded_rectangle(length, width, 0.4), -0.35 * k, 0.35 * k, "steel")
    for side, size in ((1, 1.0), (-1, b.between(0.65, 0.95))):
        outer, at = b.between(1.2, 1.6) * k * size, (side * length / 2 + side * k * size, 0.0)
        b.prism(circle(outer, 16, at), -0.55 * k, 0.55 * k, "steel")
        b.prism(circle(outer * b.between(0.6, 0.72), 12, at), -0.55 * k, 0.55 * k, "steel", density=-1)
    b.thin_metal(b.between(0.5, 1.1))


@threat("Wrench", "adjustable")
def adjustable_wrench(b: Builder) -> None:
    """An adjustable wrench."""
    k = b.between(0.65, 1.2)
    length = b.between(11, 17) * k
    x = length / 2 - 0.4 * k
    b.prism(
        [(-length / 2, 1.2 * k), (length / 2, 0.8 * k), (length / 2, -0.8 * k), (-length / 2, -1.2 * k)],
        -0.4 * k,
        0.4 * k,
        "steel",
        0.85,
    )
    b.prism(circle(0.5 * k, 10, (-length / 2 + 1.2 * k, 0)), -0.4 * k, 0.4 * k, "steel", density=-0.85)
    upper = np.array([(0, -1.8), (0, 2.2), (1.6, 2.6), (4.2, 2.5), (4.4, 1.6), (2.0, 1.5), (1.6, 0.2), (1.6, -1.8)])
    b.prism(upper * k + (x, 0), -0.6 * k, 0.6 * k, "steel")
    open_by = b.between(0.3, 2.0) * k
    lower = np.array([(1.7, 0.8), (4.3, 0.6), (4.4, -0.2), (1.7, -0.6)])
    b.prism(lower * k + (x, -open_by), -0.5 * k, 0.5 * k, "steel")
    b.cylinder((x + k, -k, 0), "x", 0.5 * k, 0.6 * k, "steel")
    b.thin_metal(b.between(0.4, 0.9))


@threat("Wrench", "pipe", weight=0.5)
def pipe_wrench(b: Builder) -> None:
    """A pipe wrench with a hooked upper jaw."""
    k = b.between(0.75, 1.1)
    length = b.between(15, 20) * k
    b.prism(
        [(-length / 2, 1.0 * k), (length / 2, 1.1 * k), (length / 2, -1.1 * k), (-length / 2, -1.0 * k)],
        -0.7 * k,
        0.7 * k,
        "steel",
    )
    b.prism(
        [
            (-length / 2 + 1, 0.5 * k),
            (length / 2 - 2, 0.5 * k),
            (length / 2 - 2, -0.5 * k),
            (-length / 2 + 1, -0.5 * k),
        ],
        -0.4 * k,
        0.4 * k,
        "steel",
        density=-1,
    )
    x, gap = length / 2, b.between(0.4, 2) * k
    b.prism(
        np.array([(-1.4, -1.2), (-1.4, 2.8), (0.2, 2.8), (0.2, -1.2)]) * k + (x, 0),
        -0.7 * k,
        0.7 * k,
        "steel",
        density=0.8,
    )
    hook = np.array([(0, -1), (0, 3.2), (1.6, 3.4), (2.0, 2.6), (1.0, 2.2), (1.0, -1)]) * k
    b.prism(hook + (x + gap, 0), -0.6 * k, 0.6 * k, "steel")
    b.box((x + gap / 2 - k, -0.6 * k, 0), (2.2 * k + gap / 2, 0.5 * k, 0.5 * k), "steel", density=0.7)
    b.thin_metal(b.between(0.3, 0.7))


@threat("Screwdriver", "standard", weight=3.0)
def screwdriver(b: Builder) -> None:
    """A screwdriver, flat or crosshead, 14 to 26 cm."""
    shaft, grip, radius = b.between(6, 15), b.between(6.5, 10.5), b.between(0.85, 1.6)
    plastic = b.pick(("abs", "polypropylene", "nylon", "rubber"))
    b.cylinder((shaft / 2, 0, 0), "x", b.between(0.2, 0.42), shaft / 2 + 1.5, "steel")
    if b.chance(0.5):
        b.prism([(shaft + 1, 0.3), (shaft + 2.4, 0.55), (shaft + 2.4, -0.55), (shaft + 1, -0.3)], -0.1, 0.1, "steel")
    else:
        b.cone((shaft + 1.8, 0, 0), "x", 0.32, 0.05, 0.5, "steel")
    b.cylinder((-grip / 2, 0, 0), "x", radius, grip / 2, plastic)
    b.ellipsoid((-grip, 0, 0), (radius * 0.8, radius, radius), plastic)
    b.cylinder((-0.4, 0, 0), "x", radius * 1.08, 0.5, plastic, density=0.4)
    for i in range(6):
        angle = i * np.pi / 3
        b.cylinder(
            (-grip * 0.55, 0.76 * radius * np.cos(angle), 0.76 * radius * np.sin(angle)),
            "x",
            radius * 0.22,
            grip * 0.33,
            plastic,
            density=-0.7,
        )


@threat("Screwdriver", "stubby")
def stubby_screwdriver(b: Builder) -> None:
    """A short thick screwdriver or a bit holder."""
    shaft, grip, radius = b.between(3, 5), b.between(4.5, 7), b.between(1.3, 1.8)
    plastic = b.pick(("abs", "rubber", "nylon"))
    b.cylinder((shaft / 2, 0, 0), "x", b.between(0.3, 0.55), shaft / 2 + 1, "steel")
    b.cone((shaft + 1.2, 0, 0), "x", 0.4, 0.1, 0.4, "steel")
    b.ellipsoid((-grip / 2, 0, 0), (grip / 2 + 0.4, radius, radius), plastic)
    b.cylinder((-grip / 2, 0, 0), "x", radius * 0.8, grip / 2, plastic, density=0.4)
    if b.chance(0.5):
        for i in range(4):
            angle = i * np.pi / 2
            b.cylinder((-grip * 0.6, 0.8 * np.cos(angle), 0.8 * np.sin(angle)), "x", 0.3, 1.3, "steel", density=0.8)


@threat("Screwdriver", "T handle", weight=0.8)
def t_handle_driver(b: Builder) -> None:
    """A driver with a cross handle."""
    shaft = b.between(10, 18)
    b.cylinder((shaft / 2, 0, 0), "x", b.between(0.2, 0.35), shaft / 2, "steel")
    b.cylinder((0, 0, 0), "y", b.between(0.9, 1.3), b.between(3.5, 5.5), b.pick(("abs", "rubber")))
    b.cylinder((0, 0, 0), "y", 0.25, 3.4, "steel")
