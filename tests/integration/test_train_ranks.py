"""Fine-tuning that is stopped, goes on, and runs on several processes: the same images in the same updates."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from xray_vqa.core.jsonl import write_jsonl
from xray_vqa.core.manifest import make_manifest, write_manifest
from xray_vqa.core.records import PairMetadata, ScanRecord, VQAPair
from xray_vqa.dataset.layout import write_split
from xray_vqa.training.checkpoints import newest_checkpoint

SPY = "tests/stand_ins/spied_training.py"
SIZES = ((168, 112), (224, 168), (112, 112))
"""So that trees differ in length, and what is dealt out by tokens is not dealt out in order."""
NUM_UPDATES = 8


@pytest.fixture(scope="module")
def pairs_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve scans of three sizes, of which eleven are trained on: updates of four, four and three images."""
    rng = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("ranks")
    records, pairs = [], []
    for number in range(12):
        width, height = SIZES[number % 3]
        path = folder / "data" / "train" / "images" / f"{number:06d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (height, width, 3), dtype=np.uint8)).save(path)
        records.append(
            ScanRecord(
                image_id=number, image_filename=path.name, image_path=f"train/images/{path.name}", width=width,
                height=height, categories=["Gun"], bboxes=[(10, 20, 60, 50)], group=f"bag-{number}",
            )
        )  # fmt: skip
        pairs.append(
            VQAPair(
                image_path=records[-1].image_path, question="Is there a gun?", answer="Yes.",
                metadata=PairMetadata(image_id=number, question_type="presence", generated_by="template"),
            ).model_dump()
        )  # fmt: skip
    write_split(folder / "data", "train", records)
    write_manifest(folder / "data", make_manifest("synth", annotated_categories=["Gun", "Knife"]))
    write_jsonl(folder / "pairs.jsonl", pairs)
    write_manifest(folder / "pairs.jsonl", make_manifest("generate", dataset_root="data", split="train"))
    return folder / "pairs.jsonl"


@pytest.fixture
def words(tiny_model_dir: Path, pairs_path: Path) -> Callable[..., list[str]]:
    """What a run with updates of four images is started with, whatever its number of processes."""

    def make(output: Path, *more: str, num_ranks: int = 1) -> list[str]:
        return [
            "configs/train_demo.yaml", f"model_name={tiny_model_dir}", f"train_file={pairs_path}",
            f"output_dir={output}", f"max_steps={NUM_UPDATES}", "eval_steps=100", "save_steps=2", "logging_steps=1",
            "per_device_train_batch_size=1", f"gradient_accumulation_steps={4 // num_ranks}", "lora.r=4",
            "load_best_model_at_end=false", "report_to=[]", *more,
        ]  # fmt: skip

    return make


