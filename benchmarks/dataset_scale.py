"""How fast a whole STCray is imported and verified, and in how much memory.

    python benchmarks/dataset_scale.py [--scans 46642] [--workers N] [--work-dir DIR] [--json FILE]

As many scans as STCray has (30,044 to train, 16,598 to test), of its size (about 400x420 JPEG, 45 kB), with COCO
annotations: each is one of 300 simulated bags laid over another, mirrored, cut and encoded anew, so that no two have
the same bytes or the same perceptual hash. Making them does not count; they stay in --work-dir for another run. Then
`xray-vqa data import` and `xray-vqa data verify` run as a user starts them, and twice a second the memory of
all their processes together (PSS: what is shared is counted once) is looked at.
"""

import argparse
import io
import json
import multiprocessing
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from functools import cache
from pathlib import Path

import numpy as np
from measuring import calibration_loop_ms, conditions, publish
from numpy.typing import NDArray
from PIL import Image

from xray_vqa.core.taxonomy import CATEGORIES

NUM_SCANS = 46_642
TRAIN_SHARE = 30_044 / NUM_SCANS
NUM_BASES = 300
QUALITY = 90
CHUNK = 256
DEFAULT_JSON = Path(__file__).parent / "results/dataset_scale.json"


@cache
def bases() -> list[NDArray[np.uint8]]:
    """The simulated bags that every scan is mixed from, the same in every process."""
    from xray_vqa.simulation.writer import SynthSettings, open_stream

    settings = SynthSettings(size_wh=(480, 480))
    stream = open_stream(settings, "train")  # pyright: ignore[reportArgumentType]  (frozen, so hashable)
    return [stream.scan(number).image for number in range(NUM_BASES)]


def make_chunk(job: tuple[Path, Path, int, int]) -> list[tuple[int, int]]:
    """Write scans by number and return their sizes."""
    source_dir, bases_path, start, stop = job
    pool = np.load(bases_path, mmap_mode="r")
    sizes: list[tuple[int, int]] = []
    for number in range(start, stop):
        rng = np.random.default_rng(number)
        first, second = (pool[index] for index in rng.choice(len(pool), 2, replace=False))
        mixed = np.minimum(first, second[:, ::-1] if rng.random() < 0.5 else second[::-1])
        width, height = int(rng.integers(380, 421)), int(rng.integers(400, 441))
        left, top = int(rng.integers(0, 480 - width)), int(rng.integers(0, 480 - height))
        buffer = io.BytesIO()
        picture = Image.fromarray(mixed[top : top + height, left : left + width])
        picture.save(buffer, "JPEG", quality=QUALITY)
        (source_dir / name_of(number)).write_bytes(buffer.getvalue())
        sizes.append((width, height))
    return sizes


def name_of(number: int) -> str:
    split = "train" if (number * TRAIN_SHARE) % 1 + TRAIN_SHARE >= 1 else "test"
    return f"{split}/scan{number}.jpg"


