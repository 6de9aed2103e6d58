"""Chord lengths of posed solids along the rays, summed into two line integrals per pixel. The simulator's hot loop.

Along one image row the ray slides at constant velocity through a solid's own frame. Everything here follows from that:
* prism and box: the ray's segment between the two faces is a moving segment over the outline, so each edge of the
outline adds
  a clamped ramp along the row. Ramps go into a difference row and one prefix sum yields all chords: O(edges + pixels),
  exact, and antialiased along the row.
* ellipsoid, cylinder: the discriminant is a quadratic in the column, which bounds the columns to look at.
* capsule: the distance between ray and axis is linear in the column. float64 for the set-up of a row (nearly edge-on
  plates need it), float32 for pixels. One thread: scans run in parallel instead.
"""

# ruff: noqa: D417  (arguments that belong together are described together, obvious ones not at all)

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from xray_vqa.simulation.kernel import kernel
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
    MODE_STACK,
    MODE_SUM,
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
from xray_vqa.simulation.view import MAGNIFY, PIXEL, ROW_CENTRE, SOURCE_Y, SOURCE_Z, X_START, View

TEXTURE_SIZE = 256
MAX_EDGES = 1024
_NO_COLUMNS = -1
_PACK = 1 << 14  # two column numbers in one integer; images are narrower than this
_MIN_SLOPE = 0.002  # a ray closer than this to a plate's plane is tilted out of it, else the chord is infinite


@kernel
def _add_ramps(vertices, start, count, levels, ax, ay, dx, dy, wx, wy, num, row, scale):
    """Add to `row` the derivative along the columns of (scale * share of the ray's segment inside the outline).

    The segment runs from (ax, ay) to (ax + dx, ay + dy) at column 0 and moves by (wx, wy) a column. Turned so that the
    motion is along the first axis, each edge crosses the segment's span of the second axis linearly. Returns first *
    _PACK + last column touched, or _NO_COLUMNS.
    """
    speed = max(np.sqrt(wx * wx + wy * wy), 1e-9)
    inverse = 1.0 / speed
    cx = wx * inverse
    cy = wy * inverse
    seg_x = cx * ax + cy * ay
    seg_e = -cy * ax + cx * ay
    seg_dx = cx * dx + cy * dy
    seg_de = -cy * dx + cx * dy
    low = min(seg_e, seg_e + seg_de)
    span = abs(seg_de)
    flat = span < 1e-7
    inverse_de = 0.0 if flat else 1.0 / seg_de
    for i in range(count):
        levels[i] = cx * vertices[start + i, 1] - cy * vertices[start + i, 0] - low
    first = num
    last = -1
    before = levels[count - 1]
    for i in range(count):
        here = levels[i]
        if (here <= 0.0 and before <= 0.0) or (here > span and before > span) or here == before:
            before = here
            continue
        j = i - 1 if i > 0 else count - 1
        x1 = cx * vertices[start + j, 0] + cy * vertices[start + j, 1]
        x2 = cx * vertices[start + i, 0] + cy * vertices[start + i, 1]
        e1 = before + low
        e2 = here + low
        before = here
        sign = scale if e2 < e1 else -scale
        if flat:
            if not (min(e1, e2) <= seg_e < max(e1, e2)):
                continue
            s1 = 0.0
            s2 = 1.0
        else:
            s1 = (e1 - seg_e) * inverse_de
            s2 = (e2 - seg_e) * inverse_de
            if s1 > s2:
                s1, s2 = s2, s1
            s1 = max(s1, 0.0)
            s2 = min(s2, 1.0)
            if s2 <= s1:
                continue
        slope = (x2 - x1) / (e2 - e1)
        column0 = (x1 + (seg_e - e1) * slope - seg_x) * inverse
        column_s = (seg_de * slope - seg_dx) * inverse
        g1 = column0 + s1 * column_s
        g2 = column0 + s2 * column_s
        if g1 > g2:
            g1, g2 = g2, g1
        rise = sign * (s2 - s1)
        if g2 - g1 < 1.0:  # a jump is spread over one pixel
            middle = 0.5 * (g1 + g2)
            g1 = middle - 0.5
            g2 = middle + 0.5
        if g1 > num:
            last = num - 1
            continue
        if g2 <= 0.0:
            row[0] += rise
            first = 0
            continue
        inverse_width = 1.0 / (g2 - g1)
        k = max(int(np.ceil(g1)), 0)
        first = min(first, k)
        done = 0.0
        while k < num:
            share = (k - g1) * inverse_width
            if share >= 1.0:
                row[k] += rise * (1.0 - done)
                last = max(last, k)
                break
            row[k] += rise * (share - done)
            done = share
            k += 1
        if k >= num:
            last = num - 1
    if first >= num or last < first:
        return _NO_COLUMNS
    return first * _PACK + last


