"""Simulated datasets on disk."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra.numpy import array_shapes, arrays

from xray_vqa.core.jsonl import append_jsonl, read_journal
from xray_vqa.core.manifest import read_manifest
from xray_vqa.core.records import ScanRecord
from xray_vqa.core.taxonomy import CATEGORIES
from xray_vqa.dataset.exporters.coco import COCO_NAME, write_coco
from xray_vqa.dataset.layout import read_split
from xray_vqa.errors import ConfigError, DatasetError
from xray_vqa.simulation.profile import load_profile
from xray_vqa.simulation.shapes import BENIGN
from xray_vqa.simulation.writer import PARTIAL_NAME, SynthSettings, decode_mask, encode_mask, write_dataset

SETTINGS = SynthSettings(seed=1, profiles=("stcray-like",), size_wh=(128, 96))
COUNTS = {"train": 8, "test": 4}


def files_under(root):
    return {
        str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file() and p.name != "manifest.json"
    }


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    root = tmp_path_factory.mktemp("synth")
    write_dataset(root, COUNTS, SETTINGS)
    return root


def test_the_dataset_reads_without_faults_and_names_what_it_labels(dataset):
    for split, count in COUNTS.items():
        scans = read_split(dataset, split)
        assert scans.faults == ()
        assert [record.image_id for record in scans.records] == list(range(count))
    manifest = read_manifest(dataset)
    assert manifest.annotated_categories == list(CATEGORIES)
    drawn_anew = {"num_redrawn", "num_missing"}
    assert {name: count for name, count in manifest.counts.items() if name not in drawn_anew} == COUNTS


def test_train_and_test_share_no_image(dataset):
    digests = [record.sha256 for split in COUNTS for record in read_split(dataset, split).records]
    assert len(set(digests)) == len(digests)


def test_two_workers_write_the_same_files_as_one(dataset, tmp_path):
    write_dataset(tmp_path, COUNTS, SETTINGS, workers=2)
    assert files_under(tmp_path) == files_under(dataset)


def test_the_same_command_makes_only_what_is_missing(dataset, tmp_path):
    whole = files_under(dataset)
    write_dataset(tmp_path, COUNTS, SETTINGS)
    records = json.loads((tmp_path / "train/annotations.json").read_text())
    (tmp_path / "train/annotations.json").unlink()
    lines = [json.dumps(record) for record in records[:5]]
    (tmp_path / "train" / PARTIAL_NAME).write_text("\n".join(lines) + '\n{"image_id": 5, "ima')  # killed while writing
    (tmp_path / "train/images/000002.jpg").write_bytes(b"cut off")
    assert write_dataset(tmp_path, COUNTS, SETTINGS) == 4
    assert files_under(tmp_path) == whole
    assert write_dataset(tmp_path, COUNTS, SETTINGS) == 0


def _same_columns(left: float, right: float, other_left: float, other_right: float) -> bool:
    shared = min(right, other_right) - max(left, other_left)
    is_most = shared >= 0.85 * max(right - left, other_right - other_left)
    return is_most and min(abs(left - other_left), abs(right - other_right)) <= 2


def test_a_second_view_is_a_scan_of_its_own_in_the_same_group(tmp_path):
    settings = SETTINGS.model_copy(update={"views": 2, "image_format": "png", "clean_share": 0.0, "masks": True})
    write_dataset(tmp_path, {"train": 4, "test": 0}, settings)
    records = read_split(tmp_path, "train").records
    assert [record.image_id for record in records] == list(range(8))
    for top, side in zip(records[::2], records[1::2], strict=True):
        assert top.group == side.group
        assert top.views == side.views == [top.image_path, side.image_path]
        assert [record.factors["view"] for record in (top, side)] == ["top", "side"]
        assert (tmp_path / side.image_path).read_bytes().startswith(b"\x89PNG")
        assert len(side.categories) <= len(top.categories)
        # Both generators see the bag pass on one belt: a threat takes the same columns in both, but for a thin end.
        for category, (left, _, width, _) in zip(side.categories, side.bboxes, strict=True):
            spans = [b for c, b in zip(top.categories, top.bboxes, strict=True) if c == category]
            assert any(_same_columns(left, left + width, b[0], b[0] + b[2]) for b in spans)
    whole = files_under(tmp_path)
    (tmp_path / records[3].image_path).unlink()
    assert write_dataset(tmp_path, {"train": 4, "test": 0}, settings) == 1
    assert files_under(tmp_path) == whole


def test_a_record_says_what_hides_each_threat_and_how_true_the_declaration_is(tmp_path):
    write_dataset(tmp_path, {"train": 12, "test": 0}, SETTINGS.model_copy(update={"clean_share": 0.0}))
    records = read_split(tmp_path, "train").records
    poses = [(record, pose) for record in records for pose in record.factors["threats"]]
    assert len(poses) == sum(len(record.categories) for record in records) >= 12
    for record, pose in poses:
        assert 0.25 <= pose["visible"] <= 1
        assert pose["concealer"] is None or pose["concealer"] in record.co_items
    for record in records:
        goods = {BENIGN[name].declared_as for name in record.co_items} - {None}
        told, declared = record.factors["declaration"], set(record.declared_items)
        assert told in ("honest", "partial", "fraudulent")
        assert {"honest": declared == goods, "partial": declared <= goods, "fraudulent": bool(declared - goods)}[told]


def test_a_journal_line_that_was_cut_off_is_taken_out(tmp_path):
    write_dataset(tmp_path, COUNTS, SETTINGS)
    record = read_split(tmp_path, "train").records[0]
    journal = tmp_path / "journal.jsonl"
    append_jsonl(journal, [record, record])
    whole = journal.read_bytes()
    journal.write_bytes(whole[:-20])
    assert read_journal(journal, ScanRecord) == [record]
    assert journal.read_bytes() == whole[: len(whole) // 2]
    assert read_journal(tmp_path / "none.jsonl", ScanRecord) == []


def test_more_images_than_file_names_can_number_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="1000000 images at most"):
        write_dataset(tmp_path, {"train": 10**6, "test": 1}, SETTINGS)
    assert list(tmp_path.iterdir()) == []


def test_a_split_in_coco_form_names_the_same_items_and_boxes(dataset):
    coco = json.loads(write_coco(dataset, "train").read_text())
    (dataset / "train" / COCO_NAME).unlink()
    records = read_split(dataset, "train").records
    assert [image["file_name"] for image in coco["images"]] == [f"images/{r.image_filename}" for r in records]
    names = {entry["id"]: entry["name"] for entry in coco["categories"]}
    found = [(item["image_id"], names[item["category_id"]], item["bbox"]) for item in coco["annotations"]]
    assert found == [
        (r.image_id, category, list(box)) for r in records for category, box in zip(r.categories, r.bboxes, strict=True)
    ]


def test_other_settings_need_another_folder(dataset):
    with pytest.raises(DatasetError, match="seed"):
        write_dataset(dataset, COUNTS, SETTINGS.model_copy(update={"seed": 2}))


def test_an_unknown_profile_is_named_with_the_known_ones():
    with pytest.raises(ConfigError, match=r"smiths.*stcray-like"):
        load_profile("smiths")


def test_mask_runs_go_down_the_columns():
    mask = np.array([[0, 1], [1, 1]], bool)
    assert encode_mask(mask) == {"size": [2, 2], "counts": [1, 3]}
    assert encode_mask(~mask) == {"size": [2, 2], "counts": [0, 1, 3]}


@given(arrays(bool, array_shapes(min_dims=2, max_dims=2, max_side=9)))
def test_a_mask_is_read_back_as_it_was_written(mask):
    read = decode_mask(encode_mask(mask))
    assert read is not None
    assert np.array_equal(read, mask)


def test_a_mask_in_another_form_is_none():
    assert decode_mask({"size": [2, 2], "counts": "04"}) is None
    assert decode_mask({"size": [2, 2], "counts": [1, 2]}) is None
