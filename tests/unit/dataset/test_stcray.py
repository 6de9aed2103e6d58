import json
import os
from pathlib import Path

import pytest

from xray_vqa.core.taxonomy import CATEGORIES
from xray_vqa.dataset.importing import import_source
from xray_vqa.dataset.layout import annotated_categories, read_split
from xray_vqa.dataset.stcray.names import bag_of, class_label, parse_file_name
from xray_vqa.dataset.stcray.tree import read_stcray
from xray_vqa.errors import ConfigError


@pytest.fixture
def tree(tmp_path, png):
    """An unpacked copy in miniature. Scans: (set, class folder, stem, shapes or None, caption)."""

    def write(scans, root=None, kind="Json_BB") -> Path:
        root = root or tmp_path / "stcray"
        for number, (name, folder, stem, shapes, caption) in enumerate(scans):
            base = root / f"STCray_{name}Set"
            for part in ("Images", kind, "Captions"):
                (base / part / folder).mkdir(parents=True, exist_ok=True)
            (base / "Images" / folder / f"{stem}.jpg").write_bytes(png(number))
            (base / "Images" / folder / f"._{stem}.jpg").write_bytes(b"resource fork")
            if shapes is not None:
                content = {
                    "shapes": [{"label": label, "points": points} for label, points in shapes],
                    "imageWidth": 64,
                    "imageHeight": 48,
                    "imageData": None,
                }
                (base / kind / folder / f"{stem}.json").write_text(json.dumps(content))
            if caption:
                (base / "Captions" / folder / f"{stem}.txt").write_text(caption)
        return root

    return write


GUN_BOX = [("Gun", [[30, 20], [10, 5]])]


def read(root, **options):
    return read_stcray([root], **options)


def test_a_file_name_says_bag_clutter_concealment_and_pose():
    parsed = parse_file_name("Battery5_B2_L4A_C1_Loc1_phi2_th3_7")
    assert parsed is not None
    assert parsed.factors() == {
        "threat_item": "Battery5", "bag": 2, "clutter_level": 4, "clutter_part": "A", "concealment": 1, "location": 1,
        "phi": 2, "theta": 3, "frame": 7,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("stem", "item", "bag"),
    [("3D Gun2_B10_L1_C3", "3D Gun2", 10), ("Gun1_Knife2_B3_L2_C2_Loc1_phi1_th1_1", "Gun1_Knife2", 3)],
)
def test_several_threats_and_missing_parts_are_read(stem, item, bag):
    parsed = parse_file_name(stem)
    assert parsed is not None
    assert (parsed.threat_item, parsed.bag) == (item, bag)


@pytest.mark.parametrize("stem", ["scan0001", "Battery5_L4A_C1", "Gun1_B2_what_3", "B2_L1", "Gun1_B2_B3", ""])
def test_other_names_say_nothing(stem):
    assert parse_file_name(stem) is None


@pytest.mark.parametrize("folder", ["Class 10_Battery", "Class 010_Battery", "class10 - Battery", "Battery"])
def test_a_class_folder_gives_its_label(folder):
    assert class_label(folder) == "Battery"


def test_scans_are_read_with_boxes_captions_factors_and_groups(tree, tmp_path):
    stem = "Gun1_B2_L3_C4_Loc1_phi1_th1_5"
    root = tree(
        [
            ("Train", "Class 2_Gun", stem, GUN_BOX, "A suitcase\nwith a gun."),
            ("Test", "Class 02_Gun", stem, GUN_BOX, ""),
        ]
    )
    report = import_source(read(root), tmp_path / "out", stage="download", origin="stcray")
    (record,) = read_split(tmp_path / "out", "train").records
    assert (record.categories, record.bboxes, record.caption) == (["Gun"], [(10, 5, 20, 15)], "A suitcase with a gun.")
    assert record.factors is not None
    assert (record.factors["clutter_level"], record.factors["concealment"], record.factors["folder"]) == (3, 4, "Gun")
    assert record.group == "train/Gun1_B2"
    assert record.original_name == f"STCray_TrainSet/Images/Class 2_Gun/{stem}.jpg"
    (record,) = read_split(tmp_path / "out", "test").records
    assert record.group == "test/Gun1_B2"
    assert annotated_categories(tmp_path / "out") == CATEGORIES
    assert (report.faults, report.counts["scans"]) == ([], 2)


def test_non_threat_scans_are_clean_bags_with_or_without_json(tree, tmp_path):
    root = tree(
        [
            ("Train", "Class 22_Non Threat", "NT_B1_L1_C1_1", None, ""),
            ("Train", "Class 22_Non Threat", "NT_B1_L1_C1_2", [], ""),
            ("Train", "Class 22_Non Threat", "NT_B1_L1_C1_3", [("Non Threat", [[0, 0], [1, 1]])], ""),
        ]
    )
    report = import_source(read(root), tmp_path / "out")
    records = [r for split in ("train", "test") for r in read_split(tmp_path / "out", split).records]
    assert [(record.categories, record.bboxes) for record in records] == [([], [])] * 3
    assert (report.counts["clean"], report.faults) == (3, [])


