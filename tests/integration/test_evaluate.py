"""`xray-vqa evaluate` and `benchmark` as a user runs them, over a dataset of a few scans and a scripted engine."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from xray_vqa.cli.main import main
from xray_vqa.core.calibration import read_calibration
from xray_vqa.core.manifest import make_manifest, read_manifest, write_manifest
from xray_vqa.errors import DatasetError
from xray_vqa.evaluation.evaluate import EvaluationSettings, base_of_adapter, calibrate_trained
from xray_vqa.modeling.loading import NANO_DIR
from xray_vqa.training.inputs.scans import read_training_data

ROOT = Path(__file__).resolve().parents[2]
NUM_TEST, NUM_TRAIN = 8, 60


def write_scans(root: Path, split: str, count: int, *, seed: int) -> list[dict]:
    """Every other scan holds a knife in its upper left quarter; each is a bag of its own."""
    rng = np.random.default_rng(seed)
    (root / split / "images").mkdir(parents=True)
    records = []
    for number in range(count):
        path = f"{split}/images/{number:06d}.png"
        Image.fromarray(rng.integers(0, 255, (48, 64, 3), dtype=np.uint8)).save(root / path)
        threat = number % 2 == 0
        records.append(
            {
                "image_id": number,
                "image_filename": Path(path).name,
                "image_path": path,
                "width": 64,
                "height": 48,
                "categories": ["Knife"] if threat else [],
                "bboxes": [[0, 0, 32, 24]] if threat else [],
                "group": f"{split}-{number}",
            }
        )
    (root / split / "annotations.json").write_text(json.dumps(records))
    return records


def write_pairs(path: Path, root: Path, split: str, records: list[dict]) -> None:
    lines = []
    for record in records:
        there = bool(record["categories"])
        answer = "A knife lies in the upper-left corner." if there else "No prohibited items are in this bag."
        texts = [
            ("presence", "Is there a knife?", "Yes." if there else "No.", "yes" if there else "no"),
            ("listing", "Which prohibited items are in the bag?", answer, "knife" if there else "none"),
        ]
        for kind, question, text, short in texts:
            metadata = {
                "image_id": record["image_id"],
                "question_type": kind,
                "categories": record["categories"],
                "generated_by": "template",
                "short_answer": short,
            }
            lines.append(
                {"image_path": record["image_path"], "question": question, "answer": text, "metadata": metadata}
            )
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    write_manifest(path, make_manifest("generate", dataset_root=os.path.relpath(root, path.parent), split=split))


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A dataset, its pairs and a script, where the guide has them."""
    root = tmp_path / "data" / "stcray"
    for split, count, seed in (("train", NUM_TRAIN, 0), ("test", NUM_TEST, 1)):
        records = write_scans(root, split, count, seed=seed)
        name = "train" if split == "train" else "val"
        write_pairs(tmp_path / "data" / f"stcray_vqa_{name}.jsonl", root, split, records)
    write_manifest(root, make_manifest("synth", annotated_categories=["Knife", "Gun"]))
    write_script(tmp_path, [{"probabilities": {"Knife": 0.9}, "boxes": {"Knife": [[0, 0, 0.5, 0.5]]}}, {}])
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_script(folder: Path, pattern: list[dict], *, repeats: int = 100, **common: object) -> Path:
    """A script that goes through a pattern of readings again and again."""
    path = folder / "script.json"
    path.write_text(json.dumps([{**step, **common} for step in pattern * repeats]))
    return path


def evaluate(*words: str) -> int:
    return main(["evaluate", "--engine", "scripted", "--model", "script.json", *words])


def results_of(folder: Path, name: str = "evaluation") -> dict:
    return json.loads((folder / "results" / f"{name}.json").read_text())


def test_flat_keys_come_first_in_the_file_and_alone_on_stdout(workplace, capsys):
    assert evaluate() == 0
    results = results_of(workplace)
    flat = ["exact_match_accuracy", "item_f1", "bleu", "rouge_l"]
    assert list(results)[:4] == flat
    printed = json.loads(capsys.readouterr().out)
    assert printed == {key: results[key] for key in flat}
    # The script answers "I see a bag." to everything, and its scores are right on every scan.
    assert results["exact_match_accuracy"] == 0.0
    assert results["item_f1"] == 1.0
    assert results["screening"]["bag"]["auc"]["value"] == 1.0
    assert results["screening"]["bag"]["num_threat"] == 4
    assert results["localisation"]["accuracy"]["value"] == 1.0
    assert results["scored"]["num_questions"] == 2 * NUM_TEST


