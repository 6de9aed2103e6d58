"""Your own data, on real scans: import, pairs, training, evaluation, inspection, each by its own command."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

REAL_DIR = Path(os.environ.get("XRAY_VQA_REAL_DIR") or Path(__file__).resolve().parents[3] / "shared/real")
SCANS = REAL_DIR / "sixray_coco"

pytestmark = pytest.mark.skipif(not SCANS.is_dir(), reason=f"no real scans in {SCANS}; set XRAY_VQA_REAL_DIR")


def xray_vqa(*words: object) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "xray_vqa", *map(str, words)], capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == 0, f"{words}: exit {done.returncode}\n{done.stderr[-2000:]}"
    return done.stdout


def test_real_scans_go_the_whole_way(tiny_model_dir: Path, tmp_path: Path):
    data, model = tmp_path / "mine", tmp_path / "model"
    xray_vqa("data", "import", "--format", "coco", SCANS, "--output-dir", data)
    for split, name in (("train", "train"), ("test", "val")):
        xray_vqa(
            "generate", "--provider", "template", "--annotations", data / split / "annotations.json",
            "--output", tmp_path / f"{name}.jsonl", "--max-images", "40" if split == "train" else "6",
        )  # fmt: skip
    xray_vqa(
        "train", "configs/train_demo.yaml", f"model_name={tiny_model_dir}", f"train_file={tmp_path / 'train.jsonl'}",
        f"output_dir={model}", "max_steps=3", "eval_steps=3", "save_steps=3",
    )  # fmt: skip
    figures = json.loads(
        xray_vqa(
            "evaluate", "--model", model, "--test-file", tmp_path / "val.jsonl", "--output", tmp_path / "results.json",
            "--train-file", tmp_path / "train.jsonl",
        )
    )  # fmt: skip
    assert list(figures) == ["exact_match_accuracy", "item_f1", "bleu", "rouge_l"]
    manifest = json.loads((data / "manifest.json").read_text())
    assert manifest["annotated_categories"] == ["Gun", "Knife", "Wrench"]
    asked = [json.loads(line)["metadata"] for line in (tmp_path / "train.jsonl").read_text().splitlines()]
    answers = {about["short_answer"] for about in asked if about["target"] not in ("", "Gun", "Knife", "Wrench")}
    assert answers <= {"cannot be determined"}  # SIXray says nothing of explosives, so nothing is said here
    scan = next((data / "test" / "images").iterdir())
    (line,) = xray_vqa("inspect", "--model", model, "--json", scan).splitlines()
    answer = json.loads(line)
    assert answer["action"] != "clear"  # a model without calibration clears nothing
    assert set(answer) >= {"scan_id", "detected_items", "risk_level", "action", "reasoning", "match_declaration"}


def test_the_recipe_for_real_scans_goes_the_whole_way(tiny_model_dir: Path, tmp_path: Path):
    """configs/finetune_real.yaml with threats projected into the same bags mixed in, at the smallest size."""
    data, tip, model = tmp_path / "mine", tmp_path / "tip", tmp_path / "model"
    xray_vqa("data", "import", "--format", "coco", SCANS, "--output-dir", data)
    xray_vqa("data", "tip", data, "--output-dir", tip, "--count", "4", "--only-projected", "--workers", "1")
    pairs = {}
    for root, split, count in ((data, "train", 40), (data, "test", 40), (tip, "train", 40)):
        pairs[root, split] = tmp_path / f"{root.name}_{split}.jsonl"
        xray_vqa(
            "generate", "--provider", "template", "--annotations", root / split / "annotations.json",
            "--output", pairs[root, split], "--max-images", count, "--samples-per-image", 1,
        )  # fmt: skip
    xray_vqa(
        "train", "--config", "configs/finetune_real.yaml", f"model_name={tiny_model_dir}", f"output_dir={model}",
        f"train_file={pairs[data, 'train']}", f"mix_files=[{{file: {pairs[tip, 'train']}, weight: 0.5}}]",
        "per_device_train_batch_size=8", "max_steps=2",
    )  # fmt: skip
    results = tmp_path / "results.json"
    xray_vqa("evaluate", "--model", model, "--test-file", pairs[data, "test"], "--output", results)
    categories = json.loads(results.read_text())["screening"]["categories"]
    assert list(categories) == ["Gun", "Knife", "Wrench"]  # nothing else is annotated, so nothing else is scored
    assert all(row["auc"] == row["auc_interval"]["value"] for row in categories.values())
    assert json.loads((model / "xray_vqa.json").read_text())["covered_categories"] == ["Gun", "Knife", "Wrench"]
