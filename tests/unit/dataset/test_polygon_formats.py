"""PIXray's outlines, DvXray's two views and PIDray's COCO files."""

import json

import pytest

from xray_vqa.core.records import SPLITS
from xray_vqa.dataset.importers import FORMATS, SourceFolder, find_importer
from xray_vqa.dataset.importers.dvxray import view_box
from xray_vqa.dataset.importing import import_source
from xray_vqa.dataset.layout import annotated_categories, read_split


def place(folder, name, data):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data if isinstance(data, bytes) else json.dumps(data).encode())


def test_outlines_become_boxes_and_folders_name_the_split(tmp_path, png):
    triangle = {"label": "Razor_blade", "polygon": [[5, 5], [25, 5], [15, 20]]}
    for number, folder in enumerate(("train_set", "test_set")):
        place(tmp_path, f"pix/{folder}/{number}.png", png(number))
        place(tmp_path, f"pix/{folder}/{number}.json", {"objects": [triangle]})
    folder = SourceFolder(tmp_path / "pix")
    assert find_importer(folder).name == "cityscapes"
    import_source(FORMATS["cityscapes"].read(folder), tmp_path / "out")
    for split in SPLITS:
        (record,) = read_split(tmp_path / "out", split).records
        assert (record.categories, record.bboxes) == (["Blade"], [(5, 5, 20, 15)])


def test_cityscapes_own_names_are_paired(tmp_path, png):
    place(tmp_path, "leftImg8bit/train/a/x_1_leftImg8bit.png", png(1))
    content = {"imgHeight": 48, "imgWidth": 64, "objects": [{"label": "Gun", "polygon": [[1, 1], [9, 9]]}]}
    place(tmp_path, "gtFine/train/a/x_1_gtFine_polygons.json", content)
    source = FORMATS["cityscapes"].read(SourceFolder(tmp_path))
    assert [(scan.original_name, scan.size_wh, scan.split) for scan in source.scans] == [
        ("leftImg8bit/train/a/x_1_leftImg8bit.png", (64, 48), "train"),
    ]  # fmt: skip


def test_objects_that_are_none_are_named(tmp_path, png):
    place(tmp_path, "a.png", png(1))
    place(tmp_path, "b.png", png(2))
    place(tmp_path, "a.json", {"imgWidth": 64, "objects": [{"label": "Gun", "polygon": []}]})
    place(tmp_path, "b.json", {"imgWidth": 64, "objects": [{"polygon": [[1, 1]]}]})
    source = FORMATS["cityscapes"].read(SourceFolder(tmp_path))
    assert [(item.label, item.box_xywh) for scan in source.scans for item in scan.items] == [("Gun", None)]
    assert "b.json:0: object has no label" in str(source.faults[0])
    assert "image b.png is left out" in str(source.faults[1])


@pytest.fixture
def dvxray(tmp_path, png):
    folder = tmp_path / "dv"
    for bag in ("P1", "N1"):
        for view in ("OL", "SD"):
            place(folder, f"DvXray/{bag}_{view}.png", png(hash((bag, view)) % 2**30))
    gun = {"label": "Gun", "ol_bb": [10, 20, 30, 40], "sd_bb": [1, 2, 11, 12]}
    place(folder, "DvXray/P1.json", {"objects": [gun, {"label": "Dart"}]})
    place(folder, "DvXray/N1.json", {"objects": "None"})
    return folder


def test_two_views_of_a_bag_are_two_scans_of_one_group(dvxray, tmp_path):
    folder = SourceFolder(dvxray)
    assert find_importer(folder).name == "dvxray"
    source = FORMATS["dvxray"].read(folder)
    import_source(source, tmp_path / "out")
    records = {r.original_name: r for split in SPLITS for r in read_split(tmp_path / "out", split).records}
    over, side = records["DvXray/P1_OL.png"], records["DvXray/P1_SD.png"]
    assert (over.group, over.factors, over.bboxes) == ("DvXray/P1", {"view": "overlook"}, [(10, 20, 20, 20), None])
    assert (side.group, side.factors, side.bboxes) == ("DvXray/P1", {"view": "side"}, [(1, 2, 10, 10), None])
    assert records["DvXray/N1_SD.png"].categories == []
    assert "2 items of a view have no box that names the view" in str(source.notices[0])
    assert "Hammer" in annotated_categories(tmp_path / "out")


def test_lists_of_names_are_the_splits_of_a_bag(dvxray):
    place(dvxray, "split/train.txt", b"N1\n")
    place(dvxray, "split/test.txt", b"P1\n")
    source = FORMATS["dvxray"].read(SourceFolder(dvxray))
    assert {(scan.group, scan.split) for scan in source.scans} == {("DvXray/P1", "test"), ("DvXray/N1", "train")}


def test_a_bag_that_lacks_a_view_keeps_the_other(dvxray):
    (dvxray / "DvXray/P1_SD.png").unlink()
    source = FORMATS["dvxray"].read(SourceFolder(dvxray))
    assert "DvXray/P1_OL.png" in {scan.original_name for scan in source.scans}
    assert "P1.json: its side image is missing" in str(source.faults[0])


def test_a_key_names_its_view_in_several_spellings():
    assert view_box({"bbox_side": [1, 2, 3, 5]}, "side") == (1, 2, 2, 3)
    assert view_box({"overlook": {"x": 1}}, "overlook") is None
    assert view_box({"solid": [1, 2, 3, 4]}, "overlook") is None


def test_pidray_keeps_how_hard_a_test_scan_is(tmp_path, png):
    for number, part in enumerate(("train", "test_easy", "test_hidden")):
        name = f"{part}_{number}.png"
        place(tmp_path, f"pid/images/{part.removeprefix('test_')}/{name}", png(number))
        content = {
            "images": [{"id": 0, "file_name": name, "width": 64, "height": 48}],
            "annotations": [{"image_id": 0, "category_id": 11, "bbox": [1, 2, 3, 4]}],
            "categories": [{"id": 11, "name": "HandCuffs"}, {"id": 4, "name": "Powerbank"}],
        }
        place(tmp_path, f"pid/annotations/xray_{part}.json", content)
    folder = SourceFolder(tmp_path / "pid")
    assert find_importer(folder).name == "pidray"
    import_source(FORMATS["pidray"].read(folder), tmp_path / "out")
    assert [r.categories for r in read_split(tmp_path / "out", "train").records] == [["Handcuffs"]]
    assert [r.factors for r in read_split(tmp_path / "out", "test").records] == [
        {"difficulty": "easy"}, {"difficulty": "hidden"},
    ]  # fmt: skip
    assert annotated_categories(tmp_path / "out") == ("Powerbank", "Handcuffs")
