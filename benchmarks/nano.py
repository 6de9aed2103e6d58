"""What nano's weights are worth: every figure of its model card, measured again from the weights alone.

    python benchmarks/nano.py [--model nano|DIR] [--scans 5000] [--seed 77] [--json FILE] [--work-dir DIR]
    python benchmarks/nano.py --latency [--json FILE]
    python benchmarks/nano.py --against DIR [--json FILE]

Makes fresh simulated scans of the four looks of configs/pretrain_nano.yaml, and a fifth as many of the look that no
training has seen; writes pairs about them with the template provider; predicts and scores them with the package's own
evaluation. Runs on a GPU where there is one, in fp32 there too. Stopped at any moment, the same command goes on.
Thresholds and temperature are those of calibration.json beside the weights, where it fits, and the result says so.

--latency times whole inspections on the CPU (thread number: OMP_NUM_THREADS) and weighs a real server. --against
reads 200 of the scans with other weights too (such as those before rounding to int8) and gives the differences. Each
of the three is a part of the JSON file, which keeps the parts that were measured on the same weights before.
"""

import argparse
import json
import logging
import os
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from measuring import calibration_loop_ms, conditions, publish
from scipy.special import logit
from server import running_server
from slices import bag_slices, combining_rules, item_slices, items_of, margins, reliability

from xray_vqa.config.generate import GenerateConfig, ProviderSettings
from xray_vqa.config.loading import find_config, load_policy
from xray_vqa.core.figures import Figure, Figures, write_figures
from xray_vqa.evaluation.evaluate import looked_for, running
from xray_vqa.evaluation.metrics.bootstrap import over_groups, ratio_over_groups
from xray_vqa.evaluation.metrics.calibration import calibration_error
from xray_vqa.evaluation.metrics.localisation import score_localisation
from xray_vqa.evaluation.metrics.ranking import Ranking
from xray_vqa.evaluation.metrics.screening import score_screening
from xray_vqa.evaluation.metrics.text import is_exact
from xray_vqa.evaluation.operational.conditions import gpu_name
from xray_vqa.evaluation.operational.in_process import benchmark
from xray_vqa.evaluation.predict import predict
from xray_vqa.evaluation.records import OperatingPoint, ScanPrediction
from xray_vqa.evaluation.results import Estimate
from xray_vqa.evaluation.score import placed_categories, rounded, score_table
from xray_vqa.evaluation.testset import EvaluationSet, PlannedScan, load_test_set
from xray_vqa.inference.engine import EngineInfo
from xray_vqa.modeling.loading import resolve_model_dir
from xray_vqa.simulation.scene import DEFAULT_SIZE_WH, GENERATOR_VERSION
from xray_vqa.simulation.writer import SynthSettings, write_dataset

RESERVED = ("stcray-like",)
CALIBRATION_SEED = 9001
"""Thresholds of the shipped weights come from scans of this seed."""
BATCH_ON_GPU = 128
NUM_TIMED = 50
NUM_SERVED = 20
GOALS = {
    "item F1, micro": (("item_f1",), 0.85),
    "item F1, macro": (("macro_f1",), 0.80),
    "bag Pd at Pfa 0.05": (("bag", "pd_at_pfa_5"), 0.90),
    "Acc@IoU0.5": (("acc_at_iou_05",), 0.60),
    "ECE of the probes": (("calibration_error",), 0.03),
}
AT_MOST = {"ECE of the probes"}


