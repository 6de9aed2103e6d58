"""The robustness stage from top to bottom: the same scans under every condition, then curves, table and plot.

Each condition has a predictions file of its own, written by the same code as `xray-vqa evaluate predict`. Stopped at
any moment, the same command goes on behind the last whole line of the condition that it was at.
"""

import csv
import io
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

from PIL import Image
from pydantic import Field
from tqdm import tqdm

from xray_vqa.config.loading import load_policy
from xray_vqa.core.jsonl import replacing, write_json
from xray_vqa.core.manifest import make_manifest, sha256_bytes, sha256_file, write_manifest
from xray_vqa.core.records import Strict
from xray_vqa.errors import ConfigError
from xray_vqa.evaluation.evaluate import looked_for, running
from xray_vqa.evaluation.metrics.bootstrap import draw_weights
from xray_vqa.evaluation.predict import predict
from xray_vqa.evaluation.records import OperatingPoint, ScanPrediction
from xray_vqa.evaluation.robustness.curves import METRICS, curve_of, measure
from xray_vqa.evaluation.robustness.looks import OtherLooks
from xray_vqa.evaluation.robustness.perturbations import (
    KINDS,
    PERTURBATION_VERSION,
    Condition,
    perturb,
    perturbed_record,
)
from xray_vqa.evaluation.robustness.plot import draw_curves
from xray_vqa.evaluation.robustness.results import Curve, CurvePoint, RobustnessResults
from xray_vqa.evaluation.score import rounded
from xray_vqa.evaluation.table import format_estimate, told_scans
from xray_vqa.evaluation.testset import EvaluationSet, PlannedScan, load_test_set

logger = logging.getLogger(__name__)

UNPERTURBED = Condition("none", 0)


class RobustnessSettings(Strict):
    """What is measured on what."""

    model: str = "outputs/qwen25vl_stcray_lora"
    test_file: Path = Path("data/stcray_vqa_val.jsonl")
    output: Path = Path("results/robustness.json")
    policy: Path | None = None
    engine: str = "transformers"
    device: str | None = None
    max_images: int | None = None
    batch_size: int = 1
    strengths: dict[str, tuple[float, ...]] = Field(default={name: kind.strengths for name, kind in KINDS.items()})
    """By kind, the strengths that are tried beside 0."""
    scanner: str | None = None
    """Profile whose look is taken; unset: for each scan the next one after its own."""
    seed: int = 0

    def conditions(self) -> list[Condition]:
        """Return all conditions, by kind and rising strength. Raises ConfigError for one that has no meaning."""
        found: list[Condition] = []
        for name, strengths in self.strengths.items():
            if name not in KINDS:
                raise ConfigError(f"no perturbation {name!r}; there are {', '.join(KINDS)}")
            kind = KINDS[name]
            for strength in sorted({*strengths} - {0}):
                if not 0 < strength <= kind.limit:
                    raise ConfigError(f"{name} {strength:g}: strengths ({kind.unit}) go from 0 to {kind.limit:g}")
                found.append(Condition(name, float(strength)))
        if not found:
            raise ConfigError("no condition is left to try; name at least one perturbation with a strength above 0")
        return found

    def predictions_path(self, condition: Condition) -> Path:
        limit = f"-images{self.max_images}" if self.max_images is not None else ""
        name = "unperturbed" if condition == UNPERTURBED else condition.name
        return self.output.with_suffix("") / f"{name}{limit}.jsonl"


