import io
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageOps

from xray_vqa.core.geometry import Box
from xray_vqa.core.images import check_image
from xray_vqa.dataset.frames import farthest, find_frames, turned_back
from xray_vqa.dataset.importers.source import Source, SourceItem, SourceScan
from xray_vqa.dataset.importing import ImportOptions, import_source
from xray_vqa.dataset.layout import read_split


def scan(*boxes, **details):
    items = tuple(SourceItem("Gun", box) for box in boxes)
    return SourceScan(Path("a.png"), "a.png", Path("a.json"), items=items, **details)


def jpeg(orientation: int, size_wh=(64, 48)) -> tuple[bytes, Image.Image]:
    """A grey scan with one dark rectangle, x 40..55, y 4..11 as stored, and an EXIF tag."""
    pixels = np.full((size_wh[1], size_wh[0], 3), 230, np.uint8)
    pixels[4:12, 40:56] = 10
    image = Image.fromarray(pixels)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=100, subsampling=0, exif=exif)
    return stream.getvalue(), Image.open(io.BytesIO(stream.getvalue()))


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_a_box_drawn_on_the_turned_picture_lands_on_the_same_pixels(orientation):
    data, stored = jpeg(orientation)
    assert check_image(data).orientation == orientation
    shown = np.asarray(ImageOps.exif_transpose(stored).convert("L")) < 100
    rows, columns = np.flatnonzero(shown.any(axis=1)), np.flatnonzero(shown.any(axis=0))
    drawn = Box.from_xyxy(columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
    assert turned_back(drawn, orientation, (64, 48)).as_xywh() == (40, 4, 16, 8)


def bring_in(tmp_path, data: bytes, box, size_wh, **options):
    path = tmp_path / "source/a.jpg"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    item = SourceScan(path, "a.jpg", path, (SourceItem("Gun", box),), split="train", size_wh=size_wh)
    report = import_source(Source("test", path.parent, (item,), ("Gun",)), tmp_path / "out", ImportOptions(**options))
    (record,) = read_split(tmp_path / "out", "train").records
    assert (tmp_path / "out" / record.image_path).read_bytes() == data
    return record, report


def test_an_annotation_of_the_turned_size_is_turned_back_and_said(tmp_path):
    record, report = bring_in(tmp_path, jpeg(6)[0], (36, 40, 8, 16), (48, 64))
    assert (record.size_wh, record.bboxes) == ((64, 48), [(40, 4, 16, 8)])
    assert any("its boxes are turned back" in str(notice) for notice in report.notices)


def test_an_annotation_of_the_stored_size_is_taken_as_it_stands(tmp_path):
    record, report = bring_in(tmp_path, jpeg(6)[0], (40, 4, 16, 8), (64, 48))
    assert (record.bboxes, report.faults) == ([(40, 4, 16, 8)], [])


@pytest.mark.parametrize(("orientation", "size_wh"), [(3, (64, 48)), (6, None), (2, (64, 48)), (6, (480, 640))])
def test_where_nothing_tells_how_it_was_shown_the_label_stays_without_a_box(tmp_path, orientation, size_wh):
    record, report = bring_in(tmp_path, jpeg(orientation)[0], (40, 4, 16, 8), size_wh, scale_boxes=True)
    assert (record.categories, record.bboxes) == (["Gun"], [None])
    assert f"EXIF tag (orientation {orientation})" in str(report.faults[0])


def test_an_orientation_tag_that_means_nothing_changes_nothing(tmp_path):
    record, report = bring_in(tmp_path, jpeg(1)[0], (40, 4, 16, 8), None)
    assert (record.bboxes, report.faults) == ([(40, 4, 16, 8)], [])
    assert check_image(jpeg(77)[0]).orientation == 1


def test_one_box_far_outside_is_refused_and_its_scan_asked_about():
    frames = find_frames([(scan((40, 40, 80, 40)), (64, 48))], scale_boxes=False, factor=None)
    frame = frames.of(scan((40, 40, 80, 40)), (64, 48), 1)
    assert frame.scale is None
    assert "boxes that end at 1.88 times its size" in frame.message
    assert "--box-factor 0.5" in frame.message


def test_a_scan_whose_boxes_fit_is_not_trusted_where_those_of_its_kind_do_not():
    small, large = scan((1, 1, 9, 9)), scan((100, 100, 100, 80))
    frames = find_frames([(small, (64, 48)), (large, (64, 48))], scale_boxes=False, factor=None)
    assert frames.of(small, (64, 48), 1).scale is None
    many = [(small, (64, 48))] * 100 + [(large, (64, 48))]
    frames = find_frames(many, scale_boxes=False, factor=None)
    assert frames.of(small, (64, 48), 1).scale == (1.0, 1.0)
    assert frames.of(large, (64, 48), 1).scale is None


def test_a_stated_size_is_not_multiplied_by_a_factor_for_unstated_ones():
    stated = scan((1, 1, 9, 9), size_wh=(64, 48))
    frames = find_frames([(stated, (64, 48))], scale_boxes=False, factor=0.25)
    assert frames.of(stated, (64, 48), 1).message == ""
    assert frames.of(scan((4, 4, 8, 8)), (64, 48), 1).place(Box(4, 4, 8, 8), (64, 48)) == Box(1, 1, 2, 2)


def test_boxes_without_numbers_reach_nowhere():
    assert farthest(scan(None, (float("nan"), 1, 2, 3)), (64, 48)) == 0.0


def test_an_image_that_lies_on_its_side_without_a_tag_is_not_squeezed():
    lying = scan((1, 1, 9, 9), size_wh=(48, 64))
    frame = find_frames([(lying, (64, 48))], scale_boxes=True, factor=None).of(lying, (64, 48), 1)
    assert frame.scale is None
    assert "this image on its side" in frame.message
