import json

import pytest

from xray_vqa.dataset.importers import SourceFolder, find_importer
from xray_vqa.dataset.importers.labelme import LabelmeImporter, shape_box
from xray_vqa.errors import DatasetError


def READ(folder):
    return LabelmeImporter().read(SourceFolder(folder))


def write(folder, name, shapes, **more):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"version": "5.0", "shapes": shapes, "imagePath": "C:\\scans\\other.png", "imageWidth": 64, **more}
    path.write_text(json.dumps({"imageHeight": 48, **content}))


def shape(label, points, shape_type="rectangle"):
    return {"label": label, "points": points, "shape_type": shape_type, "group_id": None, "flags": {}}


@pytest.fixture
def folder(tmp_path, png):
    for name in ("a", "b"):
        (tmp_path / f"{name}.png").write_bytes(png(ord(name)))
    write(tmp_path, "a.json", [shape("Gun", [[30, 20], [10, 5]]), shape("Knife", [[1, 1], [9, 1], [5, 7]], "polygon")])
    write(tmp_path, "b.json", [])
    return tmp_path


def test_rectangles_and_outlines_become_boxes_whichever_corner_comes_first(folder):
    assert find_importer(SourceFolder(folder)).name == "labelme"
    source = READ(folder)
    assert [(item.label, item.box_xywh) for item in source.scans[0].items] == [
        ("Gun", (10, 5, 20, 15)), ("Knife", (1, 1, 8, 6)),
    ]  # fmt: skip
    assert source.scans[0].size_wh == (64, 48)
    assert any("1 outlines are not imported" in str(notice) for notice in source.notices)


def test_a_file_without_shapes_is_a_clean_bag(folder):
    assert [(scan.original_name, len(scan.items)) for scan in READ(folder).scans] == [("a.png", 2), ("b.png", 0)]


def test_a_parallel_tree_is_paired_by_place(tmp_path, png):
    for number, camera in enumerate("xy"):
        (tmp_path / f"Images/{camera}").mkdir(parents=True)
        (tmp_path / f"Images/{camera}/1.png").write_bytes(png(number))
        write(tmp_path, f"Json_BB/{camera}/1.json", [shape("Gun" if camera == "x" else "Knife", [[1, 1], [9, 9]])])
    assert {scan.original_name: scan.items[0].label for scan in READ(tmp_path).scans} == {
        "Images/x/1.png": "Gun", "Images/y/1.png": "Knife",
    }  # fmt: skip


def test_an_embedded_image_does_not_hide_the_format(folder):
    write(folder, "a.json", [shape("Gun", [[1, 1], [9, 9]])], imageData="A" * 100_000)
    assert find_importer(SourceFolder(folder)).name == "labelme"
    assert len(READ(folder).scans) == 2


def test_a_point_keeps_its_label_and_a_broken_shape_is_named(folder):
    write(folder, "a.json", [shape("Gun", [[1, 1]], "point")])
    write(folder, "b.json", [{"points": [[1, 1], [2, 2]]}, shape("Knife", "x")])
    source = READ(folder)
    assert [[(item.label, item.box_xywh) for item in scan.items] for scan in source.scans] == [[("Gun", None)]]
    lines = "\n".join(map(str, source.faults))
    assert "b.json:0: shape is not readable: label" in lines
    assert "b.json:1: shape is not readable: points" in lines
    assert "image b.png is left out: what cannot be read of it may be a threat" in lines


def test_a_damaged_file_is_named_and_the_rest_is_read(folder):
    (folder / "a.json").write_text('{"shapes": [{"label": "Gun"')
    source = READ(folder)
    assert [scan.original_name for scan in source.scans] == ["b.png"]
    assert "a.json: is no Labelme annotation" in str(source.faults[0])


def test_a_circle_is_its_centre_and_a_point_on_its_edge():
    assert shape_box("circle", [(10, 10), (13, 14)]) == (5, 5, 10, 10)


def test_a_folder_without_labelme_is_said_to_have_none(tmp_path):
    with pytest.raises(DatasetError, match="no Labelme file"):
        READ(tmp_path)
