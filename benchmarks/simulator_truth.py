"""How true the simulator's truth is: what materials do to the beam, where boxes lie, how much chords weigh.

    python benchmarks/simulator_truth.py [--threats N] [--solids N] [--json FILE]

Attenuation: slabs of every material, -ln T of the two-number model against Beer-Lambert over the tabulated spectrum.
Boxes: each annotation against the bounds of its mask, and against the outline of the threat's solids, projected here in
closed form without the rasteriser; and how many threats are hidden as far as was meant. Volumes: the chords of random
solids in random poses, summed over the fan of rays, against the volume by formula; by the thinnest extent of the solid
in pixels, because rays sample it.
"""

import argparse
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from measuring import conditions, publish
from numpy.typing import ArrayLike, NDArray

from xray_vqa.simulation.detector import log_readings
from xray_vqa.simulation.materials import load_materials
from xray_vqa.simulation.primitives import (
    AXES,
    BOX,
    CAPSULE,
    CENTRE,
    CONE,
    COPPER,
    ELLIPSOID,
    EXTRA,
    HALF,
    KIND,
    POLYETHYLENE,
    PRISM,
    VERTEX_COUNT,
    VERTEX_START,
    Builder,
    Item,
    rounded_rectangle,
    turn_of,
)
from xray_vqa.simulation.raster import LineIntegrals
from xray_vqa.simulation.scene import GENERATOR_VERSION, VISIBLE_SHARES, PlacedItem, SceneSpec
from xray_vqa.simulation.shapes import build_item
from xray_vqa.simulation.simulate import ScanStream
from xray_vqa.simulation.spectrum import load_spectrum
from xray_vqa.simulation.view import REFERENCE_Z_CM, SOURCE_Z_CM, open_view

Array = NDArray[np.float64]
Bounds = tuple[float, float, float, float]
P_MAX = 5.0
BOUND_STATED = ("brass", "zinc", "silver", "solder", "lead")
"""Metals that no mix of polyethylene and copper imitates within 0.02: harder than copper, or with an absorption edge in
the band (silver, tin solder, lead)."""
SIZE_WH, PIXEL_CM = (512, 384), 0.125
MIN_CM = 1e-4
"""Less is what float32 leaves where a hollow cancels its solid."""
FOCUS_CM = REFERENCE_Z_CM - SOURCE_Z_CM
"""From the generator to the height at which a row is as high as a column is wide."""

# -- attenuation ------------------------------------------------------------------------------------------------------


def measure_attenuation() -> dict[str, object]:
    """Return for each material the largest error in -ln T of either detector, as long as that reads below P_MAX."""
    spectrum = load_spectrum()
    rows = {}
    for name, stuff in load_materials().items():
        thickness = np.geomspace(1e-3, 1.0, 400) * spectrum.thickness_cm(name, P_MAX)
        expected = spectrum.log_readings(name, thickness)
        found = log_readings(stuff.polyethylene_cm * thickness, stuff.copper_cm * thickness)[:, 0]
        error = np.where(expected < P_MAX, np.abs(found - expected), 0).max(1)
        rows[name] = {"front": round(float(error[0]), 4), "rear": round(float(error[1]), 4)}
    return {
        "largest_error_in_log_t": rows,
        "bounds": {name: max(rows[name].values()) for name in BOUND_STATED},
        "largest_of_all_others": max(max(row.values()) for name, row in rows.items() if name not in BOUND_STATED),
    }


# -- boxes ------------------------------------------------------------------------------------------------------------


def hull_parts(item: Item, row: NDArray[np.float32]) -> tuple[Array, Array]:
    """Return what a solid is the convex hull of: ellipsoids, as centres (n, 3) and half axes (n, 3, 3) in its frame.

    Axes may have no length: a disc has two, a corner none.
    """
    kind, half = int(row[KIND]), row[HALF : HALF + 3].astype(float)
    ends = np.array([[0, 0, -half[2]], [0, 0, half[2]]])
    if kind == ELLIPSOID:
        return np.zeros((1, 3)), np.diag(half)[None]
    if kind == CAPSULE:
        return ends, np.repeat(half[0] * np.eye(3)[None], 2, 0)
    if kind in (BOX, PRISM):
        outline = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * half[:2]
        if kind == PRISM:
            start = int(row[VERTEX_START])
            outline = item.vertices[start : start + int(row[VERTEX_COUNT])].astype(float)
        corners = np.concatenate([np.c_[outline, np.full(len(outline), z)] for z in (-half[2], half[2])])
        return corners, np.zeros((len(corners), 3, 3))
    radii = np.stack([row[EXTRA : EXTRA + 2]] * 2, 1) if kind == CONE else np.stack([half[:2]] * 2)
    axes = np.zeros((2, 3, 3))
    axes[:, 0, 0], axes[:, 1, 1] = radii.T
    return ends, axes


