"""Compare two models on the same test set: `xray-vqa compare`."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from xray_vqa.cli.arguments import positive_count

EPILOG = """\
examples:
  xray-vqa compare results/before.json results/after.json
  xray-vqa compare results/full.json results/quantised.json --margin 0.02
  xray-vqa compare results/a/predictions.jsonl results/b/predictions.jsonl --output results/compare.json

A and B are results of `xray-vqa evaluate` or predictions files, of the same pairs and annotations. Every difference is
B less A, with an interval from a bootstrap that draws whole bags for both at once; bags that only one of them judges
rightly are tested with McNemar's exact test, and slices corrected with Holm's. With --margin the exit code is 4 unless
B is shown to be no worse than A by that much, in every number that can be measured. The table is on stderr, JSON on
stdout or in --output.
"""


def margin_of(text: str) -> float:
    """Read a margin: more than 0, at most 1."""
    value = float(text)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not above 0 and at most 1")
    return value


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `xray-vqa compare`."""
    add = parser.add_argument
    add("a", type=Path, metavar="A", help="results (.json) or predictions (.jsonl) of the model that stands now")
    add("b", type=Path, metavar="B", help="those of the model that may take its place")
    add("--margin", type=margin_of, metavar="SHARE", help="what B may be worse by, such as 0.02 (default: no test)")
    add("--draws", type=positive_count, default=10_000, metavar="N", help="of the bootstrap (default %(default)s)")
    add("--seed", type=int, default=0, help="of the draws (default %(default)s)")
    add("--output", type=Path, metavar="JSON", help="write the comparison there instead of to stdout")


def run(args: argparse.Namespace) -> int:
    """Compare, print the table and write or print the JSON."""
    from xray_vqa.core.jsonl import write_json
    from xray_vqa.core.manifest import make_manifest, sha256_file, write_manifest
    from xray_vqa.errors import GateFailed
    from xray_vqa.evaluation.comparison.compare import compare
    from xray_vqa.evaluation.comparison.table import format_comparison
    from xray_vqa.evaluation.score import rounded

    found = compare(args.a, args.b, margin=args.margin, draws=args.draws, seed=args.seed)
    print(format_comparison(found), file=sys.stderr)
    value = rounded(found)
    if args.output:
        write_json(args.output, value)
        config = {"margin": args.margin, "draws": args.draws, "seed": args.seed}
        inputs = {side.file: side.sha256 for side in (found.a, found.b)}
        outputs = {args.output.name: sha256_file(args.output)}
        write_manifest(args.output, make_manifest("compare", config=config, inputs=inputs, outputs=outputs))
    else:
        print(json.dumps(value, ensure_ascii=False, indent=2))
    failed = [name for name, delta in found.metrics.items() if delta.not_worse is False]
    if failed:
        raise GateFailed(f"B is not shown to be no worse than A by {args.margin:g} in {', '.join(failed)}")
    return 0
