import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from xray_vqa.core import workers
from xray_vqa.core.manifest import read_manifest, sha256_file, write_manifest
from xray_vqa.dataset import verify
from xray_vqa.dataset.importers import FORMATS, SourceFolder
from xray_vqa.dataset.importing import import_source
from xray_vqa.dataset.verify import KINDS, verify_dataset
from xray_vqa.dataset.verify_page import write_verify_page
from xray_vqa.errors import ConfigError

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
    leak, conflict = verify_dataset(root).faults
    assert "test/images/000000.png is byte for byte train/images/000001.png" in str(leak)
    assert (leak.kind, leak.images) == ("byte leak", ("test/images/000000.png", "train/images/000001.png"))
    assert "their labels differ: 2 Gun here, nothing there (entry 1)" in str(conflict)


def test_bytes_are_compared_as_they_are_on_disk_not_as_the_records_say(root):
    data = (root / "train/images/000001.png").read_bytes()
    (root / "test/images/000000.png").write_bytes(data)
    assert {fault.kind for fault in verify_dataset(root).faults} == {"bytes", "byte leak", "label conflict"}


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


@pytest.mark.parametrize("name", ["none", "empty", "manifest.json"])
def test_what_is_no_dataset_cannot_be_looked_at(tmp_path, name):
    (tmp_path / "empty").mkdir()
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"no such folder|holds no dataset|Not a directory"):
        verify_dataset(tmp_path / name)


def test_strays_and_hand_edits_are_notices(root, png):
    (root / "train/images/extra.png").write_bytes(png(50))
    change(root, "train", 1, caption="a bag")
    report = verify_dataset(root)
    lines = [str(notice) for notice in report.notices]
    assert report.faults == []
    assert any("1 images stand in no annotation, first extra.png" in line for line in lines)
    assert any("was changed by hand" in line for line in lines)


def kinds(root, **options) -> tuple[set[str], set[str]]:
    report = verify_dataset(root, **options)
    assert {remark.kind for remark in (*report.faults, *report.notices)} <= set(KINDS)
    return {fault.kind for fault in report.faults}, {notice.kind for notice in report.notices}


def look_alike(root, split: str, number: int, of: Path, turn=lambda image: image) -> None:
    """Put a scan that shows what another shows, as other bytes, into a dataset."""
    path = root / f"{split}/images/{number:06d}.png"
    with Image.open(of) as image:
        turn(image.convert("RGB")).save(path, compress_level=1)
    change(root, split, number, sha256=sha256_file(path))


@pytest.fixture
def bags(coco, tmp_path):
    """Eight scans that are smooth enough to have a look: four in train and four in test."""
    rng = np.random.default_rng(0)
    folder = coco([{"name": f"{n}.png", "split": "train" if n < 4 else "test"} for n in range(8)], name="bags")
    for number in range(8):
        small = Image.fromarray(rng.integers(0, 255, (6, 8, 3), dtype=np.uint8))
        small.resize((64, 48), Image.Resampling.BICUBIC).save(folder / f"images/{number}.png")
    import_source(FORMATS["coco"].read(SourceFolder(folder)), tmp_path / "bags-out")
    assert kinds(tmp_path / "bags-out") == (set(), {"class"})
    return tmp_path / "bags-out"


@pytest.mark.parametrize(
    ("turn", "said"),
    [
        (lambda image: image.resize((70, 50)).resize((64, 48)), "looks like train/images/000002.png ("),
        (lambda image: image.point(lambda value: value * 0.8 + 10), "looks like"),
        (lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT), "(mirrored, "),
        (lambda image: image.transpose(Image.Transpose.FLIP_TOP_BOTTOM), "(upside down, "),
        (lambda image: image.transpose(Image.Transpose.ROTATE_180), "(turned by 180 degrees, "),
    ],
)
def test_a_test_scan_that_looks_like_a_training_scan_is_named(bags, turn, said):
    look_alike(bags, "test", 1, bags / "train/images/000002.png", turn)
    report = verify_dataset(bags)
    (leak,) = [notice for notice in report.notices if notice.kind == "near leak"]
    assert report.faults == []
    assert leak.images == ("test/images/000001.png", "train/images/000002.png")
    assert said in leak.message
    assert verify_dataset(bags, strict=True).faults == [leak]
    assert "near leak" not in kinds(bags, near_copies=False)[1]


def test_scans_that_look_alike_are_named_unless_they_share_a_group(bags):
    look_alike(bags, "train", 1, bags / "train/images/000002.png", lambda image: image.rotate(1, fillcolor="white"))
    assert "near copy" in kinds(bags)[1]
    change(bags, "train", 1, group="bag")
    change(bags, "train", 2, group="bag")
    assert "near copy" not in kinds(bags)[1]


def test_copies_with_other_labels_are_a_fault_and_with_other_boxes_a_notice(root):
    (root / "train/images/000001.png").write_bytes((root / "train/images/000000.png").read_bytes())
    entry = json.loads((root / "train/annotations.json").read_text())[0]
    change(root, "train", 1, sha256=entry["sha256"], group=entry["group"])
    assert kinds(root)[0] == {"label conflict"}
    change(root, "train", 1, categories=["Gun"], bboxes=[[5, 5, 20, 10]])
    assert kinds(root) == (set(), {"copy", "box conflict", "class", "edited"})
    assert kinds(root, strict=True)[0] == {"box conflict"}


@pytest.mark.parametrize(
    ("caption", "is_doubted"),
    [
        ("A bag with a pistol under a laptop.", False),
        ("A bag with a gun and a knife.", True),
        ("A bag with a knife.", True),
        ("A bag with a gun and no knife.", False),
        ("A bag.", False),
    ],
)
def test_a_caption_that_speaks_of_another_bag_is_named(root, caption, is_doubted):
    change(root, "train", 0, caption=caption)
    assert ("caption" in kinds(root)[1]) == is_doubted


def test_a_blank_image_is_named(root):
    path = root / "train/images/000001.png"
    Image.new("RGB", (64, 48), (250, 250, 250)).save(path)
    change(root, "train", 1, sha256=sha256_file(path))
    assert "blank" in kinds(root)[1]


def test_classes_without_scans_are_named(root):
    change(root, "test", 0, categories=[], bboxes=[])
    lines = [notice.message for notice in verify_dataset(root).notices if notice.kind == "class"]
    assert lines == ["Gun occurs in train alone", "Knife is annotated and never occurs"]


def test_several_processes_find_what_one_finds(root, monkeypatch):
    monkeypatch.setattr(workers, "MIN_JOBS", 1)
    monkeypatch.setattr(verify, "CHUNK", 1)
    (root / "train/images/000001.png").unlink()
    path = root / "test/images/000000.png"
    path.write_bytes(path.read_bytes()[:-2000])
    assert verify_dataset(root, workers=2).as_json() == verify_dataset(root).as_json()


def test_the_page_draws_the_worst_cases_and_refers_to_nothing_outside(bags, tmp_path):
    look_alike(bags, "test", 1, bags / "train/images/000002.png", lambda image: image.rotate(1))
    change(bags, "train", 0, categories=["Gun"], bboxes=[[50, 40, 100, 20]], caption="<script>alert(1)</script>")
    (bags / "train/images/000003.png").unlink()
    page = write_verify_page(tmp_path / "page.html", verify_dataset(bags)).read_text()
    assert page.count('<svg viewBox="0 0 150 60"') == 1  # the frame grows, so that the box outside is seen
    assert "No such file or directory" in page
    assert "Test scans that look like a training scan" in page
    assert not re.search(r'(?:href|src)="(?!#|data:)', page)
    assert "<script" not in page
