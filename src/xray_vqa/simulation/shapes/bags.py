"""Bags: each builder draws shell, trim and hardware, centred in x and y, from z = 0 up, and returns the room inside."""

# ruff: noqa: RUF005  (an array plus a tuple is addition)

from __future__ import annotations

import numpy as np

from xray_vqa.simulation.primitives import (
    MODE_STACK,
    Array,
    Builder,
    Texture,
    blob,
    rotation_z,
    rounded_rectangle,
    smooth,
)
from xray_vqa.simulation.shapes.registry import Interior, bag


def _at_height(path: Array, z: float) -> Array:
    return np.c_[path, np.full(len(path), z)]


def _part_of(b: Builder, path: Array, low: float, high: float) -> Array:
    """Return a random stretch of a closed path."""
    rolled = np.roll(path, -b.count(0, len(path) - 1), axis=0)
    return rolled[: max(int(len(path) * b.between(low, high)), 3)]


def _add_shell(
    b: Builder,
    outline: Array,
    height: float,
    factors: list[float],
    levels: Array,
    wall: float,
    material: str,
    density: float,
    drift: float = 0.0,
) -> None:
    """Add a barrelled shell as one stack: each layer is the outline scaled, less the same shrunk by the wall.

    Straight walls parallel to the rays would show as black lines; real shells bulge, and so does this one.
    """
    shrink = 1 - 2 * wall / float(np.ptp(outline[:, 1]))
    last = len(factors) - 1
    with b.part(MODE_STACK):
        for i, factor in enumerate(factors):
            shift = b.rng.normal(0, drift, 2) if drift else np.zeros(2)
            low, high = levels[i] * height, levels[i + 1] * height
            b.prism(outline * factor + shift, low, high, material, density)
            inner_low, inner_high = low + (wall if i == 0 else 0), high - (wall if i == last else 0)
            b.prism(outline * factor * shrink + shift, inner_low, inner_high, material, -density)


def _add_zip_pulls(b: Builder, path: Array, count: int, z: float) -> None:
    """Add sliders with their tabs along a zip: metal or plastic, plates, loops or cords."""
    tab_material, tab_density = b.pick((("zinc", 1.0), ("zinc", 0.5), ("abs", 1.0), ("nylon", 1.5)))
    length, width = b.between(1.4, 2.8), b.between(0.45, 0.9)
    style = b.between(0, 1)
    for _ in range(count):
        x, y = path[b.count(0, len(path) - 1)]
        turn = rotation_z(b.between(0, 6.28))
        centre = np.array([x, y, z])
        b.box(
            centre, (b.between(0.35, 0.55), b.between(0.25, 0.4), 0.2), "zinc", density=b.between(0.4, 0.8), turn=turn
        )
        tab = centre + turn @ (0.4 + length / 2, 0, 0)
        if style < 0.5:
            plate = rounded_rectangle(length, width, 0.3)
            b.prism(plate, -0.1, 0.1, tab_material, tab_density, turn=turn, centre=tab)
            b.prism(plate * (0.55, 0.45), -0.1, 0.1, tab_material, -tab_density, turn=turn, centre=tab)
        elif style < 0.8:
            b.ring(tab, length / 2, 0.09, tab_material, tab_density, radius_2=width * 0.7, turn=turn, num_pieces=10)
        else:
            end = centre + turn @ (length * 1.6, b.between(-0.8, 0.8), 0)
            b.wire([centre, tab, end], 0.16, "nylon", density=1.4)


def _add_buckle(b: Builder, centre: Array, z: float) -> None:
    """Add a strap buckle."""
    frame = (
        rounded_rectangle(b.between(1.4, 2.2), b.between(2, 3), 0.4) @ rotation_z(b.between(0, 3))[:2, :2].T + centre
    )
    b.wire(_at_height(frame, z), 0.14, b.pick(("zinc", "zinc", "polypropylene")), closed=True)


