import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xray_vqa.core.manifest import read_manifest, sha256_bytes, write_manifest
from xray_vqa.core.records import SPLITS
from xray_vqa.dataset.importers import FORMATS, SourceFolder, find_importer
from xray_vqa.dataset.importing import ImportOptions, import_source, merged_groups
from xray_vqa.dataset.layout import annotated_categories, groups_for_share, read_split
from xray_vqa.dataset.verify import verify_dataset
from xray_vqa.errors import ConfigError, DatasetError

BOX = [4, 4, 20, 10]


def bring_in(folder: Path, root: Path, **options):
    return import_source(FORMATS["coco"].read(SourceFolder(folder)), root, ImportOptions(**options))


def names(root: Path, split: str) -> list[str]:
    return [Path(record.original_name).name for record in read_split(root, split).records]


def files(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


def test_image_bytes_stay_as_they_are_under_running_numbers(coco, png, tmp_path):
    folder = coco([{"name": "b 17 (a).png", "split": "train", "seed": 5, "boxes": [("Gun", BOX)]}])
    bring_in(folder, tmp_path / "out")
    assert (tmp_path / "out/train/images/000000.png").read_bytes() == png(5)
    (record,) = read_split(tmp_path / "out", "train").records
    assert (record.categories, record.bboxes, record.original_name, record.sha256) == (
        ["Gun"], [(4, 4, 20, 10)], "images/b 17 (a).png", sha256_bytes(png(5)),
    )  # fmt: skip


def test_suffix_follows_the_bytes_and_not_the_name(coco, tmp_path):
    folder = coco([{"name": "really_png.jpg", "split": "test"}])
    bring_in(folder, tmp_path / "out")
    assert (tmp_path / "out/test/images/000000.png").is_file()


def test_val_and_test_of_the_source_go_to_test(coco, tmp_path):
    folder = coco([{"name": f"{word}.png", "split": word} for word in ("train", "val", "test")])
    bring_in(folder, tmp_path / "out")
    assert names(tmp_path / "out", "train") == ["train.png"]
    assert names(tmp_path / "out", "test") == ["val.png", "test.png"]


def test_split_map_overrules_and_can_skip(coco, tmp_path):
    folder = coco([{"name": f"{word}.png", "split": word} for word in ("train", "val", "test", "fold9")])
    report = bring_in(folder, tmp_path / "out", split_map={"val": "train", "test": "skip", "fold9": "test"})
    assert names(tmp_path / "out", "train") == ["train.png", "val.png"]
    assert names(tmp_path / "out", "test") == ["fold9.png"]
    assert report.counts["skipped"] == 1


def test_unknown_split_of_the_source_stops_before_anything_is_written(coco, tmp_path):
    folder = coco([{"name": "a.png", "split": "fold9"}])
    with pytest.raises(ConfigError, match="--split-map fold9=test"):
        bring_in(folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_source_without_splits_is_divided_by_group(coco, tmp_path):
    folder = coco([{"name": f"{bag}_{n}.png", "group": bag} for bag in "abcde" for n in range(4)])
    report = bring_in(folder, tmp_path / "out", test_share=0.4)
    groups = {split: {r.group for r in read_split(tmp_path / "out", split).records} for split in SPLITS}
    assert not groups["train"] & groups["test"]
    assert (report.counts["train"], report.counts["test"]) == (12, 8)


def test_group_pattern_takes_the_bag_from_the_name(coco, tmp_path):
    folder = coco([{"name": f"bag{bag}_view{n}.png"} for bag in range(5) for n in range(2)])
    bring_in(folder, tmp_path / "out", group_pattern=r"(bag\d+)_")
    groups = [r.group for split in SPLITS for r in read_split(tmp_path / "out", split).records]
    assert sorted(set(groups)) == ["bag0", "bag1", "bag2", "bag3", "bag4"]
    assert not verify_dataset(tmp_path / "out").faults


def test_training_copy_of_a_test_scan_is_left_out_by_name(coco, tmp_path):
    folder = coco(
        [
            {"name": "copy.png", "seed": 1, "split": "train", "group": "a"},
            {"name": "neighbour.png", "seed": 2, "split": "train", "group": "a"},
            {"name": "original.png", "seed": 1, "split": "test", "group": "b"},
        ]
    )
    report = bring_in(folder, tmp_path / "out")
    assert names(tmp_path / "out", "train") == ["neighbour.png"]
    assert names(tmp_path / "out", "test") == ["original.png"]
    assert (report.counts["duplicates"], report.counts["left_out_leaking"]) == (1, 1)
    assert any("copy.png is left out" in str(notice) for notice in report.notices)
    assert any("1 scans stay in train" in str(notice) for notice in report.notices)


def test_group_that_the_source_cuts_stays_whole_in_test(coco, tmp_path):
    folder = coco(
        [
            {"name": "a.png", "split": "train", "group": "bag-1"},
            {"name": "b.png", "split": "test", "group": "bag-1"},
            {"name": "c.png", "split": "train", "group": "bag-2"},
        ]
    )
    bring_in(folder, tmp_path / "out")
    assert (names(tmp_path / "out", "train"), names(tmp_path / "out", "test")) == (["c.png"], ["b.png"])


def test_copies_without_a_group_get_one(coco, tmp_path):
    folder = coco([{"name": "a.png", "seed": 1, "split": "train"}, {"name": "b.png", "seed": 1, "split": "train"}])
    report = bring_in(folder, tmp_path / "out")
    first, second = read_split(tmp_path / "out", "train").records
    assert first.group == second.group != ""
    assert "b.png is byte for byte the image images/a.png" in str(report.copies[0])


def test_copies_with_different_labels_are_said_to_differ(coco, tmp_path):
    scans = [{"name": "a.png", "seed": 1, "boxes": [("Gun", BOX)]}, {"name": "b.png", "seed": 1}]
    report = bring_in(coco(scans), tmp_path / "out")
    assert "labels differ" in str(report.copies[0])


def test_aliases_are_mapped_and_unknown_labels_kept_by_name(coco, tmp_path):
    folder = coco(
        [{"name": "a.png", "split": "test", "boxes": [("Pistol", BOX), ("Baton", BOX)]}], labels=("Pistol", "Baton")
    )
    report = bring_in(folder, tmp_path / "out")
    (record,) = read_split(tmp_path / "out", "test").records
    assert (record.categories, record.raw_labels) == (["Gun", "UNLISTED"], ["Pistol", "Baton"])
    assert (report.unlisted, report.counts["unlisted"]) == ({"Baton": 1}, 1)
    assert annotated_categories(tmp_path / "out") == ("Gun",)


def test_a_clean_label_makes_a_clean_bag_and_no_object(coco, tmp_path):
    folder = coco([{"name": "a.png", "split": "train", "boxes": [("Non Threat", [0, 0, 1, 1])]}], ("Non Threat", "Gun"))
    report = bring_in(folder, tmp_path / "out")
    (record,) = read_split(tmp_path / "out", "train").records
    assert (record.categories, record.bboxes) == ([], [])
    assert (report.counts["clean"], report.counts["clean_labels"]) == (1, 1)


def test_a_scan_called_clean_that_has_a_gun_is_not_clean(coco, tmp_path):
    scan = {"name": "a.png", "split": "train", "boxes": [("Non Threat", [0, 0, 1, 1]), ("Gun", BOX)]}
    report = bring_in(coco([scan], ("Non Threat", "Gun")), tmp_path / "out")
    (record,) = read_split(tmp_path / "out", "train").records
    assert record.categories == ["Gun"]
    assert any("called clean and has Gun" in str(notice) for notice in report.notices)


@pytest.mark.parametrize(
    ("box", "kept", "said"),
    [
        ([50, 40, 30, 30], (50, 40, 14, 8), "clipped"),
        ([-0.5, 0, 20, 10], (0, 0, 19.5, 10), None),
        ([70, 10, 5, 5], None, "outside"),
        ([10, 10, 0, 5], None, "no area"),
        ([10, 10, -4, 5], None, "no area"),
        ([float("nan"), 10, 4, 5], None, "no area"),
        ([10, 10, 4], None, "not four numbers"),
        (None, None, None),
    ],
)
def test_a_bad_box_is_clipped_or_dropped_aloud_and_its_label_stays(coco, tmp_path, box, kept, said):
    boxes = [("Knife", BOX), ("Gun", box)]
    report = bring_in(coco([{"name": "a.png", "split": "train", "boxes": boxes}]), tmp_path / "out")
    (record,) = read_split(tmp_path / "out", "train").records
    assert (record.categories, record.bboxes[1]) == (["Knife", "Gun"], kept)
    lines = [str(notice) for notice in report.notices if "Gun" in str(notice)]
    assert len(lines) == (said is not None)
    assert said is None or (said in lines[0] and "annotations.json:1:" in lines[0])


def test_boxes_drawn_on_another_size_are_not_taken_for_this_one(coco, tmp_path):
    folder = coco([{"name": "a.png", "split": "test", "size": (256, 192), "boxes": [("Gun", [40, 40, 80, 40])]}])
    report = bring_in(folder, tmp_path / "out")
    (record,) = read_split(tmp_path / "out", "test").records
    assert record.bboxes == [None]
    assert "is 64x48, its annotation was made for 256x192" in str(report.faults[0])
    report = bring_in(folder, tmp_path / "out2", scale_boxes=True)
    (record,) = read_split(tmp_path / "out2", "test").records
    assert (record.bboxes, report.faults) == ([(10, 10, 20, 10)], [])


def test_missing_and_unreadable_images_are_named_and_the_rest_is_imported(coco, png, tmp_path):
    folder = coco(
        [
            {"name": "good.png", "split": "train"},
            {"name": "gone.png", "split": "train", "data": b""},
            {"name": "text.png", "split": "train", "data": b"not an image"},
            {"name": "cut.png", "split": "train", "data": png(7)[:300]},
        ]
    )
    report = bring_in(folder, tmp_path / "out")
    assert names(tmp_path / "out", "train") == ["good.png"]
    lines = [str(fault) for fault in report.faults]
    for place, name in ((1, "gone.png"), (2, "text.png"), (3, "cut.png")):
        assert any(f"annotations.json:{place}:" in line and name in line for line in lines)
    written = json.loads((tmp_path / "out/import_report.json").read_text())
    assert written["faults"] == lines


def test_nothing_importable_is_an_error(coco, tmp_path):
    folder = coco([{"name": "text.png", "data": b"not an image"}])
    with pytest.raises(DatasetError, match="no scan could be imported"):
        bring_in(folder, tmp_path / "out")


def test_annotated_categories_come_from_the_list_and_can_be_overruled(coco, tmp_path):
    folder = coco([{"name": "a.png", "split": "train"}], labels=("Gun", "Knife", "Laptop"))
    bring_in(folder, tmp_path / "out")
    assert annotated_categories(tmp_path / "out") == ("Gun", "Knife")
    bring_in(folder, tmp_path / "out2", annotated=("pistol",))
    assert annotated_categories(tmp_path / "out2") == ("Gun",)
    with pytest.raises(ConfigError, match="Laptop is no category"):
        bring_in(folder, tmp_path / "out3", annotated=("Laptop",))


def test_a_labelled_category_outside_the_annotated_ones_is_a_fault(coco, tmp_path):
    folder = coco([{"name": "a.png", "split": "train", "boxes": [("Knife", BOX)]}])
    report = bring_in(folder, tmp_path / "out", annotated=("Gun",))
    assert "Knife occur" in str(report.faults[0])


def test_the_same_import_again_gives_the_same_files(coco, tmp_path):
    folder = coco([{"name": f"{n}.png", "boxes": [("Gun", BOX)]} for n in range(6)])
    bring_in(folder, tmp_path / "out")
    yesterday = read_manifest(tmp_path / "out").model_copy(update={"created": "2026-01-01T00:00:00+00:00"})
    write_manifest(tmp_path / "out", yesterday)
    before = files(tmp_path / "out")
    bring_in(folder, tmp_path / "out")
    assert files(tmp_path / "out") == before


def test_an_import_that_was_interrupted_goes_on(coco, tmp_path):
    folder = coco([{"name": f"{n}.png", "boxes": [("Gun", BOX)]} for n in range(6)])
    bring_in(folder, tmp_path / "whole")
    bring_in(folder, tmp_path / "out")
    for name in ("manifest.json", "test/annotations.json", "train/images/000003.png"):
        (tmp_path / "out" / name).unlink()
    (tmp_path / "out/train/images/.000003.png.k6s561mj").write_bytes(b"half an image")
    bring_in(folder, tmp_path / "out")
    whole, again = files(tmp_path / "whole"), files(tmp_path / "out")
    assert again.keys() == whole.keys()
    assert all(again[name] == whole[name] for name in whole if name.startswith(("train/", "test/")))


def test_other_options_leave_no_images_of_the_first_import(coco, tmp_path):
    folder = coco([{"name": f"{n}.png"} for n in range(10)])
    bring_in(folder, tmp_path / "out", test_share=0.5)
    bring_in(folder, tmp_path / "out", test_share=0.1)
    report = verify_dataset(tmp_path / "out")
    assert (report.faults, [n for n in report.notices if "no annotation" in str(n)]) == ([], [])
    assert len(list((tmp_path / "out/test/images").iterdir())) == 1


def test_a_dataset_of_another_origin_is_not_written_over(coco, tmp_path):
    bring_in(coco([{"name": "a.png"}], name="one"), tmp_path / "out")
    before = files(tmp_path / "out")
    with pytest.raises(ConfigError, match=r"made by `import` from .*one"):
        bring_in(coco([{"name": "b.png", "seed": 9}], name="two"), tmp_path / "out")
    assert files(tmp_path / "out") == before


def test_a_folder_of_unknown_origin_is_not_written_over(coco, tmp_path):
    (tmp_path / "out/train").mkdir(parents=True)
    with pytest.raises(ConfigError, match="unknown origin"):
        bring_in(coco([{"name": "a.png"}]), tmp_path / "out")


def test_output_inside_the_source_is_refused(coco):
    folder = coco([{"name": "a.png"}])
    with pytest.raises(ConfigError, match="inside the source"):
        bring_in(folder, folder / "out")


def test_manifest_says_what_was_read_and_made(coco, tmp_path):
    folder = coco([{"name": "a.png", "split": "train"}])
    bring_in(folder, tmp_path / "out")
    manifest = read_manifest(tmp_path / "out")
    assert manifest.inputs == {"annotations.json": sha256_bytes((folder / "annotations.json").read_bytes())}
    written = (tmp_path / "out/train/annotations.json").read_bytes()
    assert manifest.outputs["train/annotations.json"] == sha256_bytes(written)
    assert (manifest.stage, manifest.counts["scans"], manifest.counts["clean"]) == ("import", 1, 1)


def test_the_format_is_recognised(coco, voc, tmp_path):
    assert find_importer(SourceFolder(coco([{"name": "a.png"}]))).name == "coco"
    assert find_importer(SourceFolder(voc([{"stem": "a"}]))).name == "voc"
    with pytest.raises(ConfigError, match="coco and voc annotations; choose one with --format"):
        find_importer(SourceFolder(tmp_path))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="no annotations of a known format"):
        find_importer(SourceFolder(tmp_path / "empty"))


group_lists = st.lists(st.sampled_from(["", *"abcdefgh"]), min_size=1, max_size=40)


@given(group_lists, st.floats(0, 0.99), st.integers(0, 5))
def test_a_share_of_groups_never_takes_all_and_overshoots_by_less_than_a_group(groups, share, seed):
    chosen = groups_for_share(groups, share, seed)
    assert chosen < set(groups)
    taken = sum(group in chosen for group in groups)
    assert not chosen or taken - max(groups.count(group) for group in chosen) < round(share * len(groups))


@given(st.lists(st.tuples(st.sampled_from(["", *"abcdef"]), st.sampled_from("123456789")), max_size=30))
def test_scans_with_the_same_bytes_or_the_same_group_end_in_the_same_group(scans):
    groups, digests = [group for group, _ in scans], [digest for _, digest in scans]
    merged = merged_groups(groups, digests)
    for i, (group, digest) in enumerate(scans):
        for j, (other_group, other_digest) in enumerate(scans):
            if i != j and (digest == other_digest or (group and group == other_group)):
                assert merged[i] == merged[j] != ""
        if not group and digests.count(digest) == 1:
            assert merged[i] == ""


@given(
    st.lists(
        st.tuples(st.sampled_from(["", *"abcd"]), st.sampled_from(["", "train", "val", "test"]), st.integers(0, 12)),
        min_size=1,
        max_size=24,
    ),
    st.floats(0, 0.9),
)
def test_no_division_puts_a_group_or_a_copy_on_both_sides(scans, share):
    from xray_vqa.dataset.importers.source import SourceScan
    from xray_vqa.dataset.importing import ImportReport, _Checked, _divide

    checked = []
    for number, (group, split, digest) in enumerate(scans):
        scan = SourceScan(Path(f"{number}.png"), f"{number}.png", Path("a.json"), split=split, group=group)
        checked.append(_Checked(scan, str(digest), ".png", (64, 48), group=group))
    report = ImportReport(Path("out"))
    divided = _divide(checked, ImportOptions(test_share=share), report)
    sides = {split: [one for one in divided if one.split == split] for split in SPLITS}
    assert not {one.sha256 for one in sides["train"]} & {one.sha256 for one in sides["test"]}
    assert not ({one.group for one in sides["train"]} & {one.group for one in sides["test"]}) - {""}
    assert len(divided) + report.counts.get("left_out_leaking", 0) == len(scans)
    assert len(sides["test"]) >= sum(split in ("val", "test") for _, split, _ in scans)
