"""Check a dataset on disk: `xray-vqa data verify`."""

import argparse
import json
import sys
from pathlib import Path

EPILOG = """\
examples:
  xray-vqa data verify data/mine
  xray-vqa data verify data/mine --json | jq .splits

Exit code 1 where anything is wrong; each fault names its file and index.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `xray-vqa data verify`."""
    parser.add_argument("root", type=Path, metavar="DIR", help="dataset folder: manifest.json, train/ and test/")
    parser.add_argument("--json", action="store_true", help="print the whole report as JSON")


def run(args: argparse.Namespace) -> int:
    """Verify and report; 1 where something is wrong."""
    return verify_and_show(args.root, as_json=args.json)


def verify_and_show(root: Path, *, as_json: bool = False) -> int:
    """Print what a dataset holds and what is wrong with it, and return the exit code."""
    from xray_vqa.cli.data_import import show_categories, show_faults
    from xray_vqa.dataset.verify import verify_dataset

    report = verify_dataset(root)
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
    verdict = f"{len(report.faults)} faults" if report.faults else "no faults"
    print(f"{root}: {verdict}, {len(report.notices)} notices", file=sys.stderr)
    return 1 if report.faults else 0
