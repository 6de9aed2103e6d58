"""`xray-vqa robustness` and `suite` as a user runs them: files, a kill and going on, and real scans where they are."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from xray_vqa.cli.main import main
from xray_vqa.core.manifest import make_manifest, write_manifest

REAL = Path(os.environ.get("XRAY_VQA_REAL_DIR", "../shared/real"))
NUM_SCANS = 12


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Scans of which every other one holds a knife in its upper left quarter, pairs, and a script that is right."""
    root = tmp_path / "data"
    (root / "test" / "images").mkdir(parents=True)
    rng = np.random.default_rng(0)
    records, lines = [], []
    for number in range(NUM_SCANS):
        path, there = f"test/images/{number:06d}.png", number % 2 == 0
        Image.fromarray(rng.integers(0, 255, (48, 64, 3), dtype=np.uint8)).save(root / path)
        records.append(
            {"image_id": number, "image_filename": Path(path).name, "image_path": path, "width": 64, "height": 48,
             "categories": ["Knife"] * there, "bboxes": [[0, 0, 32, 24]] * there, "group": f"bag-{number}"}
        )  # fmt: skip
        metadata = {"image_id": number, "question_type": "presence", "generated_by": "template", "short_answer": "no"}
        lines.append({"image_path": path, "question": "Is there a gun?", "answer": "No.", "metadata": metadata})
    (root / "test" / "annotations.json").write_text(json.dumps(records))
    write_manifest(root, make_manifest("import", annotated_categories=["Knife"]))
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text("".join(json.dumps(line) + "\n" for line in lines))
    write_manifest(pairs, make_manifest("generate", dataset_root="data", split="test"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


SEEN = {"probabilities": {"Knife": 0.9}, "boxes": {"Knife": [[0, 0, 0.5, 0.5]]}}
MISSED = {"probabilities": {"Knife": 0.1}}


def write_script(*steps: dict, **common: object) -> None:
    Path("script.json").write_text(json.dumps([{**step, **common} for step in steps]))


def words(*more: str) -> list[str]:
    return ["robustness", "--engine", "scripted", "--model", "script.json", "--test-file", "pairs.jsonl", *more]


def test_a_fall_shows_in_file_table_and_plot(workplace, capsys):
    # Right on all scans as they are and at 30; at 60 every knife is missed.
    write_script(*[SEEN, {}] * (NUM_SCANS // 2) * 2, *[MISSED, {}] * (NUM_SCANS // 2))
    assert main(words("--only", "jpeg=30,60")) == 0
    results = json.loads(Path("results/robustness.json").read_text())
    (curve,) = results["curves"]
    assert [point["pd"]["value"] for point in curve["points"]] == [1.0, 1.0, 0.0]
    assert [point["changes"]["pd"]["value"] for point in curve["points"]] == [0.0, 0.0, -1.0]
    assert curve["points"][0]["localisation"]["value"] == 1.0
    # No alarm on six clean bags is no certainty: Wilson's upper end for 0 of 6.
    assert curve["points"][0]["pfa"]["high"] == pytest.approx(0.3903, abs=1e-4)
    assert curve["drop"]["strength"] == pytest.approx(31.5)  # 30 + 0.05 of the way to 60
    rows = list(csv.DictReader(Path("results/robustness.csv").read_text().splitlines()))
    assert ("jpeg", "60", "pd", "0.0") in {(r["kind"], r["strength"], r["number"], r["value"]) for r in rows}
    assert Path("results/robustness.svg").read_text().count("<polyline") == 3
    assert "jpeg: 31.5" in capsys.readouterr().out


def test_boxes_are_compared_where_the_turned_scan_has_them(workplace):
    # The script places the knife in the upper left quarter of whatever it is shown; a quarter turn moves it lower left.
    write_script(*[SEEN, {}] * (NUM_SCANS // 2) * 3)
    assert main(words("--only", "rotation=90", "scale=1")) == 0
    turned, scaled = json.loads(Path("results/robustness.json").read_text())["curves"]
    assert turned["points"][1]["localisation"]["value"] == 0.0
    assert scaled["points"][1]["localisation"]["value"] == 1.0


def test_killed_it_goes_on_and_ends_as_if_it_had_not_been(workplace):
    write_script(*[SEEN, {}] * (NUM_SCANS // 2) * 3, delay_s=0.1)
    command = [sys.executable, "-m", "xray_vqa", *words("--only", "noise=5,10")]
    first = workplace / "results" / "robustness" / "noise-5.jsonl"
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        until = time.monotonic() + 120
        while not (first.is_file() and first.read_bytes().count(b"\n") >= 3) and time.monotonic() < until:
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
    kept = first.read_bytes().splitlines()[:3]
    assert 3 <= len(first.read_bytes().splitlines()) < NUM_SCANS
    write_script(SEEN)  # what stands is not asked again: this script would flag clean bags as well
    assert main(words("--only", "noise=5,10")) == 0
    assert first.read_bytes().splitlines()[:3] == kept
    points = json.loads(Path("results/robustness.json").read_text())["curves"][0]["points"]
    assert points[0]["pfa"]["value"] == 0.0  # from before the kill
    assert points[2]["pfa"]["value"] == 1.0


def test_another_seed_is_another_condition_and_never_gone_on_with(workplace):
    write_script(*[SEEN, {}] * NUM_SCANS)
    assert main(words("--only", "noise=5")) == 0
    assert main(words("--only", "noise=5", "--seed", "1")) == 0
    assert (workplace / "results/robustness/noise-5.jsonl.previous").is_file()
    assert not (workplace / "results/robustness/unperturbed.jsonl.previous").exists()


@pytest.mark.parametrize("only", ["fog", "jpeg=100", "occlusion=2", "noise=0"])
def test_a_condition_without_a_meaning_is_refused_before_anything_runs(workplace, only):
    assert main(words("--only", only)) == 2
    assert not (workplace / "results").exists()


def needs(part: str) -> Path:
    if not (REAL / part).exists():
        pytest.skip(f"no {part} in {REAL}; set XRAY_VQA_REAL_DIR")
    return REAL


def test_sting_bees_questions_about_real_scans_are_scored_above_blind(tmp_path, monkeypatch, capsys):
    real = needs("sixray_vqa").resolve()
    monkeypatch.chdir(tmp_path)
    Path("script.json").write_text(json.dumps([{}]))  # says "I see a bag." to everything
    published = real / "sixray_vqa"
    done = main([
        "suite", "sting-bee", "--questions", str(published / "Sixray_VQA_questions.jsonl"),
        "--answers", str(published / "Sixray_VQA_answers.csv"), "--names", str(published / "image_names.csv"),
        "--images", str(real), "--engine", "scripted", "--model", "script.json", "--blind",
    ])  # fmt: skip
    assert done == 0
    overall = json.loads(Path("results/sting_bee.json").read_text())["overall"]
    assert (overall["n"], overall["num_unparsable"], overall["accuracy"]["value"]) == (340, 340, 0.0)
    assert overall["accuracy_of_parsed"] is None
    assert overall["gain_over_blind"]["value"] == 0.0
    assert overall["never_looking"] > 0.7
    assert "Misleading Question" in capsys.readouterr().out


def test_a_coco_set_of_real_scans_becomes_a_balanced_test_set(tmp_path, monkeypatch):
    real = needs("sixray_coco").resolve()
    monkeypatch.chdir(tmp_path)
    assert main(["suite", "coco", str(real / "sixray_coco"), "--output-dir", "coco"]) == 0
    pairs = [json.loads(line) for line in Path("coco_poll.jsonl").read_text().splitlines()]
    answers = [pair["metadata"]["short_answer"] for pair in pairs]
    assert answers.count("yes") == answers.count("no") > 500
    assert {pair["metadata"]["target"] for pair in pairs} == {"Gun", "Knife", "Wrench"}
    Path("script.json").write_text(json.dumps([{}]))
    done = main(["evaluate", "predict", "--engine", "scripted", "--model", "script.json", "--test-file",
                 "coco_poll.jsonl", "--max-images", "5"])  # fmt: skip
    assert done == 0
