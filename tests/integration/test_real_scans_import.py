"""Real SIXray scans in two formats, where this machine has them (XRAY_VQA_REAL_DIR)."""

import json
import os
from pathlib import Path

import pytest

from xray_vqa.cli.main import main
from xray_vqa.dataset.layout import annotated_categories, read_split

REAL_DIR = Path(os.environ.get("XRAY_VQA_REAL_DIR") or Path(__file__).resolve().parents[3] / "shared/real")


def bring_in(name: str, root: Path, capsys: pytest.CaptureFixture[str]) -> dict:
    folder = REAL_DIR / name
    if not folder.is_dir():
        pytest.skip(f"{folder} is not here; set XRAY_VQA_REAL_DIR to the folder with the real scans")
    assert main(["data", "import", str(folder), "--output-dir", str(root), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert main(["data", "verify", str(root)]) == 0
    return report


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
    records = [r for split in ("train", "test") for r in read_split(tmp_path / "out", split).records]
    found = {(record.original_name, box) for record in records for box in record.bboxes}
    assert found <= wanted
    assert sum(not record.categories for record in records) > 500


def test_voc_scans_are_paired_by_the_xmls_name(tmp_path, capsys):
    report = bring_in("sixray_voc", tmp_path / "out", capsys)
    counts = report["counts"]
    assert counts["scans"] + counts["left_out_leaking"] == 200
    assert (counts["duplicates"], report["faults"]) == (4, [])
    record = next(r for r in read_split(tmp_path / "out", "train").records if r.original_name == "train/0001.jpg")
    assert (record.categories, record.bboxes) == (["Knife"], [(115.731, 132.028, 93.87, 297.796)])
    stored = (tmp_path / "out" / record.image_path).read_bytes()
    assert stored == (REAL_DIR / "sixray_voc/train/0001.jpg").read_bytes()