def measure_robustness(settings: RobustnessSettings) -> RobustnessResults:
    """Predict under all conditions, or what is missing of it, and write results, table and plot.

    Raises:
        ConfigError: A kind, a strength, a scanner or the output cannot be used.
        ModelUnavailable: The model cannot be loaded or fails on one scan after another.
        DatasetError: The test file or its dataset is missing or broken.
    """
    if settings.output.suffix != ".json":
        raise ConfigError(f"output {settings.output}: a .json file is expected; predictions go to a folder beside it")
    conditions = settings.conditions()
    policy = load_policy(settings.policy)
    plain = load_test_set(settings.test_file, max_images=settings.max_images)
    # Whether items are there is asked by probes; answers in words about places would change with the geometry.
    data = replace(plain, scans=tuple(PlannedScan(scan.record) for scan in plain.scans))
    looks = OtherLooks(data.root, data.split, settings.scanner)
    predictions: dict[Condition, list[ScanPrediction]] = {}
    files: dict[str, str] = {}
    with running(settings.engine, settings.model, settings.device) as (engine, info):
        point = OperatingPoint.of(info, policy, looked_for(data, policy))
        everything = (UNPERTURBED, *conditions)
        with tqdm(total=len(everything) * len(data.scans), desc="all conditions", unit="scan", position=1) as bar:
            for number, condition in enumerate(everything):
                path = settings.predictions_path(condition)
                bar.set_postfix_str(f"{condition.name}, {number + 1} of {len(everything)}")
                seen = under(data, condition, settings, looks, bar)
                predictions[condition] = predict(engine, info, seen, path, point, batch_size=settings.batch_size)
                files[str(path)] = sha256_file(path)
                bar.n = (number + 1) * len(data.scans)  # what stood on disk already was not shown to anybody
                bar.refresh()
    weights = draw_weights([prediction.group for prediction in predictions[UNPERTURBED]])
    measured = {condition: measure(predictions[condition], point, weights) for condition in predictions}
    curves = [
        curve_of(
            name,
            KINDS[name].unit,
            measured[UNPERTURBED],
            [(condition.strength, measured[condition]) for condition in conditions if condition.kind == name],
        )
        for name in dict.fromkeys(condition.kind for condition in conditions)
    ]
    ways = Counter(looks.way_of(scan.record) for scan in data.scans) if "scanner" in settings.strengths else Counter()
    results = RobustnessResults(
        curves=curves,
        identity=info.identity,
        model_name=info.model_name,
        calibrated=point.calibration is not None,
        split=data.split,
        num_scans=len(data.scans),
        num_groups=len({scan.group for scan in data.scans}),
        max_images=settings.max_images,
        seed=settings.seed,
        scanner_looks=dict(ways),
        inputs=data.inputs,
        perturbation_version=PERTURBATION_VERSION,
        notes=_notes(settings, results_of=curves, calibrated=point.calibration is not None),
    )
    results = RobustnessResults.model_validate(rounded(results))
    _write(settings, results, files | data.inputs)
    return results


def under(
    data: EvaluationSet, condition: Condition, settings: RobustnessSettings, looks: OtherLooks, bar: "tqdm[NoReturn]"
) -> EvaluationSet:
    """Return the same scans under a condition, their boxes moved along."""

    def seen_through(planned: PlannedScan, image: Image.Image) -> Image.Image:
        bar.update()
        return perturb(image, planned.record, condition, settings.seed, looks)

    if condition == UNPERTURBED:
        return replace(data, seen_through=seen_through)
    scanner = settings.scanner if condition.kind == "scanner" else None
    what = f"{condition.name}, seed {settings.seed}, scanner {scanner}, version {PERTURBATION_VERSION}"
    return replace(
        data,
        scans=tuple(PlannedScan(perturbed_record(scan.record, condition)) for scan in data.scans),
        inputs=data.inputs | {f"condition: {what}": sha256_bytes(what.encode())},
        seen_through=seen_through,
    )


def _notes(settings: RobustnessSettings, *, results_of: Sequence[Curve], calibrated: bool) -> list[str]:
    notes: list[str] = []
    if not calibrated:
        notes.append("no calibration fits this model: raw scores, and the policy's default threshold where it has none")
    base = results_of[0].points[0]
    if base.pfa.value is None:
        notes.append("no clean bag among the scans: false alarm rates and the AUC cannot be measured")
    elif base.pd.value is not None and base.pfa.value > 0.5:
        notes.append(
            "more than half of the clean bags are flagged as they are: Pd can hardly fall, so look at the AUC instead"
        )
    judged = [point.localisation.n for curve in results_of if curve.kind == "rotation" for point in curve.points]
    if judged and min(judged) < judged[0]:
        notes.append(
            f"in turned scans {min(judged)} of {judged[0]} boxes are judged, those of items with a mask: a box around "
            "turned corners would be larger than its item"
        )
    return notes


