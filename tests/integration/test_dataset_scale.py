"""`xray-vqa data import` as a process that is killed, or that fills a disk; and images that are damaged anywhere."""

import io
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

from xray_vqa.dataset import importing
from xray_vqa.dataset.importers import FORMATS, SourceFolder
from xray_vqa.dataset.importing import JOURNAL_NAME, import_source

DATA = [sys.executable, "-m", "xray_vqa", "data"]


def jpeg(side: int, quality: int = 90) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 255, (side, side, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def write_source(folder: Path, num_scans: int, side: int) -> Path:
    """A COCO folder whose images differ behind their end, which makes them quickly."""
    folder.mkdir()
    data = jpeg(side)
    images = []
    for number in range(num_scans):
        (folder / f"{number}.jpg").write_bytes(data + number.to_bytes(4, "little"))
        images.append({"id": number, "file_name": f"{number}.jpg", "split": "train" if number % 3 else "test"})
    content = {"images": images, "annotations": [], "categories": [{"id": 1, "name": "Gun"}]}
    (folder / "labels.json").write_text(json.dumps(content))
    return folder


def files_under(root: Path) -> dict[str, bytes]:
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and path.name != "manifest.json"
    }


@pytest.fixture(scope="module")
def source_dir(tmp_path_factory) -> Path:
    return write_source(tmp_path_factory.mktemp("scale") / "source", 800, 288)


@pytest.fixture(scope="module")
def whole(source_dir) -> dict[str, bytes]:
    root = source_dir.with_name("whole")
    words = [*DATA, "import", str(source_dir), "--output-dir", str(root), "--workers", "1"]
    subprocess.run(words, check=True, capture_output=True, timeout=120)
    return files_under(root)


def num_read(root: Path) -> int:
    path = root / JOURNAL_NAME
    return path.read_bytes().count(b"\n") if path.is_file() else 0


def num_stored(root: Path) -> int:
    return sum(1 for _ in root.glob("train/images/0*"))


@pytest.mark.parametrize(("workers", "progress"), [("2", num_read), ("1", num_stored)])
def test_a_killed_import_is_finished_by_the_same_command(source_dir, whole, tmp_path, workers, progress):
    root = tmp_path / "out"
    words = [*DATA, "import", str(source_dir), "--output-dir", str(root), "--workers", workers]
    run = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    deadline = time.monotonic() + 120
    while progress(root) < 128 and run.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    os.killpg(run.pid, signal.SIGKILL)
    assert run.wait(timeout=30) == -signal.SIGKILL
    assert not (root / "manifest.json").exists()
    again = subprocess.run(words, capture_output=True, text=True, check=False, timeout=120)
    assert again.returncode == 0, again.stderr
    assert files_under(root) == whole


def test_an_interrupted_import_does_not_decode_an_image_twice(tmp_path, monkeypatch):
    source = FORMATS["coco"].read(SourceFolder(write_source(tmp_path / "source", 20, 64)))

    def interrupt(path):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(importing, "flush_to_disk", interrupt)
        with pytest.raises(KeyboardInterrupt):
            import_source(source, tmp_path / "out")
    (tmp_path / "source/5.jpg").write_bytes(jpeg(64, quality=50))
    decoded: list[int] = []
    check = importing.check_image
    monkeypatch.setattr(importing, "check_image", lambda data: (decoded.append(len(data)), check(data))[1])
    assert import_source(source, tmp_path / "out").counts["scans"] == 20
    assert decoded == [len(jpeg(64, quality=50))]  # the one that was changed meanwhile
    assert not (tmp_path / "out" / JOURNAL_NAME).exists()


@pytest.mark.parametrize("subcommand", ["import", "split"])
def test_a_full_disk_is_said_and_with_room_the_same_command_goes_on(tmp_path, small_disk, subcommand):
    source_dir = write_source(tmp_path / "source", 60, 128)
    if subcommand == "split":
        imported = [*DATA, "import", str(source_dir), "--output-dir", str(tmp_path / "imported")]
        subprocess.run(imported, check=True, capture_output=True, timeout=120)
        source_dir = tmp_path / "imported"
    disk = small_disk("400k")
    words = [*DATA, subcommand, str(source_dir), "--output-dir", str(disk / "out"), "--workers", "1"]
    words += ["--no-near-copies"] if subcommand == "split" else []
    run = subprocess.run(words, capture_output=True, text=True, check=False, timeout=120)
    assert run.returncode == 3, run.stderr
    assert "No space left on device" in run.stderr
    assert "Traceback" not in run.stderr
    assert not (disk / "out/manifest.json").exists()
    small_disk("8m", at=disk)
    again = subprocess.run(words, capture_output=True, text=True, check=False, timeout=120)
    assert again.returncode == 0, again.stderr
    verify = subprocess.run([*DATA, "verify", str(disk / "out"), "--no-near-copies"], capture_output=True, check=False)
    assert verify.returncode == 0
