"""Perturbed scans: deterministic, the identity at strength 0, and boxes that go where the pixels go."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from xray_vqa.core.geometry import Box
from xray_vqa.core.records import ScanRecord
from xray_vqa.evaluation.robustness.perturbations import KINDS, Condition, perturb, perturbed_record
from xray_vqa.simulation.writer import encode_mask


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


def knife_shaped(size_wh: tuple[int, int], at: tuple[int, int], length: int) -> np.ndarray:
    """A thin diagonal, whose upright box holds mostly something else."""
    mask = Image.new("L", size_wh)
    x, y = at
    ImageDraw.Draw(mask).line([(x, y), (x + length, y + length)], fill=255, width=4)
    return np.asarray(mask) > 0


@given(degrees=st.floats(0.5, 179.5), x=st.integers(0, 40), y=st.integers(0, 20), length=st.integers(8, 35))
def test_a_turned_item_has_the_box_of_its_turned_pixels(degrees, x, y, length):
    mask = knife_shaped((90, 60), (x, y), length)
    scan = Image.fromarray(np.where(mask[..., None], 0, 255).astype(np.uint8).repeat(3, axis=2))
    record = record_of(scan, (x, y, length, length)).model_copy(update={"masks": [encode_mask(mask)]})
    moved = perturbed_record(record, Condition("rotation", degrees))
    rows, columns = np.nonzero(np.asarray(perturb(scan, record, Condition("rotation", degrees)))[..., 0] < 128)
    drawn = Box.from_xyxy(columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    (box,) = moved.bboxes
    assert box is not None
    assert np.abs(np.subtract(Box.from_xywh(box).as_xyxy(), drawn.as_xyxy())).max() <= 1


def test_where_a_turned_item_lies_is_unknown_without_its_mask():
    image = scan_of()
    assert perturbed_record(record_of(image), Condition("rotation", 30)).bboxes == [None]
    compressed = record_of(image).model_copy(update={"masks": [{"size": [60, 80], "counts": "abc"}]})
    assert perturbed_record(compressed, Condition("rotation", 30)).bboxes == [None]


@pytest.mark.parametrize("degrees", [90, 180])
def test_a_quarter_turn_moves_a_box_exactly_without_a_mask(degrees):
    pixels = np.full((60, 90, 3), 255, dtype=np.uint8)
    pixels[0:10, 70:90] = 0
    scan = Image.fromarray(pixels)
    record = record_of(scan, (70, 0, 20, 10))
    rows, columns = np.nonzero(np.asarray(perturb(scan, record, Condition("rotation", degrees)))[..., 0] == 0)
    (box,) = perturbed_record(record, Condition("rotation", degrees)).bboxes
    assert box == (columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1)


def test_an_item_without_a_box_keeps_its_label_when_the_scan_turns():
    image = scan_of()
    moved = perturbed_record(record_of(image, None), Condition("rotation", 30))
    assert (moved.categories, moved.bboxes) == (["Knife"], [None])
