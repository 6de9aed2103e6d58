"""The solids that objects are made of, and the Builder that object functions write them with.

An object is written in its own frame, in centimetres: x along its length, y across, z through its thickness. Six kinds
of solid are enough: ellipsoid, box, elliptic cylinder, cone, prism (any outline, optionally rounded or tapered) and
capsule (pieces of wire). Solids are grouped into parts. Within a part they either add up, take the thickest (a bent
wire must not darken where two of its pieces overlap), or form a stack of plain prisms of one material, which the
rasteriser draws in one go. A solid of negative density hollows out what it overlaps.
"""

# ruff: noqa: D417  (arguments that belong together are described together, obvious ones not at all)

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from xray_vqa.simulation.kernel import kernel
from xray_vqa.simulation.materials import material

Array = NDArray[np.float64]
T = TypeVar("T")

ELLIPSOID, BOX, CYLINDER, CONE, PRISM, CAPSULE = range(6)
MODE_SUM, MODE_MAX, MODE_STACK = range(3)

# Columns of a primitive record (float32).
KIND, PART = 0, 1
CENTRE = 2  # 3 columns, object frame
AXES = 5  # 9 columns, row-major rotation from the object's frame to the solid's own
HALF = 14  # 3 columns, half sizes; a capsule has (radius, radius, half length of its axis)
EXTRA = 17  # prism: centre of the outline's bounds; cone: radius at -z and at +z
VERTEX_START, VERTEX_COUNT = 19, 20
POLYETHYLENE, COPPER = 21, 22
PROFILE = 23  # 0 for none, else one more than the index of a thickness profile
TEXTURE_AMOUNT, TEXTURE_ID, TEXTURE_SCALE, TEXTURE_OFFSET = 24, 25, 26, 27
TAPER = 28  # 2 columns, thickness factor at the outline's lowest and highest y
NUM_COLUMNS = 30

PROFILE_SIZE = 32
"""Rows and columns of a thickness profile, the map that rounds the edge of a prism."""
MIN_WIRE_RADIUS_CM = 0.075
"""About 0.6 pixel. A thinner wire is drawn this wide and as much less dense, so that it neither aliases nor gains
mass."""

IDENTITY = np.eye(3)


def rotation_x(angle: float) -> Array:
    """Return the rotation about x by an angle in radians."""
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[1, 0, 0], [0, c, -s], [0, s, c]])


def rotation_y(angle: float) -> Array:
    """Return the rotation about y by an angle in radians."""
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])


def rotation_z(angle: float) -> Array:
    """Return the rotation about z by an angle in radians."""
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])


@kernel
def turn_of(phi, theta, pitch, mirrored=False):
    """Return rotation_z(phi) @ rotation_x(theta) @ rotation_y(pitch), (3, 3); mirrored: with y negated before it."""
    cos_f, sin_f, cos_t, sin_t = np.cos(phi), np.sin(phi), np.cos(theta), np.sin(theta)
    cos_p, sin_p, y = np.cos(pitch), np.sin(pitch), -1.0 if mirrored else 1.0
    turn = np.empty((3, 3), np.float64)
    turn[0, 0], turn[0, 1], turn[0, 2] = (
        cos_f * cos_p - sin_f * sin_t * sin_p,
        -sin_f * cos_t * y,
        cos_f * sin_p + sin_f * sin_t * cos_p,
    )
    turn[1, 0], turn[1, 1], turn[1, 2] = (
        sin_f * cos_p + cos_f * sin_t * sin_p,
        cos_f * cos_t * y,
        sin_f * sin_p - cos_f * sin_t * cos_p,
    )
    turn[2, 0], turn[2, 1], turn[2, 2] = -cos_t * sin_p, sin_t * y, cos_t * cos_p
    return turn


ALONG = {"z": IDENTITY, "x": rotation_y(np.pi / 2), "y": rotation_x(-np.pi / 2)}
"""Rotation that turns a solid's own z axis to the named axis."""


@dataclass(frozen=True)
class Texture:
    """Unevenness of a soft or grainy solid: thickness times 1 + amount * pattern."""

    amount: float
    pattern: int = 0
    scale: float = 1.0
    offset: int = 0


