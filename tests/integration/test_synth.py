"""`xray-vqa data synth` as a process: workers that are killed, a disk that fills up."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from xray_vqa.dataset.layout import read_split

COMMAND = [sys.executable, "-m", "xray_vqa", "data", "synth", "--train", "60", "--test", "0", "--size", "128x96",
           "--profile", "stcray-like"]  # fmt: skip


def workers_of(pid: int) -> list[int]:
    """The processes that a process pool has spawned."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in children if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()]


def images_in(root: Path) -> list[Path]:
    return sorted((root / "train/images").glob("0*.jpg"))


def test_a_killed_worker_ends_the_run_and_the_same_command_finishes_it(tmp_path):
    root = tmp_path / "synth"
    command = [*COMMAND, "--output-dir", str(root), "--workers", "2"]
    run = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while len(images_in(root)) < 12 and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(workers_of(run.pid)[0], signal.SIGKILL)
    _, said = run.communicate(timeout=120)
    assert run.returncode == 3, said
    assert "a worker process died" in said
    kept = {path: path.stat().st_mtime_ns for path in images_in(root)}
    assert kept
    again = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)
    assert again.returncode == 0, again.stderr
    assert len(read_split(root, "train").records) == 60
    untouched = [path for path, made_at in kept.items() if path.stat().st_mtime_ns == made_at]
    assert len(untouched) >= len(kept) - 6  # an image whose line was not yet written is made again


def test_a_full_disk_is_said_and_what_is_whole_is_kept(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=192k", "tmpfs", str(disk)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("needs root and a kernel that lets it mount a small tmpfs")
    try:
        command = [*COMMAND, "--output-dir", str(disk / "synth"), "--workers", "1"]
        run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)
        assert run.returncode == 3, run.stderr
        assert "No space left on device" in run.stderr
        assert "Traceback" not in run.stderr
        assert images_in(disk / "synth")
        subprocess.run(["mount", "-o", "remount,size=16m", str(disk)], check=True)
        again = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)
        assert again.returncode == 0, again.stderr
        assert len(read_split(disk / "synth", "train").records) == 60
    finally:
        subprocess.run(["umount", str(disk)], check=True)
