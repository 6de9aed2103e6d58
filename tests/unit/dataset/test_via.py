import csv
import json

import pytest

from xray_vqa.dataset.importers import SourceFolder, find_importer
from xray_vqa.dataset.importers.via import ViaImporter, region_box, region_label
from xray_vqa.dataset.importing import ImportOptions, import_source
from xray_vqa.dataset.layout import read_split

HEADER = [
    "filename", "file_size", "file_attributes", "region_count", "region_id", "region_shape_attributes",
    "region_attributes",
]  # fmt: skip


def READ(folder):
    return ViaImporter().read(SourceFolder(folder))


def write(folder, rows):
    with (folder / "via_region_data.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(HEADER)
        for name, num_bytes, shape, attributes in rows:
            writer.writerow([name, num_bytes, "{}", 1, 0, json.dumps(shape), json.dumps(attributes)])


def rect(x, y, w, h):
    return {"name": "rect", "x": x, "y": y, "width": w, "height": h}


@pytest.fixture
def folder(tmp_path, png):
    source = tmp_path / "via"
    (source / "images").mkdir(parents=True)
    for number, name in enumerate(("a.png", "b.png")):
        (source / "images" / name).write_bytes(png(number))
    return source


def test_rows_of_an_image_become_its_items(folder):
    num_bytes = (folder / "images/a.png").stat().st_size
    gun, knife = rect(4, 4, 20, 10), {"name": "polygon", "all_points_x": [1, 9, 5], "all_points_y": [2, 2, 8]}
    write(folder, [("a.png", num_bytes, gun, {"name": "gun"}), ("a.png", num_bytes, knife, {"name": "knife"})])
    assert find_importer(SourceFolder(folder)).name == "via"
    (scan,) = READ(folder).scans
    assert [(item.label, item.box_xywh) for item in scan.items] == [("gun", (4, 4, 20, 10)), ("knife", (1, 2, 8, 6))]
    assert scan.frame_doubt == ""


def test_boxes_of_another_size_are_asked_about_and_never_clamped(folder, tmp_path):
    """As found: boxes in pixels of the original, four times as wide and high as the file, of which one lies inside."""
    write(folder, [("a.png", 99_999, rect(160, 80, 80, 40), {"name": "gun"}),
                   ("b.png", 99_999, rect(8, 8, 16, 16), {"name": "knife"})])  # fmt: skip
    report = import_source(READ(folder), tmp_path / "out", ImportOptions(test_share=0))
    assert [record.bboxes for record in read_split(tmp_path / "out", "train").records] == [[None], [None]]
    assert len(report.faults) == 2
    assert "was made for a file of 99,999 bytes" in str(report.faults[0])
    assert "--box-factor 0.25" in str(report.faults[0])
    report = import_source(READ(folder), tmp_path / "out2", ImportOptions(test_share=0, box_factor=0.25))
    boxes = [record.bboxes for record in read_split(tmp_path / "out2", "train").records]
    assert (boxes, report.faults) == ([[(40, 20, 20, 10)], [(2, 2, 4, 4)]], [])


def test_an_image_without_a_region_is_clean_and_named(folder):
    write(folder, [("a.png", 0, {}, {}), ("b.png", 0, rect(1, 1, 9, 9), {"name": "gun"})])
    source = READ(folder)
    assert [(scan.original_name, len(scan.items)) for scan in source.scans] == [
        ("images/a.png", 0),
        ("images/b.png", 1),
    ]
    assert "1 images are listed without a region and taken for clean bags, first images/a.png" in str(source.notices[0])


def test_what_cannot_be_read_is_named(folder):
    write(folder, [("a.png", 0, {"name": "point", "cx": 1, "cy": 2}, {"name": "gun"}),
                   ("b.png", 0, rect(1, 1, 9, 9), {}), ("gone.png", 0, rect(1, 1, 9, 9), {"name": "gun"})])  # fmt: skip
    source = READ(folder)
    assert [(item.label, item.box_xywh) for scan in source.scans for item in scan.items] == [
        ("gun", None), ("(unnamed)", (1, 1, 9, 9)),
    ]  # fmt: skip
    assert "image 'gone.png' is missing" in str(source.faults[0])
    assert "gun has no box" in str(source.notices[0])


def test_circles_and_checkboxes_are_understood():
    assert region_box({"name": "circle", "cx": 10, "cy": 10, "r": 4}) == (6, 6, 8, 8)
    assert region_box({"name": "ellipse", "cx": 10, "cy": 10, "rx": 4, "ry": 2}) == (6, 8, 8, 4)
    assert region_label({"type": {"knife": True}}) == "knife"
    assert region_label({"colour": "red", "shape": "long"}) == ""
