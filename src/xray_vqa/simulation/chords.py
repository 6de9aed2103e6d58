"""How long each ray of one image row runs inside one solid: a kernel for each kind of solid.

Along a row the ray slides at constant velocity through the solid's own frame, and everything here follows from that.
Prism and box: the piece of the ray between the two faces is a segment that moves over the outline, so each edge of the
outline adds a clamped ramp along the row, of which each pixel gets the mean over its width. The ramps' differences are
summed up and one running sum gives all chords: O(edges + pixels), exact, and antialiased along the row. Ellipsoid,
cylinder, cone and capsule: the columns that can hit are known from a quadratic, and each of them is solved for itself.

Every kernel fills chord[first:last + 1] and returns (first, last), columns counted from the left of the solid's bounds;
last < first if the row misses it. Set-up is in float64, because nearly edge-on plates need it; pixels are in float32.
"""

# ruff: noqa: D417  (arguments that belong together are described together, obvious ones not at all)

from __future__ import annotations

import numpy as np

from xray_vqa.simulation.kernel import part_of_kernel
from xray_vqa.simulation.primitives import PROFILE_SIZE
from xray_vqa.simulation.view import PIXEL, SOURCE_Y, SOURCE_Z, X_START

MAX_EDGES = 1024
"""Most edges that an outline may have."""

# Entries of a row's ray, (12,) float64, in the solid's own frame: the first column's origin, the unit direction that
# all columns share, the origin's step from one column to the next, and the generator as the first column sees it.
ORIGIN, DIRECTION, STEP, GENERATOR = 0, 3, 6, 9

BLOCK = 16
"""Columns that are computed together: one vector register of float32. Buffers of a row have this much room to spare."""

MIN_SLOPE = 0.002  # a ray closer than this to a plate's plane is tilted out of it, else the chord is infinite
_PARALLEL = 1e-8  # squared sine below which a ray counts as parallel to an axis
_NOTHING = (0, -1)


@part_of_kernel
def place_generator(turn, centre, frame, u, ray):
    """Write the ray's origin in column u, which is the generator for now, and its step; the same for all rows."""
    x = frame[X_START] + (u + 0.5) * frame[PIXEL] - centre[0]
    y, z = frame[SOURCE_Y] - centre[1], frame[SOURCE_Z] - centre[2]
    for i in range(3):
        ray[GENERATOR + i] = turn[i, 0] * x + turn[i, 1] * y + turn[i, 2] * z
        ray[STEP + i] = turn[i, 0] * frame[PIXEL]


@part_of_kernel
def aim(turn, ray_y, ray_z, num, ray):
    """Write the direction of one row, given in the world, and move the origin to the solid.

    It goes to where, half-way along the row of `num` columns, the ray is nearest to the solid's centre: seen from the
    generator, float32 would lose the solid's size in its distance.
    """
    dx = turn[0, 1] * ray_y + turn[0, 2] * ray_z
    dy = turn[1, 1] * ray_y + turn[1, 2] * ray_z
    dz = turn[2, 1] * ray_y + turn[2, 2] * ray_z
    gx, gy, gz = ray[GENERATOR], ray[GENERATOR + 1], ray[GENERATOR + 2]
    half = 0.5 * num
    nearest = -((gx + half * ray[STEP]) * dx + (gy + half * ray[STEP + 1]) * dy + (gz + half * ray[STEP + 2]) * dz)
    ray[DIRECTION], ray[DIRECTION + 1], ray[DIRECTION + 2] = dx, dy, dz
    ray[ORIGIN], ray[ORIGIN + 1], ray[ORIGIN + 2] = gx + nearest * dx, gy + nearest * dy, gz + nearest * dz


@part_of_kernel
def prism_row(outline, start, count, half_z, ray, num, levels, ramps, is_sloped, weight):
    """Add weight * chord of a plain prism to the ramps; return the first and last column touched.

    Args:
        outline: (points, 2) float32, counter-clockwise, of which `count` from `start` on are this prism's.
        levels: (MAX_EDGES,) float64, room to work in.
        ramps: (columns,) float64, derivative along the row of weight * chord, added to.
        is_sloped: (columns / BLOCK,) bool, set where a block of ramps is added to.
    """
    dx, dy, dz = ray[DIRECTION], ray[DIRECTION + 1], ray[DIRECTION + 2]
    slope = dz
    if abs(slope) < MIN_SLOPE:
        slope = MIN_SLOPE if slope >= 0 else -MIN_SLOPE
    enter = ((-half_z if slope > 0 else half_z) - ray[ORIGIN + 2]) / slope
    length = 2 * half_z / abs(slope)
    drift = ray[STEP + 2] / slope
    return _add_ramps(
        outline,
        start,
        count,
        levels,
        ray[ORIGIN] + enter * dx,
        ray[ORIGIN + 1] + enter * dy,
        length * dx,
        length * dy,
        ray[STEP] - drift * dx,
        ray[STEP + 1] - drift * dy,
        num,
        ramps,
        is_sloped,
        length * weight,
    )


