"""Check a dataset on disk: `xray-vqa data verify`."""

import argparse
import json
import os
import sys
from pathlib import Path

from xray_vqa.cli.arguments import add_workers

EPILOG = """\
examples:
  xray-vqa data verify data/mine
  xray-vqa data verify data/mine --report verify.html           the worst cases drawn, in one page without links
  xray-vqa data verify data/mine --json | jq .kinds
  xray-vqa data verify data/mine --strict                       look-alikes across the splits count as faults

Every image is decoded, and compared with all others by digest and by what it shows (shifted, resized, compressed again
or mirrored). Nothing is written beside --report. Exit codes: 0 no faults, 1 faults found, each named by file and index,
2 there is nothing to look at or it may not be read.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `xray-vqa data verify`."""
    parser.add_argument("root", type=Path, metavar="DIR", help="dataset folder: manifest.json, train/ and test/")
    parser.add_argument("--json", action="store_true", help="print the whole report as JSON")
    parser.add_argument("--report", type=Path, metavar="FILE", help="write an HTML page with the worst cases drawn")
    parser.add_argument("--strict", action="store_true", help="count what puts a measurement in doubt as a fault too")
    parser.add_argument("--no-near-copies", action="store_true", help="compare images by their bytes alone")
    add_workers(parser)


def run(args: argparse.Namespace) -> int:
    """Verify and report; 1 where something is wrong."""
    return verify_and_show(
        args.root,
        as_json=args.json,
        report_path=args.report,
        strict=args.strict,
        near_copies=not args.no_near_copies,
        workers=args.workers,
    )


def verify_and_show(
    root: Path,
    *,
    as_json: bool = False,
    report_path: Path | None = None,
    strict: bool = False,
    near_copies: bool = True,
    workers: int | None = None,
) -> int:
    """Print what a dataset holds and what is wrong with it, and return the exit code."""
    from xray_vqa.cli.data_import import show_categories, show_faults
    from xray_vqa.core.jsonl import disk_errors
    from xray_vqa.dataset.verify import verify_dataset

    workers = min(os.cpu_count() or 1, 8) if workers is None else workers
    report = verify_dataset(root, workers=workers, strict=strict, near_copies=near_copies)
    show_faults("notice", report.notices)
    show_faults("fault", report.faults)
    if as_json:
        print(json.dumps(report.as_json(), ensure_ascii=False, indent=1))
    else:
        print(root)
        for split, counts in report.splits.items():
            print(
                f"  {split}: {counts.scans} scans ({counts.clean} clean), {counts.items} items, {counts.boxes} boxes, "
                f"{counts.groups} groups"
            )
        print(f"  annotated: {', '.join(report.annotated) or 'unknown'}")
        show_categories({split: counts.categories for split, counts in report.splits.items()})
    if report_path:
        from xray_vqa.dataset.verify_page import write_verify_page

        with disk_errors(report_path):
            write_verify_page(report_path, report)
        print(f"{report_path}: the worst cases drawn", file=sys.stderr)
    verdict = f"{len(report.faults)} faults" if report.faults else "no faults"
    print(f"{root}: {verdict}, {len(report.notices)} notices", file=sys.stderr)
    return 1 if report.faults else 0