@bag("suitcase", weight=1.2)
def suitcase(b: Builder) -> Interior:
    """A trolley case, hard or soft, with rails, wheels, zip and lining."""
    width, height, depth = b.between(42, 56), b.between(29, 38), b.between(14, 22)
    soft = b.chance(0.5)
    shell = "fabric" if soft else b.pick(("polypropylene", "abs"))
    wall = 0.12 if soft else b.between(0.18, 0.28)
    outline = rounded_rectangle(width, height, b.between(2.5, 6), 6)
    levels = np.array([0, 0.08, 0.25, 0.5, 0.75, 0.92, 1])
    _add_shell(b, outline, depth, [0.955, 0.985, 1.0, 1.0, 0.985, 0.955], levels, wall, shell, 1.0)
    lining = Texture(b.between(0.4, 0.9), b.count(0, 5), b.between(0.5, 1.4), b.count(0, 255))
    b.prism(outline * 0.985, 0.3, 0.65, "nylon", density=b.between(0.15, 0.9), texture=lining)
    if not soft:
        ribs = b.count(4, 9)
        for y in np.linspace(-height * 0.36, height * 0.36, ribs):
            b.box((0, y, depth), (width * 0.42, b.between(0.2, 0.5), 0.12), shell)
    for share in (0.06, 0.94) if soft else (0.47, 0.53):
        edge = _at_height(outline * 0.995, depth * share)
        b.wire(
            edge,
            b.pick((0.14, 0.14, 0.2)),
            b.pick(("steel", "polypropylene", "polypropylene")),
            density=0.8,
            closed=True,
        )
        b.wire(edge, 0.33, b.pick(("nylon", "pvc", "rubber")), density=0.8, closed=True)
    zip_path = outline * 1.004
    b.wire(_at_height(zip_path, depth * 0.7), 0.3, "nylon", density=0.9, closed=True)
    if b.chance(0.4):
        b.wire(_at_height(zip_path, depth * 0.7), 0.12, "brass", density=0.5, closed=True)
    _add_zip_pulls(b, outline, b.count(2, 4), depth * 0.7)
    rail_y, metal = b.between(5, 8.5), b.pick((("aluminium", 1.0), ("aluminium", 0.7), ("steel", 0.3)))
    for side in (1, -1):
        y = side * rail_y
        b.box((0, y, 1.4), (width * 0.47, 1.15, 0.75), metal[0], density=metal[1])
        b.box((0, y, 1.4), (width * 0.48, 1.02, 0.62), metal[0], density=-metal[1])
        b.box((-width * 0.1, y, 1.4), (width * 0.36, 0.85, 0.5), "aluminium", density=0.4)
        b.box((0, y, 1.2), (width * 0.48, 1.7, 0.9), "polypropylene", density=0.25)
        for x in (-0.46, -0.44, 0.46, 0.1):
            b.cylinder((width * x, y, 1.2), "z", 0.28, 0.9, "steel")
    grip = [
        (width * 0.5, -rail_y, 1.6),
        (width * 0.53, -rail_y, 1.6),
        (width * 0.53, rail_y, 1.6),
        (width * 0.5, rail_y, 1.6),
    ]
    b.wire(grip, 0.9, "abs", density=0.8)
    b.box((width * 0.53, 0, 1.6), (0.3, rail_y * 0.6, 0.3), "steel", density=0.3)
    for side in (1, -1):
        for z in (1.5, depth - 2) if b.chance(0.6) else (1.5,):
            wheel = (-width * 0.5 - 1.6, side * height * 0.40, z)
            b.cylinder(wheel, "y", 2.3, 1.0, "rubber")
            b.cylinder(wheel, "y", 1.5, 1.1, "polypropylene", density=-0.3)
            b.cylinder(wheel, "y", 0.35, 1.7, "steel")
            b.box((-width * 0.49, side * height * 0.40, z), (1.8, 2.2, 1.6), "polypropylene", density=0.4)
        for x in (-0.46, 0.46):
            b.cylinder((width * x, side * height * 0.45, depth * 0.5), "z", 0.25, 0.8, "steel")
        for x in np.linspace(-width * 0.3, width * 0.3, b.count(0, 4)):
            b.cylinder((x, side * height * 0.48, 1), "z", 0.18, 0.4, "steel")
    handle = [(width * 0.12, height * 0.5, depth * 0.5), (width * 0.1, height * 0.5 + 2.2, depth * 0.55),
              (-width * 0.1, height * 0.5 + 2.2, depth * 0.55), (-width * 0.12, height * 0.5, depth * 0.5)]  # fmt: skip
    b.wire(smooth(handle, 5), 0.7, "abs", density=0.7)
    return Interior(width / 2 - 1.5, height / 2 - 1.5, 2.5, depth - 1.5, squareness=9)