def test_rows_for_majority_blind_and_untuned_stand_beside_the_model(workplace, capsys):
    (workplace / "base.json").write_text(json.dumps([{}]))  # says 0.01 to everything
    assert evaluate("--blind", "--baseline", "base.json") == 0
    rows = {row["name"]: row for row in results_of(workplace)["rows"]}
    assert list(rows) == ["model", "untuned", "majority", "blind", "guide"]
    assert rows["untuned"]["item_f1"]["value"] == 0.0
    assert rows["untuned"]["bag_auc"]["value"] == 0.5
    # Half of the training answers to each type are "yes" and "no", "knife" and "none": the first in the alphabet wins,
    # and is right on half of the test questions.
    assert rows["majority"]["exact_match"]["value"] == 0.5
    assert rows["blind"]["bag_auc"]["value"] == 0.5
    assert [rows["guide"][name]["value"] for name in ("exact_match", "item_f1", "bleu", "rouge_l")] == [
        0.72, 0.85, 0.68, 0.74,
    ]  # fmt: skip
    assert rows["guide"]["bag_auc"]["value"] is None
    table = capsys.readouterr().err
    assert all(f"\n{name} " in table for name in rows)


def test_the_blind_row_is_there_unless_left_out_and_then_that_is_said(workplace):
    assert evaluate() == 0
    assert "blind" in {row["name"] for row in results_of(workplace)["rows"]}
    assert evaluate("--no-blind") == 0
    results = results_of(workplace)
    assert "blind" not in {row["name"] for row in results["rows"]}
    assert any("--no-blind" in note for note in results["notes"])


def test_an_adapters_base_is_the_untuned_row_where_it_is_at_hand(workplace):
    adapter = workplace / "adapter"
    adapter.mkdir()
    assert base_of_adapter("nano") is None
    for base, expected in (("nano", "nano"), (str(workplace), str(workplace)), ("Far/Away", None)):
        (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": base}))
        assert base_of_adapter(str(adapter)) == expected
    settings = EvaluationSettings(model=str(adapter), baseline="none")
    assert settings.baseline_model() is None
    assert settings.model_copy(update={"baseline": "other"}).baseline_model() == "other"


def test_shards_join_into_what_one_run_gives_and_a_missing_one_is_named(workplace, capsys):
    assert evaluate("--output", "results/whole.json") == 0
    write_script(workplace, [{"probabilities": {"Knife": 0.9}, "boxes": {"Knife": [[0, 0, 0.5, 0.5]]}}])
    assert evaluate("predict", "--shard", "1/2") == 0  # the scans with a knife are the even ones
    write_script(workplace, [{}])
    assert evaluate("score") == 3
    assert "predictions.shard-2-of-2.jsonl" in capsys.readouterr().err
    assert evaluate("predict", "--shard", "2/2") == 0
    assert evaluate("score") == 0
    whole, joined = results_of(workplace, "whole"), results_of(workplace)
    for key in ("item_f1", "screening", "text", "localisation"):
        assert joined[key] == whole[key]
    first = (workplace / "results/evaluation/predictions.jsonl").read_bytes()
    assert [json.loads(line)["image_id"] for line in first.splitlines()] == list(range(NUM_TEST))
    assert evaluate("score") == 0
    assert (workplace / "results/evaluation/predictions.jsonl").read_bytes() == first


def test_shards_of_other_thresholds_are_not_joined(workplace, capsys):
    assert evaluate("predict", "--shard", "1/2") == 0
    assert evaluate("predict", "--shard", "2/2") == 0
    path = workplace / "results/evaluation/predictions.shard-2-of-2.jsonl.manifest.json"
    value = json.loads(path.read_text())
    value["config"]["point"]["thresholds"]["Knife"] = 0.9
    path.write_text(json.dumps(value))
    assert evaluate("score") == 1
    assert "cannot be joined: another point" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["--shard", "1/2"], ["score", "--shard", "1/2"]])
