"""Benchmarks of others with our engines, and our questions for the tools of others: `xray-vqa suite`."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from xray_vqa.cli.arguments import positive_count

EPILOG = """\
examples:
  xray-vqa suite sting-bee --questions Q.jsonl --answers A.csv --images DIR --model nano --blind
  xray-vqa suite coco DIR --output-dir data/coco                 a COCO set as a test set with presence questions
  xray-vqa evaluate --test-file data/coco_poll.jsonl --model nano    ... and how it is predicted and scored
  xray-vqa suite poll data/mine --output data/mine_poll.jsonl    the same questions about a dataset of ours
  xray-vqa suite export data/stcray_vqa_val.jsonl --format lmms-eval --output tasks/stcray --name stcray
  xray-vqa suite export data/stcray_vqa_val.jsonl --format vlmevalkit --output stcray.tsv

STING-BEE's answer sheets are XLSX; save them as CSV. `xray-vqa suite NAME --help` tells more.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the subcommands of `xray-vqa suite`."""
    from xray_vqa.evaluation.suites.export import FORMATS
    from xray_vqa.inference.engines import ENGINES

    kinds = parser.add_subparsers(dest="suite", metavar="NAME", required=True)
    bee = kinds.add_parser("sting-bee", help="STING-BEE's multiple-choice benchmark, overall, by type, above blind")
    bee.add_argument("--questions", type=Path, required=True, metavar="JSONL", help="as published")
    bee.add_argument("--answers", type=Path, required=True, metavar="CSV", help="Question ID, Answer")
    bee.add_argument("--images", type=Path, required=True, metavar="DIR", help="folder with the images")
    bee.add_argument("--names", type=Path, metavar="CSV", help="name in the questions, file below --images")
    bee.add_argument("--model", default="outputs/qwen25vl_stcray_lora", help="folder, hub name or nano")
    bee.add_argument("--blind", action="store_true", help="the same model on grey images too, and the gain over it")
    bee.add_argument("--output", type=Path, default=Path("results/sting_bee.json"), metavar="JSON",
        help="results; predictions stand in a folder beside it (default %(default)s)")  # fmt: skip
    bee.add_argument("--max-images", type=positive_count, metavar="N", help="at most so many images")
    bee.add_argument("--engine", choices=ENGINES, default="transformers", help="what runs the model")
    bee.add_argument("--device", help="cpu, cuda or cuda:1 (default: the first GPU where there is one)")
    coco = kinds.add_parser("coco", help="make a test set with presence questions from a COCO detection set")
    coco.add_argument("source", type=Path, metavar="DIR", help="folder with COCO JSON and images")
    coco.add_argument("--output-dir", type=Path, required=True, metavar="DIR", help="dataset folder to make")
    coco.add_argument("--seed", type=int, default=0, help="of the questions (default %(default)s)")
    poll = kinds.add_parser("poll", help="write balanced presence questions about a dataset")
    poll.add_argument("root", type=Path, metavar="DIR", help="dataset folder")
    poll.add_argument("--split", choices=("train", "test"), default="test", help="(default %(default)s)")
    poll.add_argument("--output", type=Path, required=True, metavar="JSONL", help="pairs to write")
    poll.add_argument("--seed", type=int, default=0, help="of the questions (default %(default)s)")
    export = kinds.add_parser("export", help="write a pairs file as a task of lmms-eval or VLMEvalKit")
    export.add_argument("pairs", type=Path, metavar="JSONL", help="pairs file")
    export.add_argument("--format", choices=FORMATS, required=True, help="whose format")
    export.add_argument("--output", type=Path, required=True, metavar="PATH", help="folder, or .tsv for vlmevalkit")
    export.add_argument("--name", default="xray_vqa", help="of the task (default %(default)s)")


def run(args: argparse.Namespace) -> int:
    """Run one of them and print what came out."""
    match args.suite:
        case "sting-bee":
            return _sting_bee(args)
        case "coco":
            return _coco(args)
        case "poll":
            from xray_vqa.evaluation.suites.polling import write_poll

            print(json.dumps(write_poll(args.root, args.split, args.output, args.seed)))
        case _:
            from xray_vqa.core.jsonl import disk_errors
            from xray_vqa.evaluation.suites.export import export_tasks

            with disk_errors(args.output):
                print(json.dumps(export_tasks(args.pairs, args.output, args.format, args.name)))
    return 0


def _sting_bee(args: argparse.Namespace) -> int:
    from xray_vqa.evaluation.suites.run import SuiteSettings, run_sting_bee
    from xray_vqa.evaluation.suites.sting_bee import format_benchmark

    names = SuiteSettings.model_fields
    results = run_sting_bee(SuiteSettings(**{name: getattr(args, name) for name in names}))
    print(format_benchmark(results))
    return 0


def _coco(args: argparse.Namespace) -> int:
    from xray_vqa.cli.data_import import show_import
    from xray_vqa.evaluation.suites.run import make_coco_test_set

    report, pairs_path, counts = make_coco_test_set(args.source, args.output_dir, args.seed)
    show_import(report, as_json=False)
    print(json.dumps(counts), file=sys.stderr)
    print(f"xray-vqa evaluate --test-file {pairs_path}")
    return 1 if report.faults else 0
