"""`xray-vqa generate` and its doors, as a user runs them, over a dataset of a few scans."""

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

from xray_vqa.core.jsonl import read_jsonl
from xray_vqa.core.manifest import make_manifest, read_manifest, sha256_file, write_manifest
from xray_vqa.core.records import ScanRecord, VQAPair
from xray_vqa.core.taxonomy import CATEGORIES
from xray_vqa.dataset.layout import write_split
from xray_vqa.evaluation.testset import load_test_set
from xray_vqa.simulation.writer import SynthSettings, write_dataset

REPO = Path(__file__).resolve().parents[2]
BAGS = (["Gun"], ["Knife", "Knife"], [], ["Hammer", "Battery"], ["Scissors"], [], ["Bullet"], ["Lighter", "Gun"])


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    root = tmp_path_factory.mktemp("generate") / "scans"
    for split, count in (("train", 24), ("test", 8)):
        records = []
        for number in range(count):
            name = f"{number:06d}.png"
            path = root / split / "images" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((90, 120, 3), number, np.uint8)).save(path)
            categories = BAGS[number % len(BAGS)]
            records.append(
                ScanRecord(
                    image_id=number,
                    image_filename=name,
                    image_path=f"{split}/images/{name}",
                    width=120,
                    height=90,
                    sha256=sha256_file(path),
                    categories=categories,
                    bboxes=[(5.0 + 60 * index, 20.0, 30.0, 30.0) for index in range(len(categories))],
                )
            )
        write_split(root, split, records)
    write_manifest(root, make_manifest("synth", annotated_categories=list(CATEGORIES)))
    return root


def environment(**extra):
    kept = {
        k: v for k, v in os.environ.items() if k not in ("PROVIDER", "ANTHROPIC_API_KEY", "OPENAI_API_KEY", "MODEL")
    }
    return {**kept, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{kept['PATH']}", **extra}


def command(*words):
    return [sys.executable, str(REPO / "data" / "llm_vqa_generator.py"), *map(str, words)]


def run(*words, **extra):
    return subprocess.run(
        command(*words), capture_output=True, text=True, env=environment(**extra), timeout=120, stdin=subprocess.DEVNULL
    )


def options(dataset, output):
    return ("--annotations", dataset / "train" / "annotations.json", "--output", output)


def test_the_documented_path_writes_what_evaluation_can_read(dataset, tmp_path):
    output = tmp_path / "data" / "val.jsonl"
    done = run("--annotations", dataset / "test" / "annotations.json", "--output", output, PROVIDER="template")
    assert done.returncode == 0, done.stderr
    assert f"{output}: test split, written by template-2" in done.stdout
    assert "pairs              24 about 8 images" in done.stdout
    test_set = load_test_set(output)
    assert (test_set.split, test_set.num_questions, len(test_set.scans)) == ("test", 24, 8)


def test_without_provider_and_key_it_stops_and_names_the_free_one(dataset, tmp_path):
    done = run(*options(dataset, tmp_path / "p.jsonl"))
    assert done.returncode == 2
    assert "PROVIDER=template" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_key_alone_spends_nothing_before_somebody_agrees(dataset, tmp_path):
    pytest.importorskip("anthropic", reason="the extra `generate` is not installed")
    done = run(*options(dataset, tmp_path / "p.jsonl"), ANTHROPIC_API_KEY="key")
    assert done.returncode == 2
    assert "72 pairs about 24 images by claude-" in done.stderr
    assert "add --yes to agree" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--samples-per-image", "13"], "samples_per_image"),
        (["--max-images", "0"], "max_images"),
        (["--images-dir", "/elsewhere"], "--images-dir /elsewhere"),
        (["--annotations", "some.json"], "expected <dataset>/train/annotations.json"),
    ],
)
def test_wrong_use_is_exit_2(dataset, tmp_path, words, said):
    done = run(*options(dataset, tmp_path / "p.jsonl"), "--provider", "template", *words)
    assert done.returncode == 2
    assert said in done.stderr


