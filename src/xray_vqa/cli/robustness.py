"""Measure how detection falls when scans get worse or other: `xray-vqa robustness`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from xray_vqa.cli.arguments import positive_count

EPILOG = """\
examples:
  xray-vqa robustness                                             the guide's model on the guide's test file
  xray-vqa robustness --model nano --max-images 100               a trial on a mixed sample of 100 scans
  xray-vqa robustness --only jpeg noise=5,10,20 rotation          some kinds, one with strengths of its own
  xray-vqa robustness --only scanner --scanner pidray-like        every scan in the look of one profile

Each condition's predictions stand in a folder beside the output; stopped at any moment, the same command goes on.
Beside results/robustness.json stand the table (.csv) and the curves (.svg). Calibration and thresholds are those of the
model as it is: nothing is fitted to perturbed scans. Strengths are
  jpeg points below quality 100; noise grey levels; hue degrees; scale halvings of the size; rotation degrees;
  scanner share of the way to another look; occlusion share of the scan.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `xray-vqa robustness`."""
    from xray_vqa.inference.engines import ENGINES

    add = parser.add_argument
    add("--model", default="outputs/qwen25vl_stcray_lora", help="folder, hub name or nano (default %(default)s)")
    add("--test-file", type=Path, default=Path("data/stcray_vqa_val.jsonl"), metavar="JSONL",
        help="pairs whose scans are taken (default %(default)s)")  # fmt: skip
    add("--output", type=Path, default=Path("results/robustness.json"), metavar="JSON",
        help="results (default %(default)s)")  # fmt: skip
    add("--only", nargs="+", type=_kind, metavar="KIND[=S,S]", help="these perturbations alone, with these strengths")
    add("--scanner", metavar="PROFILE", help="the other scanner's look (default: for each scan the next shipped one)")
    add("--max-images", type=positive_count, metavar="N", help="at most so many scans, a mixed sample of them")
    add("--batch-size", type=positive_count, default=1, metavar="N",
        help="scans that the model gets at once (default %(default)s)")  # fmt: skip
    add("--seed", type=int, default=0, help="of noise and patches (default %(default)s)")
    add("--policy", type=Path, metavar="YAML", help="rules to take thresholds from (default configs/policy.yaml)")
    add("--engine", choices=ENGINES, default="transformers", help="what runs the model (default %(default)s)")
    add("--device", help="cpu, cuda or cuda:1 (default: the first GPU where there is one)")


def run(args: argparse.Namespace) -> int:
    """Measure and print the table; its numbers go to files."""
    from xray_vqa.evaluation.robustness.perturbations import KINDS
    from xray_vqa.evaluation.robustness.run import RobustnessSettings, format_summary, measure_robustness

    names = set(RobustnessSettings.model_fields) - {"strengths"}
    options = {name: getattr(args, name) for name in names}
    if args.only:
        options["strengths"] = {
            name: strengths or (KINDS[name].strengths if name in KINDS else ()) for name, strengths in args.only
        }
    results = measure_robustness(RobustnessSettings(**options))
    print(format_summary(results))
    print(f"{args.output}, {args.output.with_suffix('.csv')}, {args.output.with_suffix('.svg')}", file=sys.stderr)
    return 0


def _kind(text: str) -> tuple[str, tuple[float, ...]]:
    name, _, values = text.partition("=")
    try:
        return name, tuple(float(value) for value in values.split(",")) if values else ()
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no KIND=STRENGTH,STRENGTH, such as noise=5,10") from error