def test_a_shard_is_for_predicting_alone(workplace, words):
    assert evaluate(*words) == 2


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "a/b", "1/0"])
def test_a_shard_that_is_none_is_refused(workplace, text):
    with pytest.raises(SystemExit):
        evaluate("predict", "--shard", text)


def leak(workplace: Path, key: str, value: str) -> None:
    for split in ("train", "test"):
        path = workplace / "data/stcray" / split / "annotations.json"
        records = json.loads(path.read_text())
        records[3][key] = value
        path.write_text(json.dumps(records))


@pytest.mark.parametrize(("key", "told"), [("sha256", "have the bytes"), ("group", "are of the group")])
def test_test_scans_that_were_trained_on_are_refused_and_told_where_they_are_allowed(workplace, capsys, key, told):
    leak(workplace, key, "ab" * 32)
    assert evaluate() == 1
    assert f"1 test scans {told} of a training scan, first test/images/000003.png" in capsys.readouterr().err
    assert not (workplace / "results").exists()
    assert evaluate("--allow-leakage") == 0
    assert results_of(workplace)["notes"][0].startswith("LEAKAGE")


def test_a_test_scan_that_looks_like_a_training_scan_is_told_and_scored(workplace, monkeypatch):
    images = workplace / "data/stcray"
    seen = Image.open(images / "train/images/000007.png").point(lambda value: min(255, value + 3))
    seen.save(images / "test/images/000003.png")
    seen.save(images / "test/images/000005.png")
    assert evaluate() == 0
    told = [note for note in results_of(workplace)["notes"] if note.startswith("leakage")]
    assert len(told) == 1
    assert f"({NUM_TRAIN} training images, pHash within 6 of 64 bits): 2 test scans look like a training" in told[0]
    assert "first test/images/000003.png (as train/images/000007.png)" in told[0]

    def broken(*_):
        raise AssertionError("the images were looked at before")

    monkeypatch.setattr("xray_vqa.evaluation.trust.look_at_images", broken)
    assert evaluate("score") == 0
    assert told[0] in results_of(workplace)["notes"]
    for kept in (workplace / "results/evaluation").glob("looks-*.npz"):
        kept.write_bytes(kept.read_bytes()[:100])  # a disk that was full
    with pytest.raises(AssertionError):
        evaluate("score")
    assert evaluate("score", "--no-near-copies") == 0
    assert "leakage was looked for by bytes and bags alone (--no-near-copies)" in results_of(workplace)["notes"]


def test_which_leakage_was_looked_for_is_said_where_none_is_found(workplace):
    assert evaluate() == 0
    assert any(f"bytes, bags and looks ({NUM_TRAIN} training images" in note for note in results_of(workplace)["notes"])


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda lines: lines[:-1], "1 scans missing, first test/images/000007.png"),
        (lambda lines: [*lines, lines[2]], "1 scans doubled, first test/images/000002.png"),
        (lambda lines: [*lines[:-1], lines[-1].replace("000007.png", "999999.png")], "1 scans not of this test set"),
        (lambda lines: [lines[0].replace('"pair": 0', '"pair": 9'), *lines[1:]], "1 scans with other questions"),
        (lambda lines: [lines[0].replace('"category": "Knife"', '"category": "Gun"'), *lines[1:]], "other items"),
        (lambda lines: [lines[0].replace("0.9,", "NaN,").replace("0.9}", "NaN}"), *lines[1:]], "predictions.jsonl:1"),
        (lambda lines: [lines[0].replace('"probability": 0.9', '"probability": 9'), *lines[1:]], "Knife.probability"),
    ],
)  # fmt: skip
def test_predictions_that_do_not_fit_the_test_set_are_refused_by_name(workplace, capsys, spoil, told):
    assert evaluate("predict") == 0
    path = workplace / "results/evaluation/predictions.jsonl"
    path.write_text("".join(line + "\n" for line in spoil(path.read_text().splitlines())))
    assert evaluate("score") == 1
    assert told in capsys.readouterr().err