@dataclass(frozen=True, slots=True)
class ScanSet:
    """Scans to be measured on."""

    name: str
    profiles: tuple[str, ...]
    count: int
    seed: int
    size_wh: tuple[int, int]

    def make(self, work_dir: Path, workers: int) -> EvaluationSet:
        """Simulate the scans and write the pairs, or what is missing of both."""
        from xray_vqa.generation.providers import open_provider
        from xray_vqa.generation.run import generate

        root = work_dir / f"{self.name}-{self.seed}-{self.size_wh[0]}x{self.size_wh[1]}-{self.count}"
        settings = SynthSettings(seed=self.seed, profiles=self.profiles, size_wh=self.size_wh)
        write_dataset(root, {"test": self.count}, settings, workers)
        provider = ProviderSettings(provider="template")
        pairs = root.with_suffix(".jsonl")
        config = GenerateConfig(annotations_path=root / "test/annotations.json", output_path=pairs, provider=provider)
        generate(config, open_provider(provider))
        return load_test_set(pairs)


def trained_looks() -> tuple[str, ...]:
    return tuple(yaml.safe_load(find_config("pretrain_nano.yaml").read_text())["profiles"])


def predictions_path(work_dir: Path, scans: ScanSet, info: EngineInfo, what: str = "predictions") -> Path:
    return work_dir / f"{info.identity.model_digest[:12]}-{info.device.split(':')[0]}" / f"{scans.name}-{what}.jsonl"


def batch_for(info: EngineInfo) -> int:
    return BATCH_ON_GPU if info.device.startswith("cuda") else 1


def measure_sets(args: argparse.Namespace, sets: list[ScanSet]) -> dict[str, Any]:
    """Return the figures of each set of scans, and what they were measured with."""
    made = [each.make(args.work_dir, args.workers) for each in sets]
    figures: dict[str, Any] = {}
    with running("transformers", args.model, args.device) as (engine, info):
        for scans, data in zip(sets, made, strict=True):
            point = OperatingPoint.of(info, load_policy(), looked_for(data, load_policy()))
            path = predictions_path(args.work_dir, scans, info)
            predictions = predict(engine, info, data, path, point, batch_size=args.batch_size or batch_for(info))
            figures[scans.name] = {
                "profiles": list(scans.profiles),
                "seed": scans.seed,
                "size": "{}x{}".format(*scans.size_wh),
                **figures_of(predictions, data, point, info),
            }
        figures["thresholds"] = said_of(info)
        figures["conditions"] = made_with(info, batch_size=args.batch_size or batch_for(info))
    return figures


def said_of(info: EngineInfo) -> str:
    """Return where thresholds and temperature come from, in words."""
    calibration = info.calibration
    if calibration is None:
        return "no calibration beside the weights: raw probabilities and the policy's default thresholds"
    if not info.is_calibrated:
        return "the calibration beside the weights is of something else: raw probabilities, the policy's defaults"
    return (
        f"calibration.json beside the weights: scale {calibration.scale:.3f}, offset {calibration.offset:+.3f}, "
        f"{len(calibration.thresholds)} thresholds from {calibration.measured_on}"
    )


def made_with(info: EngineInfo, **more: object) -> dict[str, object]:
    identity = info.identity
    return conditions(
        "torch", "transformers", "numpy",
        weights_digest=identity.model_digest, dtype=identity.dtype, device=info.device, gpu=gpu_name(info.device),
        processor_version=identity.processor_version, prompt_version=identity.prompt_version,
        generator_version=GENERATOR_VERSION, **more,
    )  # fmt: skip


