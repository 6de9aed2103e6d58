import json

import pytest

from xray_vqa.core.manifest import read_manifest, write_manifest
from xray_vqa.dataset.importers import FORMATS, SourceFolder
from xray_vqa.dataset.importing import import_source
from xray_vqa.dataset.verify import verify_dataset

GUN = [("Gun", [4, 4, 20, 10])]


@pytest.fixture
def root(coco, tmp_path):
    scans = [
        {"name": "a.png", "split": "train", "group": "bag-1", "boxes": GUN},
        {"name": "b.png", "split": "train", "group": "bag-2"},
        {"name": "c.png", "split": "test", "group": "bag-3", "boxes": GUN + GUN},
    ]
    import_source(FORMATS["coco"].read(SourceFolder(coco(scans))), tmp_path / "out")
    assert verify_dataset(tmp_path / "out").faults == []
    return tmp_path / "out"


def change(root, split, index, **values):
    path = root / split / "annotations.json"
    entries = json.loads(path.read_text())
    entries[index] |= values
    path.write_text(json.dumps(entries))


def faults(root) -> list[str]:
    return [str(fault) for fault in verify_dataset(root).faults]


def test_a_sound_dataset_is_counted(root):
    report = verify_dataset(root)
    train, test = report.splits["train"], report.splits["test"]
    assert (train.scans, train.clean, train.items, train.groups, train.categories) == (2, 1, 1, 2, {"Gun": 1})
    assert (test.scans, test.clean, test.items, test.boxes, test.categories) == (1, 0, 2, 2, {"Gun": 2})
    assert report.annotated == ("Gun", "Knife")


def test_a_missing_image_is_named_by_file_and_index(root):
    (root / "train/images/000001.png").unlink()
    (line,) = faults(root)
    assert "train/annotations.json:1: image train/images/000001.png cannot be read" in line


def test_other_bytes_are_noticed(root, png):
    (root / "train/images/000000.png").write_bytes(png(99))
    (line,) = faults(root)
    assert "train/annotations.json:0:" in line
    assert "other bytes than its sha256 says" in line


def test_a_cut_image_is_noticed_even_without_a_digest(root):
    path = root / "test/images/000000.png"
    path.write_bytes(path.read_bytes()[:-2000])
    change(root, "test", 0, sha256="")
    (line,) = faults(root)
    assert "cut off or damaged" in line


def test_another_size_is_noticed(root):
    change(root, "train", 0, width=640)
    assert "is 64x48, not 640x48" in faults(root)[0]


def test_a_box_outside_is_noticed(root):
    change(root, "test", 0, bboxes=[[60, 4, 20, 10], [4, 4, 20, 10]])
    (line,) = faults(root)
    assert "test/annotations.json:0: Gun box [60.0, 4.0, 20.0, 10.0] lies outside the 64x48 image" in line


def test_indices_count_the_entries_that_cannot_be_read(root):
    change(root, "train", 0, categories=["Gun", "Gun"])
    (root / "train/images/000001.png").unlink()
    first, second = faults(root)
    assert "train/annotations.json:0: record: Value error, 2 categories but 1 bboxes" in first
    assert "train/annotations.json:1:" in second


def test_the_same_group_on_both_sides_is_a_fault(root):
    change(root, "test", 0, group="bag-2")
    (line,) = faults(root)
    assert "test/annotations.json:0: group 'bag-2' stands on both sides" in line
    assert "train/annotations.json:1" in line


def test_the_same_bytes_on_both_sides_are_a_fault(root):
    data = (root / "train/images/000001.png").read_bytes()
    (root / "test/images/000000.png").write_bytes(data)
    change(root, "test", 0, sha256=json.loads((root / "train/annotations.json").read_text())[1]["sha256"])
    (line,) = faults(root)
    assert "test/images/000000.png is byte for byte train/images/000001.png" in line


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"image_id": 0}, "image_id 0 is also that of entry 0"),
        ({"image_path": "train/images/000000.png"}, "is also that of entry 0"),
        ({"image_path": "../../etc/passwd"}, "leaves the dataset"),
        ({"image_path": "test/images/000000.png"}, "is not train/images/000001.png"),
    ],
)
def test_entries_that_are_mixed_up_are_named(root, values, said):
    change(root, "train", 1, **values)
    assert any(said in line and "train/annotations.json:1:" in line for line in faults(root))


def test_a_manifest_without_annotated_categories_is_a_fault(root):
    manifest = read_manifest(root)
    write_manifest(root, manifest.model_copy(update={"annotated_categories": None}))
    (line,) = faults(root)
    assert "does not name annotated_categories" in line


def test_a_label_outside_the_annotated_categories_is_a_fault(root):
    write_manifest(root, read_manifest(root).model_copy(update={"annotated_categories": ["Knife"]}))
    assert sum("Gun is labelled but not among" in line for line in faults(root)) == 2


def test_missing_parts_are_named_and_the_rest_is_checked(root):
    (root / "manifest.json").unlink()
    (root / "test/annotations.json").unlink()
    (root / "train/images/000001.png").unlink()
    assert len(faults(root)) == 3


def test_a_folder_that_is_not_there_is_a_fault(tmp_path):
    assert "no such folder" in faults(tmp_path / "none")[0]


def test_strays_and_hand_edits_are_notices(root, png):
    (root / "train/images/extra.png").write_bytes(png(50))
    change(root, "train", 1, caption="a bag")
    report = verify_dataset(root)
    lines = [str(notice) for notice in report.notices]
    assert report.faults == []
    assert any("1 images stand in no annotation, first extra.png" in line for line in lines)
    assert any("was changed by hand" in line for line in lines)