def test_missing_annotations_are_exit_1(tmp_path):
    done = run(
        "--provider", "template", "--annotations", tmp_path / "train" / "annotations.json", "--output", tmp_path / "p"
    )
    assert done.returncode == 1
    assert "xray-vqa data synth" in done.stderr


def test_options_that_do_nothing_for_templates_are_ignored_aloud(dataset, tmp_path):
    words = ("--provider", "template", "--rate-limit-delay", "2.0", "--model", "gpt-9")
    done = run(*options(dataset, tmp_path / "p.jsonl"), *words)
    assert done.returncode == 0
    assert "--rate-limit-delay is ignored" in done.stderr
    assert "--model gpt-9 is ignored" in done.stderr


def test_dry_run_counts_and_writes_nothing(dataset, tmp_path):
    done = run(*options(dataset, tmp_path / "p.jsonl"), "--provider", "template", "--dry-run")
    assert done.returncode == 0
    assert "pairs              72 about 24 images" in done.stdout
    assert "estimated cost     $0.00" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_money_is_not_spent_without_consent(dataset, tmp_path):
    script = tmp_path / "script.json"
    script.write_text('[{"cost_usd": 0.25}]')
    words = (*options(dataset, tmp_path / "p.jsonl"), "--provider", "scripted", "--script", script)
    asked = run(*words, "--rate-limit-delay", 0)
    assert asked.returncode == 2
    assert "cost about $6.00; add --yes" in asked.stderr
    assert not (tmp_path / "p.jsonl").exists()
    agreed = run(*words, "--rate-limit-delay", 0, "--yes")
    assert agreed.returncode == 0, agreed.stderr
    assert "cost               $6.0000" in agreed.stdout


def test_images_that_fail_are_exit_1_and_named(dataset, tmp_path):
    script = tmp_path / "script.json"
    script.write_text('[{"fault": "error"}, {"fault": "error"}, {}]')
    words = (*options(dataset, tmp_path / "p.jsonl"), "--provider", "scripted", "--script", script)
    done = run(*words)
    assert done.returncode == 1
    assert "1 of 24 images failed" in done.stderr
    assert len(json.loads((tmp_path / "p_failed.json").read_text())) == 1


def test_a_run_that_cannot_go_on_is_exit_3(dataset, tmp_path):
    script = tmp_path / "script.json"
    script.write_text('[{}, {"fault": "incomplete"}]')
    done = run(*options(dataset, tmp_path / "p.jsonl"), "--provider", "scripted", "--script", script)
    assert done.returncode == 3
    assert "Traceback" not in done.stderr


def limit_files():
    import resource

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (15_000, 15_000))


def test_a_full_disk_is_exit_3_and_the_run_goes_on_when_there_is_room(dataset, tmp_path):
    whole, output = tmp_path / "whole.jsonl", tmp_path / "p.jsonl"
    assert run(*options(dataset, whole), "--provider", "template").returncode == 0
    full = subprocess.run(
        command(*options(dataset, output), "--provider", "template"),
        capture_output=True,
        text=True,
        env=environment(),
        preexec_fn=limit_files,
    )
    assert full.returncode == 3, full.stderr
    assert "make room and start the same command again" in full.stderr
    assert "Traceback" not in full.stderr
    assert output.stat().st_size <= 15_000 < whole.stat().st_size
    assert run(*options(dataset, output), "--provider", "template").returncode == 0
    assert output.read_bytes() == whole.read_bytes()


def test_an_output_that_cannot_be_written_is_exit_2(dataset, tmp_path):
    (tmp_path / "file").write_text("")
    done = run(*options(dataset, tmp_path / "file" / "p.jsonl"), "--provider", "template")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def slow_script(folder):
    script = folder / "slow.json"
    script.write_text('[{"delay_s": 0.05}]')
    return script


SIGNALS = [signal.SIGKILL, signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)]  # as SIGINT


