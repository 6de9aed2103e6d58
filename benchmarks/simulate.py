"""Scans a second of the simulator on one core, and milliseconds a stage.

    python benchmarks/simulate.py [--scans 300] [--size 504x392]

A fixed NumPy loop is timed beside it: on a busy machine both get slower, and their quotient tells.
"""

import argparse
import json
import platform
import time
from collections import defaultdict

import numpy as np

from xray_vqa.simulation import scene, simulate
from xray_vqa.simulation.raster import LineIntegrals
from xray_vqa.simulation.sensor import Sensor
from xray_vqa.simulation.shapes import registry


def calibration_ms() -> float:
    """Return the time of a fixed piece of arithmetic, best of five."""
    values = np.random.default_rng(0).standard_normal((512, 512)).astype(np.float32)
    times = []
    for _ in range(5):
        start = time.perf_counter()
        for _ in range(10):
            np.sqrt(np.abs(values) + 1).sum()
        times.append((time.perf_counter() - start) * 100)
    return min(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scans", type=int, default=300)
    parser.add_argument("--size", default="504x392")
    args = parser.parse_args()
    spent: dict[str, float] = defaultdict(float)

    def timed(owner: object, name: str, stage: str) -> None:
        function = getattr(owner, name)

        def wrapper(*a: object, **k: object) -> object:
            start = time.perf_counter()
            try:
                return function(*a, **k)
            finally:
                spent[stage] += time.perf_counter() - start

        setattr(owner, name, wrapper)

    stream = simulate.ScanStream(0, size_wh=tuple(int(side) for side in args.size.split("x")))
    for _ in range(150):  # compile, and fill the pool of shapes
        stream.draw()
    start = time.perf_counter()
    for _ in range(args.scans):
        stream.draw()
    seconds = time.perf_counter() - start
    timed(registry, "_build", "build shapes")
    timed(simulate, "sample_scene", "sample scene, with builds")
    timed(LineIntegrals, "draw", "rasterise")
    timed(Sensor, "develop", "sensor and colour")
    timed(simulate.Renderer, "render", "render, all")
    for _ in range(args.scans):
        stream.draw()
    print(json.dumps({
        "scans_per_s": round(args.scans / seconds, 1),
        "ms_per_scan": round(1000 * seconds / args.scans, 2),
        "stage_ms": {stage: round(1000 * t / args.scans, 2) for stage, t in sorted(spent.items())},
        "calibration_ms": round(calibration_ms(), 3),
        "size": args.size,
        "generator_version": scene.GENERATOR_VERSION,
        "machine": f"{platform.machine()}, Python {platform.python_version()}",
    }, indent=1))  # fmt: skip


if __name__ == "__main__":
    main()
