"""How true projected threats are, and how well real scans are read back through their colours.

    python benchmarks/tip.py [REAL_DIR] [--scenes N] [--scans N] [--json FILE]

First, simulated scenes with and without a threat: the threat is projected into the picture without it and compared
with the picture with it, inside the threat's mask, beside the usual shortcuts and beside a second exposure of the same
bag. Both pictures have the same draw of noise. A profile gives ranges, and each simulated scanner is one draw from
them; `exact_settings` repeats the comparison with profiles that say what that scanner is set to. Then real scans:
palette round trip by kind of background, refusals, and scans a second with two threats and PNG. REAL_DIR is searched
for images; it defaults to XRAY_VQA_REAL_DIR, and without one only the first part runs.
"""

import argparse
import statistics
import tempfile
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from measuring import calibration_loop_ms, conditions, publish
from numpy.typing import NDArray
from PIL import Image
from real_scans import find_real_scans, kind_of

from xray_vqa.core.images import decode_image
from xray_vqa.core.manifest import sha256_bytes
from xray_vqa.core.records import ScanRecord
from xray_vqa.core.taxonomy import CATEGORIES
from xray_vqa.simulation.packing import sample_scene
from xray_vqa.simulation.profile import PROFILE_NAMES, ScannerProfile, load_profile
from xray_vqa.simulation.raster import LineIntegrals
from xray_vqa.simulation.scene import GENERATOR_VERSION, SceneSpec
from xray_vqa.simulation.shadow import Shadow
from xray_vqa.simulation.shapes import build_item
from xray_vqa.simulation.simulate import SimulatedScan, simulate
from xray_vqa.simulation.tip import ScanRefused, open_host, project
from xray_vqa.simulation.tip_scan import TIP_VERSION, TipSettings, project_scan
from xray_vqa.simulation.view import open_view

PROFILES = [load_profile(name) for name in PROFILE_NAMES]
COUNTS = ("hue_smoothing", "sharpen_radius")
Image8 = NDArray[np.uint8]
DEFAULT_JSON = Path(__file__).parent / "results/tip.json"


def threat_of(spec: SceneSpec) -> Shadow:
    """Return the attenuation of a scene's first threat, as large as the picture."""
    item = spec.threats[0]
    lines = LineIntegrals(spec.size_wh)
    shape, view = build_item(item.shape, item.variant), open_view(spec.size_wh, spec.pixel_cm)
    lines.draw(shape, item.rotation(), np.array(item.position_cm), item.scale, item.density, view)
    return Shadow(0, 0, lines.polyethylene, lines.copper)


def exactly(profile: ScannerProfile, rng: np.random.Generator) -> ScannerProfile:
    """Return the profile of one scanner: every range of a profile narrowed to one value, no turn of the hues."""

    def narrow(values: dict[str, Any]) -> dict[str, Any]:
        ranges = {name: v for name, v in values.items() if isinstance(v, tuple) and len(v) == 2}
        drawn = {n: int(rng.integers(v[0], v[1] + 1)) if n in COUNTS else rng.uniform(*v) for n, v in ranges.items()}
        return {**values, **{name: (value, value) for name, value in drawn.items()}}

    settings = profile.model_dump()
    settings["palette"] = {**narrow(settings["palette"]), "hue_jitter_deg": 0.0, "shift_z": 0.0}
    return ScannerProfile.model_validate({**settings, "sensor": narrow(settings["sensor"])})


def expose(spec: SceneSpec, profile: ScannerProfile) -> tuple[SimulatedScan, Image8, Image8]:
    """Return a scene's scan, the picture without its threats, and another exposure with them."""
    host = simulate(spec.model_copy(update={"threats": ()}), profile).image
    again = simulate(spec.model_copy(update={"noise_seed": spec.noise_seed + 1}), profile).image
    return simulate(spec, profile), host, again


def error_inside(scan: SimulatedScan, image: NDArray[Any]) -> float:
    """Return how far a picture is from a scan inside the mask of its first threat, in grey levels."""
    mask = scan.masks[0]
    return float(np.abs(image[mask] - scan.image[mask].astype(float)).mean())


