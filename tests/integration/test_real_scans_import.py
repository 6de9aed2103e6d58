"""Real scans in each of their own formats, where this machine has them (XRAY_VQA_REAL_DIR)."""

import json
import os
from pathlib import Path

import pytest

from xray_vqa.cli.main import main
from xray_vqa.core.manifest import sha256_file
from xray_vqa.core.records import SPLITS, ScanRecord
from xray_vqa.dataset.layout import annotated_categories, read_split

REAL_DIR = Path(os.environ.get("XRAY_VQA_REAL_DIR") or Path(__file__).resolve().parents[3] / "shared/real")


def real(name: str) -> Path:
    folder = REAL_DIR / name
    if not folder.is_dir():
        pytest.skip(f"{folder} is not here; set XRAY_VQA_REAL_DIR to the folder with the real scans")
    return folder


def bring_in(name: str, root: Path, capsys: pytest.CaptureFixture[str], *options: str, code: int = 0) -> dict:
    folder = real(name)
    assert (
        main(["data", "import", str(folder), "--output-dir", str(root), "--json", "--workers", "1", *options]) == code
    )
    report = json.loads(capsys.readouterr().out)
    assert main(["data", "verify", str(root)]) == 0
    capsys.readouterr()
    return report


def records_of(root: Path) -> list[ScanRecord]:
    return [record for split in SPLITS for record in read_split(root, split).records]


def test_coco_scans_keep_groups_and_splits_and_no_copy_leaks(tmp_path, capsys):
    report = bring_in("sixray_coco", tmp_path / "out", capsys)
    source = json.loads((REAL_DIR / "sixray_coco/annotations.json").read_text())
    counts = report["counts"]
    assert counts["scans"] + counts["left_out_leaking"] == len(source["images"])
    assert counts["test"] == sum(image["split"] == "val" for image in source["images"])
    assert annotated_categories(tmp_path / "out") == ("Gun", "Knife", "Wrench")
    group_of = {f"images/{image['file_name']}": image["group"] for image in source["images"]}
    alone = [r for r in read_split(tmp_path / "out", "test").records if group_of[r.original_name] == r.group]
    assert len(alone) > 0.8 * counts["test"]  # the rest are groups that a copy joins


def test_coco_boxes_are_those_of_the_source(tmp_path, capsys):
    bring_in("sixray_coco", tmp_path / "out", capsys)
    source = json.loads((REAL_DIR / "sixray_coco/annotations.json").read_text())
    name_of = {image["id"]: f"images/{image['file_name']}" for image in source["images"]}
    wanted = {(name_of[a["image_id"]], tuple(a["bbox"])) for a in source["annotations"]}
    records = records_of(tmp_path / "out")
    found = {(record.original_name, box) for record in records for box in record.bboxes}
    assert found <= wanted
    assert sum(not record.categories for record in records) > 500


def test_all_584_and_532_scans_come_in_where_nothing_is_held_back_for_the_test(tmp_path, capsys):
    report = bring_in("sixray_coco", tmp_path / "out", capsys, "--split-map", "val=train")
    counts = report["counts"]
    assert (counts["scans"], counts["boxes"], counts["clean"], report["faults"]) == (1116, 584, 532, [])


def test_sixray_boxes_come_with_the_image_level_list_of_five_items(tmp_path, capsys):
    """Two of 200 scans are one image, in train and in test: the one in train is left out by name."""
    report = bring_in("sixray_voc", tmp_path / "out", capsys)
    counts = report["counts"]
    assert counts["scans"] + counts["left_out_leaking"] == counts["boxes"] + counts["left_out_leaking"] == 200
    assert (counts["duplicates"], len(report["copies"]), report["faults"]) == (4, 4, [])
    assert annotated_categories(tmp_path / "out") == ("Gun", "Knife", "Scissors", "Pliers", "Wrench")
    record = next(r for r in records_of(tmp_path / "out") if r.original_name == "train/0001.jpg")
    assert (record.categories, record.bboxes) == (["Knife"], [(115.731, 132.028, 93.87, 297.796)])
    stored = (tmp_path / "out" / record.image_path).read_bytes()
    assert stored == (REAL_DIR / "sixray_voc/train/0001.jpg").read_bytes()


def test_all_200_boxes_come_in_as_voc_alone(tmp_path, capsys):
    words = ("--format", "voc", "--split-map", "val=train", "--split-map", "test=train")
    report = bring_in("sixray_voc", tmp_path / "out", capsys, *words)
    assert (report["counts"]["scans"], report["counts"]["boxes"]) == (200, 200)
    assert report["categories"]["train"] == {"Gun": 70, "Knife": 65, "Wrench": 65}


def test_boxes_of_via_that_are_four_times_too_large_are_asked_about(tmp_path, capsys):
    report = bring_in("dualview_via", tmp_path / "asked", capsys, code=1)
    assert (report["counts"]["scans"], report["counts"]["boxes"], len(report["faults"])) == (6, 0, 5)
    assert all("--box-factor 0.25" in fault for fault in report["faults"])
    report = bring_in(
        "dualview_via", tmp_path / "out", capsys, "--box-factor", "0.25", "--group-pattern", r"/(\d+)[ab]"
    )
    counts = report["counts"]
    assert (counts["scans"], counts["boxes"], counts["clean_beside_item"], report["faults"]) == (6, 9, 1, [])
    assert "boxes_clipped" not in counts
    assert any("0087a.png beside images/0087b.png (Knife)" in notice for notice in report["notices"])
    records = {record.original_name: record for record in records_of(tmp_path / "out")}
    assert records["images/0087b.png"].bboxes == [(181.0, 60.75, 373.5, 410.25)]
    assert sorted(name for record in records.values() for name in record.categories) == ["Knife"] + ["Scissors"] * 8


def test_negatives_come_in_whatever_their_folder_is_called(tmp_path, capsys):
    report = bring_in("sixray_negative", tmp_path / "out", capsys, "--annotated", "Gun,Knife,Wrench,Pliers,Scissors")
    assert (report["counts"]["scans"], report["counts"]["clean"], report["counts"]["items"]) == (28, 28, 0)
    assert any("folders (normal, test_positiv) are not taken as labels" in notice for notice in report["notices"])


def test_questions_without_images_are_described_and_refused(tmp_path, capsys):
    assert main(["data", "import", str(real("sixray_vqa")), "--output-dir", str(tmp_path / "out")]) == 2
    assert "holds 2 .csv, 1 .jsonl" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["sixray_coco", "sixray_voc", "dualview_via", "sixray_negative"])
def test_no_original_is_changed_and_no_image_is_lost_in_silence(name, tmp_path, capsys):
    folder = real(name)
    before = {path: sha256_file(path) for path in folder.rglob("*") if path.is_file()}
    report = bring_in(name, tmp_path / "out", capsys, "--allow-faults")
    assert {path: sha256_file(path) for path in folder.rglob("*") if path.is_file()} == before
    images = {path.relative_to(folder).as_posix() for path in before if path.suffix in (".jpg", ".png")}
    imported = {record.original_name for record in records_of(tmp_path / "out")}
    said = "\n".join([*report["faults"], *report["notices"]])
    assert [image for image in images - imported if f"image {image} is left out" not in said] == []
