"""Bring annotated scans into a dataset: `xray-vqa data import`."""

import argparse
import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xray_vqa.cli.arguments import add_workers
from xray_vqa.errors import ConfigError, DatasetError

if TYPE_CHECKING:
    from xray_vqa.core.records import Fault
    from xray_vqa.dataset.fetching import Copy
    from xray_vqa.dataset.importing import ImportReport

EPILOG = """\
examples:
  xray-vqa data import DIR --output-dir data/mine                     the format is recognised
  xray-vqa data import --format coco DIR --output-dir data/mine
  xray-vqa data import DIR --output-dir data/mine --split-map val=train --split-map extra=skip
  xray-vqa data import DIR --output-dir data/mine --test-share 0.3 --group-pattern '^(bag\\d+)_'
  xray-vqa data import DIR --output-dir data/mine --annotated Gun,Knife,Wrench
  xray-vqa data import s3://bucket/scans --output-dir data/mine       needs pip install s3fs
  xray-vqa data import https://host/scans/ --output-dir data/mine     a page that lists files; pip install aiohttp
  xray-vqa data import zip://::scans.zip --output-dir data/mine       an archive, or one at an address: zip://::s3://...

An ADDRESS is whatever fsspec opens. Its files are copied into OUTPUT/.fetched first, which goes on where it stopped and
is removed when the import is done.
Image bytes are kept unchanged under running numbers. The source's val and test go to test/; scans without a split are
divided by group. Whatever cannot be kept as it is, is named: here, and in full in DIR/import_report.json of the output.
Exit code 1 where scans were left out because they are missing or unreadable, unless --allow-faults.
"""

SCRATCH_NAME = ".unpacked"
"""In the output folder: images that are no files of their own in the source, until they are stored."""
SHOWN = 20
"""Faults and notices that are printed by name; the report file has all of them."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `xray-vqa data import`."""
    parser.add_argument(
        "source",
        metavar="DIR|ADDRESS",
        help="folder with the images and their annotations, or its address: s3://, gs://, https://, zip://, ...",
    )
    parser.add_argument("--output-dir", type=Path, required=True, metavar="DIR", help="dataset folder to make")
    from xray_vqa.dataset.importers import FORMATS

    parser.add_argument("--format", metavar="NAME", help=f"{', '.join(FORMATS)} (default: recognised)")
    parser.add_argument(
        "--split-map",
        action="append",
        type=_split_pair,
        default=[],
        metavar="WORD=SPLIT",
        help="where a split of the source goes: train, test or skip (default: val and test to test)",
    )
    parser.add_argument(
        "--test-share",
        type=float,
        default=0.2,
        metavar="SHARE",
        help="test scans among those for which the source names no split, taken by group (default %(default)s)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of that division (default %(default)s)")
    parser.add_argument(
        "--group-pattern", default="", metavar="REGEX", help="its first group, on an image's name, names the bag"
    )
    parser.add_argument(
        "--annotated",
        type=_names,
        metavar="NAMES",
        help="categories that the source labels, with commas between; absence of others is never taught",
    )
    parser.add_argument(
        "--scale-boxes", action="store_true", help="scale boxes that were drawn on another size of the image"
    )
    parser.add_argument(
        "--box-factor",
        type=_factor,
        metavar="FACTOR",
        help="multiply boxes by it where the annotation does not say for which size of the image they were drawn",
    )
    parser.add_argument(
        "--source-name", default="", metavar="NAME", help="as records say it (default FORMAT/FOLDER, or FORMAT/ADDRESS)"
    )
    parser.add_argument("--licence", default="", metavar="TEXT", help="terms of the scans, kept in every record")
    add_workers(parser)
    parser.add_argument("--allow-faults", action="store_true", help="exit with 0 although scans were left out")
    parser.add_argument("--json", action="store_true", help="print the whole report as JSON")