@pytest.mark.parametrize("changed", ["data/stcray/test/annotations.json", "data/stcray_vqa_val.jsonl"])
def test_predictions_of_another_version_of_the_data_are_refused(workplace, capsys, changed):
    assert evaluate("predict") == 0
    path = workplace / changed
    path.write_text(path.read_text() + "\n")
    assert evaluate("score") == 1
    assert "predictions.jsonl: made from other pairs or annotations" in capsys.readouterr().err
    assert not (workplace / "results/evaluation.json").exists()


def test_a_class_that_no_scan_or_every_scan_has_is_said(workplace):
    path = workplace / "data/stcray/test/annotations.json"
    records = json.loads(path.read_text())
    path.write_text(json.dumps([{**r, "categories": ["Knife"], "bboxes": [[0, 0, 32, 24]]} for r in records]))
    assert evaluate() == 0
    notes = " ".join(results_of(workplace)["notes"])
    assert "no scan holds Gun" in notes
    assert "every scan holds Knife" in notes
    assert results_of(workplace)["screening"]["categories"]["Gun"]["pd"]["value"] is None
    assert results_of(workplace)["screening"]["bag"]["pfa"]["value"] is None


def test_blind_predictions_of_another_prompt_are_left_out_by_name(workplace):
    assert evaluate() == 0
    path = workplace / "results/evaluation/blind.jsonl.manifest.json"
    value = json.loads(path.read_text())
    value["config"]["identity"]["prompt_version"] = "old"
    path.write_text(json.dumps(value))
    assert evaluate("score") == 0
    results = results_of(workplace)
    assert "blind" not in {row["name"] for row in results["rows"]}
    assert any("blind.jsonl is of another prompt version" in note for note in results["notes"])