def shadow_of(centres: Array, axes: Array, spec: SceneSpec) -> Bounds:
    """Return left, top, right and bottom in pixels of the shadow of ellipsoids in the world.

    Along the belt rays are parallel. Across it a ray from the generator, y = slope * z, touches where
    (y - slope * z)^2 of the centre is the sum of that over the half axes: a quadratic in the slope.

    Args:
        centres: (n, 3) cm.
        axes: (n, 3, 3) cm, one half axis in each row.
        spec: of the scene, for its size and scale.
    """
    width, height = spec.size_wh
    reach = np.sqrt((axes[:, :, 0] ** 2).sum(1))
    y, z = centres[:, 1], centres[:, 2] - SOURCE_Z_CM
    yy, yz, zz = (
        a * b - (axes[:, :, i] * axes[:, :, j]).sum(1)
        for a, b, i, j in ((y, y, 1, 1), (y, z, 1, 2), (z, z, 2, 2))
    )  # fmt: skip
    spread = np.sqrt(np.maximum(yz * yz - zz * yy, 0))
    columns = [(centres[:, 0] + side * reach) / spec.pixel_cm + width / 2 for side in (-1, 1)]
    rows = [(yz + side * spread) / zz * FOCUS_CM / spec.pixel_cm + height / 2 for side in (-1, 1)]
    return (
        float(np.clip(columns[0].min(), 0, width)),
        float(np.clip(rows[0].min(), 0, height)),
        float(np.clip(columns[1].max(), 0, width)),
        float(np.clip(rows[1].max(), 0, height)),
    )


def outline_of(placed: PlacedItem, spec: SceneSpec) -> Bounds:
    """Return the bounds of an object's shadow from its solids; it reaches no farther, whatever is hollow or thin."""
    item = build_item(placed.shape, placed.variant)
    rotation, position = placed.rotation(), np.array(placed.position_cm)
    all_centres: list[Array] = []
    all_axes: list[Array] = []
    for row in item.primitives:
        if row[POLYETHYLENE] + row[COPPER] <= 0:
            continue
        centres, axes = hull_parts(item, row)
        to_world = placed.scale * rotation @ row[AXES : AXES + 9].reshape(3, 3).T.astype(float)
        middle = position + placed.scale * rotation @ row[CENTRE : CENTRE + 3].astype(float)
        all_centres.append(centres @ to_world.T + middle)
        all_axes.append(axes @ to_world.T)
    return shadow_of(np.concatenate(all_centres), np.concatenate(all_axes), spec)


def drawn_bounds(placed: PlacedItem, spec: SceneSpec) -> Bounds:
    """Return the bounds of all pixels that an object attenuates at all, as the rasteriser draws it."""
    lines, view = LineIntegrals(spec.size_wh), open_view(spec.size_wh, spec.pixel_cm)
    item, position = build_item(placed.shape, placed.variant), np.array(placed.position_cm)
    lines.draw(item, placed.rotation(), position, placed.scale, placed.density, view)
    return bounds_of(lines.polyethylene + lines.copper > MIN_CM)


