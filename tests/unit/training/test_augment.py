"""Other looks of a scan: what is said about it has to stay true."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from xray_vqa.core.geometry import REGIONS, Box
from xray_vqa.core.records import Annotation
from xray_vqa.training.inputs.augment import (
    MIRRORINGS,
    draw_recolouring,
    mirrored,
    mirrored_scan,
    mirrored_text,
    recolour,
)
from xray_vqa.training.inputs.scans import TrainingScan

SIZE = (300, 240)
boxes = st.builds(Box, st.integers(0, 200), st.integers(0, 150), st.integers(1, 100), st.integers(1, 90))


@given(boxes, st.sampled_from(MIRRORINGS))
def test_mirroring_twice_gives_the_same_box(box, mirroring):
    assert mirrored(mirrored(box, SIZE, mirroring), SIZE, mirroring) == box


@given(boxes, st.sampled_from(MIRRORINGS))
def test_a_region_is_mirrored_as_its_box_is(box, mirroring):
    on_a_line = any(3 * at % extent == 0 for at, extent in zip(box.center, SIZE, strict=True))
    if not on_a_line:  # which belongs to the right or lower third, mirrored or not
        text = mirrored_text(f"In the {box.region(SIZE)}.", mirroring)
        assert text == f"In the {mirrored(box, SIZE, mirroring).region(SIZE)}."


@pytest.mark.parametrize("region", REGIONS)
@pytest.mark.parametrize("mirroring", MIRRORINGS)
def test_a_text_that_is_mirrored_twice_is_the_same(region, mirroring):
    text = f"{region.capitalize()} and the {region}."
    once = mirrored_text(text, mirroring)
    assert once is not None
    assert mirrored_text(once, mirroring) == text


def test_upper_case_stays():
    assert mirrored_text("Upper-left.", (True, True)) == "Lower-right."


@pytest.mark.parametrize("text", ["On the left.", "It lies at the top.", "The leftmost knife.", "Below the laptop."])
def test_a_text_that_speaks_of_places_in_other_words_is_left_out(text):
    assert mirrored_text(text, (True, False)) is None
    assert mirrored_text(text, (False, False)) == text


def test_an_x_ray_is_no_place():
    assert mirrored_text("What does this X-ray show?", (True, True)) == "What does this X-ray show?"


def test_a_mirrored_scan_keeps_what_is_still_true(tmp_path):
    pairs = (("Where is it?", "In the upper-left."), ("Is it on the left?", "Yes."), ("Wo ist sie?", "Oben links."))
    scan = TrainingScan(
        tmp_path, SIZE, (Annotation("Gun", Box(0, 0, 30, 20)), Annotation("Knife", None)), ("Gun", "Knife"), pairs,
        ("en", "en", "de"),
    )  # fmt: skip
    turned = mirrored_scan(scan, (True, False))
    assert turned.annotations == (Annotation("Gun", Box(270, 0, 30, 20)), Annotation("Knife", None))
    assert turned.pairs == (("Where is it?", "In the upper-right."),)
    assert mirrored_scan(scan, (False, False)) is scan


def test_recolouring_keeps_white_and_the_shape():
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (5, 8, 9, 3), generator=generator, dtype=torch.uint8)
    images[:, 0, 0] = 255
    changed = recolour(images, draw_recolouring(5, generator))
    assert changed.shape == images.shape
    assert changed.dtype == torch.uint8
    assert (changed[:, 0, 0] == 255).all()
    assert (changed != images).any()