def test_two_results_files_are_compared(workplace, capsys):
    assert evaluate("--output", "results/a.json") == 0
    write_script(workplace, [{}])
    assert evaluate("--output", "results/b.json") == 0
    capsys.readouterr()
    assert main(["compare", "results/a.json", "results/b.json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [flip["kind"] for flip in found["flips"]] == ["threat lost"] * 4
    assert (found["detection"]["only_a"], found["detection"]["p_value"]) == (4, 0.125)


def test_calibration_is_written_beside_the_model_before_predicting(workplace):
    assert evaluate("--calibrate") == 0
    calibration = read_calibration(workplace)
    assert calibration is not None
    assert calibration.num_scans == 6  # a tenth of 60
    assert not calibration.simulated
    assert set(calibration.thresholds) == {"Knife", "Gun"}
    scored = results_of(workplace)
    assert scored["scored"]["calibrated"] is True
    assert scored["screening"]["categories"]["Knife"]["threshold"] == pytest.approx(
        calibration.thresholds["Knife"], abs=1e-6
    )
    assert scored["screening"]["categories"]["Knife"]["threshold_from"] == "calibration"


def test_a_trained_model_is_calibrated_on_exactly_what_its_run_held_out(workplace):
    # Pairs about two thirds of the scans, of which a tenth is held out: not the same scans as a tenth of all.
    pairs, fewer = workplace / "data/stcray_vqa_train.jsonl", workplace / "data/fewer.jsonl"
    fewer.write_text("".join(pairs.read_text().splitlines(keepends=True)[: 2 * 40]))
    write_manifest(fewer, read_manifest(pairs))
    shutil.copytree(NANO_DIR, "model")
    Path("model/calibration.json").unlink()
    calibrate_trained(Path("model"), fewer)
    held_out = {scan.image_path.name for scan in read_training_data(fewer).development}
    predicted = [json.loads(line) for line in Path("model/calibration/development.jsonl").read_text().splitlines()]
    assert {Path(line["image_path"]).name for line in predicted} == held_out
    calibration = read_calibration(Path("model"))
    assert calibration is not None
    assert calibration.num_scans == len(held_out) == 4
    assert not calibration.may_clear("Knife")  # two bags prove nothing
    with pytest.raises(DatasetError, match="calibration never sees"):
        calibrate_trained(Path("model"), fewer, workplace / "data/stcray_vqa_val.jsonl")


def test_thresholds_for_a_wanted_pd_are_given_only_where_the_bags_prove_it(workplace):
    write_script(workplace, [{"probabilities": {"Knife": 0.9}}, {}])
    assert evaluate("--calibrate", "--target-pd", "0.9", "--calibration-method", "isotonic") == 0
    calibration = read_calibration(workplace)
    assert calibration is not None
    assert (calibration.target_pd, calibration.thresholds) == (0.9, {})
    assert calibration.knots
    assert any("29 are needed" in note and "Knife (3)" in note for note in calibration.notes)


def test_a_calibration_says_that_simulated_scans_are_among_those_it_was_fitted_on(workplace):
    path = workplace / "data/stcray/train/annotations.json"
    records = json.loads(path.read_text())
    path.write_text(json.dumps([{**record, "source": "synth/sixray-white-like@3"} for record in records]))
    assert evaluate("--calibrate") == 0
    assert read_calibration(workplace).simulated


def test_a_killed_run_goes_on_with_the_same_command(workplace):
    write_script(workplace, [{"probabilities": {"Knife": 0.9}}], delay_s=0.15)
    command = [sys.executable, "-m", "xray_vqa", "evaluate", "--engine", "scripted", "--model", "script.json"]
    predictions = workplace / "results" / "evaluation" / "predictions.jsonl"
    process = subprocess.Popen(command, cwd=workplace, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and (not predictions.exists() or predictions.read_bytes().count(b"\n") < 3):
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = predictions.read_bytes()
    num_before = before.count(b"\n")
    assert 3 <= num_before < NUM_TEST
    with predictions.open("ab") as stream:  # as a power cut leaves it
        stream.write(b'{"image_path": "test/ima')
    assert main([*command[3:], "score"]) == 3  # incomplete, and said so
    assert main(command[3:]) == 0
    after = predictions.read_bytes()
    assert after.startswith(before)
    assert [json.loads(line)["image_id"] for line in after.splitlines()] == list(range(NUM_TEST))
    assert results_of(workplace)["scored"]["num_scans"] == NUM_TEST


def test_a_second_run_predicts_nothing_again_and_gives_equal_bytes(workplace):
    assert evaluate() == 0
    results, predictions = workplace / "results/evaluation.json", workplace / "results/evaluation/predictions.jsonl"
    first = results.read_bytes(), predictions.read_bytes()
    assert evaluate() == 0
    assert (results.read_bytes(), predictions.read_bytes()) == first
    assert evaluate("score") == 0
    assert results.read_bytes() == first[0]


def test_other_pairs_start_anew_and_set_the_old_predictions_aside(workplace, caplog):
    assert evaluate() == 0
    old = (workplace / "results/evaluation/predictions.jsonl").read_bytes()
    pairs = workplace / "data" / "stcray_vqa_val.jsonl"
    pairs.write_text("".join(pairs.read_text().splitlines(keepends=True)[:4]))
    assert evaluate("score") == 1
    with caplog.at_level("WARNING"):
        assert evaluate() == 0
    assert "starting anew" in caplog.text
    assert (workplace / "results/evaluation/predictions.jsonl.previous").read_bytes() == old
    assert results_of(workplace)["scored"]["num_questions"] == 4


def test_max_samples_has_predictions_of_its_own(workplace):
    assert evaluate() == 0
    full = (workplace / "results/evaluation/predictions.jsonl").read_bytes()
    assert evaluate("--max-samples", "3") == 0
    assert results_of(workplace)["scored"]["num_questions"] == 3
    assert results_of(workplace)["scored"]["num_scans"] == 2
    assert (workplace / "results/evaluation/predictions.jsonl").read_bytes() == full


def test_scores_that_cannot_be_read_count_as_wrong_and_are_named(workplace):
    write_script(workplace, [{"probabilities": {"Knife": 7.0}}])
    assert evaluate() == 0
    results = results_of(workplace)
    assert results["unreadable"]["scores"] == NUM_TEST
    knife = results["screening"]["categories"]["Knife"]
    assert (knife["num_unscored"], knife["pd"]["value"], knife["pfa"]["value"]) == (NUM_TEST, 0.0, 1.0)


def test_a_missing_image_counts_as_wrong_and_is_named(workplace):
    (workplace / "data/stcray/test/images/000000.png").unlink()
    assert evaluate() == 0
    results = results_of(workplace)
    assert results["scored"]["num_scans"] == NUM_TEST
    assert results["unreadable"]["scans"] == 1
    assert "000000.png" in results["unreadable"]["named"][0]


def test_an_engine_that_fails_on_every_scan_stops_the_run(workplace, capsys):
    broken_box = {"Knife": [[0.5, 0.5, 0.5, 0.5]]}  # no area: the engine throws
    write_script(workplace, [{"boxes": broken_box, "probabilities": {"Knife": 0.9}}])
    assert evaluate() == 2
    assert "in a row" in capsys.readouterr().err


def test_a_test_file_without_a_manifest_is_refused(workplace, capsys):
    (workplace / "data/stcray_vqa_val.jsonl.manifest.json").unlink()
    assert evaluate() == 1
    assert "manifest.json" in capsys.readouterr().err


def test_pairs_of_another_dataset_are_refused(workplace, capsys):
    pairs = workplace / "data" / "stcray_vqa_val.jsonl"
    pairs.write_text(pairs.read_text().replace("test/images/000003.png", "test/images/999999.png"))
    assert evaluate() == 1
    assert "999999.png" in capsys.readouterr().err


def test_the_report_is_one_page_without_outside_resources(workplace):
    assert evaluate("--blind", "--report", "results/evaluation.html") == 0
    page = (workplace / "results" / "evaluation.html").read_text()
    assert page.count("data:image/jpeg;base64,") == NUM_TEST
    assert "stroke-dasharray" in page
    for outside in ('src="http', 'href="http', "url(http", "@import", "<script src", "<link"):
        assert outside not in page


def test_evaluate_script_prints_the_four_numbers(workplace):
    environment = os.environ | {"OUTPUT": str(workplace / "results/by_script.json")}
    environment |= {"TEST_FILE": str(workplace / "data/stcray_vqa_val.jsonl"), "MODEL": str(workplace / "script.json")}
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    command = ["bash", str(ROOT / "scripts/evaluate.sh"), "--engine", "scripted"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=workplace, check=False)
    assert done.returncode == 0, done.stderr
    assert set(json.loads(done.stdout)) == {"exact_match_accuracy", "item_f1", "bleu", "rouge_l"}


def test_operational_benchmark_writes_the_guides_keys_first(workplace):
    command = [sys.executable, str(ROOT / "evaluation/eval_operational.py"), "--engine", "scripted"]
    command += ["--model", "script.json", "--max-samples", "5"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=workplace, check=False)
    assert done.returncode == 0, done.stderr
    results = json.loads((workplace / "results" / "operational_benchmarks.json").read_text())
    flat = ["latency_p50_ms", "latency_p95_ms", "throughput_batch1", "throughput_batch8", "gpu_memory_gb"]
    assert list(results)[:5] == flat
    assert list(json.loads(done.stdout)) == flat
    assert results["gpu_memory_gb"] is None
    assert 0 < results["latency_p50_ms"] <= results["latency_p95_ms"]
    assert results["memory_rss_gb"] > 0.01
    assert results["conditions"]["num_timed_batch1"] == 5
    assert results["conditions"]["num_timed_batch8"] == 8
    assert results["conditions"]["image_sizes"] == {"64x48": 5}


def test_a_slow_engine_shows_in_the_latency(workplace):
    write_script(workplace, [{}], delay_s=0.05)
    assert main(["benchmark", "--engine", "scripted", "--model", "script.json", "--max-samples", "3"]) == 0
    results = results_of(workplace, "operational_benchmarks")
    assert 50 <= results["latency_p50_ms"] < 150
    assert results["throughput_batch1"] == pytest.approx(1000 / results["latency_p50_ms"], rel=0.3)


def test_results_say_what_they_were_made_from(workplace):
    assert evaluate() == 0
    manifest = read_manifest(workplace / "results" / "evaluation.json")
    assert manifest.stage == "evaluate"
    assert any(path.endswith("stcray_vqa_val.jsonl") for path in manifest.inputs)
    assert any(path.endswith("annotations.json") for path in manifest.inputs)
    header = read_manifest(workplace / "results/evaluation/predictions.jsonl")
    assert header.split == "test"
    assert (workplace / "results" / "evaluation" / header.dataset_root).resolve() == workplace / "data" / "stcray"