def _add_soft_bag(b: Builder, width: float, height: float, depth: float, squareness: float) -> Array:
    """Add fabric shell, seams, pockets, creases and zips; return the outline."""
    outline_knots = blob(b.rng, width, height, 13, 0.05, squareness)
    outline = smooth(outline_knots, 4, closed=True)
    levels = np.array([0, 0.12, 0.3, 0.5, 0.7, 0.88, 1])
    factors = [f * (1 + b.rng.normal(0, 0.012)) for f in (0.86, 0.95, 1, 0.99, 0.94, 0.85)]
    _add_shell(
        b,
        outline,
        depth,
        factors,
        levels,
        0.09,
        b.pick(("fabric", "fabric", "leather")),
        b.between(0.7, 1.7),
        drift=0.25,
    )
    for _ in range(b.count(3, 5)):  # wrinkled panels
        texture = Texture(b.between(0.5, 1.0), b.pick((0, 2, 5)), b.between(0.4, 1.3), b.count(0, 255))
        b.prism(
            outline * b.between(0.6, 0.98) + b.rng.normal(0, 1.0, 2),
            0,
            0.4,
            "fabric",
            density=b.between(0.10, 0.55),
            texture=texture,
        )

    def seam(path: Array, z: float, radius: float) -> None:
        b.wire(
            _at_height(path, z),
            radius,
            b.pick(("nylon", "fabric", "fabric", "pvc", "pvc", "cotton", "rubber")),
            density=b.between(0.6, 1.7),
        )

    for _ in range(b.count(3, 5)):
        wobble = outline_knots * (1 + b.rng.normal(0, 0.012, 2)) + b.rng.normal(0, 0.3, outline_knots.shape)
        seam(_part_of(b, smooth(wobble, 3, closed=True), 0.5, 1.0), b.between(1, depth), b.between(0.12, 0.28))
    for _ in range(b.count(1, 4)):  # pockets
        pocket_w, pocket_h = width * b.between(0.25, 0.7), height * b.between(0.35, 0.8)
        centre = np.array([b.between(-0.45, 0.45) * (width - pocket_w), b.between(-0.45, 0.45) * (height - pocket_h)])
        pocket = (
            blob(b.rng, pocket_w, pocket_h, 14, 0.05, b.between(3, 7)) @ rotation_z(b.rng.normal(0, 0.06))[:2, :2].T
            + centre
        )
        z = b.between(1, depth)
        curve = smooth(pocket, 2, closed=True)
        b.prism(curve, z, z + 0.1, "fabric", density=b.between(0.4, 1.2))
        seam(_part_of(b, curve, 0.4, 1.0), z, b.between(0.12, 0.24))
        if b.chance(0.35):
            b.prism(
                centre + (curve - centre) * 0.97,
                z + 0.1,
                z + 0.9,
                "nylon",
                density=b.between(0.05, 0.12),
                texture=Texture(0.5, 4, 1.3),
            )
    for _ in range(b.count(14, 30)):  # creases
        start = b.rng.uniform(-0.42, 0.42, 2) * (width, height)
        heading = b.between(0, 2 * np.pi)
        step = np.array([np.cos(heading), np.sin(heading)]) * b.between(4, 13)
        path = smooth(np.array([start, start + step * 0.5 + b.rng.normal(0, 1.2, 2), start + step]), 5)
        path = path[(np.abs(path[:, 0] / (width * 0.49)) ** 3 + np.abs(path[:, 1] / (height * 0.49)) ** 3) < 1]
        if len(path) > 2:
            b.wire(_at_height(path, b.between(1, depth)), b.between(0.1, 0.22), "fabric", density=b.between(0.4, 1.2))
    for _ in range(b.count(1, 3)):  # zips
        knots = outline_knots * b.between(0.62, 0.97) + b.rng.normal(0, 0.3, outline_knots.shape)
        path, z = _part_of(b, smooth(knots, 3, closed=True), 0.4, 0.8), b.between(0.4, 1) * depth
        b.wire(_at_height(path, z), 0.26, "nylon", density=1.1)
        if b.chance(0.4):
            b.wire(_at_height(path, z), 0.11, "zinc", density=0.7)
        _add_zip_pulls(b, path, b.count(1, 2), z)
    return outline


