"""`xray-vqa inspect` over many files: the journal, manifests, DICOM, languages."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image, ImageDraw

from xray_vqa.cli.main import main

FOUND = {"probabilities": {"Knife": 0.93}, "boxes": {"Knife": [[0.5, 0.5, 0.75, 0.75]]}}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "scans").mkdir()
    for number in range(12):
        image = Image.new("RGB", (300, 200), "white")
        ImageDraw.Draw(image).rectangle((50, 50, 200 + number, 150), fill="orange")
        image.save(tmp_path / f"scans/{number:02}.png")
    (tmp_path / "script.json").write_text(json.dumps([FOUND]))
    return tmp_path


def words(*more):
    return ["inspect", "scans", "--engine", "scripted", "--model", "script.json", *map(str, more)]


def lines(path):
    """The lines without the times."""
    found = [json.loads(line) for line in path.read_text().splitlines()]
    for line in found:
        del line["inspection"]["processing_time_ms"]
    return found


def test_two_runs_write_the_same_and_a_third_keeps_every_byte(folder, capsys):
    for name in ("a.jsonl", "b.jsonl"):
        assert main(words("--output", name, "--batch-size", 5)) == 0
    assert lines(folder / "a.jsonl") == lines(folder / "b.jsonl")
    assert [line["path"] for line in lines(folder / "a.jsonl")] == [f"scans/{number:02}.png" for number in range(12)]
    before = (folder / "a.jsonl").read_bytes()
    assert main(words("--output", "a.jsonl")) == 0
    assert (folder / "a.jsonl").read_bytes() == before
    assert not (folder / "a_set_aside.jsonl").exists()


def test_a_killed_run_goes_on_and_ends_with_the_same_file(folder):
    assert main(words("--output", "whole.jsonl")) == 0
    (folder / "script.json").write_text(json.dumps([FOUND | {"delay_s": 0.2}]))
    running = subprocess.Popen([sys.executable, "-m", "xray_vqa", *words("--output", "killed.jsonl")], cwd=folder)
    killed = folder / "killed.jsonl"
    deadline = time.monotonic() + 120
    while not (killed.exists() and killed.read_bytes().count(b"\n") >= 3):
        assert time.monotonic() < deadline
        assert running.poll() is None
        time.sleep(0.02)
    os.kill(running.pid, signal.SIGKILL)
    running.wait()
    written = killed.read_bytes()
    assert 3 <= written.count(b"\n") < 12
    killed.write_bytes(written + b'{"path": "scans/cut')  # as a full disk or a power cut leaves it
    (folder / "script.json").write_text(json.dumps([FOUND]))
    assert main(words("--output", "killed.jsonl")) == 0
    assert lines(killed) == lines(folder / "whole.jsonl")
    assert killed.read_bytes().startswith(written)


def test_lines_of_changed_files_and_other_policies_are_set_aside(folder, capsys):
    assert main(words("--output", "out.jsonl")) == 0
    Image.new("RGB", (300, 200), "orange").save(folder / "scans/03.png")
    (folder / "scans/07.png").unlink()
    assert main(words("--output", "out.jsonl")) == 0
    assert "2 lines of other files" in capsys.readouterr().err
    assert sorted(line["path"] for line in lines(folder / "out_set_aside.jsonl")) == ["scans/03.png", "scans/07.png"]
    assert len(lines(folder / "out.jsonl")) == 11
    assert main(words("--output", "out.jsonl", "--language", "fr")) == 0
    assert len(lines(folder / "out_set_aside.jsonl")) == 13
    assert lines(folder / "out.jsonl")[0]["inspection"]["reasoning"].startswith("Articles prohibés détectés : 1.")


def test_a_file_of_somebody_else_is_not_written_to(folder, capsys):
    (folder / "mine.jsonl").write_text('{"my": "data"}\n')
    assert main(words("--output", "mine.jsonl")) == 2
    assert (folder / "mine.jsonl").read_text() == '{"my": "data"}\n'


def test_a_manifest_declares_for_each_scan_and_names_what_does_not_fit(folder, capsys):
    (folder / "declared.csv").write_text("scan,declared_items\n00.png,clothing;books\nscans/01.png,\n02,knife\nxx,a\n")
    assert main(words("--output", "out.jsonl", "--manifest", "declared.csv")) == 0
    error = capsys.readouterr().err
    assert "1 names in it are no scan's: xx" in error
    assert "9 scans are not in it: scans/03.png" in error
    declared = [line.get("declared_items") for line in lines(folder / "out.jsonl")]
    assert declared == [["clothing", "books"], [], ["knife"], *[None] * 9]
    (folder / "declared.json").write_text('{"00": ["clothing", "books"], "01": [], "02": ["knife"]}')
    before = (folder / "out.jsonl").read_bytes()
    assert main(words("--output", "out.jsonl", "--manifest", "declared.json")) == 0
    assert (folder / "out.jsonl").read_bytes() == before


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("m.csv", "file,items\n", "begins with the line"),
        ("m.csv", "scan,declared_items\n00,a,b\n", "m.csv:2: 3 cells"),
        ("m.csv", "scan,declared_items\n00,a\n00,b\n", "00 stands in it twice"),
        ("m.csv", "scan,declared_items\n00,a\n00.png,b\n", "not the only name"),
        ("m.json", "[]", "an object of names"),
        ("m.json", '{"00": "a"}', "no list of items"),
        ("m.json", '{"00": ["a\\nb"]}', "not printable"),
        ("none.csv", None, "cannot be read"),
    ],
)
def test_a_manifest_of_another_form_is_wrong_use(folder, capsys, name, text, said):
    if text is not None:
        (folder / name).write_text(text)
    assert main(words("--manifest", name)) == 2
    assert said in capsys.readouterr().err


def test_dicom_files_are_inspected_and_volumes_go_to_a_person(folder, capsys):
    pytest.importorskip("pydicom", reason="needs the extra dicom")
    from dicom_files import write_dicom

    ramp = np.tile(np.linspace(0, 4095, 64).astype(np.uint16), (48, 1))
    write_dicom(folder / "dx/one.dcm", ramp)
    write_dicom(folder / "dx/two.dcm", np.stack([ramp, ramp]))
    command = ["inspect", "dx", "--engine", "scripted", "--model", "script.json", "--json", "--save-dir", "drawn"]
    assert main(command) == 1
    captured = capsys.readouterr()
    one, two = (json.loads(line) for line in captured.out.splitlines())
    assert one["detected_items"] == ["knife"]
    assert (two["action"], two["degraded"], two["reasons"][0]) == ("manual_inspection", True, "image_unreadable")
    assert "dx/two.dcm: has 2 frames" in captured.err
    with Image.open(folder / "drawn/one.png") as drawn:
        assert drawn.size == (64, 48)


def test_a_full_disk_ends_incomplete_with_whole_lines(folder, small_disk, capsys):
    disk = small_disk("64k")
    output = disk / "out.jsonl"
    for number in range(12, 80):
        (folder / f"scans/{number}.png").write_bytes((folder / "scans/00.png").read_bytes())
    assert main(words("--output", output)) == 3
    assert "make room" in capsys.readouterr().err
    kept = output.read_bytes()
    assert kept.endswith(b"\n")
    small_disk("1m", disk)
    assert main(words("--output", output)) == 0
    assert len(lines(output)) == 80
    assert output.read_bytes().startswith(kept)


def test_heat_maps_need_a_place_and_a_model(folder, capsys):
    assert main(words("--heat-maps")) == 2
    assert main(words("--heat-maps", "--save-dir", "drawn")) == 2
    assert "transformers engine" in capsys.readouterr().err


def test_the_models_words_are_marked_and_change_no_decision(folder, capsys):
    assert main(words("--output", "plain.jsonl")) == 0
    assert main(words("--output", "words.jsonl", "--model-words")) == 0
    assert "the model's own words, not checked: I see a bag." in capsys.readouterr().out
    asked = lines(folder / "words.jsonl")
    assert {line["model_words"] for line in asked} == {"I see a bag."}
    assert [line["inspection"] for line in asked] == [line["inspection"] for line in lines(folder / "plain.jsonl")]