def spied(notes: Path, words: list[str], *, num_ranks: int = 1) -> list[str]:
    """The command that notes which images it learns from."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={num_ranks}"] if num_ranks > 1 else []
    return [sys.executable, *torchrun, SPY, str(notes), *words]


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", **more}


def run(command: list[str], **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=240, check=False, env=environment(**more))


def start(command: list[str], **more: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment(**more)
    )


def wait_until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def train(*words: str) -> list[str]:
    return [sys.executable, "-m", "xray_vqa", "train", *words]


def losses(output: Path) -> list[tuple[int, float]]:
    """Each update with its loss, in the order in which `train.log` tells them."""
    found = []
    for line in (output / "train.log").read_text().splitlines():
        if "figures: step" in line and '"loss"' in line:
            step, _, figures = line.split("step ", 1)[1].partition(" ")
            found.append((int(step.split("/")[0]), json.loads(figures)["loss"]))
    return found


def has_logged(output: Path, update: int) -> bool:
    return (output / "train.log").is_file() and any(step >= update for step, _ in losses(output))


def images_of(notes: Path) -> Mapping[int, list[str]]:
    """For each update the images that any process learnt from, sorted."""
    found: dict[int, list[str]] = {}
    for path in notes.iterdir():
        for line in path.read_text().splitlines():
            note = json.loads(line)
            found[note["update"]] = sorted(found.get(note["update"], []) + note["images"])
    return found


def assert_same_weights(ours: Path, theirs: Path) -> None:
    a, b = (load_file(folder / "adapter_model.safetensors") for folder in (ours, theirs))
    assert all(torch.allclose(a[name], b[name], atol=1e-5) for name in b)


@pytest.mark.slow
@pytest.mark.parametrize(("first", "then"), [(2, 1), (1, 2)])
def test_a_run_sees_the_same_images_in_each_update_on_any_number_of_ranks_and_after_a_kill(
    words, tmp_path, first, then
):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    done = run(spied(tmp_path / "notes", words(whole)))
    assert done.returncode == 0, done.stderr
    images = images_of(tmp_path / "notes")
    assert [len(images[update]) for update in sorted(images)] == [4, 4, 3, 4, 4, 3, 4, 4]
    assert len({*images[1], *images[2], *images[3]}) == 11
    assert images[1] != images[4]

    dead = run(spied(tmp_path / "before", words(killed, num_ranks=first), num_ranks=first), KILL_AT="5")
    assert dead.returncode != 0
    before = images_of(tmp_path / "before")
    assert all(before[update] == images[update] for update in range(1, 5))
    assert newest_checkpoint(killed) == killed / "checkpoint-4"  # the second of an epoch's three updates comes next
    again = run(spied(tmp_path / "after", words(killed, num_ranks=first), num_ranks=then))
    assert again.returncode == 0, again.stderr
    assert "was started with 4 images an update" in again.stderr
    assert images_of(tmp_path / "after") == {update: images[update] for update in range(5, NUM_UPDATES + 1)}
    assert dict(losses(killed)) == pytest.approx(dict(losses(whole)), abs=1e-5)
    assert_same_weights(killed, whole)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 3), pytest.param(signal.SIGINT, 130)])
def test_a_run_that_is_told_to_stop_saves_what_it_has_and_goes_on_from_there(words, tmp_path, number, code):
    output = tmp_path / "out"
    command = train(*words(output, "save_steps=100", "max_steps=30"))
    process = start(command)
    wait_until(lambda: has_logged(output, 1))
    process.send_signal(number)
    _, told = process.communicate(timeout=60)
    assert process.returncode == code, told
    assert "goes on from" in told
    assert "Traceback" not in told
    last = losses(output)[-1][0]
    assert newest_checkpoint(output) == output / f"checkpoint-{last}"
    again = run(command)
    assert again.returncode == 0, again.stderr
    assert [step for step, _ in losses(output)] == list(range(1, 31))


@pytest.mark.slow
def test_the_processes_of_a_launch_stop_together_and_their_exit_code_is_kept(words, tmp_path):
    output = tmp_path / "out"
    process = start(train(*words(output, "save_steps=100", "max_steps=1000", num_ranks=2)), PET_NPROC_PER_NODE="2")
    wait_until(lambda: has_logged(output, 1))
    process.send_signal(signal.SIGTERM)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 3, told
    last = losses(output)[-1][0]
    found = newest_checkpoint(output)
    assert found is not None
    assert found.name == f"checkpoint-{last}"
    assert (found / "rng_state_1.pth").is_file()
    assert told.count(f"after update {last} of 1000") == 2


@pytest.mark.slow
def test_a_wrong_run_ends_a_launch_with_its_own_exit_code(words, tmp_path):
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    asked = words(tmp_path / "out", "model_name=Qwen/Qwen2.5-VL-7B-Instruct")
    done = run(train(*asked), PET_NPROC_PER_NODE="2")
    assert done.returncode == 2, done.stderr
    assert "needs a CUDA GPU" in done.stderr


@pytest.mark.slow
def test_two_hosts_train_as_one_process_does(words, tmp_path):
    alone, together = tmp_path / "alone", tmp_path / "together"
    assert run(train(*words(alone))).returncode == 0
    common = {"PET_NNODES": "2", "PET_NPROC_PER_NODE": "1", "PET_MASTER_ADDR": "127.0.0.1", "PET_MASTER_PORT": "29641"}
    hosts = [start(train(*words(together, num_ranks=2)), **common, PET_NODE_RANK=str(rank)) for rank in (0, 1)]
    for host in hosts:
        _, told = host.communicate(timeout=240)
        assert host.returncode == 0, told
    assert dict(losses(together)) == pytest.approx(dict(losses(alone)), abs=1e-5)
    assert_same_weights(together, alone)


def test_a_full_disk_while_saving_is_named_and_leaves_the_checkpoint_before_it(words, tmp_path, small_disk):
    disk = small_disk("5m")
    command = train(*words(disk / "out", "save_total_limit=null", "save_steps=1", "eval_steps=1"))
    full = run(command)
    assert full.returncode == 3, full.stderr
    assert "make room" in full.stderr
    assert "Traceback" not in full.stderr
    found = newest_checkpoint(disk / "out")
    assert found is not None
    small_disk("100m", at=disk)
    again = run(command)
    assert again.returncode == 0, again.stderr
    assert f"going on from {found}" in again.stderr
    assert "not whole" not in again.stderr
