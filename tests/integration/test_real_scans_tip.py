"""Threats projected into real SIXray scans, where this machine has them (XRAY_VQA_REAL_DIR)."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from xray_vqa.cli.main import main
from xray_vqa.core.images import decode_image
from xray_vqa.core.manifest import read_manifest
from xray_vqa.dataset.layout import read_split
from xray_vqa.simulation.tip import MAX_ROUND_TRIP_ERROR

REAL_DIR = Path(os.environ.get("XRAY_VQA_REAL_DIR") or Path(__file__).resolve().parents[3] / "shared/real")
COUNT = 12
MARGIN = 5


def real_folder(name: str) -> Path:
    folder = REAL_DIR / name
    if not folder.is_dir():
        pytest.skip(f"{folder} is not here; set XRAY_VQA_REAL_DIR to the folder with the real scans")
    return folder


def test_real_scans_get_threats_and_keep_every_other_pixel(tmp_path, capsys):
    host, out = tmp_path / "host", tmp_path / "out"
    assert main(["data", "import", str(real_folder("sixray_voc")), "--output-dir", str(host)]) == 0
    capsys.readouterr()
    words = ["data", "tip", str(host), "--output-dir", str(out), "--count", str(COUNT), "--only-projected", "--json"]
    assert main(words) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["counts"]["projected"] == COUNT
    assert report["round_trip_error"]["max"] <= MAX_ROUND_TRIP_ERROR
    assert main(["data", "verify", str(out)]) == 0
    # SIXray's own list beside the boxes says of all five classes where they are and where they are not.
    assert read_manifest(out).annotated_categories == ["Gun", "Knife", "Scissors", "Pliers", "Wrench"]
    before = {record.image_id: record for record in read_split(host, "train").records}
    for record in read_split(out, "train").records:
        old = before[record.image_id]
        num_old = len(old.categories)
        assert record.group == old.group
        assert len(record.categories) > num_old
        image = np.asarray(Image.open(out / record.image_path))
        host_image = np.asarray(decode_image((host / old.image_path).read_bytes()))
        changed = (image != host_image).any(-1)
        assert changed.any()
        for box in record.bboxes[num_old:]:
            assert box is not None
            x, y, w, h = (int(value) for value in box)
            changed[max(y - MARGIN, 0) : y + h + MARGIN, max(x - MARGIN, 0) : x + w + MARGIN] = False
        assert not changed.any()


def test_a_greyscale_scanner_is_refused(tmp_path, capsys):
    folder = real_folder("dualview_via") / "images"
    words = ["data", "tip", str(folder), "--output-dir", str(tmp_path), "--categories", "Gun", "--host-is-clean"]
    assert main([*words, "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert report["counts"]["refused"] == report["counts"]["tried"] == 6
    assert "greyscale" in report["refused"][0]["reason"]
