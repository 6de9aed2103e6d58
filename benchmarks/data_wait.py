"""How long training waits for its data, decoding each image at each visit and reading it from the image cache.

    python benchmarks/data_wait.py [--scans 300] [--size 512x384 1280x960] [--updates 40] [--json FILE] [--work-dir DIR]

Simulates scans, writes template pairs about them and fine-tunes nano as configs/train_demo.yaml does (on a GPU with 32
images an update and the configuration's workers), each time in a process of its own. `data_wait` is what the run itself
logs: the share of its time that the loop waited for the next batch, the first update left out. Where no worker makes
batches, as on a CPU, it is all that making them costs, and so the most that workers could save. Beside it stands what
an item takes by itself, and how fast the cache was filled.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from measuring import calibration_loop_ms, conditions, publish

from xray_vqa.config.generate import GenerateConfig, ProviderSettings
from xray_vqa.generation.providers import open_provider
from xray_vqa.generation.run import generate
from xray_vqa.modeling.loading import load_model
from xray_vqa.simulation.writer import SynthSettings, write_dataset
from xray_vqa.training.inputs.collator import ScanDataset, collate
from xray_vqa.training.inputs.image_cache import ImageCache, check_scan
from xray_vqa.training.inputs.scans import read_training_data

CONFIG = "configs/train_demo.yaml"
ON_GPU = ("per_device_train_batch_size=32", "dataloader_num_workers=4")


def make_pairs(root: Path, num_scans: int, size_wh: tuple[int, int]) -> Path:
    """Return a file of pairs about simulated scans; what is there from an earlier call is kept."""
    write_dataset(root, {"train": num_scans}, SynthSettings(seed=5, size_wh=size_wh), 2)
    pairs, provider = root.with_suffix(".jsonl"), ProviderSettings(provider="template")
    config = GenerateConfig(annotations_path=root / "train/annotations.json", output_path=pairs, provider=provider)
    generate(config, open_provider(provider))
    return pairs


def median_ms(function: Callable[[int], object], count: int) -> float:
    """Return what a call takes, the median over some arguments: cores may be shared."""
    times: list[float] = []
    for number in range(count):
        started = time.perf_counter()
        function(number)
        times.append((time.perf_counter() - started) * 1000)
    return round(statistics.median(times), 2)


def item_figures(pairs: Path, folder: Path) -> dict[str, Any]:
    """Return what an image takes to check, decode, keep and read, one by one where nothing else is said."""
    loaded = load_model("nano", device="cpu")
    scans = read_training_data(pairs).scans

    def item(cache: ImageCache | None) -> Callable[[int], object]:
        dataset = ScanDataset(
            scans, loaded.encoder, loaded.processor, max_seq_length=2048, probes=True, boxes=True, cache=cache
        )
        return lambda index: collate([dataset[index]])

    cache = ImageCache(folder, loaded.processor)
    started = time.perf_counter()
    cache.add(scans)
    filled_s = time.perf_counter() - started
    return {
        "images": len(scans),
        "file_bytes": round(statistics.mean(scan.image_path.stat().st_size for scan in scans)),
        "cached_bytes": round(sum(path.stat().st_size for path in folder.rglob("*.safetensors")) / len(scans)),
        "cached_images_per_s": round(len(scans) / filled_s),
        "opening_the_cache_ms": median_ms(lambda _: ImageCache(folder, loaded.processor).add(scans), 5),
        "check_ms": median_ms(lambda index: check_scan(scans[index]), len(scans)),
        "item_ms_decoded": median_ms(item(None), len(scans)),
        "item_ms_cached": median_ms(item(cache), len(scans)),
    }


def train(pairs: Path, output: Path, updates: int, *more: str) -> dict[str, Any]:
    """Return the time of an update and the share of it that went by waiting for data."""
    words = [
        CONFIG, f"train_file={pairs}", f"output_dir={output}", f"max_steps={updates}", "logging_steps=1",
        "eval_steps=100000", "save_steps=100000", "load_best_model_at_end=false", "num_train_epochs=1", *more,
    ]  # fmt: skip
    before = calibration_loop_ms()
    command = [sys.executable, "-m", "xray_vqa", "train", *words, *(ON_GPU if torch.cuda.is_available() else ())]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    figures: list[dict[str, float]] = []
    times: list[float] = []
    for line in (output / "train.log").read_text().splitlines():
        if "figures: step" in line and '"data_wait"' in line:
            day_time = line.split(" INFO")[0]
            times.append(_seconds(day_time))
            figures.append(json.loads("{" + line.split("{", 1)[1]))
    update_s = (times[-1] - times[0]) / (len(times) - 1)
    return {
        "update_ms": round(update_s * 1000, 1),
        "data_wait": round(statistics.mean(each["data_wait"] for each in figures[1:]), 4),
        "calibration_loop_ms": [before, calibration_loop_ms()],
    }


def _seconds(stamp: str) -> float:
    return time.mktime(time.strptime(stamp[:19], "%Y-%m-%d %H:%M:%S")) + int(stamp[20:23]) / 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scans", type=int, default=300)
    parser.add_argument("--size", nargs="+", default=["512x384", "1280x960"], metavar="WxH")
    parser.add_argument("--updates", type=int, default=40)
    parser.add_argument("--work-dir", type=Path)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    rows: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as temporary:
        work = args.work_dir or Path(temporary)
        for size in args.size:
            width, height = map(int, size.split("x"))
            pairs, frames = make_pairs(work / f"scans-{size}", args.scans, (width, height)), work / f"frames-{size}"
            rows[size] = item_figures(pairs, frames)
            for name, words in (("decoded", ()), ("cached", (f"image_cache={frames}",))):
                with tempfile.TemporaryDirectory(dir=work) as output:
                    rows[size][name] = train(pairs, Path(output), args.updates, *words)
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    made_with = conditions(
        "torch", "transformers", "pillow", "safetensors", device=device, threads=torch.get_num_threads()
    )
    publish({"conditions": made_with, "sizes": rows}, args.json)


if __name__ == "__main__":
    main()
