"""Simulate scans with exact boxes: `xray-vqa data synth`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from xray_vqa.cli.arguments import add_workers, count
from xray_vqa.errors import ConfigError

if TYPE_CHECKING:
    from xray_vqa.core.records import Split
    from xray_vqa.simulation.writer import SynthSettings

EPILOG = """\
examples:
  xray-vqa data synth --output-dir data/synth                          300 + 100 bags, all shipped scanner looks
  xray-vqa data synth --output-dir data/synth --count 2000             1,500 + 500
  xray-vqa data synth --output-dir data/big --train 20000 --workers 8  the same command goes on where it stopped
  xray-vqa data synth --output-dir data/ours --profile my_scanner.yaml --size 640x480 --masks --coco
  xray-vqa data synth --output-dir data/pairs --views 2 --format png   each bag from above and from the side
  xray-vqa data synth --contact-sheet look.png --profile my_scanner.yaml   24 scans in one picture; no dataset

A profile is a small YAML file; copy one that --list-profiles names. The same seed and settings give the same bags, with
any number of workers.
"""

CONTACT_SHEET_SCANS = 24
MAX_SIDE = 4096


def _size(text: str) -> tuple[int, int]:
    try:
        width, height = (int(part) for part in text.lower().split("x"))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not WIDTHxHEIGHT, such as 512x384") from None
    if not (64 <= width <= MAX_SIDE and 64 <= height <= MAX_SIDE):
        raise argparse.ArgumentTypeError(f"{text!r}: each side must be 64 to {MAX_SIDE} pixels")
    return width, height


def _share(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{value} is not a share from 0 to 1")
    return value


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `xray-vqa data synth`."""
    parser.add_argument("--output-dir", type=Path, metavar="DIR", help="dataset folder to make or go on with")
    parser.add_argument(
        "--count", type=count, metavar="N", help="bags in all: three quarters of them train, the rest test"
    )
    parser.add_argument("--train", type=count, metavar="N", help="bags in the train split (default 300)")
    parser.add_argument("--test", type=count, metavar="N", help="bags in the test split (default 100)")
    parser.add_argument("--seed", type=count, default=0, help="everything is drawn from it (default %(default)s)")
    parser.add_argument(
        "--profile", nargs="+", metavar="NAME", help="scanner profiles by name or YAML path (default: all shipped ones)"
    )
    parser.add_argument(
        "--size", type=_size, default=(512, 384), metavar="WxH", help="image size in pixels (default 512x384)"
    )
    parser.add_argument(
        "--clean-share", type=_share, default=0.2, metavar="SHARE", help="bags without a threat (default %(default)s)"
    )
    parser.add_argument(
        "--views", type=int, choices=(1, 2), default=1, help="2: each bag from the side as well (default %(default)s)"
    )
    parser.add_argument(
        "--format", choices=("jpg", "png"), default="jpg", help="of the images (default %(default)s, quality 92)"
    )
    add_workers(parser)
    parser.add_argument("--masks", action="store_true", help="store run-length encoded masks of the threats")
    parser.add_argument("--coco", action="store_true", help="write each split as COCO's instances.json as well")
    parser.add_argument(
        "--contact-sheet", type=Path, metavar="FILE",
        help=f"draw {CONTACT_SHEET_SCANS} scans of these settings with their boxes into one picture, and nothing else",
    )  # fmt: skip
    parser.add_argument("--list-profiles", action="store_true", help="name the shipped scanner profiles and end")


def run(args: argparse.Namespace) -> int:
    """Write the dataset and say where it is. Raises ConfigError for options that contradict each other."""
    from xray_vqa.simulation.profile import PROFILE_NAMES, PROFILES_DIR, load_profile
    from xray_vqa.simulation.writer import SynthSettings, write_dataset

    if args.list_profiles:
        for name in PROFILE_NAMES:
            print(f"{name:<20}{load_profile(name).about}  {PROFILES_DIR / name}.yaml")
        return 0
    settings = SynthSettings(
        seed=args.seed,
        profiles=tuple(args.profile or PROFILE_NAMES),
        size_wh=args.size,
        clean_share=args.clean_share,
        masks=args.masks,
        views=args.views,
        image_format=args.format,
    )
    if args.contact_sheet is not None:
        return _draw_contact_sheet(args.contact_sheet, settings)
    if args.output_dir is None:
        raise ConfigError("--output-dir is missing: name the dataset's folder, or a picture with --contact-sheet")
    counts = counts_of(args.count, args.train, args.test)
    made = write_dataset(args.output_dir, counts, settings, workers=args.workers)
    if args.coco:
        from xray_vqa.dataset.exporters.coco import write_coco

        for split in counts:
            write_coco(args.output_dir, split)
    told = f"{counts['train']} train and {counts['test']} test scans, {made} of them made now"
    print(f"{args.output_dir}: {told}", file=sys.stderr)
    return 0


def counts_of(count: int | None, train: int | None, test: int | None) -> dict[Split, int]:
    """Return the bags of each split. Raises ConfigError where it is said in two ways, or none is asked for."""
    if count is not None and (train is not None or test is not None):
        raise ConfigError("--count says how many bags there are in all; leave out --train and --test")
    if count is not None:
        train, test = count - count // 4, count // 4
    train, test = 300 if train is None else train, 100 if test is None else test
    if train + test == 0:
        raise ConfigError("0 bags: there is nothing to simulate; raise --count, --train or --test")
    return {"train": train, "test": test}


def _draw_contact_sheet(path: Path, settings: SynthSettings) -> int:
    from xray_vqa.simulation.contact_sheet import contact_sheet
    from xray_vqa.simulation.writer import open_stream

    if path.suffix.lower() not in (".png", ".jpg"):
        raise ConfigError(f"{path}: a picture ends in .png or .jpg")
    stream = open_stream(settings, "train")  # pyright: ignore[reportArgumentType]  (frozen, so hashable)
    scans = [stream.scan(number) for number in range(CONTACT_SHEET_SCANS)]
    path.parent.mkdir(parents=True, exist_ok=True)
    contact_sheet(scans).save(path)
    print(f"{path}: {CONTACT_SHEET_SCANS} scans", file=sys.stderr)
    return 0