@dataclass(frozen=True, eq=False)
class Item:
    """One finished object in its own frame, ready for the rasteriser."""

    name: str
    primitives: NDArray[np.float32]
    """(solids, NUM_COLUMNS) float32, solids of one part side by side."""
    modes: NDArray[np.int64]
    """(parts,) int64, MODE_SUM, MODE_MAX or MODE_STACK."""
    vertices: NDArray[np.float32]
    """(points, 2) float32, outlines of all prisms, each counter-clockwise, centimetres."""
    profiles: NDArray[np.float32]
    """(profiles, 2, PROFILE_SIZE ** 2) float32, see rounded_profile; at least one, so that numba sees one type."""
    hull: NDArray[np.float32]
    """(points, 3) float32, centimetres: corners of the solids' bounds that lie farthest out; containment is checked
    on them."""


class Builder:
    """Writes the solids of one object. Coordinates in centimetres; `rng` is where every free parameter comes from."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self._rows: list[Array] = []
        self._modes: list[int] = []
        self._outlines: list[Array] = []
        self._profiles: list[NDArray[np.float32]] = []
        self._num_vertices = 0
        self._in_part = False

    # -- free parameters ----------------------------------------------------------------------------------------------

    def between(self, low: float, high: float) -> float:
        """Return a number drawn evenly from the range."""
        return low + (high - low) * self.rng.random()

    def count(self, low: int, high: int) -> int:
        """Return a whole number from low to high, both included."""
        return int(self.rng.integers(low, high + 1))

    def chance(self, probability: float) -> bool:
        """Return True with the given probability."""
        return bool(self.rng.random() < probability)

    def pick(self, options: Sequence[T]) -> T:
        """Return one of the options, all equally likely."""
        return options[int(self.rng.integers(len(options)))]

    # -- grouping -----------------------------------------------------------------------------------------------------

    @contextmanager
    def part(self, mode: int = MODE_MAX) -> Iterator[None]:
        """Group the solids of the block, all of one material, into one part; inside another part: no effect."""
        if self._in_part:
            yield
            return
        self._modes.append(mode)
        self._in_part = True
        try:
            yield
        finally:
            self._in_part = False

    def _new_row(self, kind: int, material_name: str, density: float) -> Array:
        """Return the record of a solid without place and size, in the current part or one of its own."""
        if not self._in_part:
            self._modes.append(MODE_SUM)
        stuff = material(material_name)
        row = np.zeros(NUM_COLUMNS)
        row[KIND], row[PART] = kind, len(self._modes) - 1
        row[POLYETHYLENE], row[COPPER] = stuff.polyethylene_cm * density, stuff.copper_cm * density
        row[TAPER : TAPER + 2] = 1.0
        return row

    def _add(
        self,
        kind: int,
        centre: ArrayLike,
        turn: Array,
        half: Sequence[float] | Array,
        material_name: str,
        density: float,
        texture: Texture | None = None,
    ) -> Array:
        row = self._new_row(kind, material_name, density)
        row[CENTRE : CENTRE + 3] = centre
        row[AXES : AXES + 9] = turn.T.ravel()
        row[HALF : HALF + 3] = half
        if texture is not None:
            row[TEXTURE_AMOUNT : TEXTURE_OFFSET + 1] = texture.amount, texture.pattern, texture.scale, texture.offset
        self._rows.append(row)
        return row

    # -- solids -------------------------------------------------------------------------------------------------------

    def box(
        self,
        centre: ArrayLike,
        half: Sequence[float] | Array,
        material: str,
        density: float = 1.0,
        turn: Array = IDENTITY,
        texture: Texture | None = None,
    ) -> None:
        """Add a box of the given half sizes."""
        self._add(BOX, centre, turn, half, material, density, texture)

    def ellipsoid(
        self,
        centre: ArrayLike,
        half: Sequence[float] | Array,
        material: str,
        density: float = 1.0,
        turn: Array = IDENTITY,
        texture: Texture | None = None,
    ) -> None:
        """Add an ellipsoid of the given half axes."""
        self._add(ELLIPSOID, centre, turn, half, material, density, texture)

    def cylinder(
        self,
        centre: ArrayLike,
        axis: str,
        radius: float,
        half_length: float,
        material: str,
        density: float = 1.0,
        radius_2: float | None = None,
        turn: Array = IDENTITY,
        texture: Texture | None = None,
    ) -> None:
        """Add a cylinder along x, y or z; radius_2 makes it elliptic."""
        self._add(
            CYLINDER, centre, turn @ ALONG[axis], (radius, radius_2 or radius, half_length), material, density, texture
        )

    def tube(self, centre: ArrayLike, axis: str, radius: float, half_length: float, wall: float, material: str,
             density: float = 1.0, cap: float = 0.0, turn: Array = IDENTITY) -> None:  # fmt: skip
        """Add a hollow cylinder; cap is the thickness of its two ends (0 leaves them open)."""
        self.cylinder(centre, axis, radius, half_length, material, density, turn=turn)
        self.cylinder(centre, axis, max(radius - wall, 0.01), half_length - cap, material, -density, turn=turn)

    def cone(
        self,
        centre: ArrayLike,
        axis: str,
        radius_start: float,
        radius_end: float,
        half_length: float,
        material: str,
        density: float = 1.0,
        turn: Array = IDENTITY,
    ) -> None:
        """Add a truncated cone along x, y or z."""
        widest = max(radius_start, radius_end)
        row = self._add(CONE, centre, turn @ ALONG[axis], (widest, widest, half_length), material, density)
        row[EXTRA : EXTRA + 2] = radius_start, radius_end

    def prism(self, outline: ArrayLike, z_low: float, z_high: float, material: str, density: float = 1.0,
              centre: ArrayLike = (0, 0, 0), turn: Array = IDENTITY, rounding: float = 0.0,
              taper: tuple[float, float] = (1.0, 1.0), texture: Texture | None = None) -> None:  # fmt: skip
        """Add an outline in x and y, extruded from z_low to z_high.

        Args:
            outline: (points, 2), not self-intersecting, either sense.
            rounding: distance from the outline, in cm, over which the thickness rises like a quarter circle; 0 is
                sharp. Below 0 it falls like one instead, and nothing is left farther inside: a rim.
            taper: thickness factor at the outline's lowest and highest y, as in a blade that is ground to an edge.
        """
        points = np.array(outline, dtype=np.float64)
        if _area(points) < 0:
            points = points[::-1].copy()
        low, high = points.min(0), points.max(0)
        middle, half = (low + high) / 2, (high - low) / 2 + 1e-3
        offset = np.asarray(centre, float) + turn @ np.array([0.0, 0.0, (z_low + z_high) / 2])
        row = self._add(PRISM, offset, turn, (half[0], half[1], (z_high - z_low) / 2), material, density, texture)
        row[EXTRA : EXTRA + 2] = middle
        row[VERTEX_START], row[VERTEX_COUNT] = self._num_vertices, len(points)
        row[TAPER : TAPER + 2] = taper
        if rounding != 0:
            self._profiles.append(rounded_profile(points, half, middle, abs(rounding), rounding < 0))
            row[PROFILE] = len(self._profiles)
        self._outlines.append(points)
        self._num_vertices += len(points)

    def hollow_prism(
        self,
        outline: ArrayLike,
        z_low: float,
        z_high: float,
        wall: float,
        material: str,
        density: float = 1.0,
        centre: ArrayLike = (0, 0, 0),
        rounding: float = 0.0,
    ) -> None:
        """Add a closed shell: the prism less a copy that is smaller by the wall on every side."""
        points = np.asarray(outline, float)
        middle = (points.min(0) + points.max(0)) / 2
        half = (points.max(0) - points.min(0)) / 2
        inner = middle + (points - middle) * np.maximum(1 - wall / half, 0.05)
        self.prism(points, z_low, z_high, material, density, centre=centre, rounding=rounding)
        self.prism(inner, z_low + wall, z_high - wall, material, -density, centre=centre, rounding=rounding)

    def wire(self, points: ArrayLike, radius: float, material: str, density: float = 1.0, closed: bool = False) -> None:
        """Add a round wire through (points, 2 or 3); where its pieces overlap it is no thicker."""
        path = np.asarray(points, float)
        if path.shape[1] == 2:
            path = at_height(path, 0.0)
        if closed:
            path = np.concatenate([path, path[:1]])
        if radius < MIN_WIRE_RADIUS_CM:
            density *= (radius / MIN_WIRE_RADIUS_CM) ** 2
            radius = MIN_WIRE_RADIUS_CM
        with self.part(MODE_MAX):
            piece = self._new_row(CAPSULE, material, density)
            piece[HALF : HALF + 2] = radius
            self._rows.extend(_pieces_along(path, piece))

    def ring(self, centre: ArrayLike, radius: float, wire_radius: float, material: str, density: float = 1.0,
             radius_2: float | None = None, turn: Array = IDENTITY, arc: tuple[float, float] = (0.0, 2 * np.pi),
             num_pieces: int = 18) -> None:  # fmt: skip
        """Add a ring, an ellipse or an arc of wire in the (turned) x-y plane."""
        angle = np.linspace(*arc, num_pieces + 1)
        path = np.stack([radius * np.cos(angle), (radius_2 or radius) * np.sin(angle), 0 * angle], 1) @ turn.T
        self.wire(path + np.asarray(centre, float), wire_radius, material, density)

    # -- result -------------------------------------------------------------------------------------------------------

    def thin_metal(self, factor: float) -> None:
        """Multiply the density of all metal: real parts have thinner walls than their outlines suggest."""
        for row in self._rows:
            if abs(row[COPPER]) > 0.3 * abs(row[POLYETHYLENE]):
                row[POLYETHYLENE : COPPER + 1] *= factor

    def finish(self, name: str) -> Item:
        """Return the object."""
        rows = np.array(self._rows)
        return Item(
            name=name,
            primitives=rows.astype(np.float32),
            modes=np.array(self._modes, np.int64),
            vertices=(np.concatenate(self._outlines) if self._outlines else np.zeros((1, 2))).astype(np.float32),
            profiles=np.array(self._profiles or np.zeros((1, 2, PROFILE_SIZE**2)), np.float32),
            hull=_outer_points(rows, _DIRECTIONS).astype(np.float32),
        )


@kernel
def _area(outline):
    """Return the area inside (points, 2), below 0 where it is clockwise."""
    twice, before = 0.0, outline.shape[0] - 1
    for i in range(outline.shape[0]):
        twice += outline[before, 0] * outline[i, 1] - outline[i, 0] * outline[before, 1]
        before = i
    return 0.5 * twice


@kernel
def _pieces_along(path, piece):
    """Return the capsules between the points of a path, (pieces, NUM_COLUMNS), all but place and length as in `piece`.

    The third axis of a capsule's own frame is along the wire; points that coincide make no piece.
    """
    rows = np.empty((path.shape[0] - 1, piece.size), np.float64)
    num = 0
    for i in range(path.shape[0] - 1):
        x, y, z = path[i + 1, 0] - path[i, 0], path[i + 1, 1] - path[i, 1], path[i + 1, 2] - path[i, 2]
        length = np.sqrt(x * x + y * y + z * z)
        if length < 1e-6:
            continue
        x, y, z = x / length, y / length, z / length
        is_steep = abs(z) >= 0.9
        across = np.sqrt(y * y + z * z if is_steep else x * x + y * y)
        a = 0.0 if is_steep else -y / across
        b = (-z if is_steep else x) / across
        c = y / across if is_steep else 0.0
        row = rows[num]
        for column in range(piece.size):
            row[column] = piece[column]
        for axis in range(3):
            row[CENTRE + axis] = 0.5 * (path[i, axis] + path[i + 1, axis])
        row[AXES], row[AXES + 1], row[AXES + 2] = a, b, c
        row[AXES + 3], row[AXES + 4], row[AXES + 5] = y * c - z * b, z * a - x * c, x * b - y * a
        row[AXES + 6], row[AXES + 7], row[AXES + 8] = x, y, z
        row[HALF + 2] = 0.5 * length
        num += 1
    return rows[:num]


_DIRECTIONS = np.array([[np.cos(a), np.sin(a), t] for a in np.arange(16) * np.pi / 8 for t in (-0.6, 0.0, 0.6)])


@kernel
def _outer_points(rows, directions):
    """Return the corners of the solids' bounds that lie farthest in any of some directions, (points, 3).

    Args:
        rows: (solids, NUM_COLUMNS) float64. directions: (n, 3).
    """
    num = directions.shape[0]
    farthest = np.full(num, -1e9)
    points = np.zeros((num, 3))
    owner = np.full(num, -1)
    for s in range(rows.shape[0]):
        row = rows[s]
        if row[POLYETHYLENE] + row[COPPER] <= 0:
            continue
        kind = int(row[KIND])
        hx, hy, hz = row[HALF], row[HALF + 1], row[HALF + 2]
        if kind == ELLIPSOID or kind == CYLINDER:  # noqa: SIM109  (numba compiles this one better)
            hx, hy = 0.8 * hx, 0.8 * hy
        elif kind == CAPSULE:
            hz += row[HALF]
        for corner in range(8):
            x, y, z = hx if corner & 4 else -hx, hy if corner & 2 else -hy, hz if corner & 1 else -hz
            if kind == PRISM:
                x, y = x + row[EXTRA], y + row[EXTRA + 1]
            px = row[CENTRE] + row[AXES] * x + row[AXES + 3] * y + row[AXES + 6] * z
            py = row[CENTRE + 1] + row[AXES + 1] * x + row[AXES + 4] * y + row[AXES + 7] * z
            pz = row[CENTRE + 2] + row[AXES + 2] * x + row[AXES + 5] * y + row[AXES + 8] * z
            for d in range(num):
                distance = directions[d, 0] * px + directions[d, 1] * py + directions[d, 2] * pz
                if distance > farthest[d]:
                    farthest[d], owner[d] = distance, 8 * s + corner
                    points[d, 0], points[d, 1], points[d, 2] = px, py, pz
    keep = 0
    for d in range(num):
        is_new = True
        for other in range(d):
            is_new = is_new and owner[other] != owner[d]
        if is_new:
            points[keep, 0], points[keep, 1], points[keep, 2] = points[d, 0], points[d, 1], points[d, 2]
            keep += 1
    return points[:keep]


@kernel
def rounded_profile(outline, half, middle, rounding, is_rim):
    """Return the thickness factor over an outline's bounds: 0 outside, rising to 1 at `rounding` cm from the edge.

    Args:
        outline: (points, 2). half, middle: (2,), half sizes and centre of the bounds.
        is_rim: whether it falls from 1 to 0 instead.

    Returns:
        (2, PROFILE_SIZE ** 2) float32, rows along y: the factor, and how far around, in cm, it stays the same wherever
        it is read between these points, so that the rasteriser may skip; below 0 where it changes.
    """
    profile = np.empty((2, PROFILE_SIZE * PROFILE_SIZE), np.float32)
    num = outline.shape[0]
    diagonal = 2 * np.sqrt(half[0] * half[0] + half[1] * half[1]) / (PROFILE_SIZE - 1)
    for row in range(PROFILE_SIZE):
        y = middle[1] + half[1] * (2 * row / (PROFILE_SIZE - 1) - 1)
        for column in range(PROFILE_SIZE):
            x = middle[0] + half[0] * (2 * column / (PROFILE_SIZE - 1) - 1)
            nearest2, inside = 1e9, False
            for i in range(num):
                before = i - 1 if i > 0 else num - 1
                x1, y1, x2, y2 = outline[before, 0], outline[before, 1], outline[i, 0], outline[i, 1]
                dx, dy = x2 - x1, y2 - y1
                along = min(max(((x - x1) * dx + (y - y1) * dy) / (dx * dx + dy * dy + 1e-12), 0.0), 1.0)
                away_x, away_y = x - x1 - along * dx, y - y1 - along * dy
                nearest2 = min(nearest2, away_x * away_x + away_y * away_y)
                if (y1 > y) != (y2 > y) and x < x1 + dx * (y - y1) / (dy if dy != 0 else 1e-12):
                    inside = not inside
            depth = min(np.sqrt(nearest2) / rounding, 1.0) if inside else 0.0
            factor = np.sqrt(max(1 - (1 - depth) ** 2, 0.02))
            profile[0, row * PROFILE_SIZE + column] = 1 - factor if is_rim else factor
            # A place nearest to this point is half a diagonal away; what is read there lies up to a whole one further.
            profile[1, row * PROFILE_SIZE + column] = np.sqrt(nearest2) - rounding - 1.5 * diagonal if inside else -1.0
    return profile


# -- outlines ---------------------------------------------------------------------------------------------------------


_QUADRANTS = np.array([(1.0, 1.0), (-1.0, 1.0), (-1.0, -1.0), (1.0, -1.0)])


def rounded_rectangle(width: float, height: float, radius: float, num_corner: int = 4) -> Array:
    """Return the outline of a rectangle about the origin with rounded corners, (4 * num_corner, 2)."""
    radius = min(radius, 0.49 * width, 0.49 * height)
    angle = np.linspace(0, np.pi / 2, num_corner)
    angle = np.concatenate([angle, angle + np.pi / 2, angle + np.pi, angle + 1.5 * np.pi])
    to_corner = np.repeat(_QUADRANTS, num_corner, 0) * (width / 2 - radius, height / 2 - radius)
    return to_corner + radius * np.stack([np.cos(angle), np.sin(angle)], 1)


def at_height(path: Array, z: float) -> Array:
    """Return a path in the plane, (points, 2), as one at a height, (points, 3)."""
    raised = np.empty((len(path), 3))
    raised[:, :2], raised[:, 2] = path, z
    return raised


def circle(radius: float, num_points: int = 20, centre: tuple[float, float] = (0.0, 0.0)) -> Array:
    """Return a circle as a polygon, (num_points, 2)."""
    angle = np.linspace(0, 2 * np.pi, num_points, endpoint=False)
    return np.c_[centre[0] + radius * np.cos(angle), centre[1] + radius * np.sin(angle)]


def blob(rng: np.random.Generator, width: float, height: float, num_points: int = 22, unevenness: float = 0.12,
         squareness: float = 2.6) -> Array:  # fmt: skip
    """Return a superellipse with a wavy edge, the outline of something soft, (num_points, 2)."""
    angle = np.linspace(0, 2 * np.pi, num_points, endpoint=False)
    swell = np.ones(num_points)
    for wave in (2, 3, 4, 5):
        swell += 1.2 * unevenness / wave * rng.normal() * np.cos(wave * angle + rng.uniform(0, 2 * np.pi))
    c, s = np.cos(angle), np.sin(angle)
    power = 2 / squareness
    return np.c_[
        width / 2 * swell * np.sign(c) * np.abs(c) ** power, height / 2 * swell * np.sign(s) * np.abs(s) ** power
    ]


def smooth(points: ArrayLike, num_between: int = 6, closed: bool = False) -> Array:
    """Return a Catmull-Rom curve through (points, 2 or 3) with num_between points a span."""
    p = np.asarray(points, float)
    ends = (p[-1:], p[:2]) if closed else (2 * p[:1] - p[1:2], 2 * p[-1:] - p[-2:-1])
    q = np.concatenate([ends[0], p, ends[1]])
    spans = np.stack([q[:-3], q[1:-2], q[2:-1], q[3:]], 1)
    curve = (_catmull_rom(num_between) @ spans).reshape(-1, p.shape[1])
    return curve if closed else np.concatenate([curve, p[-1:]])


@cache
def _catmull_rom(num_between: int) -> Array:
    """Return how much each of four points weighs in the curve between the middle two, (num_between, 4)."""
    t = np.linspace(0, 1, num_between, endpoint=False)
    weights = np.array([-t + 2 * t**2 - t**3, 2 - 5 * t**2 + 3 * t**3, t + 4 * t**2 - 3 * t**3, -(t**2) + t**3])
    return 0.5 * weights.T