@kernel
def _project_bounds(solid, turn, shift, frame, height, width, box):
    """Write the first and last column and row (u0, u1, v0, v1) that the solid's bounds cover; return False if none."""
    kind = int(solid[KIND])
    ex = solid[HALF]
    ey = solid[HALF + 1]
    ez = solid[HALF + 2]
    fx = 0.0
    fy = 0.0
    if kind == CAPSULE:
        ez = ez + ex
    elif kind == PRISM:
        fx = solid[EXTRA]
        fy = solid[EXTRA + 1]
    u_min = 1e9
    u_max = -1e9
    v_min = 1e9
    v_max = -1e9
    for corner in range(8):
        lx = (ex if corner & 1 else -ex) + fx
        ly = (ey if corner & 2 else -ey) + fy
        lz = ez if corner & 4 else -ez
        x = shift[0] + turn[0, 0] * lx + turn[1, 0] * ly + turn[2, 0] * lz
        y = shift[1] + turn[0, 1] * lx + turn[1, 1] * ly + turn[2, 1] * lz
        z = shift[2] + turn[0, 2] * lx + turn[1, 2] * ly + turn[2, 2] * lz
        u = (x - frame[X_START]) / frame[PIXEL]
        v = (y - frame[SOURCE_Y]) / (z - frame[SOURCE_Z]) * frame[MAGNIFY] + frame[ROW_CENTRE]
        u_min = min(u_min, u)
        u_max = max(u_max, u)
        v_min = min(v_min, v)
        v_max = max(v_max, v)
    box[0] = max(0, int(np.floor(u_min - 0.5)))
    box[1] = min(width - 1, int(np.ceil(u_max + 0.5)))
    box[2] = max(0, int(np.floor(v_min - 0.5)))
    box[3] = min(height - 1, int(np.ceil(v_max + 0.5)))
    return box[1] >= box[0] and box[3] >= box[2]


@kernel
def _pose(solid, rotation, translation, turn, shift):
    """Write the solid's world-to-own rotation and its centre in the world."""
    for i in range(3):
        shift[i] = translation[i]
        for j in range(3):
            shift[i] += rotation[i, j] * solid[CENTRE + j]
            turn[i, j] = 0.0
            for k in range(3):
                turn[i, j] += solid[AXES + 3 * i + k] * rotation[j, k]