def run(args: argparse.Namespace) -> int:
    """Import and report; 1 where something could not be imported."""
    from xray_vqa.dataset.address import local_path, open_address
    from xray_vqa.dataset.fetching import FETCHED_NAME, fetch_tree
    from xray_vqa.dataset.importing import check_origin

    path = local_path(args.source)
    if path is not None:
        report = _import(args, path)
    else:
        address = open_address(args.source)
        check_origin(args.output_dir, "import", address.shown)
        copy = fetch_tree(address, args.output_dir / FETCHED_NAME)
        try:
            with copy.in_its_name():
                report = _import(args, copy.folder, copy)
        except (ConfigError, DatasetError):
            print(f"{args.output_dir / FETCHED_NAME} keeps what was fetched for another try", file=sys.stderr)
            raise
        shutil.rmtree(args.output_dir / FETCHED_NAME)
    show_import(report, as_json=args.json)
    if report.faults and not args.allow_faults:
        print(f"{len(report.faults)} faults; the rest is imported. --allow-faults accepts them", file=sys.stderr)
        return 1
    return 0


def _import(args: argparse.Namespace, path: Path, copy: "Copy | None" = None) -> "ImportReport":
    """Import a folder, which may be the copy of another place."""
    from xray_vqa.dataset.importers import find_importer, open_folder, read_source
    from xray_vqa.dataset.importing import ImportOptions, import_source

    scratch_dir = args.output_dir / SCRATCH_NAME
    folder = open_folder(path, scratch_dir)
    importer = find_importer(folder, args.format)
    print(f"{copy.address if copy else path}: {importer.description}", file=sys.stderr)
    options = ImportOptions(
        split_map=dict(args.split_map),
        test_share=args.test_share,
        seed=args.seed,
        annotated=args.annotated,
        scale_boxes=args.scale_boxes,
        box_factor=args.box_factor,
        group_pattern=args.group_pattern,
        source_name=args.source_name,
        licence=args.licence,
    )
    try:
        source = read_source(folder, importer)
        if copy is not None:
            source = replace(source, faults=(*copy.faults, *source.faults), address=copy.address, base=copy.base)
        report = import_source(source, args.output_dir, options, workers=args.workers)
    except (ConfigError, DatasetError):  # what is unpacked helps only a command that can go on
        shutil.rmtree(scratch_dir, ignore_errors=True)
        raise
    shutil.rmtree(scratch_dir, ignore_errors=True)
    return report


def show_import(report: "ImportReport", *, as_json: bool) -> None:
    """Print what an import did: numbers or JSON on stdout, faults and notices by name on stderr."""
    from xray_vqa.dataset.importing import REPORT_NAME

    where = report.root / REPORT_NAME
    show_faults("copy", [*map(report.say, report.copies)], where, shown=3)
    show_faults("notice", [*map(report.say, report.notices)], where)
    show_faults("fault", [*map(report.say, report.faults)], where)
    show_report(report.root, report.as_json(), as_json=as_json)


def show_report(root: Path, report: Mapping[str, Any], *, as_json: bool) -> None:
    """Print the numbers of an import, as its report file has them, or all of it as JSON."""
    if as_json:
        print(json.dumps(report, ensure_ascii=False, indent=1))
        return
    print(root)
    for name, count in report["counts"].items():
        print(f"  {name:<18}{count:>8}")
    print(f"  annotated: {', '.join(report['annotated_categories']) or 'nothing'}")
    show_categories(report["categories"])


def show_categories(categories: dict[str, dict[str, int]]) -> None:
    """Print how many items of each category stand in each split."""
    names = sorted({name for counts in categories.values() for name in counts})
    if names:
        print(f"  {'items':<18}" + "".join(f"{split:>8}" for split in categories))
    for name in names:
        print(f"  {name:<18}" + "".join(f"{counts.get(name, 0):>8}" for counts in categories.values()))


def show_faults(word: str, faults: "Sequence[Fault | str]", where: Path | None = None, shown: int = SHOWN) -> None:
    """Print faults or notices by name on stderr, the first of many."""
    for fault in faults[:shown]:
        print(f"{word}: {fault}", file=sys.stderr)
    if len(faults) > shown:
        place = f", all in {where}" if where else "; --json prints all"
        print(f"{word}: ... {len(faults) - shown} more{place}", file=sys.stderr)


def _split_pair(text: str) -> tuple[str, str]:
    word, separator, split = text.partition("=")
    if not (word and separator and split):
        raise argparse.ArgumentTypeError(f"{text!r} is no WORD=SPLIT, such as val=train")
    return word.strip().lower(), split.strip().lower()


def _factor(text: str) -> float:
    value = float(text)
    if not 0 < value < 1000:
        raise argparse.ArgumentTypeError(f"{text} is no factor, such as 0.25")
    return value


def _names(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    if not names:
        raise argparse.ArgumentTypeError("name at least one category")
    return names