def bounds_of(mask: NDArray[np.bool_]) -> Bounds:
    """Return left, top, right and bottom of what is set."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)


def measure_boxes(num_threats: int, seed: int) -> dict[str, object]:
    """Return how boxes agree with their masks and the projected outlines, and concealment with what was drawn."""
    stream = ScanStream((seed, 77))
    from_mask: list[float] = []
    beyond: list[float] = []
    within: dict[str, list[float]] = {"box": [], "all that attenuates": []}
    hidden_as_meant: dict[int, list[bool]] = {level: [] for level in range(len(VISIBLE_SHARES))}
    while len(from_mask) < num_threats:
        scan = stream.draw()
        low, high = VISIBLE_SHARES[scan.spec.concealment]
        hidden_as_meant[scan.spec.concealment] += [low <= visible <= high for visible in scan.visible]
        for placed, annotation, mask in zip(scan.spec.threats, scan.annotations, scan.masks, strict=True):
            x, y, width, height = annotation.box.as_xywh()
            box = np.array((x, y, x + width, y + height))
            outline = np.array(outline_of(placed, scan.spec))
            from_mask.append(float(np.abs(box - bounds_of(mask)).max()))
            beyond.append(float(((outline - box) * (1, 1, -1, -1)).max()))
            within["box"].append(float(np.abs(box - outline).max()))
            drawn = np.array(drawn_bounds(placed, scan.spec))
            within["all that attenuates"].append(float(np.abs(drawn - outline).max()))
    return {
        "threats": len(from_mask),
        "box_against_mask_px": {"within_1": share(from_mask, 1), "max": max(from_mask)},
        "box_beyond_outline_px": {"within_1": share(beyond, 1), "max": round(max(beyond), 3)},
        "largest_of_four_sides_from_outline_px": {
            name: {
                **{f"within_{limit}": share(values, limit) for limit in (1, 2, 3)},
                "median": round(statistics.median(values), 2),
                "p99.9": round(float(np.percentile(values, 99.9)), 2),
                "max": round(max(values), 2),
            }
            for name, values in within.items()
        },
        "share_hidden_as_meant_by_concealment": {
            level: round(statistics.mean(are), 3) for level, are in hidden_as_meant.items() if are
        },
    }


def share(values: list[float], limit: float) -> float:
    """Return the share (0 to 1) of values within a limit."""
    return round(float(np.mean(np.array(values) <= limit)), 4)


# -- volumes ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Mass:
    """Moments of a solid of density 1 about the origin of its frame."""

    volume: float
    first: Array
    """(3,), integral of the position."""
    second: Array
    """(3, 3), integral of position times position."""

    def __sub__(self, other: "Mass") -> "Mass":
        return Mass(self.volume - other.volume, self.first - other.first, self.second - other.second)

    def __add__(self, other: "Mass") -> "Mass":
        return Mass(self.volume + other.volume, self.first + other.first, self.second + other.second)

    def chord_sum(self, rotation: Array, height_cm: float) -> float:
        """Return what the chords of the posed solid sum to, each weighted by its ray's share of the reference plane.

        At the distance r from the generator a ray is dx wide and r * dangle high, so what is farther away counts less:
        the sum is the integral of FOCUS_CM / (z above the generator), here to second order in the solid's own depth.
        """
        away, up = height_cm - SOURCE_Z_CM, rotation[2]
        return FOCUS_CM * (self.volume / away - up @ self.first / away**2 + up @ self.second @ up / away**3)


def central(volume: float, variances: ArrayLike) -> Mass:
    return Mass(volume, np.zeros(3), volume * np.diag(np.asarray(variances, float)))


def mass_of_cylinder(radius: float, radius_2: float, half: float) -> Mass:
    return central(np.pi * radius * radius_2 * 2 * half, (radius**2 / 4, radius_2**2 / 4, half**2 / 3))


def mass_of_cone(start: float, end: float, half: float) -> Mass:
    node, weight = np.polynomial.legendre.leggauss(6)
    z, weight = node * half, weight * half
    radius = (start + end) / 2 + (end - start) / (2 * half) * z
    area = weight * np.pi * radius**2
    across = float((area * radius**2 / 4).sum())
    return Mass(
        float(area.sum()), np.array([0, 0, (area * z).sum()]), np.diag([across, across, float((area * z**2).sum())])
    )


def mass_of_prism(outline: Array, half: float) -> Mass:
    following = np.roll(outline, -1, 0)
    area = (outline[:, 0] * following[:, 1] - outline[:, 1] * following[:, 0]) / 2
    both = outline + following
    squares = sum(
        (area[:, None, None] / 12 * side[:, :, None] * side[:, None] for side in (both, outline, following)),
        np.zeros((1, 2, 2)),
    ).sum(0)
    second = np.zeros((3, 3))
    second[:2, :2] = squares * 2 * half
    second[2, 2] = area.sum() * 2 * half**3 / 3
    return Mass(float(area.sum()) * 2 * half, np.r_[(area[:, None] * both / 3).sum(0) * 2 * half, 0], second)


def mass_of_wire(path: Array, radius: float) -> Mass:
    """Return the mass of a gently bent round wire with half a ball at each end."""
    ball = 4 / 3 * np.pi * radius**3
    tips = path[[0, -1]]
    total = Mass(ball, ball * tips.mean(0), ball * (tips.T @ tips / 2 + radius**2 / 5 * np.eye(3)))
    for start, end in pairwise(path):
        along, middle = end - start, (start + end) / 2
        length = float(np.linalg.norm(along))
        across = radius**2 / 4 * (np.eye(3) - np.outer(along, along) / length**2)
        volume = np.pi * radius**2 * length
        square = np.outer(middle, middle) + np.outer(along, along) / 12 + across
        total = total + Mass(volume, volume * middle, volume * square)
    return total


class Maker:
    """Makes solids of random size, from a pixel or less to a good part of a bag, with their mass by formula."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.builder = Builder(rng)

    def size(self, low: float, high: float) -> float:
        """Return a length in cm; each doubling is equally likely."""
        return float(np.exp(self.rng.uniform(np.log(low), np.log(high))))

    def box(self) -> tuple[Mass, float]:
        half = np.array([self.size(0.05, 6) for _ in range(3)])
        self.builder.box((0, 0, 0), half, "polyethylene")
        return central(8 * half.prod(), half**2 / 3), 2 * half.min()

    def ellipsoid(self) -> tuple[Mass, float]:
        half = np.array([self.size(0.05, 6) for _ in range(3)])
        self.builder.ellipsoid((0, 0, 0), half, "polyethylene")
        return central(4 / 3 * np.pi * half.prod(), half**2 / 5), 2 * half.min()

    def cylinder(self) -> tuple[Mass, float]:
        radius, radius_2, half = self.size(0.05, 5), self.size(0.05, 5), self.size(0.05, 6)
        self.builder.cylinder((0, 0, 0), "z", radius, half, "polyethylene", radius_2=radius_2)
        return mass_of_cylinder(radius, radius_2, half), 2 * min(radius, radius_2, half)

    def cone(self) -> tuple[Mass, float]:
        start, half = self.size(0.05, 5), self.size(0.05, 6)
        end = start * self.rng.uniform(0.3, 1)
        self.builder.cone((0, 0, 0), "z", start, end, half, "polyethylene")
        return mass_of_cone(start, end, half), 2 * min(end, half)

    def prism(self) -> tuple[Mass, float]:
        num = int(self.rng.integers(3, 9))
        angle = np.linspace(0, 2 * np.pi, num, endpoint=False)
        radius, half = self.size(0.05, 6), self.size(0.05, 6)
        outline = np.c_[np.cos(angle), np.sin(angle)] * radius * self.rng.uniform(0.6, 1, num)[:, None]
        self.builder.prism(outline, -half, half, "polyethylene")
        return mass_of_prism(outline, half), 2 * min(0.5 * radius, half)

    def capsule(self) -> tuple[Mass, float]:
        radius, half = self.size(0.05, 4), self.size(0.05, 6)
        self.builder.wire([(0, 0, -half), (0, 0, half)], radius, "polyethylene")
        return mass_of_wire(np.array([(0, 0, -half), (0, 0, half)]), radius), 2 * radius

    def tube(self) -> tuple[Mass, float]:
        radius, half = self.size(0.3, 6), self.size(0.5, 6)
        wall = min(self.size(0.03, 2.5), 0.7 * radius)
        self.builder.tube((0, 0, 0), "z", radius, half, wall, "polyethylene")
        return mass_of_cylinder(radius, radius, half) - mass_of_cylinder(radius - wall, radius - wall, half), wall

    def hollow_prism(self) -> tuple[Mass, float]:
        width, height, half = self.size(1, 12), self.size(1, 12), self.size(0.5, 6)
        wall = min(self.size(0.03, 2.5), 0.35 * min(width, height, 2 * half))
        outline = rounded_rectangle(width, height, 0.2 * min(width, height))
        inner = outline * (1 - wall / (np.ptp(outline, axis=0) / 2))
        self.builder.hollow_prism(outline, -half, half, wall, "polyethylene")
        return mass_of_prism(outline, half) - mass_of_prism(inner, half - wall), wall

    def bent_wire(self) -> tuple[Mass, float]:
        radius, bend = self.size(0.03, 1), self.size(3, 8)
        angle = np.linspace(0, self.rng.uniform(0.5, 4), 13)
        path = np.c_[bend * np.cos(angle) - bend / 2, bend * np.sin(angle), np.linspace(0, self.rng.uniform(0, 2), 13)]
        self.builder.wire(path, radius, "polyethylene")
        return mass_of_wire(path, radius), 2 * radius