@pytest.mark.parametrize("number", SIGNALS)
def test_a_killed_run_goes_on_to_the_bytes_of_an_uninterrupted_one(dataset, tmp_path, number):
    script = slow_script(tmp_path)
    whole, broken = tmp_path / "whole.jsonl", tmp_path / "broken.jsonl"
    rest = ("--provider", "scripted", "--script", script)
    assert run(*options(dataset, whole), *rest).returncode == 0

    with subprocess.Popen(
        command(*options(dataset, broken), *rest), stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, env=environment()
    ) as process:
        wait_for_lines(broken, 9)
        process.send_signal(number)
        assert process.stderr is not None
        said = process.stderr.read().decode()
    if number != signal.SIGKILL:
        assert process.returncode == 130
        assert "the same command goes on from here" in said
        assert "Traceback" not in said
    partial = broken.read_bytes()
    assert 0 < len(partial) < whole.stat().st_size
    assert not (tmp_path / "broken.jsonl.manifest.json").exists()
    # As a power cut may leave them: a torn event and a torn line.
    with (tmp_path / "broken_checkpoint.jsonl").open("ab") as stream:
        stream.write(b'{"event":"reply","key":"12')
    broken.write_bytes(partial[:-7])

    again = run(*options(dataset, broken), *rest)
    assert again.returncode == 0, again.stderr
    assert "images from the checkpoint" in again.stdout
    assert broken.read_bytes() == whole.read_bytes()
    assert (tmp_path / "broken_stats.json").read_bytes() == (tmp_path / "whole_stats.json").read_bytes()


def wait_for_lines(path, count):
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if path.exists() and path.read_bytes().count(b"\n") >= count:
            return
        time.sleep(0.02)
    raise AssertionError(f"{path} did not grow to {count} lines")


def test_validate_passes_what_was_generated_and_names_a_broken_line(dataset, tmp_path):
    output = tmp_path / "p.jsonl"
    assert run(*options(dataset, output), "--provider", "template").returncode == 0
    good = run("--output", output, "--validate")
    assert (good.returncode, good.stderr) == (0, "")
    assert "0 faults" in good.stdout
    assert "right when blind" in good.stdout

    lines = output.read_text().splitlines()
    flipped = next(i for i, line in enumerate(lines) if json.loads(line)["metadata"]["short_answer"] == "yes")
    pair = json.loads(lines[flipped])
    pair["answer"] = "No, there is none."
    lines[flipped] = json.dumps(pair)
    lines[40] = lines[40][:50]
    output.write_text("\n".join(lines) + "\n")
    bad = run("--output", output, "--validate")
    assert bad.returncode == 1
    assert f"{output}:{flipped + 1}: the answer 'No, there is none.' does not say 'yes'" in bad.stderr
    assert f"{output}:41: no question-answer pair" in bad.stderr
    report = json.loads(run("--output", output, "--validate", "--json").stdout)
    assert len(report["faults"]) == len(bad.stderr.splitlines())
    assert report["quality"]["num_pairs"] == 71


def test_a_set_about_simulated_scans_passes_the_gates_with_five_points_for_the_blind(tmp_path):
    scans, output, gates = tmp_path / "scans", tmp_path / "p.jsonl", tmp_path / "gates.yaml"
    gates.write_text("max_blind_margin: 0.05\nmin_blind_questions: 100\n")
    write_dataset(scans, {"train": 250}, SynthSettings(size_wh=(160, 120)), workers=2)
    done = run(*options(scans, output), "--provider", "template", "--samples-per-image", "12")
    assert done.returncode == 0, done.stderr
    judged = run("--output", output, "--validate", "--gates", gates, "--json")
    assert (judged.returncode, judged.stderr) == (0, "")
    quality = json.loads(judged.stdout)["quality"]
    assert quality["blind_accuracy"]["count"]["n"] > 200
    assert all(gate["passed"] for gate in quality["gates"] if gate["name"] in ("blind", "choices", "yes_ratio"))