@bag("backpack", weight=1.2)
def backpack(b: Builder) -> Interior:
    """A backpack with shoulder straps and buckles."""
    width, height, depth = b.between(40, 54), b.between(27, 38), b.between(11, 20)
    _add_soft_bag(b, width, height, depth, b.between(2.6, 4.5))
    for side in (1, -1):
        strap = smooth(
            [
                (width * 0.42, side * height * 0.15),
                (width * 0.2, side * height * b.between(0.2, 0.48)),
                (-width * 0.2, side * height * b.between(0.2, 0.5)),
                (-width * 0.44, side * height * 0.3),
            ],
            6,
        )
        b.wire(_at_height(strap, 0.4), b.between(1.2, 2.0), "nylon", density=b.between(0.08, 0.16))
        for edge in (1.4, -1.4):
            b.wire(_at_height(strap + (0, edge), 0.4), 0.18, "nylon")
        _add_buckle(b, strap[-4], 0.4)
        tail = smooth(np.array([strap[-4], strap[-4] + b.rng.normal(0, 3, 2), strap[-4] + b.rng.normal(0, 5, 2)]), 5)
        b.wire(_at_height(tail, 0.4), 0.55, "nylon", density=0.25)
    loop = smooth([(width * 0.46, -2.5), (width * 0.53, -1.5), (width * 0.53, 1.5), (width * 0.46, 2.5)], 4)
    b.wire(_at_height(loop, 1), 0.5, "nylon")
    for _ in range(b.count(0, 3)):
        _add_buckle(b, np.array([b.between(-0.4, 0.4) * width, b.pick((-1, 1)) * height * b.between(0.3, 0.46)]), 1)
    return Interior(width / 2 * 0.93, height / 2 * 0.93, 2, depth - 1, squareness=3.0)


@bag("handbag", weight=0.6)
def handbag(b: Builder) -> Interior:
    """A handbag with two carrying loops and metal trim."""
    width, height, depth = b.between(28, 40), b.between(20, 28), b.between(8, 14)
    _add_soft_bag(b, width, height, depth, b.between(3, 6))
    fitting, trim, ring_radius = b.pick(("ring", "plate", "none")), b.pick(("zinc", "brass")), b.between(0.8, 1.6)
    for z in (1.0, depth - 1):
        span = width * b.between(0.16, 0.26)
        reach = height * 0.5 + b.between(3, 8)
        loop = smooth(
            [
                (-span, height * 0.44),
                (-span * 0.9, reach * 0.85),
                (0, reach),
                (span * 0.9, reach * 0.85),
                (span, height * 0.44),
            ],
            5,
        )
        b.wire(_at_height(loop, z), 0.55, b.pick(("leather", "nylon")))
        if fitting != "none":
            for x in (-span, span):
                if fitting == "ring":
                    b.ring((x, height * 0.44, z), ring_radius, 0.16, trim, num_pieces=12)
                else:
                    b.box((x, height * 0.42, z), (0.6, 1.1, 0.15), trim, density=0.6)
    for _ in range(b.count(0, 6)):
        spot = (b.between(-0.4, 0.4) * width, b.between(-0.4, 0.4) * height, depth)
        b.cylinder(spot, "z", b.between(0.2, 0.4), 0.12, trim)
    if b.chance(0.5):
        clasp = (b.between(-0.2, 0.2) * width, height * b.between(0.2, 0.4), depth * 0.5)
        b.box(clasp, (b.between(0.6, 1.6), b.between(0.4, 0.8), 0.25), trim, density=0.5)
    return Interior(width / 2 * 0.92, height / 2 * 0.92, 1.5, depth - 1, squareness=3.6)


