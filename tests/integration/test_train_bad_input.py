"""What a user sees when some of the data cannot be learnt from: all of it named, at once, before the first step."""

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from xray_vqa.core.jsonl import write_jsonl
from xray_vqa.core.manifest import make_manifest, read_manifest, sha256_file, write_manifest
from xray_vqa.core.records import PairMetadata, ScanRecord, VQAPair
from xray_vqa.dataset.layout import write_split
from xray_vqa.modeling.loading import load_model

SIZE = (168, 112)
FAULTY = {1: "missing", 3: "unreadable", 5: "bytes", 7: "size", 9: "entry"}
"""Which of the twenty scans is spoilt, and what a run calls it."""


@pytest.fixture
def pairs_path(tmp_path: Path) -> Path:
    """Twenty scans with two questions each, five of them faulty, each in its own way."""
    rng = np.random.default_rng(0)
    root = tmp_path / "data"
    records, pairs = [], []
    for number in range(20):
        path = root / "train" / "images" / f"{number:06d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (SIZE[1], SIZE[0], 3), dtype=np.uint8)).save(path)
        fault = FAULTY.get(number)
        if fault == "unreadable":
            path.write_bytes(path.read_bytes()[:20_000])
        width = SIZE[0] + (fault == "size")
        record = ScanRecord(
            image_id=number, image_filename=path.name, image_path=f"train/images/{path.name}", width=width,
            height=SIZE[1], categories=[], bboxes=[], group=f"bag-{number}", sha256=sha256_file(path),
        )  # fmt: skip
        if fault == "missing":
            path.unlink()
        elif fault == "bytes":
            Image.new("RGB", SIZE, "white").save(path)
        if fault != "entry":
            records.append(record)
        metadata = PairMetadata(image_id=number, question_type="presence", generated_by="template")
        pairs += [
            VQAPair(image_path=record.image_path, question=question, answer="No.", metadata=metadata).model_dump()
            for question in ("Is there a gun?", "Is there a knife?")
        ]
    write_split(root, "train", records)
    write_manifest(root, make_manifest("synth", annotated_categories=["Gun", "Knife"]))
    write_jsonl(tmp_path / "pairs.jsonl", pairs)
    write_manifest(tmp_path / "pairs.jsonl", make_manifest("generate", dataset_root="data", split="train"))
    return tmp_path / "pairs.jsonl"


def command(model_dir: Path, pairs: Path, output: Path, *more: str) -> list[str]:
    return [
        sys.executable, "-m", "xray_vqa", "train", "configs/train_demo.yaml", f"model_name={model_dir}",
        f"train_file={pairs}", f"output_dir={output}", "max_steps=2", "per_device_train_batch_size=2",
        "logging_steps=1", "lora.r=4", "load_best_model_at_end=false", *more,
    ]  # fmt: skip


def train(model_dir: Path, pairs: Path, output: Path, *more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(model_dir, pairs, output, *more), capture_output=True, text=True, timeout=240, check=False
    )


def left_out(output: Path) -> dict[int, tuple[str, int]]:
    """The kind and the lost pairs by the number of the scan."""
    lines = [json.loads(line) for line in (output / "left_out.jsonl").read_text().splitlines()]
    assert all(line["reason"] for line in lines)
    return {int(Path(line["path"]).stem): (line["kind"], line["pairs"]) for line in lines}


def test_a_run_with_many_faulty_scans_names_them_all_and_does_not_begin(tiny_model_dir, pairs_path, tmp_path):
    done = train(tiny_model_dir, pairs_path, tmp_path / "out", "max_left_out=0.2")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "5 of 20 scans cannot be trained on, more than max_left_out=0.2 allows" in done.stderr
    for number in FAULTY:
        assert f"{number:06d}.png" in done.stderr
    assert left_out(tmp_path / "out") == {number: (kind, 2) for number, kind in FAULTY.items()}
    assert not (tmp_path / "out" / "run.json").exists()


@pytest.mark.parametrize("with_cache", [False, True])
def test_a_run_goes_on_without_a_few_faulty_scans_and_says_which(tiny_model_dir, pairs_path, tmp_path, with_cache):
    output = tmp_path / "out"
    cache = [f"image_cache={tmp_path / 'frames'}"] if with_cache else []
    done = train(tiny_model_dir, pairs_path, output, "max_left_out=0.25", *cache)
    assert done.returncode == 0, done.stderr
    assert left_out(output) == {number: (kind, 2) for number, kind in FAULTY.items()}
    log = (output / "train.log").read_text()
    assert "left out, see left_out.jsonl: 1 entry, 1 missing, 1 unreadable, 1 bytes, 1 size" in log
    assert all(f"{number:06d}.png" in log for number in FAULTY)
    counts = read_manifest(output).counts
    assert counts["images"] + counts["development"] == 15
    assert bool(list(tmp_path.glob("frames/*/*.safetensors"))) == with_cache


def test_answers_that_the_length_limit_cuts_off_are_counted_by_scan(tiny_model_dir, pairs_path, tmp_path):
    output = tmp_path / "out"
    words = ("max_left_out=0.25", "--dry-run")
    assert train(tiny_model_dir, pairs_path, output, *words).returncode == 0
    whole = left_out(output)
    encoder = load_model(str(tiny_model_dir)).encoder
    first = encoder.question("Is there a gun?", "No.")
    room = len(encoder.prefix(SIZE[0] // 28 * SIZE[1] // 28)[0]) + len(first.prompt) + len(first.answer) - 1
    done = train(tiny_model_dir, pairs_path, output, f"max_seq_length={room}", *words)
    assert done.returncode == 0, done.stderr
    cut = {number: told for number, told in left_out(output).items() if number not in whole}
    assert cut == {number: ("cut", 1) for number in range(20) if number not in FAULTY}
    assert "Is there a knife?" in (output / "left_out.jsonl").read_text()
    assert "15 cut" in done.stdout


def test_a_limit_below_the_images_themselves_says_what_to_do(tiny_model_dir, pairs_path, tmp_path):
    done = train(tiny_model_dir, pairs_path, tmp_path / "out", "max_seq_length=64", "max_left_out=1", "--dry-run")
    assert done.returncode == 1
    assert "raise max_seq_length or lower image_max_pixels" in done.stderr
    assert {kind for kind, _ in left_out(tmp_path / "out").values()} == {*FAULTY.values(), "too long"}


def test_images_that_vanish_in_the_middle_stop_the_run_and_it_goes_on_when_they_are_back(
    tiny_model_dir, pairs_path, tmp_path
):
    output, images = tmp_path / "out", tmp_path / "data" / "train" / "images"
    words = ("max_left_out=0.25", "max_steps=24", "save_steps=4", "per_device_train_batch_size=1")
    with (tmp_path / "stderr").open("w") as stderr:
        process = subprocess.Popen(
            command(tiny_model_dir, pairs_path, output, *words), stdout=subprocess.DEVNULL, stderr=stderr
        )
    deadline = time.monotonic() + 200
    while not (output / "checkpoint-4" / "trainer_state.json").is_file() and time.monotonic() < deadline:
        time.sleep(0.02)
    away = images.rename(images.with_name("away"))
    assert process.wait(200) == 1
    told = (tmp_path / "stderr").read_text()
    assert "no such file. It could be read when the run began" in told
    assert "Traceback" not in told
    away.rename(images)
    again = train(tiny_model_dir, pairs_path, output, *words)
    assert again.returncode == 0, again.stderr
    assert "going on from" in again.stderr