def _write(settings: RobustnessSettings, results: RobustnessResults, inputs: dict[str, str]) -> None:
    output = settings.output
    write_json(output, results.model_dump(mode="json"))
    with replacing(output.with_suffix(".csv")) as stream:
        stream.write(csv_of(results).encode())
    with replacing(output.with_suffix(".svg")) as stream:
        stream.write(draw_curves(results.curves).encode())
    written = [output.with_suffix(suffix) for suffix in (".json", ".csv", ".svg")]
    made = make_manifest(
        "robustness",
        config=settings.model_dump(mode="json"),
        inputs=inputs,
        outputs={path.name: sha256_file(path) for path in written},
        counts={"scans": results.num_scans, "conditions": sum(len(curve.points) - 1 for curve in results.curves)},
        split=results.split,
        seed=settings.seed,
    )
    write_manifest(output, made)
    logger.info("results in %s, table and plot beside it, predictions in %s", output, output.with_suffix(""))


def csv_of(results: RobustnessResults) -> str:
    """Return one line for each kind, strength and number: value, interval, and how many it was measured on."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["kind", "unit", "strength", "number", "value", "low", "high", "n"])
    for curve in results.curves:
        for point in curve.points:
            rows = [(name, getattr(point, name)) for name in METRICS]
            rows += [(f"change of {name}", change) for name, change in point.changes.items()]
            for name, cell in rows:
                values = ["" if value is None else value for value in (cell.value, cell.low, cell.high)]
                writer.writerow([curve.kind, curve.unit, f"{point.strength:g}", name, *values, cell.n])
    return stream.getvalue()


def format_summary(results: RobustnessResults) -> str:
    """Return a table for people: each kind's worst strength, and where Pd has fallen by five points."""
    base = results.curves[0].points[0]
    lines = [["", "strength", "Pd", "change of Pd", "Pfa", "AUC", "Acc@IoU 0.5"], ["none", "0", *_cells(base)]]
    for curve in results.curves:
        lines += [[curve.kind, f"{point.strength:g}", *_cells(point)] for point in curve.points[1:]]
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    rows = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    told = [rows[0], "-" * max(map(len, rows)), *rows[1:], ""]
    told.append(f"{told_scans(results.num_scans, results.num_groups)} ({results.split} split), model "
                f"{results.model_name}; thresholds of the unperturbed scans. Pd falls by 5 points at:")  # fmt: skip
    told += [f"  {curve.kind}: {format_drop(curve)}" for curve in results.curves]
    if results.scanner_looks:
        ways = " and ".join(f"{count} {way}" for way, count in results.scanner_looks.items())
        told.append(f"other scanner: {ways}")
    return "\n".join([*told, *(f"note: {note}" for note in results.notes)])


def _cells(point: CurvePoint) -> list[str]:
    found = {name: getattr(point, name) for name in ("pd", "pfa", "auc", "localisation")}
    change = point.changes["pd"]
    pd, *others = (format_estimate(cell) for cell in found.values())
    return [pd, format_estimate(change), *others]


def format_drop(curve: Curve) -> str:
    """Return where Pd has fallen by five points, in words."""
    drop = curve.drop
    high = f"{drop.high:.3g}" if drop.high is not None else f"beyond {drop.largest:g}"
    low = f"{drop.low:.3g}" if drop.low is not None else f"beyond {drop.largest:g}"
    if drop.strength is None:
        known = "" if drop.low is None else f" (interval from {low})"
        return f"not within the range, up to {drop.largest:g} {curve.unit}{known}"
    return f"{drop.strength:.3g} {curve.unit} [{low}, {high}]"
