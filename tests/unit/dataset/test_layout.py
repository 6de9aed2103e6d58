import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xray_vqa.core.manifest import make_manifest, write_manifest
from xray_vqa.core.records import ScanRecord
from xray_vqa.dataset.layout import (
    annotated_categories,
    read_split,
    split_development,
    store_image,
    write_split,
)
from xray_vqa.errors import DatasetError, ImageUnreadable


def make_record(number: int, group: str = "", **values) -> ScanRecord:
    name = f"{number:06d}.png"
    values = {"categories": ["Gun"], "bboxes": [(1, 2, 3, 4)]} | values
    return ScanRecord(
        image_id=number,
        image_filename=name,
        image_path=f"train/images/{name}",
        width=64,
        height=48,
        group=group,
        **values,
    )


def test_what_is_written_is_read_back(tmp_path):
    records = (make_record(0), make_record(1, "bag", categories=[], bboxes=[], factors={"clutter_level": 3}))
    write_split(tmp_path, "train", records)
    scans = read_split(tmp_path, "train")
    assert (scans.records, scans.faults, scans.positions) == (records, (), (0, 1))


def test_a_broken_entry_is_a_fault_and_the_rest_is_read(tmp_path):
    write_split(tmp_path, "train", [make_record(0), make_record(1), make_record(2)])
    path = tmp_path / "train/annotations.json"
    entries = json.loads(path.read_text())
    entries[1]["categories"] = ["Gnu"]
    path.write_text(json.dumps(entries))
    scans = read_split(tmp_path, "train")
    assert ([r.image_id for r in scans.records], scans.positions) == ([0, 2], (0, 2))
    assert "annotations.json:1: record: Value error, unknown categories ['Gnu']" in str(scans.faults[0])


def test_an_image_path_that_leaves_the_dataset_is_left_out(tmp_path):
    write_split(tmp_path, "train", [make_record(0).model_copy(update={"image_path": "train/../../secret.png"})])
    scans = read_split(tmp_path, "train")
    assert scans.records == ()
    assert "leaves the dataset" in str(scans.faults[0])


@pytest.mark.parametrize(("text", "said"), [("{}", "expected a JSON list"), ("[{", "not JSON")])
def test_a_file_that_is_no_list_is_an_error(tmp_path, text, said):
    (tmp_path / "train").mkdir()
    (tmp_path / "train/annotations.json").write_text(text)
    with pytest.raises(DatasetError, match=said):
        read_split(tmp_path, "train")


def test_a_missing_split_says_how_to_make_one(tmp_path):
    with pytest.raises(DatasetError, match="xray-vqa data synth"):
        read_split(tmp_path, "test")


def test_an_image_is_stored_unchanged_and_only_once(tmp_path, png):
    relative, size_wh = store_image(tmp_path, "test", 7, png(1))
    path = tmp_path / relative
    assert (relative, size_wh, path.read_bytes()) == ("test/images/000007.png", (64, 48), png(1))
    inode = path.stat().st_ino
    store_image(tmp_path, "test", 7, png(1))
    assert path.stat().st_ino == inode
    store_image(tmp_path, "test", 7, png(2))
    assert path.read_bytes() == png(2)


def test_what_is_no_image_is_not_stored(tmp_path):
    with pytest.raises(ImageUnreadable):
        store_image(tmp_path, "test", 0, b"%PDF-1.7")
    assert not (tmp_path / "test").exists()


def test_an_image_is_read_as_rgb(tmp_path, png):
    store_image(tmp_path, "train", 0, png(1))
    write_split(tmp_path, "train", [make_record(0)])
    scans = read_split(tmp_path, "train")
    image = scans.image(scans.records[0])
    assert (image.mode, image.size) == ("RGB", (64, 48))


def test_annotated_categories_come_in_the_taxonomys_order(tmp_path):
    write_manifest(tmp_path, make_manifest("synth", annotated_categories=["Knife", "Gun"]))
    assert annotated_categories(tmp_path) == ("Gun", "Knife")


def test_unnamed_or_unknown_annotated_categories_are_an_error(tmp_path):
    write_manifest(tmp_path, make_manifest("synth"))
    with pytest.raises(DatasetError, match="absence cannot be told from silence"):
        annotated_categories(tmp_path)
    write_manifest(tmp_path, make_manifest("synth", annotated_categories=["Gnu"]))
    with pytest.raises(DatasetError, match="Gnu"):
        annotated_categories(tmp_path)


@given(st.lists(st.sampled_from(["", *"abcdefgh"]), max_size=40), st.floats(0, 0.9), st.integers(0, 3))
def test_the_development_split_never_cuts_a_group(groups, share, seed):
    records = [make_record(number, group) for number, group in enumerate(groups)]
    training, development = split_development(records, share, seed)
    assert sorted(r.image_id for r in [*training, *development]) == list(range(len(groups)))
    assert not ({r.group for r in training} & {r.group for r in development}) - {""}
    assert training or not records


def test_the_development_split_holds_about_its_share():
    records = [make_record(number) for number in range(200)]
    training, development = split_development(records)
    assert (len(training), len(development)) == (180, 20)
    assert [r.image_id for r in development] != list(range(20))


def test_other_scans_hardly_move_the_development_split():
    records = [make_record(number) for number in range(200)]
    before = {r.image_id for r in split_development(records)[1]}
    after = {r.image_id for r in split_development(records[:-20])[1]}
    assert len(before & after) >= 16
