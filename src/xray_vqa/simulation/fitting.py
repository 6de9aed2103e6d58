"""Does an object fit: its hull turned, and held against the room in a bag. Asked some thirty times a scene."""

from __future__ import annotations

import numpy as np

from xray_vqa.simulation.kernel import kernel


@kernel
def turn_hull(hull, turn, scale):
    """Return the turned and scaled hull, (points, 3) float64, and its lowest and highest coordinates, two 3-tuples."""
    points = np.empty((hull.shape[0], 3), np.float64)
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
    return points, (low_x, low_y, low_z), (high_x, high_y, high_z)


@kernel
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
