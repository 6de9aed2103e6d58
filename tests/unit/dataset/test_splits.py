import json

import numpy as np
import pytest
from PIL import Image

from xray_vqa.cli.main import main
from xray_vqa.core.manifest import sha256_file
from xray_vqa.dataset.importers import FORMATS, SourceFolder
from xray_vqa.dataset.importing import import_source
from xray_vqa.dataset.layout import read_split
from xray_vqa.dataset.splits import SplitOptions, divide, split_dataset
from xray_vqa.dataset.verify import verify_dataset
from xray_vqa.errors import ConfigError, DatasetError

GUN = ("Gun", [4, 4, 20, 10])
KNIFE = ("Knife", [8, 8, 12, 12])


@pytest.fixture
def dataset(coco, tmp_path):
    """60 scans in 30 bags of two: a third with a gun, a sixth with a knife, the rest clean; all of them in train."""
    boxes = ([GUN], [GUN], [KNIFE], [], [], [])
    scans = [
        {"name": f"{n:02d}.png", "group": f"bag-{n // 2}", "split": "train", "boxes": boxes[n // 2 % 6]}
        for n in range(60)
    ]
    import_source(FORMATS["coco"].read(SourceFolder(coco(scans))), tmp_path / "dataset")
    return tmp_path / "dataset"


def everything(root):
    return {record.sha256: (split, record) for split in ("train", "test") for record in read_split(root, split).records}


def test_groups_stay_whole_and_every_category_is_on_both_sides(dataset, tmp_path):
    report = split_dataset(dataset, tmp_path / "out", SplitOptions(test_share=0.2))
    assert report.counts == {"train": 48, "test": 12}
    assert report.strata == {
        "Gun": {"train": 16, "test": 4},
        "Knife": {"train": 8, "test": 2},
        "clean": {"train": 24, "test": 6},
    }
    sides = {}
    for split, record in everything(tmp_path / "out").values():
        assert sides.setdefault(record.group, split) == split
    assert verify_dataset(tmp_path / "out").faults == []


def test_nothing_but_numbers_and_places_changes(dataset, tmp_path):
    split_dataset(dataset, tmp_path / "out")
    before, after = everything(dataset), everything(tmp_path / "out")
    assert before.keys() == after.keys()
    for digest, (_, record) in after.items():
        old = before[digest][1]
        moved = {"image_id", "image_filename", "image_path"}
        assert record.model_dump(exclude=moved) == old.model_dump(exclude=moved)
        assert sha256_file(tmp_path / "out" / record.image_path) == digest


def test_the_same_seed_gives_the_same_files_and_another_seed_others(dataset, tmp_path):
    for name, seed in (("one", 0), ("two", 0), ("other", 1)):
        split_dataset(dataset, tmp_path / name, SplitOptions(seed=seed))
    one, two, other = (tmp_path / name / "test/annotations.json" for name in ("one", "two", "other"))
    assert one.read_bytes() == two.read_bytes() != other.read_bytes()


def test_repeating_and_dividing_again_in_place_leaves_no_old_image(dataset, tmp_path):
    split_dataset(dataset, tmp_path / "out", SplitOptions(test_share=0.5))
    split_dataset(dataset, tmp_path / "out", SplitOptions(test_share=0.2))
    report = verify_dataset(tmp_path / "out")
    assert (report.splits["test"].scans, report.faults) == (12, [])
    assert not [notice for notice in report.notices if notice.kind in ("stray", "edited")]


def test_scans_that_look_alike_or_have_the_same_bytes_stay_together(dataset, tmp_path):
    rng = np.random.default_rng(0)
    entries = json.loads((dataset / "train/annotations.json").read_text())
    picture = Image.fromarray(rng.integers(0, 255, (6, 8, 3), dtype=np.uint8)).resize((64, 48))
    for number, turn in ((0, 0), (20, 1), (40, 2)):
        path = dataset / entries[number]["image_path"]
        picture.rotate(turn).save(path)
        entries[number]["sha256"] = sha256_file(path)
    (dataset / entries[50]["image_path"]).write_bytes((dataset / entries[40]["image_path"]).read_bytes())
    entries[50]["sha256"] = entries[40]["sha256"]
    (dataset / "train/annotations.json").write_text(json.dumps(entries))
    report = split_dataset(dataset, tmp_path / "out", SplitOptions(test_share=0.5))
    assert (report.joined_by_bytes, report.joined_by_looks, report.largest) == (1, 2, 8)
    joined = {record.group for _, record in everything(tmp_path / "out").values()} & {"bag-10", "bag-20", "bag-25"}
    assert joined == set()  # they are all called bag-0 now
    alone = split_dataset(dataset, tmp_path / "alone", SplitOptions(test_share=0.5, near_copies=False))
    assert (alone.joined_by_looks, alone.largest) == (0, 4)


def test_a_category_in_one_bag_alone_is_said_to_be_one_sided(dataset, tmp_path, capsys):
    entries = json.loads((dataset / "train/annotations.json").read_text())
    for number in (4, 5):
        entries[number] |= {"categories": ["Knife"], "bboxes": [None]}
    for entry in entries:
        if entry["group"] != "bag-2" and "Knife" in entry["categories"]:
            entry |= {"categories": [], "bboxes": []}
    (dataset / "train/annotations.json").write_text(json.dumps(entries))
    assert main(["data", "split", str(dataset), "--output-dir", str(tmp_path / "out")]) == 0
    assert "Knife stands on one side alone" in capsys.readouterr().err


def test_shares_are_kept_where_clusters_allow_it():
    strata = [{"": 1, "Gun": 1} for _ in range(40)] + [{"": 1, "Knife": 1} for _ in range(10)] + [{"": 10, "clean": 10}]
    chosen = divide(strata, 0.3, seed=3)
    assert sum(place < 40 for place in chosen) == 12
    assert sum(40 <= place < 50 for place in chosen) == 3


@pytest.mark.parametrize("share", [0, 1, -0.1])
def test_a_share_that_is_none_is_refused(dataset, tmp_path, share):
    with pytest.raises(ConfigError, match="between 0 and 1"):
        split_dataset(dataset, tmp_path / "out", SplitOptions(test_share=share))


def test_a_broken_dataset_is_not_divided(dataset, tmp_path):
    (dataset / "train/images/000003.png").write_bytes(b"no image")
    with pytest.raises(DatasetError, match=r"first train/images/000003\.png"):
        split_dataset(dataset, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_folder_with_something_else_is_not_written_over(dataset, tmp_path):
    with pytest.raises(ConfigError, match="lie in one another"):
        split_dataset(dataset, dataset / "out")
    (tmp_path / "out/train").mkdir(parents=True)
    with pytest.raises(ConfigError, match="of unknown origin"):
        split_dataset(dataset, tmp_path / "out")
