"""Chord lengths: the volume of a solid is what comes out, whatever its pose."""

import numpy as np
import pytest

from xray_vqa.simulation.primitives import MODE_STACK, Builder, rotation_x, rotation_y, rotation_z, rounded_rectangle
from xray_vqa.simulation.raster import LineIntegrals
from xray_vqa.simulation.view import open_view

SIZE_WH, PIXEL_CM = (320, 240), 0.1
POSES = {
    "flat": np.eye(3),
    "tilted": rotation_z(0.7) @ rotation_x(0.9) @ rotation_y(0.4),
    "on edge": rotation_x(1.45),
    "mirrored": rotation_z(1.1) @ rotation_x(0.3) @ np.diag([1.0, -1.0, 1.0]),
}
SOLIDS = {
    "box": (lambda b: b.box((0, 0, 0), (4, 3, 2), "polyethylene"), 192.0),
    "ellipsoid": (lambda b: b.ellipsoid((0, 0, 0), (4, 3, 2), "polyethylene"), 4 / 3 * np.pi * 24),
    "cylinder": (lambda b: b.cylinder((0, 0, 0), "x", 2, 4, "polyethylene"), np.pi * 4 * 8),
    "cone": (lambda b: b.cone((0, 0, 0), "x", 2, 1, 4, "polyethylene"), np.pi * 8 / 3 * 7),
    "prism": (lambda b: b.prism([(-4, -3), (4, -3), (0, 3)], -1, 1, "polyethylene"), 48.0),
    "tube": (lambda b: b.tube((0, 0, 0), "x", 2, 4, 0.3, "polyethylene"), np.pi * (4 - 1.7**2) * 8),
}


def volume_cm3(b: Builder, pose: np.ndarray, scale: float = 1.0) -> float:
    integrals, view = LineIntegrals(SIZE_WH), open_view(SIZE_WH, PIXEL_CM)
    integrals.draw(b.finish("solid"), pose, np.array([1.0, 0.5, 12.0]), scale, 1.0, view)
    return float((integrals.polyethylene * view.rays[:, 1:]).sum() * PIXEL_CM**2)


@pytest.mark.parametrize("solid", SOLIDS)
@pytest.mark.parametrize("pose", POSES)
def test_chords_sum_to_the_volume(solid, pose):
    build, expected = SOLIDS[solid]
    builder = Builder(np.random.default_rng(0))
    build(builder)
    assert volume_cm3(builder, POSES[pose]) == pytest.approx(expected, rel=0.02)


def test_twice_as_large_is_eight_times_the_volume():
    builder = Builder(np.random.default_rng(0))
    builder.box((0, 0, 0), (2, 1.5, 1), "polyethylene")
    assert volume_cm3(builder, POSES["tilted"], scale=2.0) == pytest.approx(8 * 24, rel=0.01)


def test_a_stack_of_shells_weighs_what_its_layers_weigh():
    builder = Builder(np.random.default_rng(0))
    with builder.part(MODE_STACK):
        for z in (-1.0, 0.0):
            builder.prism(rounded_rectangle(10, 8, 0.01), z, z + 1, "polyethylene")
            builder.prism(rounded_rectangle(9, 7, 0.01), z, z + 1, "polyethylene", density=-1)
    assert volume_cm3(builder, POSES["flat"]) == pytest.approx(2 * (80 - 63), rel=0.02)


def test_a_bent_wire_is_not_darker_at_its_joints():
    integrals, view = LineIntegrals(SIZE_WH), open_view(SIZE_WH, PIXEL_CM)
    builder = Builder(np.random.default_rng(0))
    builder.wire([(x, 0.02 * (i % 2), 0) for i, x in enumerate(np.linspace(-5, 5, 40))], 0.4, "polyethylene")
    integrals.draw(builder.finish("wire"), np.eye(3), np.array([0, 0, 12.0]), 1.0, 1.0, view)
    assert integrals.polyethylene.max() <= 0.85


def test_thickness_of_a_plate_is_read_off_anywhere_on_it():
    integrals, view = LineIntegrals(SIZE_WH), open_view(SIZE_WH, PIXEL_CM)
    builder = Builder(np.random.default_rng(0))
    builder.box((0, 0, 0), (5, 5, 0.25), "polyethylene")
    integrals.draw(builder.finish("plate"), np.eye(3), np.array([0, 0, 12.0]), 1.0, 1.0, view)
    assert integrals.polyethylene[120, 130:190] == pytest.approx(0.5, rel=0.01)
