"""Perturbed scans: deterministic, the identity at strength 0, and boxes that go where the pixels go."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from xray_vqa.core.geometry import Box
from xray_vqa.core.records import ScanRecord
from xray_vqa.evaluation.robustness.perturbations import KINDS, Condition, moved_box, perturb, perturbed_record


def record_of(image: Image.Image, box: tuple[float, float, float, float] | None = (10, 12, 20, 8)) -> ScanRecord:
    return ScanRecord(
        image_id=0, image_filename="0.png", image_path="test/images/0.png", width=image.width, height=image.height,
        categories=["Knife"], bboxes=[box],
    )  # fmt: skip


def scan_of(width: int = 80, height: int = 60) -> Image.Image:
    return Image.fromarray(np.random.default_rng(1).integers(0, 255, (height, width, 3), dtype=np.uint8))


def grey(record: ScanRecord, image: Image.Image) -> Image.Image:
    return Image.new("RGB", image.size, (128, 128, 128))


@pytest.mark.parametrize("kind", KINDS)
def test_strength_zero_is_the_scan_itself_and_its_own_record(kind):
    image = scan_of()
    record = record_of(image)
    assert perturb(image, record, Condition(kind, 0), other_look=grey) is image
    assert perturbed_record(record, Condition(kind, 0)) == record


@pytest.mark.parametrize("kind", KINDS)
def test_a_condition_gives_the_same_pixels_again_and_the_size_that_its_record_says(kind):
    image = scan_of()
    record = record_of(image)
    condition = Condition(kind, KINDS[kind].strengths[1])
    moved = perturbed_record(record, condition)
    once, again = (perturb(image, moved, condition, seed=3, other_look=grey) for _ in range(2))
    assert np.array_equal(np.asarray(once), np.asarray(again))
    assert not np.array_equal(np.asarray(once), np.asarray(image))
    assert once.size == moved.size_wh


def test_noise_and_patches_differ_by_seed_and_by_scan():
    image = scan_of()
    record = record_of(image)
    other = record.model_copy(update={"image_path": "test/images/1.png"})
    for kind in ("noise", "occlusion"):
        condition = Condition(kind, KINDS[kind].strengths[-1])
        seen = [perturb(image, one, condition, seed) for one, seed in ((record, 0), (record, 1), (other, 0))]
        assert len({one.tobytes() for one in seen}) == 3


@given(share=st.sampled_from([0.05, 0.1, 0.2, 0.4, 0.8]), seed=st.integers(0, 20))
def test_patches_cover_the_share_that_is_asked_for(share, seed):
    white = Image.new("RGB", (120, 90), "white")
    covered = np.asarray(perturb(white, record_of(white), Condition("occlusion", share), seed)).max(axis=-1) < 255
    assert covered.mean() == pytest.approx(share, abs=0.03)


def test_a_hue_turn_leaves_grey_as_it_is_and_a_full_half_turn_makes_orange_blue():
    image = Image.new("RGB", (40, 40), (128, 128, 128))
    assert np.abs(np.asarray(perturb(image, record_of(image), Condition("hue", 90))).astype(int) - 128).max() <= 1
    orange = Image.new("RGB", (40, 40), (200, 140, 80))
    red, _, blue = perturb(orange, record_of(orange), Condition("hue", 180)).getpixel((5, 5))
    assert blue > red


@given(
    degrees=st.floats(0.5, 180),
    x=st.integers(0, 60), y=st.integers(0, 40), w=st.integers(6, 30), h=st.integers(6, 20), seed=st.integers(0, 99),
)  # fmt: skip
def test_a_turned_box_encloses_the_turned_mask(degrees, x, y, w, h, seed):
    # Pillow turns the mask; the box is moved by our own arithmetic.
    rng = np.random.default_rng(seed)
    mask = np.zeros((60, 90), dtype=np.uint8)
    mask[y : y + h, x : x + w] = 255 * (rng.random((h, w)) < 0.5)
    mask[y + h // 2, x + w // 2] = 255
    turned = np.asarray(Image.fromarray(mask).rotate(degrees, Image.Resampling.NEAREST, expand=True)) > 0
    box = moved_box(Box(x, y, w, h), (90, 60), Condition("rotation", degrees))
    rows, columns = np.nonzero(turned)
    if len(rows):
        x0, y0, x1, y1 = box.as_xyxy()
        assert x0 - 1 <= columns.min()
        assert columns.max() <= x1
        assert y0 - 1 <= rows.min()
        assert rows.max() <= y1


def test_a_quarter_turn_moves_a_box_exactly():
    # Counter-clockwise: the upper right corner of a 90x60 scan becomes the upper left one of a 60x90 scan.
    assert moved_box(Box(70, 0, 20, 10), (90, 60), Condition("rotation", 90)).as_xywh() == (0, 0, 10, 20)


def test_an_item_without_a_box_keeps_its_label_when_the_scan_turns():
    image = scan_of()
    moved = perturbed_record(record_of(image, None), Condition("rotation", 30))
    assert (moved.categories, moved.bboxes) == (["Knife"], [None])