@part_of_kernel
def _add_ramps(outline, start, count, levels, ax, ay, dx, dy, wx, wy, num, ramps, is_sloped, weight):
    """Add the derivative along the row of weight * (share of a segment inside the outline).

    The segment runs from (ax, ay) to (ax + dx, ay + dy) at column 0 and moves by (wx, wy) a column. Turned so that the
    motion is along the first axis, each edge crosses the segment's span of the second axis linearly.
    """
    speed = max(np.sqrt(wx * wx + wy * wy), 1e-9)
    inverse = 1.0 / speed
    cx, cy = wx * inverse, wy * inverse
    seg_x, seg_e = cx * ax + cy * ay, -cy * ax + cx * ay
    seg_dx, seg_de = cx * dx + cy * dy, -cy * dx + cx * dy
    low = min(seg_e, seg_e + seg_de)
    span = abs(seg_de)
    flat = span < 1e-7
    inverse_de = 0.0 if flat else 1.0 / seg_de
    for i in range(count):
        levels[i] = cx * outline[start + i, 1] - cy * outline[start + i, 0] - low
    first, last = num, np.int64(-1)
    before = levels[count - 1]
    for i in range(count):
        here = levels[i]
        if (here <= 0.0 and before <= 0.0) or (here > span and before > span) or here == before:
            before = here
            continue
        j = start + (i - 1 if i > 0 else count - 1)
        x1 = cx * outline[j, 0] + cy * outline[j, 1]
        x2 = cx * outline[start + i, 0] + cy * outline[start + i, 1]
        e1, e2 = before + low, here + low
        before = here
        s1, s2 = 0.0, 1.0
        if flat:
            if not (min(e1, e2) <= seg_e < max(e1, e2)):
                continue
        else:
            s1, s2 = (e1 - seg_e) * inverse_de, (e2 - seg_e) * inverse_de
            if s1 > s2:
                s1, s2 = s2, s1
            s1, s2 = max(s1, 0.0), min(s2, 1.0)
            if s2 <= s1:
                continue
        slope = (x2 - x1) / (e2 - e1)
        column_0 = (x1 + (seg_e - e1) * slope - seg_x) * inverse
        column_s = (seg_de * slope - seg_dx) * inverse
        g1, g2 = column_0 + s1 * column_s, column_0 + s2 * column_s
        if g1 > g2:
            g1, g2 = g2, g1
        rise = (weight if e2 < e1 else -weight) * (s2 - s1)
        if g1 > num:
            last = num - 1
            continue
        if g2 <= -0.5:
            ramps[0] += rise
            is_sloped[0] = True
            first, last = 0, max(last, 0)
            continue
        # Mean of the ramp over each pixel, from its integral at the pixel's sides: sampled in the middle, the large
        # rises of a solid seen edge-on would not cancel.
        width = g2 - g1
        half_width, per_width = 0.5 * width, 0.5 / max(width, 1e-9)
        k = max(int(np.ceil(g1 - 0.5)), 0)
        first, block = min(first, k), k // BLOCK
        done, side = 0.0, k - 0.5 - g1
        below = 0.0 if side <= 0.0 else (side - half_width if side >= width else side * side * per_width)
        while k < num:
            side += 1.0
            above = side - half_width if side >= width else side * side * per_width
            share = above - below
            below = above
            ramps[k] += rise * (share - done)
            if side >= width + 1.0:
                break
            done = share
            k += 1
        k = min(k, num - 1)
        last = max(last, k)
        while block <= k // BLOCK:
            is_sloped[block] = True
            block += 1
    return first, last


