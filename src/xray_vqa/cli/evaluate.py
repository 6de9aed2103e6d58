"""Measure a model on a test file: `xray-vqa evaluate`."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from xray_vqa.cli.arguments import positive_count

EPILOG = """\
examples:
  xray-vqa evaluate                                    the guide's model on the guide's test file
  xray-vqa evaluate --calibrate                        thresholds from development scans first
  xray-vqa evaluate --calibrate --target-pd 0.9        thresholds that prove this Pd, where the scans can
  xray-vqa evaluate --baseline Qwen/Qwen2.5-VL-7B-Instruct --report results/evaluation.html
  CUDA_VISIBLE_DEVICES=2 xray-vqa evaluate predict --shard 3/8   one of eight parts; `score` joins them
  xray-vqa evaluate score                              score again what was predicted, in seconds

The four main numbers are printed as JSON on stdout and the comparison table on stderr. Stopped at any moment, the same
command goes on. Predictions stand in a folder beside the output.
"""


def shard(text: str) -> tuple[int, int]:
    """Read `2/8`, the second of eight parts."""
    first, _, second = text.partition("/")
    number, total = (int(part) if part.isdecimal() else 0 for part in (first, second))
    if not 1 <= number <= total:
        raise argparse.ArgumentTypeError(f"{text!r} is not I/N with 1 <= I <= N")
    return number, total


def share(text: str) -> float:
    """Read a number between 0 and 1."""
    value = float(text)
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text} is no share between 0 and 1")
    return value


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `xray-vqa evaluate`."""
    from xray_vqa.inference.engines import ENGINES

    add = parser.add_argument
    add("stage", nargs="?", choices=("predict", "score"), help="only this one; both without it")
    add("--model", default="outputs/qwen25vl_stcray_lora", help="folder, hub name or nano (default %(default)s)")
    add(
        "--test-file",
        type=Path,
        default=Path("data/stcray_vqa_val.jsonl"),
        metavar="JSONL",
        help="question-answer pairs (default %(default)s)",
    )
    add(
        "--output",
        type=Path,
        default=Path("results/evaluation.json"),
        metavar="JSON",
        help="results (default %(default)s)",
    )
    add("--max-samples", type=positive_count, metavar="N", help="at most so many questions, a mixed sample of them")
    add("--max-images", type=positive_count, metavar="N", help="at most so many scans")
    add(
        "--batch-size",
        type=positive_count,
        default=1,
        metavar="N",
        help="scans that the model gets at once; 128 suit nano on a GPU (default %(default)s)",
    )
    add(
        "--calibrate",
        action="store_true",
        help="first fit calibration and thresholds on the development scans and write them beside the weights",
    )
    aim = parser.add_argument_group("what --calibrate aims at").add_argument
    aim("--calibration-method", choices=("temperature", "isotonic"), default="temperature",
        help="how probabilities are corrected; isotonic needs a thousand scores (default %(default)s)")  # fmt: skip
    aim("--target-pd", type=share, metavar="PD",
        help="thresholds that prove this Pd of each category, where enough bags hold it")  # fmt: skip
    aim("--confidence", type=share, default=0.95, metavar="C", help="of that proof (default %(default)s)")
    aim("--target-pfa", type=share, default=0.2, metavar="PFA",
        help="without --target-pd: share of clean bags that may be flagged (default %(default)s)")  # fmt: skip
    aim("--unsure-error", type=share, default=0.05, metavar="E",
        help="share of bags with an item that may score below what is called unsure (default %(default)s)")  # fmt: skip
    add(
        "--baseline",
        metavar="MODEL",
        help="a row for this untuned model, none for no such row (default: an adapter's base, where it is at hand)",
    )
    add(
        "--blind",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="a row for the same model on grey images (default: yes)",
    )
    add("--allow-leakage", action="store_true", help="score although test scans were trained on, and say so loudly")
    add(
        "--near-copies",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="look at training images for test scans that look like one and note it (default: yes; a millisecond each, "
        "kept beside the output)",
    )
    add("--shard", type=shard, metavar="I/N", help="predict only the I-th of N parts, I from 1; `score` joins them")
    add(
        "--train-file",
        type=Path,
        metavar="JSONL",
        help="pairs for the majority row (default: those beside the test file)",
    )
    add(
        "--report",
        type=Path,
        metavar="HTML",
        help="write a page with the results and some scans, its tables beside it as .md, and both into the model's "
        "folder under evaluation/",
    )
    add("--heat-maps", action="store_true", help="in the report: where the model looked; runs it again on those scans")
    add("--policy", type=Path, metavar="YAML", help="rules to take thresholds from (default configs/policy.yaml)")
    add("--engine", choices=ENGINES, default="transformers", help="what runs the model (default %(default)s)")
    add("--device", help="cpu, cuda or cuda:1 (default: the first GPU where there is one)")


def run(args: argparse.Namespace) -> int:
    """Predict and score, and print what came out."""
    from xray_vqa.evaluation.calibrate import CalibrationAim
    from xray_vqa.evaluation.evaluate import EvaluationSettings, evaluate, flat_keys
    from xray_vqa.evaluation.table import format_table

    aim = CalibrationAim(
        method=args.calibration_method,
        target_pd=args.target_pd,
        confidence=args.confidence,
        target_pfa=args.target_pfa,
        unsure_error=args.unsure_error,
    )
    options = {name: getattr(args, name) for name in EvaluationSettings.model_fields if name != "aim"}
    settings = EvaluationSettings(**options, aim=aim)
    results = evaluate(settings, args.stage)
    if results is not None:
        print(format_table(results), file=sys.stderr)
        print(json.dumps(flat_keys(results), indent=2))
    return 0
