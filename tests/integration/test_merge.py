"""`xray-vqa merge` as a user runs it: the figures in the manifest, the exit codes, and nothing half on the disk."""

import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from xray_vqa.cli.main import main
from xray_vqa.core.jsonl import write_jsonl
from xray_vqa.core.manifest import make_manifest, read_manifest, write_manifest
from xray_vqa.core.records import PairMetadata, ScanRecord, VQAPair
from xray_vqa.dataset.layout import write_split
from xray_vqa.modeling.loading import load_model, read_card, write_card

NUM_SCANS = 3


@pytest.fixture(scope="module")
def pairs_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A question about each of a few scans."""
    rng = np.random.default_rng(0)
    root = tmp_path_factory.mktemp("merge-data")
    images = root / "train" / "images"
    images.mkdir(parents=True)
    names = [f"{number:06d}.png" for number in range(NUM_SCANS)]
    for name in names:
        Image.fromarray(rng.integers(0, 255, (112, 168, 3), dtype=np.uint8)).save(images / name)
    paths = [f"train/images/{name}" for name in names]
    records = [
        ScanRecord(
            image_id=n, image_filename=names[n], image_path=paths[n], width=168, height=112, categories=[], bboxes=[]
        )
        for n in range(NUM_SCANS)
    ]
    write_split(root, "train", records)
    write_manifest(root, make_manifest("synth", annotated_categories=["Gun"]))
    metadata = PairMetadata(image_id=0, question_type="presence", generated_by="template")
    pairs = [VQAPair(image_path=path, question="Is there a gun?", answer="No.", metadata=metadata) for path in paths]
    write_jsonl(root / "pairs.jsonl", [pair.model_dump() for pair in pairs])
    write_manifest(root / "pairs.jsonl", make_manifest("generate", dataset_root=".", split="train"))
    return root / "pairs.jsonl"


@pytest.fixture(scope="module")
def adapter_dir(tiny_model_dir: Path, pairs_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter of the tiny model with everything that training leaves beside it."""
    from peft import LoraConfig, get_peft_model

    adapter_dir = tmp_path_factory.mktemp("merge") / "adapter"
    loaded = load_model(str(tiny_model_dir), device="cpu")
    torch.manual_seed(1)
    lora = LoraConfig(r=4, lora_alpha=8, target_modules=loaded.spec.lora_targets(), task_type="CAUSAL_LM")
    model = get_peft_model(loaded.model, lora)
    model.peft_config["default"].base_model_name_or_path = str(tiny_model_dir)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.05)
    model.save_pretrained(adapter_dir, save_embedding_layers=False)
    loaded.processor.save(adapter_dir)
    card = read_card(tiny_model_dir)
    assert card is not None
    write_card(adapter_dir, card.model_copy(update={"base_digest": loaded.model_digest}))
    write_manifest(adapter_dir, make_manifest("train", config={"train_file": str(pairs_path)}))
    return adapter_dir


def test_adapter_and_merged_model_are_asked_about_the_scans_it_was_trained_on(adapter_dir, tmp_path, capsys):
    output = tmp_path / "merged"
    assert main(["merge", str(adapter_dir), "--output-dir", str(output)]) == 0
    assert capsys.readouterr().out.strip() == str(output)
    parity = read_manifest(output).checks["parity"]
    assert parity["source"] == f"{NUM_SCANS} scans of pairs.jsonl"
    assert parity["num_texts"] == NUM_SCANS
    assert parity["mean_difference"] < 0.1 < parity["mean_from_base"]
    card = read_card(output)
    assert card is not None
    assert card.base_digest == ""  # it stands alone
    assert main(["doctor", "--model", str(output)]) in (0, 1)


def test_a_folder_of_images_may_be_named(adapter_dir, pairs_path, tmp_path):
    output = tmp_path / "merged"
    words = ["--check-with", str(pairs_path.parent / "train"), "--format", "fp8"]
    assert main(["merge", str(adapter_dir), "--output-dir", str(output), *words]) == 0
    manifest = read_manifest(output)
    assert manifest.config["format"] == "fp8"
    assert manifest.checks["parity"]["num_scans"] == NUM_SCANS


def test_without_the_training_pairs_scans_are_simulated(adapter_dir, tmp_path):
    output = tmp_path / "merged"
    assert main(["merge", str(adapter_dir), "--output-dir", str(output), "--check-with", "1"]) == 0
    assert read_manifest(output).checks["parity"]["source"].startswith("1 simulated scans")


def test_zero_writes_unchecked_and_says_so(adapter_dir, tmp_path):
    output = tmp_path / "merged"
    assert main(["merge", str(adapter_dir), "--output-dir", str(output), "--check-with", "0"]) == 0
    assert read_manifest(output).notes == ["not compared with the adapter"]
    assert read_manifest(output).checks == {}


def test_a_model_that_answers_otherwise_is_no_output(adapter_dir, tmp_path, capsys):
    """A rounding that a bound refuses: 4 bits on weights whose groups each hold one giant."""
    from safetensors.torch import load_file, save_file

    wild = tmp_path / "wild"
    wild.mkdir()
    for path in adapter_dir.iterdir():
        (wild / path.name).write_bytes(path.read_bytes())
    (wild / "xray_vqa.json").unlink()
    weights = load_file(wild / "adapter_model.safetensors")
    for name, weight in weights.items():
        if "lora_A" in name:
            weight[:, ::32] *= 1000
    save_file(weights, wild / "adapter_model.safetensors", metadata={"format": "pt"})
    assert main(["merge", str(wild), "--output-dir", str(tmp_path / "merged"), "--format", "int4"]) == 4
    assert "does not answer like the adapter" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["wild"]


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--check-with", "nowhere"], 2, "no such file or folder"),
        (["--check-with", "."], 1, "holds no image"),
    ],
)
def test_a_wrong_word_stops_before_anything_is_written(
    adapter_dir, tmp_path, monkeypatch, capsys, words, code, message
):
    monkeypatch.chdir(tmp_path)
    assert main(["merge", str(adapter_dir), "--output-dir", "merged", *words]) == code
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_folder_without_an_adapter_is_named(tiny_model_dir, tmp_path, capsys):
    words = ["merge", str(tiny_model_dir), "--output-dir", str(tmp_path / "merged"), "--check-with", "0"]
    assert main(words) == 2
    assert "nothing to merge" in capsys.readouterr().err


def test_a_disk_that_fails_in_the_middle_of_a_file_leaves_nothing(adapter_dir, tmp_path):
    """A limit on the size of a file stands for a quota, which free space does not tell."""
    command = [sys.executable, "-m", "xray_vqa", "merge", str(adapter_dir), "--output-dir", str(tmp_path / "merged")]
    done = subprocess.run(
        [*command, "--check-with", "0"],
        capture_output=True, text=True, timeout=240, check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000)),
    )  # fmt: skip
    assert done.returncode == 3, done.stderr
    assert "make room and start the same command again" in done.stderr
    assert list(tmp_path.iterdir()) == []
