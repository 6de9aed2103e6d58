"""What calibration does to nano's probabilities on scans that it was not fitted on, simulated and real.

    python benchmarks/calibration.py [REAL_DIR] [--development 600] [--test 400] [--json FILE] [--work-dir DIR]

nano as shipped has seen none of these scans, so all of a training split serves as its development scans. Both methods
are fitted on them and measured on the test split: calibration error over bins of equal width and of equal mass, Brier
score; the Pd of thresholds for a wanted Pd of 0.9, by category; and what would become of the test scans. REAL_DIR holds
real SIXray scans with COCO annotations (by default `sixray_coco` below XRAY_VQA_REAL_DIR; the data set's terms allow
academic use alone, so it is no part of this repository); without it the simulated part is measured alone. Stopped at
any moment, the same command goes on from --work-dir.
"""

import argparse
import math
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from measuring import calibration_loop_ms, conditions, publish

from xray_vqa.cli.main import main as command
from xray_vqa.config.loading import load_policy
from xray_vqa.core.calibration import Calibration
from xray_vqa.dataset.layout import read_split
from xray_vqa.evaluation.calibrate import CalibrationAim, fit_calibration
from xray_vqa.evaluation.evaluate import running
from xray_vqa.evaluation.metrics.calibration import score_calibration
from xray_vqa.evaluation.metrics.intervals import exact_rate
from xray_vqa.evaluation.predict import Variant, predict
from xray_vqa.evaluation.records import OperatingPoint, ScanPrediction
from xray_vqa.evaluation.score import rounded, score_table
from xray_vqa.evaluation.testset import EvaluationSet, PlannedScan, load_development_set
from xray_vqa.inference.engine import Engine, EngineInfo
from xray_vqa.simulation.writer import SynthSettings, write_dataset

AIMS = {
    "temperature": CalibrationAim(),
    "isotonic": CalibrationAim(method="isotonic"),
    "temperature, Pd 0.9 at 95 %": CalibrationAim(target_pd=0.9),
}


def scans_of(root: Path, split: str, limit: int | None) -> EvaluationSet:
    """Return scans of a split without questions, evenly spread over it, since neighbours are of one bag."""
    records = read_split(root, "train" if split == "train" else "test").records
    chosen = np.unique(np.linspace(0, len(records) - 1, min(limit or len(records), len(records))).round().astype(int))
    data = load_development_set(root)
    return replace(data, scans=tuple(PlannedScan(records[index]) for index in chosen))


def read_all(engine: Engine, info: EngineInfo, data: EvaluationSet, path: Path) -> list[ScanPrediction]:
    variant: Variant = "development"
    without = replace(info, calibration=None)
    point = OperatingPoint.of(without, load_policy(), data.annotated)
    return predict(engine, without, data, path, point, variant=variant, place=False)


def errors_of(predictions: Sequence[ScanPrediction], calibration: Calibration | None) -> dict[str, float | None]:
    point = OperatingPoint.at(load_policy(), predictions[0].annotated_categories, calibration)
    table = score_table(predictions, point)
    usable = table.annotated & ~np.isnan(table.scores)
    scores = score_calibration(table.scores[usable], table.truth[usable])
    return {name: getattr(scores, name) for name in ("n", "error_equal_width", "error_equal_mass", "brier")}


def kept_claims(predictions: Sequence[ScanPrediction], calibration: Calibration) -> dict[str, Any]:
    """Return the Pd of each threshold on scans that it was not chosen on, with its exact interval."""
    found = {}
    for name, threshold in calibration.thresholds.items():
        scores = [calibration.correct(p.probability(name) or 0.0) for p in predictions if name in p.present]
        found[name] = exact_rate(sum(score >= threshold for score in scores), len(scores))
    return found


def outcomes(predictions: Sequence[ScanPrediction], calibration: Calibration) -> dict[str, dict[str, int]]:
    """Return how many clean and threat scans are flagged, unsure, or neither."""
    counts = {kind: {"flagged": 0, "unsure": 0, "neither": 0} for kind in ("clean", "threat")}
    for prediction in predictions:
        states = []
        for name in prediction.annotated_categories:
            threshold = calibration.thresholds.get(name, math.inf)
            score = calibration.correct(prediction.probability(name) or 0.0)
            unsure = not calibration.may_clear(name) or calibration.is_unsure(name, score, threshold)
            states.append("flagged" if score >= threshold else "unsure" if unsure else "neither")
        state = next((state for state in ("flagged", "unsure") if state in states), "neither")
        counts["threat" if prediction.present else "clean"][state] += 1
    return counts


def measure(
    engine: Engine, info: EngineInfo, root: Path, work_dir: Path, development: int | None, test: int | None
) -> dict[str, Any]:
    sets = {"train": scans_of(root, "train", development), "test": scans_of(root, "test", test)}
    read = {
        split: read_all(engine, info, data, work_dir / root.name / f"{split}.jsonl") for split, data in sets.items()
    }
    figures: dict[str, Any] = {
        "development": {"scans": len(read["train"]), "groups": len({p.group for p in read["train"]})},
        "test": {"scans": len(read["test"]), "groups": len({p.group for p in read["test"]})},
        "as the model gives them": errors_of(read["test"], None),
    }
    if info.is_calibrated:
        figures["by the calibration that ships with it"] = errors_of(read["test"], info.calibration)
    simulated = any(scan.record.is_simulated for scan in sets["train"].scans)
    for name, aim in AIMS.items():
        calibration = fit_calibration(read["train"], info, "", simulated=simulated, aim=aim)
        figures[name] = {
            **errors_of(read["test"], calibration),
            "knots": len(calibration.knots),
            "pd": kept_claims(read["test"], calibration),
            "test_scans": outcomes(read["test"], calibration),
            "notes": calibration.notes,
        }
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("real_dir", type=Path, nargs="?", help="sixray_coco")
    add("--development", type=int, default=600, help="scans to fit on (default %(default)s)")
    add("--test", type=int, default=400, help="scans to measure on (default %(default)s)")
    add("--work-dir", type=Path, default=Path("outputs/calibration"), help="default %(default)s")
    add("--workers", type=int, default=os.cpu_count() or 1, help="processes that simulate")
    add("--device", help="cpu or cuda")
    add("--json", type=Path, help="write the figures here too")
    args = parser.parse_args()
    named = os.environ.get("XRAY_VQA_REAL_DIR")
    real_dir = args.real_dir or (Path(named, "sixray_coco") if named else None)
    roots = {"simulated": args.work_dir / "simulated"}
    settings = SynthSettings(seed=31, clean_share=0.35)
    write_dataset(roots["simulated"], {"train": args.development, "test": args.test}, settings, args.workers)
    if real_dir is not None:
        roots["real"] = args.work_dir / "real"
        command(["data", "import", "--format", "coco", str(real_dir), "--output-dir", str(roots["real"]),
                 "--source-name", "coco/sixray"])  # fmt: skip
    loop_ms = calibration_loop_ms()
    with running("transformers", "nano", args.device) as (engine, info):
        figures = {
            name: measure(engine, info, root, args.work_dir / "predictions", args.development, args.test)
            for name, root in roots.items()
        }
    said = conditions("torch", "numpy", "scipy", weights_digest=info.identity.model_digest, calibration_loop_ms=loop_ms)
    publish(rounded(figures) | {"conditions": said}, args.json)


if __name__ == "__main__":
    main()
