"""Chord lengths: the volume of a solid is what comes out, whatever its pose."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xray_vqa.simulation.primitives import (
    MODE_STACK,
    Builder,
    rotation_x,
    rotation_y,
    rotation_z,
    rounded_rectangle,
    turn_of,
)
from xray_vqa.simulation.raster import LineIntegrals
from xray_vqa.simulation.view import SOURCE_Z_CM, open_view

SIZE_WH, PIXEL_CM = (320, 240), 0.1
POSES = {
    "flat": np.eye(3),
    "tilted": rotation_z(0.7) @ rotation_x(0.9) @ rotation_y(0.4),
    "on edge": rotation_x(1.45),
    "mirrored": rotation_z(1.1) @ rotation_x(0.3) @ np.diag([1.0, -1.0, 1.0]),
}
# With the centre of mass in the origin: what lies nearer to the generator is seen by more rays.
SOLIDS = {
    "box": (lambda b: b.box((0, 0, 0), (4, 3, 2), "polyethylene"), 192.0),
    "ellipsoid": (lambda b: b.ellipsoid((0, 0, 0), (4, 3, 2), "polyethylene"), 4 / 3 * np.pi * 24),
    "cylinder": (lambda b: b.cylinder((0, 0, 0), "x", 2, 4, "polyethylene"), np.pi * 4 * 8),
    "cone": (lambda b: b.cone((10 / 19, 0, 0), "x", 3, 2, 4, "polyethylene"), np.pi * 8 / 3 * 19),
    "prism": (lambda b: b.prism([(-4, -2), (4, -2), (0, 4)], -1, 1, "polyethylene"), 48.0),
    "tube": (lambda b: b.tube((0, 0, 0), "x", 2, 4, 0.3, "polyethylene"), np.pi * (4 - 1.7**2) * 8),
}


def chords_of(build, pose=POSES["flat"], scale: float = 1.0, size_wh=SIZE_WH, place=(1.0, 0.5, 12.0)) -> np.ndarray:
    """Return the chords of what `build` writes, (height, width), cm."""
    integrals, builder = LineIntegrals(size_wh), Builder(np.random.default_rng(0))
    build(builder)
    integrals.draw(builder.finish("solid"), pose, np.array(place), scale, 1.0, open_view(size_wh, PIXEL_CM))
    return integrals.polyethylene


def volume_cm3(build, pose: np.ndarray, scale: float = 1.0) -> float:
    """Return what the chords of a solid 12 cm over the belt weigh, where a ray is one pixel square."""
    return float((chords_of(build, pose, scale) * open_view(SIZE_WH, PIXEL_CM).rays[:, 1:]).sum() * PIXEL_CM**2)


@pytest.mark.parametrize("solid", SOLIDS)
@pytest.mark.parametrize("pose", POSES)
def test_chords_sum_to_the_volume(solid, pose):
    build, expected = SOLIDS[solid]
    assert volume_cm3(build, POSES[pose]) == pytest.approx(expected, rel=0.01)


angles = st.floats(0, 2 * np.pi)


@pytest.mark.parametrize("solid", SOLIDS)
@given(phi=angles, theta=angles, pitch=angles)
@settings(max_examples=25)
def test_turning_a_solid_leaves_its_volume(solid, phi, theta, pitch):
    build, expected = SOLIDS[solid]
    assert volume_cm3(build, turn_of(phi, theta, pitch)) == pytest.approx(expected, rel=0.01)


@given(phi=angles, lean=st.floats(-0.1, 0.1))
@settings(max_examples=40)
def test_a_rod_that_lies_on_its_side_keeps_its_volume(phi, lean):
    """Its side edges all but cancel there: each is a jump of hundreds of centimetres."""
    outline = [(0.32, 0), (0, 0.28), (-0.3, 0.05), (-0.05, -0.33)]
    x, y = np.array(outline).T
    area = 0.5 * np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y)

    def rod(b):
        b.prism(outline, -2, 2, "polyethylene")

    pose = rotation_z(phi) @ rotation_x(np.pi / 2 + lean)
    assert volume_cm3(rod, pose) == pytest.approx(area * 4, rel=0.06)  # six rows: what a ray misses is not seen
    assert chords_of(rod, pose).max() <= 0.66


@pytest.mark.parametrize("pose", POSES)
def test_a_hollow_solid_is_the_outer_less_the_inner_one(pose):
    outline, inner = [(-4, -3), (4, -3), (4, 3), (-4, 3)], [(-3.7, -2.7), (3.7, -2.7), (3.7, 2.7), (-3.7, 2.7)]
    for hollow, outer, hole in (
        (
            lambda b: b.tube((0, 0, 0), "x", 2, 4, 0.3, "polyethylene", cap=0.2),
            lambda b: b.cylinder((0, 0, 0), "x", 2, 4, "polyethylene"),
            lambda b: b.cylinder((0, 0, 0), "x", 1.7, 3.8, "polyethylene"),
        ),
        (
            lambda b: b.hollow_prism(outline, -1, 1, 0.3, "polyethylene"),
            lambda b: b.prism(outline, -1, 1, "polyethylene"),
            lambda b: b.prism(inner, -0.7, 0.7, "polyethylene"),
        ),
    ):
        expected = chords_of(outer, POSES[pose]) - chords_of(hole, POSES[pose])
        assert np.abs(chords_of(hollow, POSES[pose]) - expected).max() < 1e-4


CONVEX = {
    "box": (lambda b: b.box((0, 0, 0), (1, 0.7, 0.5), "polyethylene"),
            lambda x, y, z: (abs(x) <= 1) & (abs(y) <= 0.7) & (abs(z) <= 0.5)),
    "ellipsoid": (lambda b: b.ellipsoid((0, 0, 0), (1, 0.7, 0.5), "polyethylene"),
                  lambda x, y, z: x**2 + (y / 0.7) ** 2 + (z / 0.5) ** 2 <= 1),
    "cylinder": (lambda b: b.cylinder((0, 0, 0), "z", 0.8, 0.6, "polyethylene", radius_2=0.5),
                 lambda x, y, z: ((x / 0.8) ** 2 + (y / 0.5) ** 2 <= 1) & (abs(z) <= 0.6)),
    "cone": (lambda b: b.cone((0, 0, 0), "z", 0.9, 0.3, 0.8, "polyethylene"),
             lambda x, y, z: (np.hypot(x, y) <= 0.6 - 0.375 * z) & (abs(z) <= 0.8)),
    "prism": (lambda b: b.prism([(-1, -0.8), (1, -0.8), (0, 0.8)], -0.5, 0.5, "polyethylene"),
              lambda x, y, z: (y >= -0.8) & (y <= 0.8 - 1.6 * abs(x)) & (abs(z) <= 0.5)),
    "capsule": (lambda b: b.wire([(0, 0, -0.7), (0, 0, 0.7)], 0.4, "polyethylene"),
                lambda x, y, z: x**2 + y**2 + (z - np.clip(z, -0.7, 0.7)) ** 2 <= 0.16),
}  # fmt: skip


@pytest.mark.parametrize("pose", POSES)
@pytest.mark.parametrize("solid", CONVEX)
def test_chords_agree_with_steps_along_many_rays(solid, pose):
    """A pixel's chord lies between the shortest and the longest that rays through the pixel have."""
    build, is_inside = CONVEX[solid]
    size_wh, place = (32, 32), np.array([0.03, 0.04, 12.0])
    width, height = size_wh
    chords = chords_of(build, POSES[pose], size_wh=size_wh, place=place)
    sub = np.linspace(0, 1, 5)
    columns, rows = (np.arange(num)[:, None] + sub for num in (width, height))
    x = (columns.ravel() - width / 2) * PIXEL_CM
    y_per_z = (rows.ravel() - height / 2) * PIXEL_CM / (12 - SOURCE_Z_CM)
    z = np.linspace(-1.6, 1.6, 200) + place[2]
    step_cm = (z[1] - z[0]) * np.hypot(1, y_per_z)
    longest, shortest = np.zeros((2, height, width))
    for row in range(height):
        here = slice(row * 5, row * 5 + 5)
        y = y_per_z[here, None] * (z - SOURCE_Z_CM)
        world = np.stack(np.broadcast_arrays(x[:, None, None], y, z), -1) - place  # columns, rows, steps
        own = world @ POSES[pose]
        lengths = is_inside(*np.moveaxis(own, -1, 0)).sum(-1) * step_cm[here]
        lengths = lengths.reshape(width, -1)
        longest[row], shortest[row] = lengths.max(1), lengths.min(1)
    assert np.all(chords <= longest + 0.05)
    assert np.all(chords >= shortest - 0.05)
    assert longest.max() > 0.75