@part_of_kernel
def sum_ramps(ramps, is_sloped, first, last, chord):
    """Write the running sum of ramps[first:last + 1], not below 0; leave zeros there, and False in is_sloped.

    Over most of a plate the sum does not change, and then blocks are filled at once up to the next that is sloped.
    """
    total = 0.0
    block, end = np.uint64(first // BLOCK), np.uint64(last // BLOCK + 1)
    while block < end:
        start = block * np.uint64(BLOCK)
        if is_sloped[block]:
            is_sloped[block] = False
            for k in range(np.uint64(BLOCK)):
                total += ramps[start + k]
                ramps[start + k] = 0.0
                chord[start + k] = np.float32(max(0.0, total))
            block += np.uint64(1)
        else:
            while block < end and not is_sloped[block]:
                block += np.uint64(1)
            level = np.float32(max(0.0, total))
            for k in range(start, block * np.uint64(BLOCK)):
                chord[k] = level


@part_of_kernel
def round_edge(chord, first, last, profile, x, y, x_step, y_step, speed):
    """Multiply chords by a thickness profile, (2, PROFILE_SIZE ** 2) float32, read along a line.

    x, y and their steps are in cells of the profile; speed is the same step in cm. Columns that lie clear of the edge,
    which are most of a large thing's, are skipped or, inside a rim, set to 0. Elsewhere the profile is read at the ends
    of strides of at most half a cell; between them the factor is a line.
    """
    f = np.float32
    stride = np.uint64(BLOCK)
    while stride > 1 and 2 * stride * max(abs(x_step), abs(y_step)) > 1.0:
        stride >>= np.uint64(1)
    per_stride = f(1 / stride)
    x, y, x_step, y_step = f(x), f(y), f(x_step), f(y_step)
    highest = f(PROFILE_SIZE - 1.001)
    factor, clear = profile[0], profile[1]
    start = first
    while start <= last:
        px, py = min(max(x + f(start) * x_step, f(0)), highest), min(max(y + f(start) * y_step, f(0)), highest)
        nearest = np.uint64(py + f(0.5)) * np.uint64(PROFILE_SIZE) + np.uint64(px + f(0.5))
        num_clear = int(clear[nearest] / speed)
        if num_clear >= BLOCK:
            if factor[nearest] == 0:
                for k in range(np.uint64(start), np.uint64(min(start + num_clear, last + 1))):
                    chord[k] = f(0)
            start += num_clear
            continue
        here = _read_profile(factor, px, py)
        for left in range(np.uint64(start), np.uint64(min(start + BLOCK, last + 1)), stride):
            right = f(left + stride)
            px, py = min(max(x + right * x_step, f(0)), highest), min(max(y + right * y_step, f(0)), highest)
            there = _read_profile(factor, px, py)
            change = (there - here) * per_stride
            for k in range(stride):
                chord[left + k] *= here + f(k) * change
            here = there
        start += BLOCK


@part_of_kernel
def _read_profile(factor, x, y):
    """Return the bilinear value of a (PROFILE_SIZE ** 2,) map at a place in its cells."""
    column, row = np.uint32(x), np.uint32(y)
    fx, fy = x - np.float32(column), y - np.float32(row)
    cell = np.uint64(row * np.uint32(PROFILE_SIZE) + column)
    above = factor[cell] + fx * (factor[cell + np.uint64(1)] - factor[cell])
    cell += np.uint64(PROFILE_SIZE)
    below = factor[cell] + fx * (factor[cell + np.uint64(1)] - factor[cell])
    return above + fy * (below - above)


@part_of_kernel
def taper(chord, first, last, low, high, share, share_step):
    """Multiply chords by a factor that runs from low to high as the share runs from 0 to 1."""
    f = np.float32
    share, share_step = f(share), f(share_step)
    for k in range(np.uint64(first), np.uint64(last + 1)):
        chord[k] *= low + (high - low) * min(max(share + f(k) * share_step, f(0)), f(1))


@part_of_kernel
def ellipsoid_row(hx, hy, hz, ray, num, chord):
    """Write the chords of an ellipsoid of these half axes: the discriminant is a quadratic in the column."""
    qx, qy, qz = ray[ORIGIN] / hx, ray[ORIGIN + 1] / hy, ray[ORIGIN + 2] / hz
    ax, ay, az = ray[DIRECTION] / hx, ray[DIRECTION + 1] / hy, ray[DIRECTION + 2] / hz
    kx, ky, kz = ray[STEP] / hx, ray[STEP + 1] / hy, ray[STEP + 2] / hz
    aa = ax * ax + ay * ay + az * az
    b0 = qx * ax + qy * ay + qz * az
    b1 = kx * ax + ky * ay + kz * az
    e0 = b0 * b0 - aa * (qx * qx + qy * qy + qz * qz - 1.0)
    e1 = 2 * (b0 * b1 - aa * (qx * kx + qy * ky + qz * kz))
    e2 = b1 * b1 - aa * (kx * kx + ky * ky + kz * kz)
    inner = e1 * e1 - 4 * e2 * e0
    if inner <= 0 or e2 >= 0:
        return _NOTHING
    root = np.sqrt(inner)
    first = max(0, int(np.ceil((-e1 + root) / (2 * e2))))
    last = min(num - 1, int(np.floor((-e1 - root) / (2 * e2))))
    f = np.float32
    twice, centre, fall, top = f(2.0 / aa), f(-e1 / (2 * e2)), f(e2), f(-inner / (4 * e2))
    for start in range(first, last + 1, BLOCK):
        for k in range(BLOCK):
            offset = f(start + k) - centre
            chord[start + k] = np.sqrt(max(f(0), top + fall * offset * offset)) * twice
    return first, last


@part_of_kernel
def _columns_near_axis(hx, hy, ray, num):
    """Return the first and last column whose ray can hit an endless cylinder about z."""
    ax, ay = ray[DIRECTION] / hx, ray[DIRECTION + 1] / hy
    aa = ax * ax + ay * ay
    if aa <= _PARALLEL:
        return 0, num - 1
    passes = ray[ORIGIN] / hx * ay - ray[ORIGIN + 1] / hy * ax
    step = ray[STEP] / hx * ay - ray[STEP + 1] / hy * ax
    return _columns_within(passes, step, np.sqrt(aa), num)


@part_of_kernel
def _columns_within(passes, step, reach, num):
    """Return the first and last of `num` columns u at which |passes + step * u| <= reach."""
    if abs(step) <= 1e-9:
        return _NOTHING if abs(passes) > reach else (0, num - 1)
    middle, half = -passes / step, reach / abs(step)
    return max(0, int(np.ceil(middle - half))), min(num - 1, int(np.floor(middle + half)))


@part_of_kernel
def capsule_row(radius, half_z, ray, num, chord):
    """Write the chords of a cylinder with round ends.

    The ray enters and leaves the endless cylinder; beyond an end of the axis the ball there takes its place. Blocks of
    columns that meet neither ball, which are most of a wire's, do without them.
    """
    dx, dy, dz = ray[DIRECTION], ray[DIRECTION + 1], ray[DIRECTION + 2]
    across2 = max(dx * dx + dy * dy, 1e-6)
    # How far a ray passes from the axis, times the root of across2, is linear in the column.
    passes, passes_step = ray[ORIGIN] * dy - ray[ORIGIN + 1] * dx, ray[STEP] * dy - ray[STEP + 1] * dx
    reach2 = radius * radius * across2
    first, last = _columns_within(passes, passes_step, np.sqrt(reach2), num)
    if last < first:
        return _NOTHING
    per_across2 = 1.0 / across2
    middle = -(ray[ORIGIN] * dx + ray[ORIGIN + 1] * dy) * per_across2
    middle_step = -(ray[STEP] * dx + ray[STEP + 1] * dy) * per_across2
    z_middle, z_step = ray[ORIGIN + 2] + middle * dz, ray[STEP + 2] + middle_step * dz
    z_reach = half_z - radius * abs(dz) * np.sqrt(per_across2)
    f = np.float32
    e0, e1, square, twice = f(passes), f(passes_step), f(reach2), f(2 * per_across2)
    for start in range(first, last + 1, BLOCK):
        at_start, at_end = z_middle + start * z_step, z_middle + (start + BLOCK - 1) * z_step
        if max(abs(at_start), abs(at_end)) <= z_reach:
            for k in range(BLOCK):
                e = e0 + f(start + k) * e1
                chord[start + k] = np.sqrt(max(square - e * e, f(0))) * twice
        else:
            _capsule_end(radius, half_z, ray, start, chord)
    return first, last


@part_of_kernel
def _capsule_end(radius, half_z, ray, start, chord):
    """Write a block of chords where the balls at the ends have to be looked at."""
    f = np.float32
    dx, dy, dz = f(ray[DIRECTION]), f(ray[DIRECTION + 1]), f(ray[DIRECTION + 2])
    x0, y0, z0 = f(ray[ORIGIN]), f(ray[ORIGIN + 1]), f(ray[ORIGIN + 2])
    kx, ky, kz = f(ray[STEP]), f(ray[STEP + 1]), f(ray[STEP + 2])
    per_across2 = f(1) / max(dx * dx + dy * dy, f(1e-6))
    radius2, end = f(radius * radius), f(half_z)
    for k in range(BLOCK):
        column = f(start + k)
        x, y, z = x0 + column * kx, y0 + column * ky, z0 + column * kz
        across, rest = x * dx + y * dy, x * x + y * y - radius2
        middle = -across * per_across2
        half = np.sqrt(max(middle * middle - rest * per_across2, f(0)))
        enter, leave = middle - half, middle + half
        z_enter, z_leave = z + enter * dz, z + leave * dz
        to_enter = z - min(max(z_enter, -end), end)  # from the axis, or from the centre of the ball at its end
        to_leave = z - min(max(z_leave, -end), end)
        ball_enter, ball_leave = -(across + to_enter * dz), -(across + to_leave * dz)
        ball_enter -= np.sqrt(max(ball_enter * ball_enter - (rest + to_enter * to_enter), f(0)))
        ball_leave += np.sqrt(max(ball_leave * ball_leave - (rest + to_leave * to_leave), f(0)))
        enter = enter if abs(z_enter) <= end else ball_enter
        leave = leave if abs(z_leave) <= end else ball_leave
        chord[start + k] = max(leave - enter, f(0))


@part_of_kernel
def cylinder_row(hx, hy, half_z, ray, num, chord):
    """Write the chords of an elliptic cylinder about z: between the mantle's two hits and between the end planes."""
    first, last = _columns_near_axis(hx, hy, ray, num)
    f = np.float32
    qx, qy, z0 = f(ray[ORIGIN] / hx), f(ray[ORIGIN + 1] / hy), f(ray[ORIGIN + 2])
    kx, ky, kz = f(ray[STEP] / hx), f(ray[STEP + 1] / hy), f(ray[STEP + 2])
    ax, ay, dz = f(ray[DIRECTION] / hx), f(ray[DIRECTION + 1] / hy), ray[DIRECTION + 2]
    aa = max(ax * ax + ay * ay, f(_PARALLEL))
    per_aa = f(1) / aa
    if abs(dz) < 1e-6:
        dz = 1e-6
    per_dz = f(1 / dz)
    near, far = f(-half_z if dz > 0 else half_z), f(half_z if dz > 0 else -half_z)
    for start in range(first, last + 1, BLOCK):
        for k in range(BLOCK):
            column = f(start + k)
            x, y, z = qx + column * kx, qy + column * ky, z0 + column * kz
            middle = x * ax + y * ay
            half = np.sqrt(max(middle * middle - aa * (x * x + y * y - f(1)), f(0))) * per_aa
            middle *= -per_aa
            enter, leave = max(middle - half, (near - z) * per_dz), min(middle + half, (far - z) * per_dz)
            chord[start + k] = max(leave - enter, f(0))
    return first, last


@part_of_kernel
def cone_row(radius_start, radius_end, half_z, ray, num, chord):
    """Write the chords of a truncated cone about z.

    In the cone's own quadratic x^2 + y^2 = (middle radius + growth * z)^2; the ray is inside between its two roots
    while the quadratic opens upwards, and outside of them where it runs more steeply than the mantle.
    """
    dx, dy, dz = ray[DIRECTION], ray[DIRECTION + 1], ray[DIRECTION + 2]
    growth = (radius_end - radius_start) / (2 * half_z)
    middle_radius = 0.5 * (radius_start + radius_end)
    aa = dx * dx + dy * dy - growth * growth * dz * dz
    if abs(aa) < _PARALLEL:
        aa = _PARALLEL
    slope = dz if abs(dz) > 1e-6 else 1e-6
    widest = max(radius_start, radius_end)
    first, last = _columns_near_axis(widest, widest, ray, num)
    for q in range(first, last + 1):
        x, y, z = ray[ORIGIN] + q * ray[STEP], ray[ORIGIN + 1] + q * ray[STEP + 1], ray[ORIGIN + 2] + q * ray[STEP + 2]
        radius = middle_radius + growth * z
        bb = x * dx + y * dy - growth * dz * radius
        cc = x * x + y * y - radius * radius
        low, high = (-half_z - z) / slope, (half_z - z) / slope
        if low > high:
            low, high = high, low
        inner = bb * bb - aa * cc
        length = 0.0
        if aa > 0:
            if inner > 0:
                root = np.sqrt(inner)
                length = min(high, (-bb + root) / aa) - max(low, (-bb - root) / aa)
        elif inner <= 0:
            length = high - low
        else:
            root = np.sqrt(inner)
            t1, t2 = (-bb + root) / aa, (-bb - root) / aa  # aa < 0, so t1 < t2
            length = max(0.0, min(high, t1) - low) + max(0.0, high - max(low, t2))
        chord[q] = np.float32(max(0.0, length))
    return first, last
