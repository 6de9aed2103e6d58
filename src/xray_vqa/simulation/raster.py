"""Posed objects summed into two line integrals per pixel. The simulator's hot loop; chords.py measures one row.

An object is drawn part by part: solids that add up go straight into the sums; of solids that take the thickest (the
pieces of a bent wire) the largest chord is kept aside and added at the end; a stack shares one running sum a row.
One thread: scans run in parallel instead.
"""

# ruff: noqa: D417  (arguments that belong together are described together, obvious ones not at all)

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from xray_vqa.simulation.chords import (
    BLOCK,
    DIRECTION,
    MAX_EDGES,
    MIN_SLOPE,
    ORIGIN,
    STEP,
    aim,
    capsule_row,
    cone_row,
    cylinder_row,
    ellipsoid_row,
    place_generator,
    prism_row,
    round_edge,
    sum_ramps,
    taper,
)
from xray_vqa.simulation.kernel import kernel, part_of_kernel
from xray_vqa.simulation.primitives import (
    AXES,
    BOX,
    CAPSULE,
    CENTRE,
    COPPER,
    CYLINDER,
    ELLIPSOID,
    EXTRA,
    HALF,
    KIND,
    MODE_MAX,
    MODE_STACK,
    NUM_COLUMNS,
    PART,
    POLYETHYLENE,
    PRISM,
    PROFILE,
    PROFILE_SIZE,
    TAPER,
    TEXTURE_AMOUNT,
    TEXTURE_ID,
    TEXTURE_OFFSET,
    TEXTURE_SCALE,
    VERTEX_COUNT,
    VERTEX_START,
    Item,
)  # fmt: skip
from xray_vqa.simulation.textures import TEXTURE_CELL_CM, TEXTURE_SIZE, TEXTURES
from xray_vqa.simulation.view import MAGNIFY, PIXEL, ROW_CENTRE, SOURCE_Y, SOURCE_Z, X_START, View, open_view

COPPER_WEIGHT = 15.0
"""Thin copper attenuates the front detector this many times as much as polyethylene."""
OPAQUE_CM = 40.0
"""Polyethylene through which hardly anything is seen."""

# Columns of a solid's bounds in the image, (solids, 4) int64; last before first where it misses the image.
U_FIRST, U_LAST, V_FIRST, V_LAST = range(4)


@part_of_kernel
def place_solids(solids, rotation, translation, frame, height, width, turns, centres, bounds):
    """Write each solid's world-to-own rotation (3, 3), centre in the world (3,) and bounds in the image (4,)."""
    for s in range(solids.shape[0]):
        for i in range(3):
            centres[s, i] = translation[i]
            for j in range(3):
                centres[s, i] += rotation[i, j] * solids[s, CENTRE + j]
                turns[s, i, j] = 0.0
                for k in range(3):
                    turns[s, i, j] += solids[s, AXES + 3 * i + k] * rotation[j, k]
        if int(solids[s, KIND]) == CAPSULE:
            u_min, u_max, v_min, v_max = _capsule_bounds(solids[s], turns[s], centres[s], frame)
        else:
            u_min, u_max, v_min, v_max = _corner_bounds(solids[s], turns[s], centres[s], frame)
        bounds[s, U_FIRST] = max(0, int(np.floor(u_min - 0.5)))
        bounds[s, U_LAST] = min(width - 1, int(np.ceil(u_max + 0.5)))
        bounds[s, V_FIRST] = max(0, int(np.floor(v_min - 0.5)))
        bounds[s, V_LAST] = min(height - 1, int(np.ceil(v_max + 0.5)))