@kernel
def draw_item(
    solids,
    modes,
    vertices,
    profiles,
    rotation,
    translation,
    frame,
    rays,
    textures,
    texture_step,
    polyethylene,
    copper,
    work,
    touched,
):
    """Add one posed object to the two line integrals.

    Args:
        solids, modes, vertices, profiles: arrays of an Item.
        rotation: (3, 3) float64, object to world; may mirror. translation: (3,) float64.
        frame, rays: of a View, all lengths in the object's unit.
        textures: (patterns, TEXTURE_SIZE, TEXTURE_SIZE) float32. texture_step: texture cells a pixel at scale 1.
        polyethylene, copper: (height, width) float32, added to in place, in the object's unit.
        work: (height, width) float32 of zeros, left as zeros.
        touched: (4,) int64, u0, v0, u1, v1; widened to what was drawn.
    """
    height, width = polyethylene.shape
    row = np.zeros(width + 4, np.float64)
    chord = np.zeros(width + 4, np.float32)
    levels = np.zeros(MAX_EDGES, np.float64)
    corners = np.zeros((4, 2), np.float32)
    row_first = np.full(height, width, np.int32)
    row_last = np.full(height, -1, np.int32)
    turn = np.zeros((3, 3), np.float64)
    shift = np.zeros(3, np.float64)
    box = np.zeros(4, np.int64)
    pixel = frame[PIXEL]
    num_solids = solids.shape[0]
    i = 0
    while i < num_solids:
        part = int(solids[i, PART])
        end = i
        while end < num_solids and int(solids[end, PART]) == part:
            end += 1
        mode = modes[part]
        if mode == MODE_STACK:
            _draw_stack(
                solids,
                i,
                end,
                vertices,
                rotation,
                translation,
                frame,
                rays,
                polyethylene,
                copper,
                row,
                levels,
                turn,
                shift,
                box,
                touched,
            )
            i = end
            continue
        part_v0 = height
        part_v1 = -1
        for s in range(i, end):
            solid = solids[s]
            kind = int(solid[KIND])
            _pose(solid, rotation, translation, turn, shift)
            if not _project_bounds(solid, turn, shift, frame, height, width, box):
                continue
            u0 = box[0]
            u1 = box[1]
            v0 = box[2]
            v1 = box[3]
            part_v0 = min(part_v0, v0)
            part_v1 = max(part_v1, v1)
            touched[0] = min(touched[0], u0)
            touched[1] = min(touched[1], v0)
            touched[2] = max(touched[2], u1)
            touched[3] = max(touched[3], v1)
            a = solid[POLYETHYLENE]
            b = solid[COPPER]
            hx = np.float64(solid[HALF])
            hy = np.float64(solid[HALF + 1])
            hz = np.float64(solid[HALF + 2])
            r00, r01, r02 = turn[0, 0], turn[0, 1], turn[0, 2]
            r10, r11, r12 = turn[1, 0], turn[1, 1], turn[1, 2]
            r20, r21, r22 = turn[2, 0], turn[2, 1], turn[2, 2]
            outline = vertices
            first_vertex = int(solid[VERTEX_START])
            num_vertices = int(solid[VERTEX_COUNT])
            profile = int(solid[PROFILE]) - 1
            tapered = solid[TAPER] != solid[TAPER + 1]
            if kind == BOX:  # a prism whose extrusion is the axis nearest to the ray
                middle = (v0 + v1) // 2
                along_x = abs(r01 * rays[middle, 0] + r02 * rays[middle, 1])
                along_y = abs(r11 * rays[middle, 0] + r12 * rays[middle, 1])
                along_z = abs(r21 * rays[middle, 0] + r22 * rays[middle, 1])
                if along_x >= along_y and along_x >= along_z:  # (x, y, z) -> (y, z, x)
                    r00, r01, r02, r10, r11, r12, r20, r21, r22 = r10, r11, r12, r20, r21, r22, r00, r01, r02
                    hx, hy, hz = hy, hz, hx
                elif along_y >= along_z:  # (x, y, z) -> (z, x, y)
                    r00, r01, r02, r10, r11, r12, r20, r21, r22 = r20, r21, r22, r00, r01, r02, r10, r11, r12
                    hx, hy, hz = hz, hx, hy
                corners[0, 0] = -hx
                corners[0, 1] = -hy
                corners[1, 0] = hx
                corners[1, 1] = -hy
                corners[2, 0] = hx
                corners[2, 1] = hy
                corners[3, 0] = -hx
                corners[3, 1] = hy
                outline = corners
                first_vertex = 0
                num_vertices = 4
            from_y = frame[SOURCE_Y] - shift[1]
            from_z = frame[SOURCE_Z] - shift[2]
            base_x = r01 * from_y + r02 * from_z
            base_y = r11 * from_y + r12 * from_z
            base_z = r21 * from_y + r22 * from_z
            start_x = frame[X_START] + (u0 + 0.5) * pixel - shift[0]
            ox = base_x + r00 * start_x
            oy = base_y + r10 * start_x
            oz = base_z + r20 * start_x
            step_x = r00 * pixel
            step_y = r10 * pixel
            step_z = r20 * pixel
            num = u1 - u0 + 1
            amount = solid[TEXTURE_AMOUNT]
            cell = solid[TEXTURE_SCALE] * texture_step
            pattern = int(solid[TEXTURE_ID])
            offset = int(solid[TEXTURE_OFFSET])
            for v in range(v0, v1 + 1):
                dx = r01 * rays[v, 0] + r02 * rays[v, 1]
                dy = r11 * rays[v, 0] + r12 * rays[v, 1]
                dz = r21 * rays[v, 0] + r22 * rays[v, 1]
                first = 0
                last = num - 1
                if kind == PRISM or kind == BOX:  # noqa: SIM109  (numba compiles this one better)
                    slope = dz
                    if abs(slope) < _MIN_SLOPE:
                        slope = _MIN_SLOPE if slope >= 0 else -_MIN_SLOPE
                    enter = ((-hz if slope > 0 else hz) - oz) / slope
                    length = 2 * hz / abs(slope)
                    wx = step_x - step_z / slope * dx
                    wy = step_y - step_z / slope * dy
                    for q in range(num + 1):
                        row[q] = 0.0
                    columns = _add_ramps(
                        outline,
                        first_vertex,
                        num_vertices,
                        levels,
                        ox + enter * dx,
                        oy + enter * dy,
                        length * dx,
                        length * dy,
                        wx,
                        wy,
                        num,
                        row,
                        length,
                    )
                    if columns < 0:
                        continue
                    first = columns // _PACK
                    last = columns % _PACK
                    total = 0.0
                    for q in range(first, last + 1):
                        total += row[q]
                        chord[q] = max(0.0, total)
                    if profile >= 0 or tapered:
                        mid_x = ox + (enter + 0.5 * length) * dx - (solid[EXTRA] - hx)
                        mid_y = oy + (enter + 0.5 * length) * dy - (solid[EXTRA + 1] - hy)
                        per_x = (PROFILE_SIZE - 1) / (2 * hx)
                        per_y = (PROFILE_SIZE - 1) / (2 * hy)
                        for q in range(first, last + 1):
                            if chord[q] > 0:
                                gy = mid_y + q * wy
                                if profile >= 0:
                                    px = min(max((mid_x + q * wx) * per_x, 0.0), PROFILE_SIZE - 1.001)
                                    py = min(max(gy * per_y, 0.0), PROFILE_SIZE - 1.001)
                                    iu = int(px)
                                    iv = int(py)
                                    fu = np.float32(px - iu)
                                    fv = np.float32(py - iv)
                                    top = profiles[profile, iv, iu] + fu * (
                                        profiles[profile, iv, iu + 1] - profiles[profile, iv, iu]
                                    )
                                    low = profiles[profile, iv + 1, iu] + fu * (
                                        profiles[profile, iv + 1, iu + 1] - profiles[profile, iv + 1, iu]
                                    )
                                    chord[q] *= top + fv * (low - top)
                                if tapered:
                                    share = min(1.0, max(0.0, gy / (2 * hy)))
                                    chord[q] *= solid[TAPER] + (solid[TAPER + 1] - solid[TAPER]) * share
                elif kind == ELLIPSOID:
                    qx, qy, qz = ox / hx, oy / hy, oz / hz
                    ax, ay, az = dx / hx, dy / hy, dz / hz
                    kx, ky, kz = step_x / hx, step_y / hy, step_z / hz
                    aa = ax * ax + ay * ay + az * az
                    b0 = qx * ax + qy * ay + qz * az
                    b1 = kx * ax + ky * ay + kz * az
                    e0 = b0 * b0 - aa * (qx * qx + qy * qy + qz * qz - 1.0)
                    e1 = 2 * (b0 * b1 - aa * (qx * kx + qy * ky + qz * kz))
                    e2 = b1 * b1 - aa * (kx * kx + ky * ky + kz * kz)
                    inner = e1 * e1 - 4 * e2 * e0
                    if inner <= 0 or e2 >= 0:
                        continue
                    root = np.sqrt(inner)
                    first = max(0, int(np.ceil((-e1 + root) / (2 * e2))))
                    last = min(num - 1, int(np.floor((-e1 - root) / (2 * e2))))
                    if last < first:
                        continue
                    twice = 2.0 / aa
                    for q in range(first, last + 1):
                        chord[q] = np.float32(np.sqrt(max(0.0, e0 + q * (e1 + q * e2))) * twice)
                elif kind == CAPSULE:
                    across2 = dx * dx + dy * dy
                    if across2 > 1e-6:  # distance to the infinite axis is |c0 + q c1| / sqrt(across2)
                        c0 = ox * dy - oy * dx
                        c1 = step_x * dy - step_y * dx
                        reach = hx * np.sqrt(across2)
                        if abs(c1) > 1e-9:
                            centre = -c0 / c1
                            half = reach / abs(c1)
                            first = max(0, int(np.ceil(centre - half)))
                            last = min(num - 1, int(np.floor(centre + half)))
                        elif abs(c0) > reach:
                            continue
                        if last < first:
                            continue
                    twice = 2.0 / np.sqrt(max(across2, 0.09))
                    inverse = 1.0 / across2 if across2 > 1e-6 else 0.0
                    radius2 = hx * hx
                    for q in range(first, last + 1):
                        x = ox + q * step_x
                        y = oy + q * step_y
                        z = oz + q * step_z
                        nearest = min(hz, max(-hz, z - (x * dx + y * dy) * inverse * dz))
                        wz = z - nearest
                        t = -(x * dx + y * dy + wz * dz)
                        ex = x + t * dx
                        ey = y + t * dy
                        ez = wz + t * dz
                        chord[q] = np.float32(np.sqrt(max(0.0, radius2 - (ex * ex + ey * ey + ez * ez))) * twice)
                else:  # cylinder, cone
                    ax = dx / hx
                    ay = dy / hy
                    aa = ax * ax + ay * ay
                    if aa > 1e-8:
                        c0 = ox / hx * ay - oy / hy * ax
                        c1 = step_x / hx * ay - step_y / hy * ax
                        reach = np.sqrt(aa)
                        if abs(c1) > 1e-9:
                            centre = -c0 / c1
                            half = reach / abs(c1)
                            first = max(0, int(np.ceil(centre - half)))
                            last = min(num - 1, int(np.floor(centre + half)))
                        elif abs(c0) > reach:
                            continue
                        if last < first:
                            continue
                    across2 = dx * dx + dy * dy
                    for q in range(first, last + 1):
                        x = ox + q * step_x
                        y = oy + q * step_y
                        z = oz + q * step_z
                        rx = hx
                        ry = hy
                        if kind == CONE:
                            at = z if across2 <= 0.02 else z - (x * dx + y * dy) / across2 * dz
                            share = min(1.0, max(0.0, (at + hz) / (2 * hz)))
                            rx = solid[EXTRA] + (solid[EXTRA + 1] - solid[EXTRA]) * share
                            ry = rx
                            ax = dx / rx
                            ay = dy / ry
                            aa = ax * ax + ay * ay
                        qx = x / rx
                        qy = y / ry
                        cc = qx * qx + qy * qy - 1.0
                        t0 = -1e9
                        t1 = 1e9
                        t = 0.0
                        hit = True
                        if aa > 1e-8:
                            bb = qx * ax + qy * ay
                            inner = bb * bb - aa * cc
                            if inner > 0:
                                root = np.sqrt(inner) / aa
                                t0 = -bb / aa - root
                                t1 = -bb / aa + root
                            else:
                                hit = False
                        elif cc > 0:
                            hit = False
                        if hit:
                            if abs(dz) > 1e-6:
                                i0 = (-hz - z) / dz
                                i1 = (hz - z) / dz
                                t0 = max(t0, min(i0, i1))
                                t1 = min(t1, max(i0, i1))
                            elif abs(z) > hz:
                                t1 = t0
                            t = max(0.0, t1 - t0)
                        chord[q] = t
                if amount != 0.0:
                    tv = (int(v * cell) + offset * 7) & (TEXTURE_SIZE - 1)
                    for q in range(first, last + 1):
                        tu = (int((u0 + q) * cell) + offset) & (TEXTURE_SIZE - 1)
                        chord[q] *= max(np.float32(0.0), np.float32(1.0) + amount * textures[pattern, tv, tu])
                if mode == MODE_SUM:
                    for q in range(first, last + 1):
                        polyethylene[v, u0 + q] += a * chord[q]
                        copper[v, u0 + q] += b * chord[q]
                else:
                    for q in range(first, last + 1):
                        work[v, u0 + q] = max(work[v, u0 + q], chord[q])
                    row_first[v] = min(row_first[v], u0 + first)
                    row_last[v] = max(row_last[v], u0 + last)
        if mode != MODE_SUM:
            a = solids[i, POLYETHYLENE]
            b = solids[i, COPPER]
            for v in range(part_v0, part_v1 + 1):
                for u in range(row_first[v], row_last[v] + 1):
                    t = work[v, u]
                    polyethylene[v, u] += a * t
                    copper[v, u] += b * t
                    work[v, u] = 0.0
                row_first[v] = width
                row_last[v] = -1
        i = end


