import json

import pytest
from PIL import Image, ImageDraw

from xray_vqa.cli.inspect import name_scans
from xray_vqa.cli.main import main
from xray_vqa.serving.schemas import EXAMPLES, SCAN_ID_PATTERN


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Three scans in a folder, and a script that finds a knife in the first of them."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "scans/deep").mkdir(parents=True)
    for name in ("scans/a.jpg", "scans/b.PNG", "scans/deep/a.bmp"):
        image = Image.new("RGB", (300, 200), "white")
        ImageDraw.Draw(image).rectangle((50, 50, 250, 150), fill="orange")
        image.save(tmp_path / name)
    (tmp_path / "scans/notes.txt").write_text("no scan")
    (tmp_path / "script.json").write_text(
        '[{"probabilities": {"Knife": 0.93}, "boxes": {"Knife": [[0.5, 0.5, 0.75, 0.75]]}}, {}]'
    )
    return tmp_path


def inspect(*words) -> int:
    return main(["inspect", *words, "--engine", "scripted", "--model", "script.json"])


def test_a_decision_is_printed_for_each_scan_of_a_folder(folder, capsys):
    assert inspect("scans") == 0
    out = capsys.readouterr().out
    assert out.startswith("scans/a.jpg: MANUAL INSPECTION, risk high")
    assert "  Knife              93%  center        box 150 100 75 50\n" in out
    assert "scans/b.PNG: CLEAR, risk low" in out
    assert "scans/deep/a.bmp: CLEAR, risk low" in out
    assert "notes.txt" not in out


def test_json_lines_have_the_keys_of_the_api(folder, capsys):
    assert inspect("scans/*.jpg", "scans/b.PNG", "--json", "--declared", "clothing") == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["scan_id"] for line in lines] == ["a", "b"]
    for line in lines:
        assert list(line) == list(EXAMPLES["InspectResponse"])
        assert line["audit_id"] is None
        (declared,) = line["declaration"]
        assert (declared["item"], declared["status"], declared["category"]) == ("clothing", "not_verified", None)
    assert lines[0]["detected_items"] == ["knife"]


@pytest.mark.parametrize(
    ("words", "declared"), [([], []), (["--declared"], []), (["--declared", "a", "b"], ["a", "b"])]
)
def test_declared_alone_means_nothing_to_declare(folder, capsys, words, declared):
    policy = folder / "policy.yaml"
    from xray_vqa.config.loading import find_config

    policy.write_text(
        find_config("policy.yaml")
        .read_text()
        .replace("absent_declaration: accept", "absent_declaration: manual_inspection")
    )
    assert inspect("scans/b.PNG", "scans/deep/a.bmp", "--json", "--policy", str(policy), *words) == 0
    second = json.loads(capsys.readouterr().out.splitlines()[1])
    assert [line["item"] for line in second["declaration"]] == declared
    assert ("declaration_accepted" in second["reasons"]) == (not words)


def test_an_unreadable_file_is_named_counts_as_manual_inspection_and_fails_the_command(folder, capsys):
    (folder / "scans/broken.jpg").write_bytes((folder / "scans/a.jpg").read_bytes()[:-400])
    assert inspect("scans/broken.jpg", "scans/notes.txt", "scans/a.jpg", "--json") == 1
    captured = capsys.readouterr()
    lines = [json.loads(line) for line in captured.out.splitlines()]
    assert [line["scan_id"] for line in lines] == ["broken", "notes", "a"]
    for line in lines[:2]:
        assert (line["action"], line["risk_level"], line["degraded"]) == ("manual_inspection", "high", True)
        assert line["reasons"][0] == "image_unreadable"
        assert "No prohibited item" not in line["reasoning"]
    assert lines[2]["degraded"] is False
    assert "scans/broken.jpg: the image is cut off or damaged" in captured.err
    assert "2 of 3 files could not be read" in captured.err


def test_pictures_are_drawn_under_names_that_do_not_collide(folder, capsys):
    assert inspect("scans", "--save-dir", "drawn") == 0
    assert sorted(path.name for path in (folder / "drawn").iterdir()) == ["a.png", "b.png", "deep-a.png"]
    with Image.open(folder / "drawn/a.png") as drawn:
        assert drawn.size == (300, 200)
        assert drawn.convert("RGB").getpixel((150, 125)) == (208, 0, 0)


def test_a_path_without_scans_is_an_error_that_names_it(folder, capsys):
    assert inspect("nowhere/*.jpg") == 1
    assert "nowhere/*.jpg: no such file" in capsys.readouterr().err
    (folder / "empty").mkdir()
    assert inspect("empty") == 1
    assert "empty: holds no image" in capsys.readouterr().err


def test_a_model_that_cannot_be_loaded_is_wrong_use(folder, capsys):
    assert main(["inspect", "scans/a.jpg", "--model", "nowhere/at-all"]) == 2
    assert capsys.readouterr().err.strip()


def test_scan_ids_are_valid_and_different_whatever_files_are_called():
    from pathlib import Path
    from re import fullmatch

    paths = [
        Path(name) for name in ("x/Größe 1.jpg", "y/a.jpg", "y/a.png", "y/a.bmp", "z/.jpg", "z/" + "l" * 200 + ".jpg")
    ]
    names = name_scans(paths)
    assert len(set(names)) == len(paths)
    assert all(fullmatch(SCAN_ID_PATTERN, name) for name in names)
