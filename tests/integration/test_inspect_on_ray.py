"""`xray-vqa inspect --engine ray` on a Ray of this machine: the file that one process writes."""

import json

import pytest
from PIL import Image, ImageDraw

from xray_vqa.cli.main import main

pytest.importorskip("ray", reason="needs Ray: pip install -e '.[ray]'")


@pytest.mark.slow
def test_a_cluster_writes_the_file_that_one_process_writes_and_goes_on(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "scans").mkdir()
    for number in range(10):
        image = Image.new("RGB", (300, 200), "white")
        ImageDraw.Draw(image).rectangle((50, 50, 200 + number, 150), fill="orange")
        image.save(tmp_path / f"scans/{number}.png")
    (tmp_path / "scans/broken.png").write_bytes(b"no image")
    (tmp_path / "script.json").write_text('[{"probabilities": {"Knife": 0.93}}]')
    monkeypatch.setenv("XRAY_VQA_ENGINE", "scripted")
    common = ["inspect", "scans", "--model", "script.json", "--batch-size", "3"]
    ray = ["--engine", "ray", "--workers", "2", "--output", "ray.jsonl", "--save-dir", "drawn"]
    assert main([*common, "--output", "alone.jsonl"]) == 1
    assert main([*common, *ray]) == 1
    assert lines(tmp_path / "ray.jsonl") == lines(tmp_path / "alone.jsonl")
    assert len(list((tmp_path / "drawn").iterdir())) == 10
    assert "scans/broken.png" in capsys.readouterr().err
    before = (tmp_path / "ray.jsonl").read_bytes()
    (tmp_path / "ray.jsonl").write_bytes(b"".join(before.splitlines(keepends=True)[:4]))
    assert main([*common, *ray]) == 1
    assert lines(tmp_path / "ray.jsonl") == lines(tmp_path / "alone.jsonl")
    assert (tmp_path / "ray.jsonl").read_bytes().splitlines()[:4] == before.splitlines()[:4]
    capsys.readouterr()
    assert main([*common, *ray, "--workers", "1"]) == 1
    assert not (tmp_path / "ray_set_aside.jsonl").exists()


def lines(path):
    found = [json.loads(line) for line in path.read_text().splitlines()]
    for line in found:
        del line["inspection"]["processing_time_ms"]
        line["error"] = line.get("error", "").rpartition("scans/")[2]
    return found
