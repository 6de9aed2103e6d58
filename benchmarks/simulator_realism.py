"""How simulated scans compare with real ones in what can be counted: brightness, texture and colour of the foreground.

    python benchmarks/simulator_realism.py --real DIR [--num 200] [--json FILE]

DIR holds real scans (searched to any depth); without it XRAY_VQA_REAL_DIR/sixray_coco/images is read. A real scan is
sorted by its background: white, or light grey. Each statistic is taken scan by scan over the foreground at one size; a
look passes where the median of its simulated scans lies between the quartiles of the real ones.
"""

import argparse
import json
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from measuring import conditions
from numpy.typing import NDArray
from PIL import Image
from real_scans import find_real_scans, kind_of

from xray_vqa.simulation.palette_inverse import estimate_air
from xray_vqa.simulation.scene import GENERATOR_VERSION
from xray_vqa.simulation.simulate import ScanStream

LOOKS = {"white": "sixray-white-like", "light grey": "sixray-grey-like"}
MAX_SIDE = 504
MIN_FOREGROUND = 0.12
"""A scan with less of it shows little but belt, and no simulated one does."""
FOREGROUND_LEVELS = 10.0
"""A pixel that differs from the belt's colour by more is foreground."""


def statistics_of(pixels: NDArray[np.uint8], air: tuple[float, float, float]) -> dict[str, float] | None:
    """Return the foreground statistics of one scan, (height, width, 3) uint8; None where there is hardly any."""
    rgb = pixels.astype(float)
    foreground = np.abs(rgb - air).max(2) > FOREGROUND_LEVELS
    if foreground.mean() < MIN_FOREGROUND:
        return None
    luminance = rgb @ (0.299, 0.587, 0.114)
    across = np.abs(np.diff(luminance, axis=1))[foreground[:, 1:]]
    inside = rgb[foreground]
    r, g, b = inside.T
    highest, lowest = inside.max(1), inside.min(1)
    chroma = highest - lowest
    found = {f"luminance p{q}": float(np.percentile(luminance[foreground], q)) for q in (5, 25, 50, 75)}
    found |= {f"gradient p{q}": float(np.percentile(across, q)) for q in (50, 75, 90)}
    found["orange share"] = float(((chroma > 24) & (r >= g) & (g > b)).mean())
    found["green share"] = float(((chroma > 24) & (g > r) & (g >= b)).mean())
    found["blue share"] = float(((chroma > 24) & (b > r) & (b > g)).mean())
    found["dark share"] = float((luminance[foreground] < 70).mean())
    return found


def shrunk(image: Image.Image) -> NDArray[np.uint8]:
    image = image.convert("RGB")
    image.thumbnail((MAX_SIDE, MAX_SIDE), Image.Resampling.BICUBIC)
    return np.asarray(image)


def real_by_kind(paths: Iterable[Path]) -> dict[str, list[dict[str, float]]]:
    found: dict[str, list[dict[str, float]]] = {}
    for path in paths:
        with Image.open(path) as image:
            pixels = shrunk(image)
        air = estimate_air(pixels)
        measured = statistics_of(pixels, air)
        if measured:
            found.setdefault(kind_of(air), []).append(measured)
    return found


def simulated(profile: str, num: int, seed: int) -> list[dict[str, float]]:
    stream = ScanStream((seed,), [profile])
    images = (stream.scan(index).image for index in range(num))
    measured = (statistics_of(image, estimate_air(image)) for image in images)
    return [values for values in measured if values]


def compare(real: list[dict[str, float]], ours: list[dict[str, float]]) -> dict[str, dict[str, float | bool]]:
    """Return for each statistic the quartiles of the real scans, the median of ours, and whether it lies between."""
    rows: dict[str, dict[str, float | bool]] = {}
    for name in real[0]:
        low, middle, high = np.percentile([values[name] for values in real], (25, 50, 75))
        median = float(np.median([values[name] for values in ours]))
        rows[name] = {
            "real_p25": round(float(low), 3),
            "real_p50": round(float(middle), 3),
            "real_p75": round(float(high), 3),
            "simulated_p50": round(median, 3),
            "inside": bool(low <= median <= high),
        }
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--real", type=Path, help="folder of real scans")
    parser.add_argument("--num", type=int, default=200, help="simulated scans a look")
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--json", type=Path, help="write the result there")
    args = parser.parse_args()
    root, paths = find_real_scans(args.real, "sixray_coco/images")
    real = real_by_kind(paths)
    result: dict[str, object] = {}
    for kind, profile in LOOKS.items():
        if kind not in real:
            print(f"{profile}: no real scan with a {kind} background in {root}", file=sys.stderr)
            continue
        ours = simulated(profile, args.num, args.seed)
        rows = compare(real[kind], ours)
        print(f"\n{profile}, {len(ours)} simulated against {len(real[kind])} real scans with a {kind} background")
        print(f"{'':<16}{'real p25':>10}{'p50':>10}{'p75':>10}{'simulated':>12}")
        for name, row in rows.items():
            mark = "" if row["inside"] else "  outside"
            print(
                f"{name:<16}{row['real_p25']:>10}{row['real_p50']:>10}{row['real_p75']:>10}{row['simulated_p50']:>12}{mark}"
            )
        result[profile] = {"num_real": len(real[kind]), "num_simulated": len(ours), "statistics": rows}
    if args.json:
        made = conditions("numpy", "numba", generator_version=GENERATOR_VERSION)
        args.json.write_text(json.dumps({"looks": result, "conditions": made}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
