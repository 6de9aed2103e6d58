"""Bags of cloth and leather: backpack, handbag, briefcase, shopping bag. Centred in x and y, from z = 0 up."""

# ruff: noqa: RUF005  (an array plus a tuple is addition)

from __future__ import annotations

import numpy as np

from xray_vqa.simulation.primitives import Array, Builder, at_height, blob, rounded_rectangle, smooth
from xray_vqa.simulation.shapes.fittings import (
    add_buckle,
    add_creases,
    add_panel,
    add_pocket,
    add_seam,
    add_soft_rim,
    add_strap,
    add_zip,
    evenly,
    part_of,
)
from xray_vqa.simulation.shapes.registry import Interior, bag


def _slumped(b: Builder, outline: Array, dents: float) -> Array:
    """Return the outline of something soft that lies on a belt: corners pulled, sides dented, cloth waving."""
    size = np.ptp(outline, axis=0)
    knots = evenly(outline, 26)
    curve = smooth(knots + b.rng.normal(0, 0.008 * dents, knots.shape) * size, 2, closed=True)
    along = np.linspace(0, 2 * np.pi, len(curve), endpoint=False)
    waves = sum(b.rng.normal() / wave * np.cos(wave * along + b.between(0, 6.28)) for wave in (3, 5, 8, 13))
    return curve * (1 + 0.05 * dents * np.asarray(waves)[:, None])


def _dome(b: Builder, width: float, height: float) -> Array:
    """Return a backpack's outline: bottom with tight corners at -x, sides that bulge, a dome at +x."""
    x = np.array([-0.5, -0.5, -0.44, -0.2, 0.1, 0.32, 0.45, 0.5]) * width
    bulge, dome = b.between(0.0, 0.05), b.between(0.62, 0.85)
    y = np.array([0.0, 0.36, 0.46, 0.47 + bulge, 0.46 + bulge, 0.47 * dome + 0.08, 0.3 * dome, 0.0]) * height
    return np.concatenate([np.c_[x, y], np.c_[x, -y][-2:0:-1]])


def _add_cloth_body(b: Builder, outline: Array, depth: float, material: str, density: float, crumpled: float) -> None:
    """Add front and back of a cloth bag, its bulging sides, seams, pockets and creases."""
    coat = b.pick((("pvc", 0.3, 0.8), ("pvc", 0.3, 0.8), ("fabric", 0.6, 1.4)))  # what keeps the rain out
    add_panel(b, outline * b.between(0.97, 1.0), depth, coat[0], b.between(coat[1], coat[2]), crumpled)
    back = outline * b.between(0.9, 1.0) + b.rng.normal(0, 0.4, 2)
    add_panel(b, back, 0.2, material, density * b.between(2.2, 3.2), 0.75 * crumpled)
    add_soft_rim(b, outline, depth * 0.5, b.between(1.2, 3.0), material, density * b.between(0.5, 1.2))
    for _ in range(b.count(1, 3)):
        edge = evenly(outline * b.between(0.86, 0.99) + b.rng.normal(0, 0.5, 2), 30)
        edge = smooth(edge + b.rng.normal(0, 0.25, edge.shape), 2, closed=True)
        add_seam(b, part_of(b, edge, 0.3, 1.0), b.between(0.5, depth), b.between(0.1, 0.25))
    for _ in range(b.count(1, 3)):
        add_pocket(b, outline * 0.94, b.between(0.5, depth))
    add_creases(b, outline * 0.97, b.count(14, 28), depth)


@bag("backpack", weight=1.2)
def backpack(b: Builder) -> Interior:
    """A backpack: slumped cloth, zips round the dome, padded straps, buckles."""
    width, height, depth = b.between(40, 54), b.between(27, 36), b.between(11, 20)
    outline = _slumped(b, _dome(b, width, height), b.between(0.6, 1.5))
    _add_cloth_body(b, outline, depth, b.pick(("fabric", "fabric", "nylon", "leather")), b.between(0.8, 1.6),
                    b.between(0.35, 0.8))  # fmt: skip
    for _ in range(b.count(1, 2)):
        scale = b.between(0.75, 0.97)
        path = smooth(_dome(b, width * scale, height * scale), 3, closed=True)
        add_zip(b, part_of(b, path, 0.4, 0.65), b.between(0.5, 1) * depth, b.count(1, 2))
    padding, strap_width = b.between(0.06, 0.14), b.between(4, 7)
    for side in (1, -1):
        knots = np.array([
            (0.40, side * 0.13),
            (0.18, side * b.between(0.16, 0.4)),
            (-0.15, side * b.between(0.2, 0.55)),
            (-0.42, side * b.between(0.3, 0.48)),
        ]) * (width, height)  # fmt: skip
        strap = smooth(knots, 5)
        add_strap(b, strap, 0.3, strap_width, padding)
        add_buckle(b, strap[-3], 0.3)
        tail = np.array([strap[-3], strap[-3] + b.rng.normal(0, 3, 2), strap[-3] + b.rng.normal(0, 5, 2)])
        b.wire(at_height(smooth(tail, 4), 0.3), 0.5, "nylon", density=0.25)
    loop = smooth([(width * 0.46, -2.5), (width * 0.53, -1.5), (width * 0.53, 1.5), (width * 0.46, 2.5)], 4)
    b.wire(at_height(loop, 1), 0.5, "nylon", density=0.6)
    for _ in range(b.count(0, 3)):
        add_buckle(b, np.array([b.between(-0.4, 0.4) * width, b.pick((-1, 1)) * height * b.between(0.3, 0.44)]), 1)
    return Interior(width * 0.46, height * 0.45, 1.5, depth - 1, squareness=3.6, narrowing=0.3)


