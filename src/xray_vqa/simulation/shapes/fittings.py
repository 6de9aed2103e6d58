"""What bags are sewn and screwed together from: fabric shells, seams, creases, zips, straps, buckles.

Fabric shows in a scan by its folds and edges and hardly by itself, so a fabric bag is two crumpled panels, a soft rim
where the sides stand along the rays, and many faint lines.
"""

from __future__ import annotations

import numpy as np

from xray_vqa.simulation.primitives import Array, Builder, Texture, at_height, rotation_z, rounded_rectangle, smooth

CLOUD, FOLDS, LONG_FOLDS, STREAKS, CRUMPLE = 1, 0, 2, 3, 5
"""Patterns of raster.TEXTURES."""


def part_of(b: Builder, path: Array, low: float, high: float) -> Array:
    """Return a random stretch of a closed path, a share between low and high of it."""
    rolled = np.roll(path, -b.count(0, len(path) - 1), axis=0)
    return rolled[: max(int(len(path) * b.between(low, high)), 3)]


def inside(path: Array, outline: Array) -> Array:
    """Return the points of a path that lie inside an outline, (points, 2)."""
    start, end = outline, np.roll(outline, -1, 0)
    x, y = path[:, None, 0], path[:, None, 1]
    crosses = (end[:, 1] > y) != (start[:, 1] > y)
    at_x = start[:, 0] + (end[:, 0] - start[:, 0]) * (y - start[:, 1]) / (end[:, 1] - start[:, 1] + 1e-12)
    return path[(crosses & (x < at_x)).sum(1) % 2 == 1]


def evenly(outline: Array, count: int) -> Array:
    """Return a closed outline with its points at equal distances along it, (count, 2)."""
    closed = np.vstack([outline, outline[:1]])
    along = np.r_[0, np.cumsum(np.linalg.norm(np.diff(closed, axis=0), axis=1))]
    wanted = np.linspace(0, along[-1], count, endpoint=False)
    return np.stack([np.interp(wanted, along, closed[:, axis]) for axis in (0, 1)], 1)


def add_soft_rim(b: Builder, outline: Array, z: float, width: float, material: str, density: float) -> None:
    """Add a band along an outline that fades inwards: side walls that bulge, seen nearly along their surface."""
    b.prism(outline, z, z + 0.5, material, density, rounding=-width)


def add_panel(b: Builder, outline: Array, z: float, material: str, density: float, crumpled: float) -> None:
    """Add a sheet of cloth, 4 mm of loose weave, uneven by `crumpled` (0 to 1)."""
    texture = Texture(0.5 * crumpled, b.pick((FOLDS, LONG_FOLDS, CRUMPLE, CLOUD)), b.between(0.4, 1.5), b.count(0, 255))
    b.prism(outline, z, z + 0.4, material, density, texture=texture)


def add_creases(b: Builder, outline: Array, count: int, depth: float) -> None:
    """Add fine lines where a fold of the cloth stands along the rays: long and nearly straight, or short and bent."""
    size = np.ptp(outline, axis=0)
    middle = (outline.min(0) + outline.max(0)) / 2
    for _ in range(count):
        start = middle + b.rng.uniform(-0.46, 0.46, 2) * size
        heading, reach = b.between(0, 2 * np.pi), b.between(4, 0.6 * float(size.max()))
        step = np.array([np.cos(heading), np.sin(heading)]) * reach
        bend = b.rng.normal(0, 0.07 * reach, 2)
        path = inside(smooth(np.array([start, start + step * 0.5 + bend, start + step]), 4), outline)
        if len(path) > 2:
            b.wire(at_height(path, b.between(0.5, depth)), b.between(0.06, 0.18), "fabric", b.between(1.5, 5.0))


def add_seam(b: Builder, path: Array, z: float, radius: float) -> None:
    """Add a sewn or piped edge."""
    b.wire(
        at_height(path, z),
        radius,
        b.pick(("nylon", "fabric", "fabric", "pvc", "cotton", "rubber")),
        b.between(0.7, 1.8),
    )


def add_zip(b: Builder, path: Array, z: float, num_pulls: int, closed: bool = False) -> None:
    """Add a zip: tape, teeth of plastic or metal, and its sliders."""
    b.wire(at_height(path, z), 0.3, "nylon", b.between(0.5, 1.0), closed=closed)
    teeth, density = b.pick((("nylon", 1.6), ("nylon", 1.6), ("brass", 0.35), ("aluminium", 0.8), ("zinc", 0.4)))
    b.wire(at_height(path, z), 0.13, teeth, density, closed=closed)
    add_zip_pulls(b, path, num_pulls, z)


def add_zip_pulls(b: Builder, path: Array, count: int, z: float) -> None:
    """Add sliders with their tabs along a zip: metal or plastic, plates, loops or cords."""
    tab_material, tab_density = b.pick((("zinc", 1.0), ("zinc", 0.5), ("abs", 1.0), ("nylon", 1.5)))
    length, width = b.between(1.4, 2.8), b.between(0.45, 0.9)
    style = b.between(0, 1)
    for _ in range(count):
        x, y = path[b.count(0, len(path) - 1)]
        turn = rotation_z(b.between(0, 6.28))
        centre = np.array([x, y, z])
        slider = (b.between(0.35, 0.55), b.between(0.25, 0.4), 0.2)
        b.box(centre, slider, "zinc", density=b.between(0.4, 0.8), turn=turn)
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


def add_buckle(b: Builder, centre: Array, z: float) -> None:
    """Add a strap buckle."""
    frame = rounded_rectangle(b.between(1.4, 2.2), b.between(2, 3), 0.4)
    frame = frame @ rotation_z(b.between(0, 3))[:2, :2].T + centre
    b.wire(at_height(frame, z), 0.14, b.pick(("zinc", "zinc", "polypropylene")), closed=True)


def add_strap(b: Builder, path: Array, z: float, width: float, density: float) -> None:
    """Add a flat padded strap with stitched edges along a path."""
    b.wire(at_height(path, z), width / 2, "nylon", density)
    sideways = np.gradient(path, axis=0) @ np.array([[0, 1], [-1, 0]])
    sideways /= np.linalg.norm(sideways, axis=1, keepdims=True) + 1e-9
    for side in (0.48, -0.48):
        b.wire(at_height(path + sideways * side * width, z), 0.14, "nylon", 0.8)


def add_pocket(b: Builder, outline: Array, z: float) -> None:
    """Add a sewn-on pocket inside an outline: its cloth, its seam, sometimes its zip."""
    size = np.ptp(outline, axis=0)
    middle = (outline.min(0) + outline.max(0)) / 2
    pocket_wh = size * b.rng.uniform(0.3, 0.75, 2)
    centre = middle + b.rng.uniform(-0.4, 0.4, 2) * (size * 0.92 - pocket_wh)
    turn = rotation_z(b.rng.normal(0, 0.05))[:2, :2]
    knots = evenly(rounded_rectangle(pocket_wh[0], pocket_wh[1], b.between(1, 4)), 20)
    path = smooth((knots + b.rng.normal(0, 0.15, knots.shape)) @ turn.T + centre, 2, closed=True)
    add_panel(b, path, z, "fabric", b.between(0.2, 0.6), b.between(0.4, 0.9))
    add_seam(b, part_of(b, path, 0.5, 1.0), z, b.between(0.12, 0.24))
    if b.chance(0.4):
        add_zip(b, part_of(b, path, 0.25, 0.5), z, 1)
