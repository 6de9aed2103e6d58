import json

import pytest

from xray_vqa.dataset.importers.coco import CocoImporter
from xray_vqa.dataset.importers.source import SourceFolder
from xray_vqa.errors import DatasetError


def READ(folder):
    return CocoImporter().read(SourceFolder(folder))


def write(folder, name, images, annotations=(), categories=({"id": 1, "name": "Gun"},)):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"images": list(images), "annotations": list(annotations), "categories": list(categories)}
    path.write_text(json.dumps(content))


def place(folder, name, data):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def test_split_comes_from_the_file_name_when_images_do_not_say(tmp_path, png):
    for word in ("train", "val"):
        place(tmp_path, f"{word}2017/{word}.png", png(1))
        write(tmp_path, f"annotations/instances_{word}2017.json", [{"id": 1, "file_name": f"{word}.png"}])
    assert {scan.original_name: scan.split for scan in READ(tmp_path).scans} == {
        "train2017/train.png": "train", "val2017/val.png": "val",
    }  # fmt: skip


def test_split_comes_from_the_folder_as_roboflow_writes_it(tmp_path, png):
    for word in ("train", "valid"):
        place(tmp_path, f"{word}/same_name.png", png(1))
        write(tmp_path, f"{word}/_annotations.coco.json", [{"id": 0, "file_name": "same_name.png"}])
    assert {scan.original_name: scan.split for scan in READ(tmp_path).scans} == {
        "train/same_name.png": "train", "valid/same_name.png": "val",
    }  # fmt: skip


def test_a_name_that_stands_in_two_folders_is_found_by_the_files_split(tmp_path, png):
    for word in ("train", "test"):
        place(tmp_path, f"images/{word}/0.png", png(1))
        write(tmp_path, f"annotations/xray_{word}.json", [{"id": 0, "file_name": "0.png"}])
    assert [scan.original_name for scan in READ(tmp_path).scans] == ["images/test/0.png", "images/train/0.png"]


def test_an_ambiguous_name_is_a_fault_and_not_a_guess(tmp_path, png):
    place(tmp_path, "a/0.png", png(1))
    place(tmp_path, "b/0.png", png(2))
    write(tmp_path, "annotations.json", [{"id": 0, "file_name": "0.png"}])
    source = READ(tmp_path)
    assert source.scans == ()
    assert "annotations.json:0: image '0.png' is ambiguous, 2 files" in str(source.faults[0])


@pytest.mark.parametrize("name", ["../secret.png", "/etc/secret.png", "C:\\scans\\secret.png"])
def test_a_name_that_leaves_the_folder_is_not_followed(tmp_path, png, name):
    place(tmp_path, "secret.png", png(1))
    write(tmp_path / "source", "annotations.json", [{"id": 0, "file_name": name}])
    assert READ(tmp_path / "source").scans == ()
    place(tmp_path, "source/images/secret.png", png(2))
    assert [scan.original_name for scan in READ(tmp_path / "source").scans] == ["images/secret.png"]


def test_broken_entries_are_named_by_list_and_index(tmp_path, png):
    place(tmp_path, "a.png", png(1))
    place(tmp_path, "unread.png", png(2))
    write(
        tmp_path, "c.json",
        [
            {"id": 0, "file_name": "a.png"}, {"file_name": "b.png"}, {"id": 0, "file_name": "a.png"},
            {"id": 5, "file_name": "unread.png"},
        ],
        [
            {"image_id": 0, "category_id": 1, "bbox": [1, 1, 5, 5]},
            {"image_id": 5, "bbox": [1, 1, 5, 5]},
            {"image_id": 99, "category_id": 1, "bbox": [1, 1, 5, 5]},
            {"image_id": 0, "category_id": 7, "bbox": [1, 1, 5, 5]},
        ],
    )  # fmt: skip
    source = READ(tmp_path)
    lines = "\n".join(map(str, source.faults))
    assert "c.json:1: images entry is not readable: id: Field required" in lines
    assert "c.json:2: images entry repeats the id 0" in lines
    assert "c.json:1: annotations entry is not readable: category_id" in lines
    assert "c.json:2: annotation is of image 99" in lines
    assert "c.json:3: annotation has category 7" in lines
    assert [[item.label for item in scan.items] for scan in source.scans] == [["Gun", "category 7"]]
    assert "image unread.png is left out: what cannot be read of it may be a threat" in lines


def test_images_that_no_file_mentions_are_counted(tmp_path, png):
    for name in ("a.png", "b.png", "._a.png"):
        place(tmp_path, name, png(1))
    write(tmp_path, "c.json", [{"id": 0, "file_name": "a.png"}])
    assert "1 images stand in no COCO file and are left out, first b.png" in str(READ(tmp_path).notices[0])


def test_masks_are_kept_and_polygons_are_said_to_be_left_out(tmp_path, png):
    place(tmp_path, "a.png", png(1))
    mask = {"size": [48, 64], "counts": [0, 3072]}
    boxed = {"image_id": 0, "category_id": 1, "bbox": [1, 1, 5, 5]}
    write(
        tmp_path, "c.json", [{"id": 0, "file_name": "a.png"}],
        [{**boxed, "segmentation": mask}, {**boxed, "segmentation": [[1, 1, 5, 5, 1, 5]]}],
    )  # fmt: skip
    source = READ(tmp_path)
    assert [item.mask for item in source.scans[0].items] == [mask, None]
    assert "1 polygon outlines are not imported" in str(source.notices[0])


def test_an_image_in_two_files_is_taken_once_and_named(tmp_path, png):
    place(tmp_path, "a.png", png(1))
    for name in ("one.json", "two.json"):
        write(tmp_path, name, [{"id": 0, "file_name": "a.png"}])
    source = READ(tmp_path)
    assert len(source.scans) == 1
    assert "two.json:0: image a.png is annotated before at" in str(source.faults[0])


def test_a_folder_without_coco_is_said_to_have_none(tmp_path):
    (tmp_path / "list.json").write_text("[]")
    with pytest.raises(DatasetError, match="no COCO file"):
        READ(tmp_path)
    assert not CocoImporter().recognises(SourceFolder(tmp_path))


def test_a_coco_file_that_was_cut_off_is_named(tmp_path):
    write(tmp_path, "c.json", [{"id": 0, "file_name": "a.png"}])
    text = (tmp_path / "c.json").read_text()
    (tmp_path / "c.json").write_text(text[:-5])
    with pytest.raises(DatasetError, match=r"c\.json: not JSON"):
        READ(tmp_path)