KINDS: dict[str, Callable[[Maker], tuple[Mass, float]]] = {
    "box": Maker.box,
    "ellipsoid": Maker.ellipsoid,
    "cylinder": Maker.cylinder,
    "cone": Maker.cone,
    "prism": Maker.prism,
    "capsule": Maker.capsule,
    "tube": Maker.tube,
    "hollow prism": Maker.hollow_prism,
    "bent wire": Maker.bent_wire,
}
THINNEST_PX = (0.0, 1.0, 2.0, 4.0, 8.0, 16.0)


def random_rotation(kind: str, rng: np.random.Generator) -> Array:
    """Return a rotation, all equally likely; a bent wire lies flat as most things do, where it seldom hides itself."""
    if kind == "bent wire":
        return turn_of(rng.uniform(0, 2 * np.pi), 0.12 * rng.normal(), 0.12 * rng.normal())
    q, r = np.linalg.qr(rng.normal(size=(3, 3)))
    return q * np.sign(np.diag(r))


def measure_volumes(num_solids: int, seed: int) -> dict[str, object]:
    """Return by kind of solid and thinnest extent how far the chords' sum is from the formula, relative."""
    lines, view = LineIntegrals(SIZE_WH), open_view(SIZE_WH, PIXEL_CM)
    result: dict[str, object] = {}
    for kind, make in KINDS.items():
        rng = np.random.default_rng((seed, len(result)))
        found: dict[float, list[float]] = {low: [] for low in THINNEST_PX}
        for _ in range(num_solids):
            maker = Maker(rng)
            mass, thinnest_cm = make(maker)
            rotation = random_rotation(kind, rng)
            position = np.array([rng.uniform(-8, 8), rng.uniform(-8, 8), rng.uniform(4, 22)])
            lines.clear()
            lines.draw(maker.builder.finish(kind), rotation, position, 1.0, 1.0, view)
            got = float((lines.polyethylene.astype(float) * view.rays[:, 1:]).sum()) * PIXEL_CM**2
            error = got / mass.chord_sum(rotation, position[2]) - 1
            found[max(low for low in THINNEST_PX if low * PIXEL_CM <= thinnest_cm)].append(error)
        result[kind] = {
            f"from {low:g} px": {
                "solids": len(errors),
                "mean": round(statistics.fmean(errors), 4),
                "median": round(float(np.median(np.abs(errors))), 4),
                "p95": round(float(np.percentile(np.abs(errors), 95)), 4),
                "max": round(float(np.abs(errors).max()), 4),
                "within_1_percent": share([abs(error) for error in errors], 0.01),
            }
            for low, errors in found.items()
            if errors
        }
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threats", type=int, default=10_000, help="how many boxes are checked (default %(default)s)")
    parser.add_argument("--solids", type=int, default=3000, help="solids of each kind (default %(default)s)")
    parser.add_argument("--seed", type=int, default=20_000)
    parser.add_argument("--json", type=Path, help="write the figures here too")
    args = parser.parse_args()
    figures = {
        "attenuation": measure_attenuation(),
        "volumes": measure_volumes(args.solids, args.seed),
        "boxes": measure_boxes(args.threats, args.seed),
        "conditions": conditions("numpy", "numba", generator_version=GENERATOR_VERSION),
    }
    publish(figures, args.json)


if __name__ == "__main__":
    main()