def test_a_gate_that_is_not_passed_is_exit_4_and_a_run_keeps_its_own_code(dataset, tmp_path):
    gates, output = tmp_path / "gates.yaml", tmp_path / "p.jsonl"
    gates.write_text("max_repeats: 0.01\n")
    made = run(*options(dataset, output), "--provider", "template", "--gates", gates)
    assert made.returncode == 0
    assert "warning: same question again in the set" in made.stdout
    strict = run("--output", output, "--validate", "--gates", gates)
    assert strict.returncode == 4
    assert "warning: same question again in the set" in strict.stdout
    assert f"written            {tmp_path / 'p_quality.html'}" in strict.stdout
    assert run("--output", output, "--validate").returncode == 0
    assert run("--output", output, "--validate", "--gates", tmp_path / "none.yaml").returncode == 2


def test_validate_notices_that_the_annotations_changed(dataset, tmp_path):
    import shutil

    moved = tmp_path / "scans"
    shutil.copytree(dataset, moved)
    output = tmp_path / "p.jsonl"
    assert run(*options(moved, output), "--provider", "template").returncode == 0
    path = moved / "train" / "annotations.json"
    entries = json.loads(path.read_text())
    entries[0]["categories"] = ["Wrench"]
    path.write_text(json.dumps(entries))
    done = run("--output", output, "--validate")
    assert done.returncode == 1
    assert "the annotations ['Wrench']" in done.stderr


def test_validate_of_a_missing_file_is_exit_1(dataset, tmp_path):
    done = run(*options(dataset, tmp_path / "none.jsonl"), "--validate")
    assert done.returncode == 1
    assert "no such file" in done.stderr


def script(name, *words, **extra):
    return subprocess.run(
        ["bash", str(REPO / "scripts" / name), *words],
        capture_output=True,
        text=True,
        env=environment(VIRTUAL_ENV=sys.prefix, **extra),
        timeout=120,
        stdin=subprocess.DEVNULL,
    )


def test_the_trial_script_writes_and_measures_and_its_lines_can_be_read(dataset, tmp_path):
    places = {"DATASET_DIR": str(dataset), "OUTPUT_DIR": str(tmp_path)}
    done = script("test_llm_generation.sh", PROVIDER="template", MAX_IMAGES="5", SAMPLES_PER_IMAGE="2", **places)
    assert done.returncode == 0, done.stderr
    output = tmp_path / "stcray_vqa_train_test.jsonl"
    assert "pairs              10 about 5 images" in done.stdout
    shown = subprocess.run(
        f"head -n 20 {output} | {sys.executable} -m json.tool --json-lines",
        shell=True,
        capture_output=True,
        text=True,
        check=True,
    )
    assert shown.stdout.count('"question"') == 10


def test_the_full_script_writes_both_splits_and_passes_options_on(dataset, tmp_path):
    places = {"DATASET_DIR": str(dataset), "OUTPUT_DIR": str(tmp_path)}
    done = script("generate_full_vqa.sh", "--seed", "5", PROVIDER="template", **places)
    assert done.returncode == 0, done.stderr
    for name, split, count in (("stcray_vqa_train", "train", 72), ("stcray_vqa_val", "test", 24)):
        pairs, faults = read_jsonl(tmp_path / f"{name}.jsonl", VQAPair)
        assert (len(pairs), faults) == (count, [])
        manifest = read_manifest(tmp_path / f"{name}.jsonl")
        assert (manifest.split, manifest.seed) == (split, 5)
        assert (tmp_path / f"{name}_checkpoint.jsonl").exists()


def test_the_scripts_stop_with_2_without_a_provider(dataset, tmp_path):
    for name in ("test_llm_generation.sh", "generate_full_vqa.sh"):
        done = script(name, DATASET_DIR=str(dataset), OUTPUT_DIR=str(tmp_path))
        assert done.returncode == 2
        assert "PROVIDER=template" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_sample_pairs_are_pairs():
    pairs, faults = read_jsonl(REPO / "examples" / "vqa_dataset_samples.jsonl", VQAPair)
    assert faults == []
    assert len(pairs) == 16
    assert {pair.metadata.question_type for pair in pairs} == {
        "presence", "listing", "location", "identification", "count", "risk", "absent",
        "general", "concealment", "declaration", "unanswerable",
    }  # fmt: skip
    answers = [p.metadata.short_answer for p in pairs if p.metadata.question_type == "presence"]
    assert answers.count("yes") == answers.count("no")