@bag("carton", weight=0.35)
def carton(b: Builder) -> Interior:
    """A cardboard box with flaps and tape."""
    width, height, depth = b.between(34, 46), b.between(24, 33), b.between(12, 18)
    density = b.between(0.3, 0.6)
    b.box((0, 0, depth / 2), (width / 2, height / 2, depth / 2), "paper", density=density)
    b.box((0, 0, depth / 2), (width / 2 - 0.4, height / 2 - 0.4, depth / 2 - 0.4), "paper", density=-density)
    for z in (0.4, depth):
        b.box((0, 0, z), (width / 2, height * 0.25, 0.2), "paper", density=density, texture=Texture(0.25, 3, 1.0))
    b.box((0, 0, depth + 0.2), (width / 2, 2.4, 0.03), "polypropylene", density=1.5)
    if b.chance(0.4):
        for x in np.linspace(-width * 0.45, width * 0.45, 4):
            b.wire([(x - 0.8, 0.7, depth), (x + 0.8, 0.7, depth)], 0.1, "copper")
    if b.chance(0.5):
        texture = Texture(0.8, b.pick((0, 1, 5)), b.between(0.6, 1.6), b.count(0, 255))
        b.prism(
            rounded_rectangle(width - 2, height - 2, 1),
            1,
            3,
            "polypropylene",
            density=b.between(0.02, 0.08),
            texture=texture,
        )
    return Interior(width / 2 - 1.2, height / 2 - 1.2, 1.5, depth - 1, squareness=12)


@bag("tray", weight=0.35)
def tray(b: Builder) -> Interior:
    """A checkpoint tray: shallow plastic with a raised rim and moulded ribs."""
    width, height, depth = b.between(42, 54), b.between(30, 38), b.between(6, 10)
    outline = rounded_rectangle(width, height, b.between(3, 5), 6)
    wall = b.between(0.25, 0.4)
    levels = np.array([0, 0.1, 0.4, 0.7, 1])
    factors = [0.90, 0.93, 0.96, 0.99]
    shrink = 1 - 2 * wall / height
    with b.part(MODE_STACK):
        for i, factor in enumerate(factors):
            low, high = levels[i] * depth, levels[i + 1] * depth
            b.prism(outline * factor, low, high, "polypropylene")
            b.prism(outline * factor * shrink, low + (wall if i == 0 else 0), high, "polypropylene", density=-1)
    b.wire(_at_height(outline, depth), b.between(0.5, 0.8), "polypropylene", closed=True)
    for x in np.linspace(-width * 0.4, width * 0.4, b.count(0, 9)):
        b.box((x, 0, 0.3), (0.25, height * 0.4, 0.15), "polypropylene")
    for side in (1, -1):
        b.prism(rounded_rectangle(3, 10, 1.2) + (side * width * 0.47, 0), depth - 0.8, depth - 0.3, "polypropylene")
    return Interior(width / 2 * 0.93, height / 2 * 0.93, 0.8, depth + 6, squareness=8)