@part_of_kernel
def _corner_bounds(solid, turn, centre, frame):
    """Return the lowest and highest column and row, fractional, of the corners of a solid's own bounds."""
    shift_x, shift_y = 0.0, 0.0
    if int(solid[KIND]) == PRISM:
        shift_x, shift_y = solid[EXTRA], solid[EXTRA + 1]
    u_min, u_max, v_min, v_max = 1e9, -1e9, 1e9, -1e9
    for corner in range(8):
        x = (solid[HALF] if corner & 1 else -solid[HALF]) + shift_x
        y = (solid[HALF + 1] if corner & 2 else -solid[HALF + 1]) + shift_y
        z = solid[HALF + 2] if corner & 4 else -solid[HALF + 2]
        u = (centre[0] + turn[0, 0] * x + turn[1, 0] * y + turn[2, 0] * z - frame[X_START]) / frame[PIXEL]
        v = _row_of(
            centre[1] + turn[0, 1] * x + turn[1, 1] * y + turn[2, 1] * z,
            centre[2] + turn[0, 2] * x + turn[1, 2] * y + turn[2, 2] * z,
            frame,
        )
        u_min, u_max = min(u_min, u), max(u_max, u)
        v_min, v_max = min(v_min, v), max(v_max, v)
    return u_min, u_max, v_min, v_max


@part_of_kernel
def _capsule_bounds(solid, turn, centre, frame):
    """Return the same of a capsule: bounds of the balls at both ends, which are tighter."""
    radius, half = solid[HALF], solid[HALF + 2]
    reach_u = abs(half * turn[2, 0]) + radius
    u = centre[0] - frame[X_START]
    v_min, v_max = 1e9, -1e9
    for corner in range(8):
        end = half if corner & 1 else -half
        v = _row_of(
            centre[1] + end * turn[2, 1] + (radius if corner & 2 else -radius),
            centre[2] + end * turn[2, 2] + (radius if corner & 4 else -radius),
            frame,
        )
        v_min, v_max = min(v_min, v), max(v_max, v)
    return (u - reach_u) / frame[PIXEL], (u + reach_u) / frame[PIXEL], v_min, v_max


@part_of_kernel
def _row_of(y, z, frame):
    return (y - frame[SOURCE_Y]) / (z - frame[SOURCE_Z]) * frame[MAGNIFY] + frame[ROW_CENTRE]


