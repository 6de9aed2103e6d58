import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xray_vqa.core.geometry import REGIONS, Box

coordinates = st.floats(-500, 500)
extents = st.floats(0.5, 500)
boxes = st.builds(Box, coordinates, coordinates, extents, extents)


@pytest.mark.parametrize("values", [(0, 0, 0, 5), (0, 0, 5, -1), (math.nan, 0, 5, 5), (0, 0, math.inf, 5)])
def test_a_box_without_area_or_with_no_number_is_refused(values):
    with pytest.raises(ValueError, match="box has"):
        Box(*values)


@pytest.mark.parametrize("values", [[1, 2, 3], [1, 2, 3, 4, 5], []])
def test_a_box_is_four_numbers(values):
    with pytest.raises(ValueError, match="four numbers"):
        Box.from_xywh(values)


def test_corners_and_sizes_say_the_same_box():
    assert Box.from_xyxy(10, 20, 40, 60) == Box(10, 20, 30, 40)
    assert Box(10, 20, 30, 40).as_xyxy() == (10, 20, 40, 60)
    assert (Box(10, 20, 30, 40).area, Box(10, 20, 30, 40).center) == (1200, (25, 40))


def test_iou_by_hand():
    # 10x10 and 10x10, shifted by 5: 50 shared of 150.
    assert Box(0, 0, 10, 10).iou(Box(5, 0, 10, 10)) == pytest.approx(1 / 3)
    assert Box(0, 0, 10, 10).iou(Box(0, 0, 10, 10)) == 1
    assert Box(0, 0, 10, 10).iou(Box(10, 0, 10, 10)) == 0


@given(boxes, boxes)
def test_iou_is_symmetric_and_between_0_and_1(one, other):
    assert one.iou(other) == pytest.approx(other.iou(one))
    assert 0 <= one.iou(other) <= 1 + 1e-9


def test_a_box_is_clipped_to_the_image():
    assert Box(-5, 40, 20, 20).clipped((64, 48)) == Box(0, 40, 15, 8)
    assert Box(4, 4, 8, 8).clipped((64, 48)) == Box(4, 4, 8, 8)


@pytest.mark.parametrize("box", [Box(64, 0, 5, 5), Box(0, 48, 5, 5), Box(-9, 0, 9, 5), Box(200, 200, 5, 5)])
def test_a_box_outside_the_image_is_none(box):
    assert box.clipped((64, 48)) is None


@given(boxes)
def test_a_clipped_box_lies_inside_the_image(box):
    clipped = box.clipped((100, 80))
    if clipped is not None:
        x0, y0, x1, y1 = clipped.as_xyxy()
        assert x0 >= 0
        assert y0 >= 0
        assert x1 <= 100 + 1e-6
        assert y1 <= 80 + 1e-6


def test_scaling_moves_a_box_with_its_image():
    assert Box(10, 20, 30, 40).scaled(2, 0.5) == Box(20, 10, 60, 20)


@pytest.mark.parametrize(
    ("center", "region"),
    [
        ((10, 10), "upper-left"), ((45, 10), "upper-center"), ((80, 10), "upper-right"),
        ((10, 45), "center-left"), ((45, 45), "center"), ((80, 45), "center-right"),
        ((10, 80), "lower-left"), ((45, 80), "lower-center"), ((80, 80), "lower-right"),
    ],
)  # fmt: skip
def test_the_nine_regions_have_their_names(center, region):
    assert Box(center[0] - 1, center[1] - 1, 2, 2).region((90, 90)) == region


def test_a_center_on_a_line_belongs_to_the_right_or_lower_third():
    assert Box(29, 29, 2, 2).region((90, 90)) == "center"


@given(boxes, st.integers(1, 4000), st.integers(1, 4000))
def test_every_box_has_a_region_even_outside_the_image(box, width, height):
    assert box.region((width, height)) in REGIONS
