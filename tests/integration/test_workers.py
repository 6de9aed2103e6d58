"""`xray-vqa data synth` and `data tip` as processes: workers that are killed, a disk that fills up."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from xray_vqa.dataset.layout import read_split
from xray_vqa.simulation.writer import SynthSettings, write_dataset

DATA = [sys.executable, "-m", "xray_vqa", "data"]
SYNTH = [*DATA, "synth", "--train", "60", "--test", "0", "--size", "128x96", "--profile", "stcray-like"]


@pytest.fixture(scope="module")
def host_dir(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("host")
    write_dataset(root, {"train": 40, "test": 0}, SynthSettings(seed=3, size_wh=(256, 192), image_format="png"))
    return root


@pytest.fixture(params=["synth", "tip"])
def command(request) -> list[str]:
    """A command that makes dozens of scans in the train split, but for --output-dir and --workers."""
    if request.param == "synth":
        return SYNTH
    host = request.getfixturevalue("host_dir")
    return [*DATA, "tip", str(host), "--share", "1", "--only-projected", "--profile", "stcray-like"]


def workers_of(pid: int) -> list[int]:
    """The processes that a process pool has spawned."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in children if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()]


def images_in(root: Path) -> list[Path]:
    return sorted((root / "train/images").glob("0*.*"))


def files_under(root: Path) -> dict[str, bytes]:
    paths = [path for path in root.rglob("*") if path.is_file() and path.name != "manifest.json"]
    return {str(path.relative_to(root)): path.read_bytes() for path in paths if path.name[0] != "."}


def test_a_killed_worker_ends_the_run_and_the_same_command_finishes_it(command, tmp_path):
    root = tmp_path / "out"
    words = [*command, "--output-dir", str(root), "--workers", "2"]
    run = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while len(images_in(root)) < 12 and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(workers_of(run.pid)[0], signal.SIGKILL)
    _, said = run.communicate(timeout=120)
    assert run.returncode == 3, said
    assert "a worker process died" in said
    assert "Traceback" not in said
    kept = {path: path.stat().st_mtime_ns for path in images_in(root)}
    assert kept
    again = subprocess.run(words, capture_output=True, text=True, check=False, timeout=240)
    assert again.returncode == 0, again.stderr
    untouched = [path for path, made_at in kept.items() if path.stat().st_mtime_ns == made_at]
    assert len(untouched) >= len(kept) - 6  # an image whose line was not yet written is made again
    whole = [*command, "--output-dir", str(tmp_path / "whole"), "--workers", "1"]
    subprocess.run(whole, check=True, capture_output=True, timeout=240)
    assert len(read_split(root, "train").records) > 20
    assert files_under(root) == files_under(tmp_path / "whole")


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_full_disk_is_said_and_what_is_whole_is_kept(command, workers, tmp_path, small_disk):
    disk = small_disk("192k")
    words = [*command, "--output-dir", str(disk / "out"), "--workers", workers]
    run = subprocess.run(words, capture_output=True, text=True, check=False, timeout=240)
    assert run.returncode == 3, run.stderr
    assert "No space left on device" in run.stderr
    assert "Traceback" not in run.stderr
    assert images_in(disk / "out")
    small_disk("16m", at=disk)
    again = subprocess.run(words, capture_output=True, text=True, check=False, timeout=240)
    assert again.returncode == 0, again.stderr
    assert len(read_split(disk / "out", "train").records) > 20