def measure_truth(num_scenes: int) -> dict[str, object]:
    """Return the mean error inside the mask (grey levels) of each way to insert a threat."""
    errors: dict[str, list[float]] = defaultdict(list)
    exact: dict[str, list[float]] = defaultdict(list)
    by_profile: dict[str, list[float]] = defaultdict(list)
    seed = num_refused = 0
    while len(errors["pasted"]) < num_scenes:
        seed += 1
        profile = PROFILES[seed % len(PROFILES)]
        spec = sample_scene(seed, threats=(CATEGORIES[seed % len(CATEGORIES)],))
        scan, host, again = expose(spec, profile)
        if not scan.annotations:
            continue
        bare = spec.bag.model_copy(update={"density": 1e-6})
        alone = simulate(spec.model_copy(update={"bag": bare, "clutter": ()}), profile).image
        threat = threat_of(spec)
        made = {
            "multiplied": host * (alone / np.array(profile.palette.orange[-1])),
            "darker_of_both": np.minimum(host, alone),
            "pasted": alone,
            "second_exposure_of_the_truth": again,
        }
        for name, profiles in (("projected_profile_known", [profile]), ("projected_profile_fitted", PROFILES)):
            try:
                made[name] = project(open_host(host, profiles), [threat], noise_seed=0).image
            except ScanRefused:
                num_refused += 1
        for name, image in made.items():
            errors[name].append(error_inside(scan, image))
        by_profile[profile.name].append(errors["projected_profile_known"][-1])
        one = exactly(profile, np.random.default_rng(seed))
        scan, host, again = expose(spec, one)
        if scan.annotations:
            projected = project(open_host(host, [one]), [threat], noise_seed=0).image
            exact["projected"].append(error_inside(scan, projected))
            exact["second_exposure_of_the_truth"].append(error_inside(scan, again))
    return {
        "scenes": num_scenes,
        "refused": num_refused,
        "error_inside_mask_grey_levels": means(errors),
        "projected_profile_known_by_profile": means(by_profile),
        "exact_settings": {"scenes": len(exact["projected"]), **means(exact)},
    }


def means(values: dict[str, list[float]]) -> dict[str, float]:
    return {name: round(statistics.fmean(each), 2) for name, each in sorted(values.items())}


def measure_real(folder: Path | None, num_scans: int) -> dict[str, object]:
    """Return round-trip errors by kind of background, refusals by reason, and scans a second."""
    real_dir, paths = find_real_scans(folder)
    paths = paths[:: max(1, len(paths) // num_scans)]
    errors: dict[str, list[float]] = defaultdict(list)
    profiles: dict[str, Counter[str]] = defaultdict(Counter)
    refused: Counter[str] = Counter()
    for path in paths:
        try:
            host = open_host(np.asarray(decode_image(path.read_bytes())), PROFILES)
        except ScanRefused as error:
            refused[str(error).split(" (")[0].split(" grey levels")[0].rstrip("0123456789. ")] += 1
            continue
        kind = kind_of(host.fit.air)
        errors[kind].append(host.fit.round_trip_error)
        profiles[kind][host.fit.profile.name] += 1
    results: Counter[str] = Counter()
    settings = TipSettings(count=1, max_threats=2)
    sizes: list[int] = []
    seconds = 0.0
    with tempfile.TemporaryDirectory() as written:
        for number, path in enumerate(paths[:: max(1, len(paths) // 60)]):
            data = path.read_bytes()
            width, height = Image.open(path).size
            scan = ScanRecord(
                image_id=number, image_filename=path.name, image_path=path.relative_to(real_dir).as_posix(),
                width=width, height=height, sha256=sha256_bytes(data), categories=[], bboxes=[],
            )  # fmt: skip
            started = time.perf_counter()
            outcome = project_scan(real_dir, scan, Path(written), settings, CATEGORIES, PROFILES)
            seconds += time.perf_counter() - started
            results[outcome.result] += 1
            sizes.append(width * height)
    return {
        "scans": len(paths),
        "round_trip_error_grey_levels": {
            kind: {
                "scans": len(values),
                "mean": round(statistics.fmean(values), 2),
                "p95": round(float(np.quantile(values, 0.95)), 2),
                "max": max(values),
                "profiles": dict(profiles[kind].most_common()),
            }
            for kind, values in sorted(errors.items())
        },
        "refused_share": round(sum(refused.values()) / len(paths), 4),
        "refused": dict(refused),
        "projection": {
            "results": dict(results),
            "scans_per_second_one_process": round(sum(results.values()) / seconds, 2),
            "median_pixels": int(statistics.median(sizes)),
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("real_dir", nargs="?", type=Path, help="folder of real scans (default: XRAY_VQA_REAL_DIR)")
    parser.add_argument("--scenes", type=int, default=200, help="simulated scenes (default %(default)s)")
    parser.add_argument("--scans", type=int, default=300, help="real scans at most (default %(default)s)")
    parser.add_argument("--json", type=Path, default=DEFAULT_JSON, help="write the figures here (default %(default)s)")
    args = parser.parse_args()
    figures = {
        "tip_version": TIP_VERSION,
        "truth": measure_truth(args.scenes),
        "real": measure_real(args.real_dir, args.scans),
        "calibration_loop_ms": calibration_loop_ms(),
        "conditions": conditions("numpy", "scipy", "numba", "pillow", generator_version=GENERATOR_VERSION),
    }
    publish(figures, args.json)


if __name__ == "__main__":
    main()