def figures_of(
    predictions: list[ScanPrediction], data: EvaluationSet, point: OperatingPoint, info: EngineInfo
) -> dict[str, Any]:
    """Return a set's figures: the card's first, then by category, by slice and by combining rule."""
    table = score_table(predictions, point)
    screening = score_screening(table, point.thresholds, point.origins, frozenset(info.covered_categories))
    localisation, bag = score_localisation(placed_categories(predictions)), screening.bag
    records = [scan.record for scan in data.scans]
    items = items_of(predictions, records, point)
    return rounded(
        {
            "scans": len(predictions),
            "threat_bags": bag.num_threat,
            "clean_bags": bag.num_clean,
            "threats": len(items),
            "item_f1": screening.item_f1.f1,
            "item_precision": screening.item_f1.precision,
            "item_recall": screening.item_f1.recall,
            "macro_f1": screening.macro_f1,
            "bag": {
                "pd_at_pfa_5": bag.pd_at_pfa["0.05"],
                "pd_at_pfa_10": bag.pd_at_pfa["0.1"],
                "auc": bag.auc,
                "pd": bag.pd,
                "pfa": bag.pfa,
            },
            "acc_at_iou_05": localisation.accuracy,
            "box_precision": localisation.precision,
            "calibration_error": screening.calibration_error,
            "calibration_error_uncorrected": uncorrected_error(predictions, point),
            "macro_auc": screening.macro_auc,
            "macro_average_precision": screening.macro_average_precision,
            "exact_match": exact_match(predictions),
            "unscored_probes": sum(row.num_unscored for row in screening.categories.values()),
            "categories": {
                name: {
                    "threats": row.num_positive,
                    "auc": row.auc,
                    "average_precision": row.average_precision,
                    "f1": row.f1,
                    "pd": row.pd,
                    "pfa": row.pfa.value,
                    "threshold": row.threshold,
                }
                for name, row in screening.categories.items()
            },
            "threats_by": item_slices(items),
            "bags_by_at_pfa_5": bag_slices(predictions, records, point),
            "combining_rules": combining_rules(table, point.thresholds),
            "reliability": reliability(table),
        }
    )


def exact_match(predictions: list[ScanPrediction]) -> Estimate:
    """Return the share of answers that equal their reference; BLEU and ROUGE are left to `xray-vqa evaluate`."""
    answers = [(prediction.group, answer) for prediction in predictions for answer in prediction.answers]
    equal = [float(is_exact(answer.said, answer.short_truth, answer.truth)) for _, answer in answers]
    return ratio_over_groups(equal, [1.0] * len(equal), [group for group, _ in answers], len(equal))


def uncorrected_error(predictions: list[ScanPrediction], point: OperatingPoint) -> float | None:
    table = score_table(predictions, point.model_copy(update={"calibration": None}))
    usable = table.annotated & ~np.isnan(table.scores)
    return calibration_error(table.scores[usable], table.truth[usable])