def test_a_threat_without_json_keeps_the_folders_label(tree):
    source = read(tree([("Test", "Class 9_Injection", "Injection1_B1_L1_C1_1", None, "")]))
    assert [(item.label, item.box_xywh) for item in source.scans[0].items] == [("Injection", None)]
    assert any("1 scans have no shape" in str(notice) for notice in source.notices)


def test_several_threats_without_json_are_left_out_by_name(tree):
    source = read(tree([("Test", "Class 21_Multilabel Threat", "Gun1_Knife1_B1_L1_C1_1", None, "")]))
    assert source.scans == ()
    assert "Gun1_Knife1_B1_L1_C1_1.jpg: no readable annotation" in str(source.faults[0])


def test_a_folder_that_no_shape_confirms_is_kept_and_said(tree):
    source = read(tree([("Test", "Class 4_Knife", "Knife1_B1_L1_C1_1", GUN_BOX, "")]))
    assert [item.label for item in source.scans[0].items] == ["Gun", "Knife"]
    assert any("no shape is a Knife" in str(notice) for notice in source.notices)


def test_aliases_of_the_folders_label_confirm_it(tree):
    source = read(tree([("Test", "Class 3_3D Gun", "3DGun1_B1_L1_C1_1", [("3D printed gun", [[1, 1], [9, 9]])], "")]))
    assert [item.label for item in source.scans[0].items] == ["3D printed gun"]


def test_polygons_serve_where_there_are_no_boxes(tree):
    shapes = [("Gun", [[10, 5], [30, 8], [20, 20]])]
    source = read(tree([("Test", "Class 2_Gun", "Gun1_B1_L1_C1_1", shapes, "")], kind="Json"))
    assert source.scans[0].items[0].box_xywh == (10, 5, 20, 15)
    assert any("boxes are those around the polygons" in str(notice) for notice in source.notices)


def test_a_broken_json_is_a_fault_and_the_scan_stays_with_its_folders_label(tree):
    root = tree([("Test", "Class 2_Gun", "Gun1_B1_L1_C1_1", GUN_BOX, "")])
    path = root / "STCray_TestSet/Json_BB/Class 2_Gun/Gun1_B1_L1_C1_1.json"
    path.write_text("{")
    source = read(root)
    assert [item.label for item in source.scans[0].items] == ["Gun"]
    assert str(path) in str(source.faults[0])


def test_names_outside_the_grammar_are_grouped_by_name_and_counted(tree):
    scans = [("Test", "Class 2_Gun", f"scan{n}_{frame}", GUN_BOX, "") for n in range(2) for frame in range(2)]
    source = read(tree(scans))
    assert [scan.group for scan in source.scans] == ["test/Gun/scan0"] * 2 + ["test/Gun/scan1"] * 2
    assert any("4 file names do not follow the grammar" in str(notice) for notice in source.notices)


def test_max_samples_takes_from_everywhere_and_always_the_same(tree):
    root = tree(
        [
            (name, f"Class {number}_{label}", f"{label}1_B{bag}_L1_C1_1", None, "")
            for name in ("Train", "Test")
            for number, label in ((2, "Gun"), (4, "Knife"), (5, "Cutter"))
            for bag in range(10)
        ]
    )
    taken = [scan.original_name for scan in read(root, max_samples=20).scans]
    assert len(taken) == 20
    assert {name.rpartition("/")[0] for name in taken} == {
        scan.original_name.rpartition("/")[0] for scan in read(root).scans
    }
    assert [scan.original_name for scan in read(root, max_samples=20).scans] == taken
    assert len(read(root, max_samples=1000).scans) == 60


def test_a_set_that_is_missing_is_said(tree):
    source = read(tree([("Test", "Class 2_Gun", "Gun1_B1_L1_C1_1", GUN_BOX, "")]))
    assert any("the train set is not here" in str(notice) for notice in source.notices)


def test_a_folder_without_either_set_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="STCray_TrainSet/Images"):
        read(tmp_path)


# --- masks, augmented scans, links -----------------------------------------------------------------------------------


def write_json(root, kind, folder, stem, shapes, set_name="STCray_TestSet"):
    path = root / set_name / kind / folder / f"{stem}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {
        "shapes": [{"label": label, "points": points} for label, points in shapes],
        "imageWidth": 64,
        "imageHeight": 48,
    }
    path.write_text(json.dumps(content))
    return path


STEM = "Gun1_B1_L1_C1_1"