def make_source(source_dir: Path, num_scans: int) -> None:
    """Write the COCO folder, or leave one of this size that is there."""
    annotations_path = source_dir / "annotations.json"
    if annotations_path.is_file() and len(json.loads(annotations_path.read_text())["images"]) == num_scans:
        return
    for split in ("train", "test"):
        (source_dir / split).mkdir(parents=True, exist_ok=True)
    bases_path = source_dir.with_name("bases.npy")
    if not bases_path.is_file():
        np.save(bases_path, np.stack(bases()))
    starts = range(0, num_scans, CHUNK)
    jobs = [(source_dir, bases_path, start, min(start + CHUNK, num_scans)) for start in starts]
    with multiprocessing.get_context("spawn").Pool() as pool:
        sizes = [size for chunk in pool.map(make_chunk, jobs, chunksize=1) for size in chunk]
    rng = np.random.default_rng(0)
    images, annotations = [], []
    for number, (width, height) in enumerate(sizes):
        split = name_of(number).split("/")[0]
        image = {"id": number, "file_name": name_of(number), "width": width, "height": height, "split": split}
        images.append({**image, "group": f"{split}-{number // 3}"})
        for _ in range(int(rng.choice(4, p=(0.02, 0.78, 0.15, 0.05)))):
            box = [int(rng.integers(0, 300)), int(rng.integers(0, 300)), 60, 40]
            category_id = int(rng.integers(len(CATEGORIES))) + 1
            annotations.append({"id": len(annotations), "image_id": number, "category_id": category_id, "bbox": box})
    categories = [{"id": index + 1, "name": name} for index, name in enumerate(CATEGORIES)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    annotations_path.write_text(json.dumps(content))


def tree_of(pid: int) -> list[int]:
    """A process and all beneath it."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [pid, *(below for child in children for below in tree_of(int(child)))]


def pss_mb(pid: int) -> float:
    """Proportional set size of a process and all beneath it."""
    total = 0
    for each in tree_of(pid):
        try:
            lines = Path(f"/proc/{each}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)
    return total / 1024


def measure(words: list[str], num_scans: int) -> dict[str, object]:
    """Run a command of ours and return its rate, the memory that it took at most and how it ended."""
    with tempfile.TemporaryFile() as sink:
        load = os.getloadavg()[0]
        used_before = resource.getrusage(resource.RUSAGE_CHILDREN)
        started = time.perf_counter()
        run = subprocess.Popen([sys.executable, "-m", "xray_vqa", *words], stdout=sink, stderr=sink)
        peak = 0.0
        while run.poll() is None:
            peak = max(peak, pss_mb(run.pid))
            time.sleep(0.5)  # looking ten times a second takes a tenth of a core
        seconds = time.perf_counter() - started
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu_s = used.ru_utime + used.ru_stime - used_before.ru_utime - used_before.ru_stime
        if run.returncode not in (0, 1):
            sink.seek(0)
            raise RuntimeError(sink.read().decode()[-2000:])
    return {
        "seconds": round(seconds, 1),
        "scans_per_s": round(num_scans / seconds),
        "cpu_s": round(cpu_s, 1),
        "peak_pss_mb": round(peak),
        "exit_code": run.returncode,
        "load_before": round(load, 1),
        "calibration_loop_ms": calibration_loop_ms(),
    }


def disk_mb_per_s(folder: Path) -> int:
    """How fast this disk takes one large file, flushed: no import can be faster than that."""
    path = folder / "probe.bin"
    block = os.urandom(1 << 20)
    started = time.perf_counter()
    with path.open("wb") as stream:
        for _ in range(512):
            stream.write(block)
        stream.flush()
        os.fsync(stream.fileno())
    seconds = time.perf_counter() - started
    path.unlink()
    return round(512 / seconds)


def file_create_ms(folder: Path) -> float:
    """Processor time that this file system takes for an empty file: every stored scan costs as much at least."""
    place = Path(tempfile.mkdtemp(dir=folder))
    started = time.process_time()
    for number in range(1000):
        (place / str(number)).touch()
    seconds = time.process_time() - started
    shutil.rmtree(place)
    return round(seconds, 3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scans", type=int, default=NUM_SCANS)
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--work-dir", type=Path, default=Path(tempfile.gettempdir()) / "xray-vqa-dataset-scale")
    parser.add_argument(
        "--output-dir", type=Path, help="where the dataset is written for the time (default --work-dir)"
    )
    parser.add_argument("--json", type=Path, default=DEFAULT_JSON)
    args = parser.parse_args()
    source_dir = args.work_dir / f"source-{args.scans}"
    output_dir = args.output_dir or args.work_dir
    root = output_dir / "xray-vqa-dataset-scale-out"
    make_source(source_dir, args.scans)
    shutil.rmtree(root, ignore_errors=True)
    os.sync()
    num_bytes = sum(entry.stat().st_size for split in ("train", "test") for entry in os.scandir(source_dir / split))
    workers = ["--workers", str(args.workers)]
    figures = {
        **conditions("pillow", "numpy", workers=args.workers, scans=args.scans),
        "mean_image_kb": round(num_bytes / args.scans / 1000, 1),
        "output_disk_mb_per_s": disk_mb_per_s(output_dir),
        "output_file_create_ms": file_create_ms(output_dir),
        "import": measure(["data", "import", str(source_dir), "--output-dir", str(root), *workers], args.scans),
        "import_again": measure(["data", "import", str(source_dir), "--output-dir", str(root), *workers], args.scans),
        "verify": measure(["data", "verify", str(root), *workers], args.scans),
    }
    shutil.rmtree(root)
    publish(figures, args.json)


if __name__ == "__main__":
    main()
