"""Divide a dataset anew into train and test: `xray-vqa data split`."""

import argparse
import json
import sys
from pathlib import Path

from xray_vqa.cli.arguments import add_workers

EPILOG = """\
examples:
  xray-vqa data split data/mine --output-dir data/mine-split
  xray-vqa data split data/mine --output-dir data/mine-split --test-share 0.3 --seed 7

Scans of one group, with the same bytes, or that look alike stay on one side; every category is divided in the same
share as far as its bags allow. The division that DIR has is given up: results on its test split cannot be compared
with those on the new one. DIR itself is not changed.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `xray-vqa data split`."""
    parser.add_argument("root", type=Path, metavar="DIR", help="dataset folder: manifest.json, train/ and test/")
    parser.add_argument("--output-dir", type=Path, required=True, metavar="DIR", help="dataset folder to make")
    parser.add_argument("--test-share", type=float, default=0.2, metavar="SHARE", help="of the scans (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the division (default %(default)s)")
    parser.add_argument("--no-near-copies", action="store_true", help="let scans that only look alike be divided")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    add_workers(parser)


def run(args: argparse.Namespace) -> int:
    """Divide, and print how many scans of each category stand on each side."""
    from xray_vqa.dataset.splits import SplitOptions, split_dataset

    options = SplitOptions(args.test_share, args.seed, near_copies=not args.no_near_copies)
    report = split_dataset(args.root, args.output_dir, options, workers=args.workers)
    if args.json:
        print(json.dumps(report.as_json(), ensure_ascii=False, indent=1))
    else:
        print(args.output_dir)
        print(f"  {report.clusters} clusters, the largest of {report.largest} scans")
        print(f"  joined: {report.joined_by_bytes} by their bytes, {report.joined_by_looks} by what they show")
        print(f"  {'scans':<18}" + "".join(f"{split:>8}" for split in report.counts))
        for name, counts in {"all": report.counts, **report.strata}.items():
            print(f"  {name:<18}" + "".join(f"{count:>8}" for count in counts.values()))
    for name in report.one_sided:
        print(f"notice: {name} stands on one side alone: all of its scans hang together", file=sys.stderr)
    return 0