def test_polygons_give_their_masks_to_the_boxes_that_they_fill(tree, tmp_path):
    boxes = [("Gun", [[10, 5], [30, 20]]), ("Gun", [[40, 30], [60, 45]])]
    root = tree([("Test", "Class 2_Gun", STEM, boxes, "")])
    second_first = [("gun", [[41, 30], [60, 30], [60, 45], [40, 45]]), ("Knife", [[1, 1], [5, 1], [5, 5]])]
    write_json(root, "Json", "Class 02_Gun", STEM, second_first)
    source = read(root)
    masks = [item.mask for item in source.scans[0].items]
    assert masks[0] is None
    assert masks[1] is not None
    assert masks[1]["size"] == [48, 64]
    assert sum(masks[1]["counts"]) == 48 * 64
    assert 260 < sum(masks[1]["counts"][1::2]) < 340  # 20 x 15 pixels, edges included
    assert any("1 polygons outline no item" in str(notice) for notice in source.notices)
    import_source(source, tmp_path / "out")
    assert read_split(tmp_path / "out", "test").records[0].masks == masks


def test_where_only_polygons_are_there_they_are_the_masks_too(tree):
    shapes = [("Gun", [[10, 5], [30, 8], [20, 20]])]
    source = read(tree([("Test", "Class 2_Gun", STEM, shapes, "")], kind="Json"))
    mask = source.scans[0].items[0].mask
    assert mask is not None
    assert 120 < sum(mask["counts"][1::2]) < 180  # half of 20 x 15, edges included


@pytest.mark.parametrize(
    "points", [[[1, 1], [2, 2]], [[90, 90], [99, 90], [99, 99]], [[1, 1], [float("inf"), 1], [3, 3]]]
)
def test_polygons_that_cover_nothing_are_no_masks(tree, points):
    source = read(tree([("Test", "Class 2_Gun", STEM, [("Gun", points)], "")], kind="Json"))
    assert source.scans[0].items[0].mask is None


def test_what_follows_the_grammar_no_longer_still_stays_with_its_bag():
    assert bag_of("Gun1_B02_L3_C4_7_flipped", "Gun") == bag_of("Gun1_B2_L3_C4_8", "Gun") == "Gun1_B2"


def test_augmented_scans_go_to_train_with_the_bag_that_they_were_made_of_and_only_on_demand(tree):
    root = tree(
        [
            ("Train", "Class 2_Gun", "Gun1_B2_L1_C1_1", GUN_BOX, ""),
            ("Test", "Class 2_Gun", "Gun1_B3_L1_C1_1", GUN_BOX, ""),
            ("Augmented", "Class 2_Gun", "Gun1_B2_L1_C1_1_rot90", GUN_BOX, ""),
        ]
    )
    (root / "STCray_AugmentedSet").rename(root / "STCray_Augmented")
    assert len(read(root).scans) == 2
    assert any("--include-augmented takes them" in str(notice) for notice in read(root).notices)
    scans = read(root, augmented=True).scans
    assert [(scan.split, scan.group) for scan in scans] == [
        ("train", "train/Gun1_B2"), ("test", "test/Gun1_B3"), ("train", "train/Gun1_B2"),
    ]  # fmt: skip
    assert scans[2].factors is not None
    assert scans[2].factors["augmented"] is True


def test_links_out_of_a_copy_are_not_followed(tree, tmp_path):
    root = tree([("Test", "Class 2_Gun", STEM, GUN_BOX, "")])
    (tmp_path / "secret.txt").write_text("secret")
    (tmp_path / "secret.jpg").write_bytes(b"secret")
    images = root / "STCray_TestSet/Images/Class 2_Gun"
    (images / "Gun1_B1_L1_C1_2.jpg").symlink_to(tmp_path / "secret.jpg")
    (images.parent / "Class 3_3D Gun").symlink_to(tmp_path)
    (root / "STCray_TestSet/Captions/Class 2_Gun" / f"{STEM}.txt").symlink_to(tmp_path / "secret.txt")
    source = read(root)
    assert [scan.caption for scan in source.scans] == [""]
    assert sorted(str(fault).removeprefix(str(root / "STCray_TestSet/")) for fault in source.faults) == [
        f"/Captions/Class 2_Gun/{STEM}.txt: is a link out of the folder; not read",
        "/Images/Class 2_Gun/Gun1_B1_L1_C1_2.jpg: is a link out of the folder; left out",
        "/Images/Class 3_3D Gun: is a link out of the folder; left out",
    ]


def test_file_names_that_are_no_utf8_are_left_out_by_name(tree, tmp_path):
    root = tree([("Test", "Class 2_Gun", STEM, GUN_BOX, "")])
    folder = os.fsencode(root / "STCray_TestSet/Images/Class 2_Gun")
    with open(folder + b"/Gun1\xff.jpg", "wb") as stream:  # noqa: PTH123 - bytes
        stream.write(b"x")
    report = import_source(read(root), tmp_path / "out")
    assert report.counts["scans"] == 1
    assert ["Gun1" in str(fault) and "no usable name" in str(fault) for fault in report.faults] == [True]


def test_resource_forks_in_a_copy_are_counted(tree):
    source = read(tree([("Test", "Class 2_Gun", STEM, GUN_BOX, "")]))
    assert any("1 resource-fork files" in str(notice) for notice in source.notices)