def measure_difference(args: argparse.Namespace, scans: ScanSet) -> dict[str, Any]:
    """Return how the scores of two sets of weights differ on the same scans, read at the first one's thresholds."""
    whole = scans.make(args.work_dir, args.workers)
    with running("transformers", args.model, args.device) as (engine, info):
        # A set is mixed from the start; scores need neither the questions nor boxes.
        data = replace(whole, scans=tuple(PlannedScan(scan.record) for scan in whole.scans[: args.num_against]))
        point = OperatingPoint.of(info, load_policy(), looked_for(data, load_policy()))
        size = args.batch_size or batch_for(info)
        path = predictions_path(args.work_dir, scans, info, "against")
        ours = predict(engine, info, data, path, point, place=False, batch_size=size)
        made = made_with(info)
    with running("transformers", str(args.against), args.device) as (engine, other):
        path = predictions_path(args.work_dir, scans, other, "against")
        theirs = predict(engine, other, data, path, point, place=False, batch_size=size)
    tables = [score_table(each, point) for each in (ours, theirs)]
    truth = tables[0].present
    p, q = (np.clip(table.scores, 1e-9, 1 - 1e-9) for table in tables)
    limits = np.array([point.thresholds[name] for name in tables[0].categories])
    bags = [margins(table, point.thresholds) for table in tables]

    def macro(scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
        columns = zip(scores.T, truth.T, strict=True)
        return np.nanmean([Ranking(column, there).auc(weights) for column, there in columns], axis=0)

    def bag(scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
        return Ranking(scores, np.any(truth, axis=1)).auc(weights)

    ones = np.ones((1, len(p)))
    return rounded(
        {
            "model_digest": info.identity.model_digest,
            "other": args.against.name,
            "other_digest": other.identity.model_digest,
            "scans": len(p),
            "probability_difference_mean": float(np.abs(p - q).mean()),
            "probability_difference_max": float(np.abs(p - q).max()),
            "logit_difference_mean": float(np.abs(logit(p) - logit(q)).mean()),
            "flags_that_differ": int(((p >= limits) != (q >= limits)).sum()),
            "flags": int((p >= limits).sum()),
            "macro_auc": float(macro(p, ones)[0]),
            "macro_auc_other": float(macro(q, ones)[0]),
            "bag_auc": float(bag(bags[0], ones)[0]),
            "bag_auc_other": float(bag(bags[1], ones)[0]),
            # A difference may be negative, an estimate of the package lies in 0 to 1: hence the half.
            "bag_auc_loss_95": spread(lambda w: 0.5 + (bag(bags[1], w) - bag(bags[0], w)) / 2, tables[0].groups),
            "macro_auc_loss_95": spread(lambda w: 0.5 + (macro(q, w) - macro(p, w)) / 2, tables[0].groups),
            "conditions": made,
        }
    )


def spread(statistic: Any, groups: np.ndarray) -> list[float | None]:
    (found,) = over_groups(lambda weights: statistic(weights)[:, None], groups, [len(groups)], draws=200)
    return [None if value is None else 2 * value - 1 for value in (found.low, found.high)]


def measure_latency(args: argparse.Namespace, scans: ScanSet) -> dict[str, Any]:
    """Return the time of whole inspections on the CPU, as the server makes them, and the server's memory."""
    import torch

    from xray_vqa.inference.engines import open_engine
    from xray_vqa.inference.inspector import Inspector

    root = args.work_dir / f"latency-{scans.seed}"
    settings = SynthSettings(seed=scans.seed, profiles=scans.profiles, size_wh=scans.size_wh)
    write_dataset(root, {"test": NUM_TIMED}, settings, 1)
    paths = sorted((root / "test/images").iterdir())
    inspector = Inspector(open_engine("transformers", args.model, device="cpu"), load_policy())
    info = inspector.start()
    timed = benchmark(inspector, paths, NUM_TIMED).results
    loop_ms = [calibration_loop_ms()]
    files = [path.read_bytes() for path in paths[:NUM_SERVED]]
    with running_server(args.model, "--device", "cpu") as server:
        at_start = server.memory_mib()
        over_http = [server.timed_ms(image) for image in files]
        memory = server.memory_mib()
    loop_ms.append(calibration_loop_ms())
    p50, p95 = np.percentile(over_http, [50, 95])
    return {
        "model_digest": info.identity.model_digest,
        "inspection_p50_ms": timed.latency_p50_ms,
        "inspection_p95_ms": timed.latency_p95_ms,
        "stages_p50_ms": timed.conditions.stages_p50_ms,
        "inspections": timed.conditions.num_timed_batch1,
        "findings_per_scan": timed.conditions.findings_per_scan,
        "probes": timed.conditions.num_categories,
        "scans_per_second_eight_at_a_time": timed.throughput_batch8,
        "over_http_p50_ms": round(float(p50), 1),
        "over_http_p95_ms": round(float(p95), 1),
        "server_memory_at_start": at_start,
        f"server_memory_after_{NUM_SERVED}": memory,
        "threads": torch.get_num_threads(),
        "cores_allowed": len(os.sched_getaffinity(0)),
        "calibration_loop_ms": loop_ms,
        "conditions": made_with(info),
    }


def tell(figures: dict[str, Any]) -> None:
    """Print the goals with what was measured, for people."""
    for name in ("looks", "reserved"):
        found = figures.get("quality", {}).get(name)
        if not found:
            continue
        print(f"\n{name}: {found['scans']} scans, {found['threats']} threats", file=sys.stderr)
        for goal, (keys, limit) in GOALS.items():
            value = valued(found, keys)
            interval = ""
            if isinstance(value, dict):
                interval = f" [{value['low']}, {value['high']}]" if value["low"] is not None else ""
                value = value["value"]
            met = value is not None and (value <= limit if goal in AT_MOST else value >= limit)
            sign = "<=" if goal in AT_MOST else ">="
            print(f"  {goal:<22}{value}{interval}  goal {sign} {limit}: {'met' if met else 'NOT met'}", file=sys.stderr)


def beside_weights(part: dict[str, Any]) -> Figures:
    """Return the goals' figures in the form that `xray-vqa doctor` shows."""
    found = part["looks"]
    values = {**{name: valued(found, keys) for name, (keys, _) in GOALS.items()}, "bag AUC": found["bag"]["auc"]}
    return Figures(
        model_digest=digest_in(part),
        measured_on=f"{found['scans']} fresh simulated scans of the looks it was trained on, seed {found['seed']}",
        values={
            name: Figure(**{key: value[key] for key in ("value", "low", "high")})
            if isinstance(value, dict)
            else Figure(value=value)
            for name, value in values.items()
        },
    )


def valued(found: dict[str, Any], keys: tuple[str, ...]) -> Any:
    for key in keys:
        found = found[key]
    return found


def digest_in(part: dict[str, Any]) -> str:
    return part.get("model_digest") or part["conditions"]["weights_digest"]


def merged(path: Path | None, parts: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Return these parts with those in the file that were measured on the same weights."""
    (digest,) = {digest_in(part) for part in parts.values()}
    before: dict[str, Any] = json.loads(path.read_text()) if path and path.is_file() else {}
    kept = {
        name: before[name]
        for name in ("quality", "rounding", "latency")
        if isinstance(before.get(name), dict) and digest_in(before[name]) == digest
    }
    return {"model_digest": digest, **kept, **parts}


def size(text: str) -> tuple[int, int]:
    width, height = map(int, text.split("x"))
    return width, height


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--model", default="nano", help="nano or a folder with weights (default %(default)s)")
    add("--scans", type=int, default=5000, help="of the four looks; a fifth as many of the reserved one (%(default)s)")
    add("--seed", type=int, default=77, help="of the scans (default %(default)s)")
    add("--size", type=size, default=DEFAULT_SIZE_WH, metavar="WxH", help="of the scans (default 512x384)")
    add("--json", type=Path, help="write the figures here, or into the file that is there")
    add("--work-dir", type=Path, default=Path("outputs/benchmark_nano"), help="scans, predictions (%(default)s)")
    add("--workers", type=int, default=len(os.sched_getaffinity(0)), help="processes that simulate (%(default)s)")
    add("--device", help="cpu or cuda (default: the first GPU where there is one)")
    add("--batch-size", type=int, help=f"scans at once (default {BATCH_ON_GPU} on a GPU, else 1)")
    add("--beside-weights", action="store_true", help="write figures.json beside the weights, for `xray-vqa doctor`")
    add("--latency", action="store_true", help="measure time and memory on the CPU instead")
    add("--against", type=Path, metavar="DIR", help="measure the difference to these weights instead")
    add("--num-against", type=int, default=200, help="scans for --against (default %(default)s)")
    args = parser.parse_args()
    if args.seed == CALIBRATION_SEED:
        parser.error(f"seed {CALIBRATION_SEED} made the scans that thresholds come from; take another")
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    looks = ScanSet("looks", trained_looks(), args.scans, args.seed, args.size)
    reserved = ScanSet("reserved", RESERVED, max(1, args.scans // 5), args.seed + 1, args.size)
    if args.latency:
        parts = {"latency": measure_latency(args, looks)}
    elif args.against:
        parts = {"rounding": measure_difference(args, looks)}
    else:
        parts = {"quality": measure_sets(args, [looks, reserved])}
    figures = merged(args.json, parts)
    publish(figures, args.json)
    if args.beside_weights and "quality" in parts:
        print(write_figures(resolve_model_dir(args.model), beside_weights(parts["quality"])), file=sys.stderr)
    tell(figures)


if __name__ == "__main__":
    main()