@kernel
def draw_item(solids, modes, vertices, profiles, rotation, translation, scale, density, view_frame, rays,
              textures, polyethylene, copper, thickest, touched):  # fmt: skip
    """Add one posed object to the two line integrals.

    Args:
        solids, modes, vertices, profiles: arrays of an Item.
        rotation: (3, 3) float64, object to world; may mirror. translation: (3,) float64, cm.
        scale: size of the object's unit of length in cm; everything is computed in that unit. density: factor on it.
        view_frame, rays: of a View.
        textures: (patterns, TEXTURE_SIZE, TEXTURE_SIZE) float32.
        polyethylene, copper: (height, width) float32, cm, added to in place.
        thickest: (height, width) float32 of zeros, left as zeros.
        touched: (4,) int64, u0, v0, u1, v1; widened to what was drawn.
    """
    height, width = polyethylene.shape
    frame = np.empty(view_frame.size, np.float64)
    for i in range(view_frame.size):
        frame[i] = view_frame[i] / scale if i <= PIXEL else view_frame[i]
    shift = (translation[0] / scale, translation[1] / scale, translation[2] / scale)
    num_solids = solids.shape[0]
    turns = np.empty((num_solids, 3, 3), np.float64)
    centres = np.empty((num_solids, 3), np.float64)
    bounds = np.empty((num_solids, 4), np.int64)
    place_solids(solids, rotation, shift, frame, height, width, turns, centres, bounds)
    ramps = np.empty(width + 2 * BLOCK, np.float64)  # zeros, which compile faster like this
    for i in range(ramps.size):
        ramps[i] = 0.0
    is_sloped = np.empty(width // BLOCK + 2, np.bool_)
    for i in range(is_sloped.size):
        is_sloped[i] = False
    chord = np.empty(width + 2 * BLOCK, np.float32)
    levels = np.empty(MAX_EDGES, np.float64)
    places = np.empty(width, np.uint8)
    ray = np.empty(12, np.float64)
    corners = np.empty((4, 2), np.float32)
    texture_step = np.float32(view_frame[PIXEL] / TEXTURE_CELL_CM)
    factor = np.float32(scale * density)
    begin = np.int64(0)  # not a literal: numba would compile _draw_stack for it separately
    while begin < num_solids:
        part = int(solids[begin, PART])
        end = begin + 1
        while end < num_solids and int(solids[end, PART]) == part:
            end += 1
        rows = 0
        for s in range(begin, end):
            if bounds[s, U_LAST] >= bounds[s, U_FIRST] and bounds[s, V_LAST] >= bounds[s, V_FIRST]:
                touched[0] = min(touched[0], bounds[s, U_FIRST])
                touched[1] = min(touched[1], bounds[s, V_FIRST])
                touched[2] = max(touched[2], bounds[s, U_LAST])
                touched[3] = max(touched[3], bounds[s, V_LAST])
                rows += bounds[s, V_LAST] - bounds[s, V_FIRST] + 1
        if modes[part] == MODE_STACK:
            _draw_stack(
                solids, begin, end, vertices, turns, centres, bounds, frame, rays, factor, polyethylene, copper,
                ramps, is_sloped, chord, levels, ray,
            )  # fmt: skip
            begin = end
            continue
        keep_thickest = modes[part] == MODE_MAX and end > begin + 1
        spans = np.empty((rows if keep_thickest else 0, 3), np.int64)
        num_spans = 0
        for s in range(begin, end):
            solid = solids[s]
            u0, u1, v0, v1 = bounds[s, U_FIRST], bounds[s, U_LAST], bounds[s, V_FIRST], bounds[s, V_LAST]
            if u1 < u0 or v1 < v0:
                continue
            kind = int(solid[KIND])
            turn = turns[s]
            hx, hy, hz = np.float64(solid[HALF]), np.float64(solid[HALF + 1]), np.float64(solid[HALF + 2])
            outline, start, count = vertices, int(solid[VERTEX_START]), int(solid[VERTEX_COUNT])
            if kind == BOX:
                middle = (v0 + v1) // 2
                hx, hy, hz = _extrude_towards_ray(turn, hx, hy, hz, rays[middle, 0], rays[middle, 1], corners)
                outline, start, count = corners, 0, 4
            shaped = kind == PRISM and (solid[PROFILE] > 0 or solid[TAPER] != solid[TAPER + 1])
            place_generator(turn, centres[s], frame, u0, ray)
            a, b = factor * solid[POLYETHYLENE], factor * solid[COPPER]
            num = u1 - u0 + 1
            cell = solid[TEXTURE_SCALE] * texture_step
            if solid[TEXTURE_AMOUNT] != 0:
                _lay_texture(solid, cell, u0, num, places)
            for v in range(v0, v1 + 1):
                aim(turn, rays[v, 0], rays[v, 1], num, ray)
                if kind == BOX or kind == PRISM:  # noqa: SIM109  (numba compiles this one better)
                    first, last = prism_row(outline, start, count, hz, ray, num, levels, ramps, is_sloped, 1.0)
                    sum_ramps(ramps, is_sloped, first, last, chord)
                elif kind == CAPSULE:
                    first, last = capsule_row(hx, hz, ray, num, chord)
                elif kind == CYLINDER:
                    first, last = cylinder_row(hx, hy, hz, ray, num, chord)
                elif kind == ELLIPSOID:
                    first, last = ellipsoid_row(hx, hy, hz, ray, num, chord)
                else:
                    first, last = cone_row(np.float64(solid[EXTRA]), np.float64(solid[EXTRA + 1]), hz, ray, num, chord)
                if last < first:
                    continue
                if shaped:
                    _shape_thickness(chord, first, last, solid, profiles, ray)
                if solid[TEXTURE_AMOUNT] != 0:
                    _roughen(chord, first, last, v, solid, textures, cell, places)
                if keep_thickest:
                    _keep_larger(thickest, v, u0, chord, first, last)
                    spans[num_spans, 0], spans[num_spans, 1], spans[num_spans, 2] = v, u0 + first, u0 + last
                    num_spans += 1
                else:
                    _add_run(polyethylene, copper, v, u0, chord, first, last, a, b)
        a, b = factor * solids[begin, POLYETHYLENE], factor * solids[begin, COPPER]
        for k in range(num_spans):
            _move_thickest(thickest, spans[k, 0], spans[k, 1], spans[k, 2], polyethylene, copper, a, b)
        begin = end


@part_of_kernel
def _extrude_towards_ray(turn, hx, hy, hz, ray_y, ray_z, corners):
    """Turn a box into a prism whose extrusion is the axis nearest to the ray; return its half sizes.

    Args:
        turn: world-to-own rotation, its rows permuted in place. corners: (4, 2), written.
    """
    along_x = abs(turn[0, 1] * ray_y + turn[0, 2] * ray_z)
    along_y = abs(turn[1, 1] * ray_y + turn[1, 2] * ray_z)
    along_z = abs(turn[2, 1] * ray_y + turn[2, 2] * ray_z)
    if along_x >= along_y and along_x >= along_z:
        shift = 1  # (x, y, z) -> (y, z, x)
        hx, hy, hz = hy, hz, hx
    elif along_y >= along_z:
        shift = 2  # (x, y, z) -> (z, x, y)
        hx, hy, hz = hz, hx, hy
    else:
        shift = 0
    for column in range(3):
        x, y, z = turn[shift, column], turn[(shift + 1) % 3, column], turn[(shift + 2) % 3, column]
        turn[0, column], turn[1, column], turn[2, column] = x, y, z
    corners[0, 0], corners[0, 1] = -hx, -hy
    corners[1, 0], corners[1, 1] = hx, -hy
    corners[2, 0], corners[2, 1] = hx, hy
    corners[3, 0], corners[3, 1] = -hx, hy
    return hx, hy, hz


@part_of_kernel
def _shape_thickness(chord, first, last, solid, profiles, ray):
    """Multiply the chords of a prism's row by what its rounded edge and its taper leave of the thickness there."""
    width, height = 2 * np.float64(solid[HALF]), 2 * np.float64(solid[HALF + 1])
    slope = ray[DIRECTION + 2]
    if abs(slope) < MIN_SLOPE:
        slope = MIN_SLOPE if slope >= 0 else -MIN_SLOPE
    to_middle, drift = -ray[ORIGIN + 2] / slope, ray[STEP + 2] / slope
    x = ray[ORIGIN] + to_middle * ray[DIRECTION] - (solid[EXTRA] - 0.5 * width)
    y = ray[ORIGIN + 1] + to_middle * ray[DIRECTION + 1] - (solid[EXTRA + 1] - 0.5 * height)
    x_step, y_step = ray[STEP] - drift * ray[DIRECTION], ray[STEP + 1] - drift * ray[DIRECTION + 1]
    if solid[PROFILE] > 0:
        per_x, per_y = (PROFILE_SIZE - 1) / width, (PROFILE_SIZE - 1) / height
        round_edge(
            chord,
            first,
            last,
            profiles[int(solid[PROFILE]) - 1],
            x * per_x,
            y * per_y,
            x_step * per_x,
            y_step * per_y,
            max(np.sqrt(x_step * x_step + y_step * y_step), 1e-6),
        )
    if solid[TAPER] != solid[TAPER + 1]:
        taper(chord, first, last, solid[TAPER], solid[TAPER + 1], y / height, y_step / height)


@part_of_kernel
def _lay_texture(solid, cell, u0, num, places):
    """Write which place of a pattern's line falls on each column: uint8, so that it wraps at TEXTURE_SIZE by itself."""
    offset, left = np.uint32(int(solid[TEXTURE_OFFSET])), np.uint32(u0)
    for k in range(np.uint64(num)):
        places[k] = np.uint8(np.uint32(np.float32(np.uint32(k) + left) * cell) + offset)


@part_of_kernel
def _roughen(chord, first, last, v, solid, textures, cell, places):
    """Multiply the chords of one row by 1 + amount * pattern."""
    line = (int(v * cell) + int(solid[TEXTURE_OFFSET]) * 7) & (TEXTURE_SIZE - 1)
    pattern, amount = textures[int(solid[TEXTURE_ID]), line], solid[TEXTURE_AMOUNT]
    for k in range(np.uint64(first), np.uint64(last + 1)):
        chord[k] *= max(np.float32(0), np.float32(1) + amount * pattern[places[k]])


@part_of_kernel
def _add_run(polyethylene, copper, v, u, chord, first, last, a, b):
    """Add a and b times chord[first:last + 1] to row v of the sums, whose column u is the chord's column 0."""
    left = np.uint64(u)
    for k in range(np.uint64(first), np.uint64(last + 1)):
        polyethylene[v, left + k] += a * chord[k]
        copper[v, left + k] += b * chord[k]


@part_of_kernel
def _keep_larger(image, v, u, chord, first, last):
    """Raise row v of the image to chord[first:last + 1] where that is larger."""
    left = np.uint64(u)
    for k in range(np.uint64(first), np.uint64(last + 1)):
        image[v, left + k] = max(image[v, left + k], chord[k])


@part_of_kernel
def _move_thickest(thickest, v, first, last, polyethylene, copper, a, b):
    """Add a and b times thickest[v, first:last + 1] to the sums and leave zeros there."""
    for u in range(np.uint64(first), np.uint64(last + 1)):
        polyethylene[v, u] += a * thickest[v, u]
        copper[v, u] += b * thickest[v, u]
        thickest[v, u] = np.float32(0)


@part_of_kernel
def _draw_stack(solids, begin, end, vertices, turns, centres, bounds, frame, rays, factor, polyethylene, copper,
                ramps, is_sloped, chord, levels, ray):  # fmt: skip
    """Add a part of plain prisms of one material (a shell's layers) with one running sum and one write a row."""
    height, width = polyethylene.shape
    u0, u1, v0, v1 = np.int64(width), np.int64(-1), np.int64(height), np.int64(-1)
    for s in range(begin, end):
        u0, u1 = min(u0, bounds[s, U_FIRST]), max(u1, bounds[s, U_LAST])
        v0, v1 = min(v0, bounds[s, V_FIRST]), max(v1, bounds[s, V_LAST])
    if u1 < u0 or v1 < v0:
        return
    num = u1 - u0 + 1
    b = solids[begin, COPPER] / solids[begin, POLYETHYLENE]
    for v in range(v0, v1 + 1):
        first, last = num, np.int64(-1)
        for s in range(begin, end):
            solid = solids[s]
            place_generator(turns[s], centres[s], frame, u0, ray)
            aim(turns[s], rays[v, 0], rays[v, 1], num, ray)
            first_here, last_here = prism_row(
                vertices,
                int(solid[VERTEX_START]),
                int(solid[VERTEX_COUNT]),
                np.float64(solid[HALF + 2]),
                ray,
                num,
                levels,
                ramps,
                is_sloped,
                np.float64(factor * solid[POLYETHYLENE]),
            )
            first, last = min(first, first_here), max(last, last_here)
        if last < first:
            continue
        sum_ramps(ramps, is_sloped, first, last, chord)
        _add_run(polyethylene, copper, v, u0, chord, first, last, np.float32(1), b)


@kernel
def _mean_around(hull, rotation, position, scale, frame, polyethylene, copper):
    """Return the mean of polyethylene + COPPER_WEIGHT * copper, bounded, over every third pixel of a hull's bounds."""
    height, width = polyethylene.shape
    left, right, top, bottom = 1e9, -1e9, 1e9, -1e9
    for i in range(hull.shape[0]):
        x, y, z = scale * hull[i, 0], scale * hull[i, 1], scale * hull[i, 2]
        u = position[0] + rotation[0, 0] * x + rotation[0, 1] * y + rotation[0, 2] * z
        v = _row_of(
            position[1] + rotation[1, 0] * x + rotation[1, 1] * y + rotation[1, 2] * z,
            position[2] + rotation[2, 0] * x + rotation[2, 1] * y + rotation[2, 2] * z,
            frame,
        )
        left, right, top, bottom = min(left, u), max(right, u), min(top, v), max(bottom, v)
    first = max(int((left - frame[X_START]) / frame[PIXEL]), 0)
    last = min(int((right - frame[X_START]) / frame[PIXEL]), width - 1)
    total, num = 0.0, 0
    for v in range(max(int(top), 0), min(int(bottom), height - 1) + 1, 3):
        for u in range(first, last + 1, 3):
            total += min(polyethylene[v, u] + COPPER_WEIGHT * copper[v, u], OPAQUE_CM)
            num += 1
    return total / max(num, 1)


def draw_nothing() -> None:
    """Draw an object without solids, which compiles draw_item."""
    item = Item(
        name="nothing",
        primitives=np.zeros((0, NUM_COLUMNS), np.float32),
        modes=np.zeros(0, np.int64),
        vertices=np.zeros((0, 2), np.float32),
        profiles=np.zeros((0, 2, PROFILE_SIZE**2), np.float32),
        hull=np.zeros((0, 3), np.float32),
    )
    LineIntegrals((1, 1)).draw(item, np.eye(3), np.zeros(3), 1.0, 1.0, open_view((1, 1), 1.0))


class LineIntegrals:
    """The two accumulators of one image: centimetres of polyethylene and of copper along each ray."""

    def __init__(self, size_wh: tuple[int, int]) -> None:
        width, height = size_wh
        self.polyethylene = np.zeros((height, width), np.float32)
        """(height, width) float32, cm."""
        self.copper = np.zeros((height, width), np.float32)
        """(height, width) float32, cm."""
        self._thickest = np.zeros((height, width), np.float32)

    def clear(self) -> None:
        """Start over with air."""
        self.polyethylene[:] = 0
        self.copper[:] = 0

    def mean_around(
        self,
        hull: NDArray[np.float32],
        rotation: NDArray[np.float64],
        position_cm: tuple[float, float, float],
        scale: float,
        view: View,
    ) -> float:
        """Return how much lies, in cm of polyethylene, on the rays through the bounds of an object that is not drawn.

        What nothing is seen through counts as OPAQUE_CM, however much it is.
        """
        return _mean_around(hull, rotation, position_cm, scale, view.frame, self.polyethylene, self.copper)

    def draw(
        self,
        item: Item,
        rotation: NDArray[np.float64],
        translation: NDArray[np.float64],
        scale: float,
        density: float,
        view: View,
    ) -> tuple[int, int, int, int] | None:
        """Add an object and return (u0, v0, u1, v1), the pixels it may cover; None if it misses the image.

        An object drawn at another scale is the same object seen in another unit of length; its walls get thicker with
        it.
        """
        touched = np.array([1 << 20, 1 << 20, -1, -1], np.int64)
        draw_item(
            item.primitives,
            item.modes,
            item.vertices,
            item.profiles,
            np.ascontiguousarray(rotation, np.float64),
            np.ascontiguousarray(translation, np.float64),
            float(scale),
            float(density),
            view.frame,
            view.rays,
            TEXTURES,
            self.polyethylene,
            self.copper,
            self._thickest,
            touched,
        )
        u0, v0, u1, v1 = touched.tolist()
        return None if u1 < u0 or v1 < v0 else (u0, v0, u1, v1)
