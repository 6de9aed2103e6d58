"""Where an object fits into a bag: poses tried one after the other, its hull held against the room. Some 25 a scene."""

# ruff: noqa: D417  (arguments that belong together are described together, obvious ones not at all)

from __future__ import annotations

import numpy as np

from xray_vqa.simulation.kernel import kernel, part_of_kernel
from xray_vqa.simulation.primitives import turn_of

NUM_TRIES = 12
NUM_UNIFORM, NUM_NORMAL = 6, 5
"""Random numbers that a try uses up."""


@kernel
def tilt_of(uniform, normal, flat_share):
    """Return two tilts in radians: most things lie flat (sigma 7 degrees), some lean, a few stand on edge.

    Args:
        uniform, normal: (2 or more,) float64 random numbers.
    """
    if uniform[0] < flat_share:
        return 0.12 * normal[0], 0.12 * normal[1]
    if uniform[1] < 0.6:
        return 0.55 * normal[0], 0.4 * normal[1]
    return 0.5 * np.pi + 0.2 * normal[0], 0.2 * normal[1]


@part_of_kernel
def turn_hull(hull, turn, scale, points):
    """Write the turned and scaled hull to points, (n, 3); return its lowest and highest coordinates, two 3-tuples."""
    low_x, low_y, low_z = 1e9, 1e9, 1e9
    high_x, high_y, high_z = -1e9, -1e9, -1e9
    for i in range(hull.shape[0]):
        hx, hy, hz = scale * hull[i, 0], scale * hull[i, 1], scale * hull[i, 2]
        x = turn[0, 0] * hx + turn[0, 1] * hy + turn[0, 2] * hz
        y = turn[1, 0] * hx + turn[1, 1] * hy + turn[1, 2] * hz
        z = turn[2, 0] * hx + turn[2, 1] * hy + turn[2, 2] * hz
        points[i, 0], points[i, 1], points[i, 2] = x, y, z
        low_x, low_y, low_z = min(low_x, x), min(low_y, y), min(low_z, z)
        high_x, high_y, high_z = max(high_x, x), max(high_y, y), max(high_z, z)
    return (low_x, low_y, low_z), (high_x, high_y, high_z)


@part_of_kernel
def stays_inside(points, x, y, half_x, half_y, squareness, narrowing):
    """Return whether (points, 3), moved by (x, y), lie in the superellipse |x / half_x|^s + |y / half_y|^s <= 1.

    Towards +x half_y shrinks, by `narrowing` (0 to 1) at the end.
    """
    for i in range(points.shape[0]):
        u = (points[i, 0] + x) / half_x
        v = abs(points[i, 1] + y) / (half_y * (1 - narrowing * min(max(u, 0.0), 1.0)))
        u = abs(u)
        if u > 1 or v > 1 or u**squareness + v**squareness > 1:
            return False
    return True


@kernel
def find_pose(hull, room, mirrored, scale, flat_share, near, spread, uniforms, normals, pose):
    """Try poses until one fits into the room; write it and return whether there is one.

    After half of the tries the object lies flat and along the bag, where a long thing has most room.

    Args:
        hull: (points, 3) float32, of an Item.
        room: (6,) float64: half_x, half_y, z_low, z_high, squareness, narrowing of an Interior.
        flat_share: share of poses that lie flat.
        near, spread: (2,) float64, place in the bag that it should lie close to, and how close, cm; spread below 0:
            anywhere.
        uniforms, normals: (NUM_TRIES, NUM_UNIFORM), (NUM_TRIES, NUM_NORMAL) float64 random numbers.
        pose: (6,) float64, written: x, y, z in the bag's frame, phi, theta, pitch.
    """
    points = np.empty((hull.shape[0], 3), np.float64)
    half_x, half_y, z_low, z_high = room[0], room[1], room[2], room[3]
    for attempt in range(NUM_TRIES):
        uniform, normal = uniforms[attempt], normals[attempt]
        is_late = attempt >= NUM_TRIES // 2
        theta, pitch = tilt_of(uniform, normal, 1.0 if is_late else flat_share)
        phi = 2 * np.pi * uniform[2]
        if is_late:
            phi = np.pi * np.floor(2 * uniform[2]) + 0.12 * normal[4]
        low, high = turn_hull(hull, turn_of(phi, theta, pitch, mirrored), scale, points)
        if high[2] - low[2] > z_high - z_low + 1.0 and attempt < NUM_TRIES - 1:
            continue
        x_low, x_high, y_low, y_high = -half_x - low[0], half_x - high[0], -half_y - low[1], half_y - high[1]
        if x_low > x_high or y_low > y_high:
            continue
        if spread < 0:
            x, y = x_low + (x_high - x_low) * uniform[3], y_low + (y_high - y_low) * uniform[4]
        else:
            reach = spread * (1 + 0.3 * attempt)
            x = min(max(near[0] + reach * normal[2], x_low), x_high)
            y = min(max(near[1] + reach * normal[3], y_low), y_high)
        if not stays_inside(points, x, y, half_x, half_y, room[4], room[5]):
            continue
        lowest, highest = z_low - low[2], z_high - high[2]
        z = lowest + (highest - lowest) * (uniform[5] if highest > lowest else 0.5)
        pose[0], pose[1], pose[2], pose[3], pose[4], pose[5] = x, y, z, phi, theta, pitch
        return True
    return False