@bag("handbag", weight=0.5)
def handbag(b: Builder) -> Interior:
    """A handbag with two carrying loops and metal trim."""
    width, height, depth = b.between(28, 40), b.between(20, 28), b.between(8, 14)
    wall, density = b.pick(
        (("leather", b.between(1.0, 2.2)), ("fabric", b.between(0.8, 1.6)), ("pvc", b.between(0.3, 0.7)))
    )
    outline = _slumped(b, rounded_rectangle(width, height, b.between(2, 6), 4), b.between(0.2, 0.8))
    _add_cloth_body(b, outline, depth, wall, density, b.between(0.2, 0.6))
    fitting, trim, ring_radius = b.pick(("ring", "plate", "none")), b.pick(("zinc", "brass")), b.between(0.8, 1.6)
    for z in (1.0, depth - 1):
        span, reach = width * b.between(0.16, 0.26), height * 0.5 + b.between(3, 8)
        loop = smooth([(-span, height * 0.44), (-span * 0.9, reach * 0.85), (b.between(-2, 2), reach),
                       (span * 0.9, reach * 0.85), (span, height * 0.44)], 5)  # fmt: skip
        b.wire(at_height(loop, z), b.between(0.35, 0.6), b.pick(("leather", "nylon")), density=0.8)
        for x in (-span, span):
            if fitting == "ring":
                b.ring((x, height * 0.44, z), ring_radius, 0.16, trim, num_pieces=12)
            elif fitting == "plate":
                b.box((x, height * 0.42, z), (0.6, 1.1, 0.15), trim, density=0.6)
    top = np.c_[np.linspace(-0.45, 0.45, 8) * width, height * 0.42 + b.rng.normal(0, 0.3, 8)]
    add_zip(b, top, depth * 0.5, 1)
    for _ in range(b.count(0, 6)):
        spot = (b.between(-0.4, 0.4) * width, b.between(-0.4, 0.4) * height, depth)
        b.cylinder(spot, "z", b.between(0.2, 0.4), 0.12, trim)
    if b.chance(0.5):
        clasp = (b.between(-0.2, 0.2) * width, height * b.between(0.2, 0.4), depth * 0.5)
        b.box(clasp, (b.between(0.6, 1.6), b.between(0.4, 0.8), 0.25), trim, density=0.5)
    return Interior(width * 0.46, height * 0.45, 1, depth - 1, squareness=4.0)


@bag("briefcase", weight=0.9)
def briefcase(b: Builder) -> Interior:
    """A laptop bag: two zips all round, a sewn handle, a shoulder strap's rings."""
    width, height, depth = b.between(36, 46), b.between(26, 34), b.between(6, 13)
    radius = b.between(2.5, 5)
    outline = _slumped(b, rounded_rectangle(width, height, radius, 4), b.between(0.1, 0.45))
    _add_cloth_body(b, outline, depth, b.pick(("nylon", "fabric", "leather")), b.between(0.7, 1.4), b.between(0.2, 0.6))
    edge = rounded_rectangle(width * 0.985, height * 0.98, radius, 8)
    for z in np.linspace(depth * 0.15, depth * 0.95, b.count(2, 3)):
        shift = b.rng.normal(0, 0.3, 2)
        add_zip(b, part_of(b, edge + shift, 0.6, 1.0), float(z), b.count(1, 2))
    span, reach = width * b.between(0.12, 0.18), height * 0.5 + b.between(3, 6)
    for z in (depth * 0.3, depth * 0.7):
        handle = np.array([(-span, height * 0.48), (-span * 0.7, reach), (span * 0.7, reach), (span, height * 0.48)])
        add_strap(b, smooth(handle + b.rng.normal(0, 0.3, (4, 2)), 4), z, b.between(2, 3), b.between(0.15, 0.35))
    for side in (1, -1):
        b.ring((side * width * 0.505, height * 0.3, depth * 0.5), b.between(1, 1.6), 0.15, "zinc", num_pieces=10)
    for _ in range(b.count(1, 4)):
        b.cylinder((b.between(-0.4, 0.4) * width, b.between(-0.2, 0.45) * height, depth), "z", 0.4, 0.15, "zinc")
    return Interior(width * 0.47, height * 0.465, 1, depth - 0.8, squareness=8)


@bag("shopping bag", weight=0.4)
def shopping_bag(b: Builder) -> Interior:
    """A thin bag that takes the form of what is in it; it hardly shows."""
    width, height, depth = b.between(32, 44), b.between(26, 36), b.between(8, 16)
    outline = _slumped(b, blob(b.rng, width, height, 14, 0.12, b.between(2.6, 4)), b.between(0.8, 1.6))
    film = b.pick(("polyethylene", "polyethylene", "cotton", "paper"))
    for z in (0.2, depth * 0.5, depth):
        add_panel(b, outline * b.between(0.9, 1), z, film, b.between(0.3, 0.9), 1.0)
    add_soft_rim(b, outline, depth * 0.5, b.between(0.6, 1.4), film, b.between(0.4, 0.9))
    add_creases(b, outline, b.count(14, 30), depth)
    for z in (1.0, depth - 1):
        span = width * b.between(0.12, 0.2)
        loop = smooth([(width * 0.42, -span), (width * 0.54, -span * 0.7), (width * 0.54, span * 0.7),
                       (width * 0.42, span)] + b.rng.normal(0, 0.5, (4, 2)), 4)  # fmt: skip
        b.wire(at_height(loop, z), b.between(0.4, 1.0), film, density=b.between(0.2, 0.5))
    return Interior(width * 0.43, height * 0.43, 1, depth - 1, squareness=3.0)