@kernel
def _draw_stack(
    solids,
    begin,
    end,
    vertices,
    rotation,
    translation,
    frame,
    rays,
    polyethylene,
    copper,
    row,
    levels,
    turn,
    shift,
    box,
    touched,
):
    """Add a part of plain prisms of one material (a shell's layers) with one prefix sum and one write a row for all."""
    height, width = polyethylene.shape
    u0 = width
    u1 = -1
    v0 = height
    v1 = -1
    turns = np.empty((end - begin, 3, 3), np.float64)
    shifts = np.empty((end - begin, 3), np.float64)
    for s in range(begin, end):
        _pose(solids[s], rotation, translation, turn, shift)
        turns[s - begin] = turn
        shifts[s - begin] = shift
        if _project_bounds(solids[s], turn, shift, frame, height, width, box):
            u0 = min(u0, box[0])
            u1 = max(u1, box[1])
            v0 = min(v0, box[2])
            v1 = max(v1, box[3])
    if u1 < u0 or v1 < v0:
        return
    touched[0] = min(touched[0], u0)
    touched[1] = min(touched[1], v0)
    touched[2] = max(touched[2], u1)
    touched[3] = max(touched[3], v1)
    num = u1 - u0 + 1
    pixel = frame[PIXEL]
    ratio = solids[begin, COPPER] / solids[begin, POLYETHYLENE]
    for v in range(v0, v1 + 1):
        for q in range(num + 1):
            row[q] = 0.0
        first = num
        last = -1
        for s in range(begin, end):
            solid = solids[s]
            r = turns[s - begin]
            c = shifts[s - begin]
            dx = r[0, 1] * rays[v, 0] + r[0, 2] * rays[v, 1]
            dy = r[1, 1] * rays[v, 0] + r[1, 2] * rays[v, 1]
            dz = r[2, 1] * rays[v, 0] + r[2, 2] * rays[v, 1]
            from_y = frame[SOURCE_Y] - c[1]
            from_z = frame[SOURCE_Z] - c[2]
            start_x = frame[X_START] + (u0 + 0.5) * pixel - c[0]
            ox = r[0, 1] * from_y + r[0, 2] * from_z + r[0, 0] * start_x
            oy = r[1, 1] * from_y + r[1, 2] * from_z + r[1, 0] * start_x
            oz = r[2, 1] * from_y + r[2, 2] * from_z + r[2, 0] * start_x
            slope = dz
            if abs(slope) < _MIN_SLOPE:
                slope = _MIN_SLOPE if slope >= 0 else -_MIN_SLOPE
            hz = np.float64(solid[HALF + 2])
            enter = ((-hz if slope > 0 else hz) - oz) / slope
            length = 2 * hz / abs(slope)
            step_z = r[2, 0] * pixel
            columns = _add_ramps(
                vertices,
                int(solid[VERTEX_START]),
                int(solid[VERTEX_COUNT]),
                levels,
                ox + enter * dx,
                oy + enter * dy,
                length * dx,
                length * dy,
                r[0, 0] * pixel - step_z / slope * dx,
                r[1, 0] * pixel - step_z / slope * dy,
                num,
                row,
                length * solid[POLYETHYLENE],
            )
            if columns >= 0:
                first = min(first, columns // _PACK)
                last = max(last, columns % _PACK)
        total = 0.0
        for q in range(first, last + 1):
            total += row[q]
            polyethylene[v, u0 + q] += total
            copper[v, u0 + q] += ratio * total


def _make_textures(num_seed: int = 0) -> NDArray[np.float32]:
    """Return six patterns of unit-like spread about 0: folds, cloud, streaked folds, streaks, weave, crumple."""
    rng = np.random.default_rng(num_seed)
    fy = np.fft.fftfreq(TEXTURE_SIZE)[:, None]
    fx = np.fft.fftfreq(TEXTURE_SIZE)[None]

    def cloud(power: float, stretch: float = 1.0) -> NDArray[np.float64]:
        frequency = np.sqrt((fx * stretch) ** 2 + fy**2)
        frequency[0, 0] = 1
        noise = np.fft.fft2(rng.normal(size=(TEXTURE_SIZE, TEXTURE_SIZE)))
        field = np.fft.ifft2(noise * frequency**-power * (frequency > 0.008)).real
        return (field - field.mean()) / field.std()

    wave = np.sin(np.arange(TEXTURE_SIZE) * np.pi / 2)
    patterns = np.array([
        -np.abs(cloud(1.5)), cloud(1.3), -np.abs(cloud(1.7, 0.4)), cloud(1.2, 0.3),
        wave[:, None] * wave[None] + 0.2 * cloud(0.5), -1.6 * np.abs(cloud(1.4)) ** 0.6,
    ])  # fmt: skip
    patterns -= patterns.mean((1, 2), keepdims=True)
    patterns /= patterns.std((1, 2), keepdims=True)
    return np.clip(patterns * 0.5, -1.2, 1.2).astype(np.float32)


TEXTURES = _make_textures()
TEXTURE_CELL_CM = 0.12
"""Side of one texture cell at scale 1."""


class LineIntegrals:
    """The two accumulators of one image: centimetres of polyethylene and of copper along each ray."""

    def __init__(self, size_wh: tuple[int, int]) -> None:
        width, height = size_wh
        self.polyethylene = np.zeros((height, width), np.float32)
        """(height, width) float32, cm."""
        self.copper = np.zeros((height, width), np.float32)
        """(height, width) float32, cm."""
        self._work = np.zeros((height, width), np.float32)

    def clear(self) -> None:
        """Start over with air."""
        self.polyethylene[:] = 0
        self.copper[:] = 0

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
        frame = view.frame.copy()
        frame[:4] /= scale
        touched = np.array([1 << 20, 1 << 20, -1, -1], np.int64)
        solids = item.primitives
        factor = scale * density
        if factor != 1.0:
            solids = solids.copy()
            solids[:, POLYETHYLENE : COPPER + 1] *= factor
        draw_item(
            solids,
            item.modes,
            item.vertices,
            item.profiles,
            np.ascontiguousarray(rotation, np.float64),
            np.asarray(translation, np.float64) / scale,
            frame,
            view.rays,
            TEXTURES,
            view.frame[PIXEL] / TEXTURE_CELL_CM,
            self.polyethylene,
            self.copper,
            self._work,
            touched,
        )
        if touched[2] < touched[0] or touched[3] < touched[1]:
            return None
        return tuple(int(t) for t in touched)  # type: ignore[return-value]