@given(phi=angles, theta=angles, pitch=angles)
@settings(max_examples=40)
def test_a_shadow_ends_where_the_corners_are_projected_to(phi, theta, pitch):
    half, place, turn = np.array([3.0, 2.0, 1.0]), np.array([1.0, 0.5, 8.0]), turn_of(phi, theta, pitch)
    drawn = chords_of(lambda b: b.box((0, 0, 0), half, "polyethylene"), turn, place=place) > 1e-4
    corners = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)]) * half @ turn.T + place
    columns = corners[:, 0] / PIXEL_CM + SIZE_WH[0] / 2
    rows = corners[:, 1] / (corners[:, 2] - SOURCE_Z_CM) * (12 - SOURCE_Z_CM) / PIXEL_CM + SIZE_WH[1] / 2
    for found, expected in ((drawn.any(0), columns), (drawn.any(1), rows)):
        touched = np.flatnonzero(found)
        assert touched[0] == pytest.approx(expected.min(), abs=1)
        assert touched[-1] + 1 == pytest.approx(expected.max(), abs=1)


def test_twice_as_large_is_eight_times_the_volume():
    def block(b):
        b.box((0, 0, 0), (2, 1.5, 1), "polyethylene")

    assert volume_cm3(block, POSES["tilted"], scale=2.0) == pytest.approx(8 * 24, rel=0.01)


def test_a_stack_of_shells_weighs_what_its_layers_weigh():
    def shells(b):
        with b.part(MODE_STACK):
            for z in (-1.0, 0.0):
                b.prism(rounded_rectangle(10, 8, 0.01), z, z + 1, "polyethylene")
                b.prism(rounded_rectangle(9, 7, 0.01), z, z + 1, "polyethylene", density=-1)

    assert volume_cm3(shells, POSES["flat"]) == pytest.approx(2 * (80 - 63), rel=0.01)


def test_a_bent_wire_is_not_darker_at_its_joints():
    path = [(x, 0.02 * (i % 2), 0) for i, x in enumerate(np.linspace(-5, 5, 40))]
    assert chords_of(lambda b: b.wire(path, 0.4, "polyethylene")).max() <= 0.85


def test_thickness_of_a_plate_is_read_off_anywhere_on_it():
    chords = chords_of(lambda b: b.box((0, 0, 0), (5, 5, 0.25), "polyethylene"), place=(0, 0, 12))
    assert chords[120, 130:190] == pytest.approx(0.5, rel=0.01)
