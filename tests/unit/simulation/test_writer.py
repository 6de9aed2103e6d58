"""Simulated datasets on disk."""

import json

import numpy as np
import pytest

from xray_vqa.core.manifest import read_manifest
from xray_vqa.core.taxonomy import CATEGORIES
from xray_vqa.dataset.layout import read_split
from xray_vqa.errors import ConfigError, DatasetError
from xray_vqa.simulation.profile import load_profile
from xray_vqa.simulation.writer import PARTIAL_NAME, SynthSettings, encode_mask, write_dataset

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
    assert manifest.counts == COUNTS


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
