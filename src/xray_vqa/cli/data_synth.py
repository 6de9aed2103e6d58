"""Simulate scans with exact boxes: `xray-vqa data synth`."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

EPILOG = """\
examples:
  xray-vqa data synth --output-dir data/synth                          300 + 100 scans of all profiles
  xray-vqa data synth --output-dir data/big --train 20000 --workers 8  the same command goes on where it stopped
  xray-vqa data synth --output-dir data/ours --profile my_scanner.yaml --size 640x480 --masks
"""

MAX_SIDE = 4096


def _size(text: str) -> tuple[int, int]:
    try:
        width, height = (int(part) for part in text.lower().split("x"))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not WIDTHxHEIGHT, such as 512x384") from None
    if not (64 <= width <= MAX_SIDE and 64 <= height <= MAX_SIDE):
        raise argparse.ArgumentTypeError(f"{text!r}: each side must be 64 to {MAX_SIDE} pixels")
    return width, height


def _count(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{value} is negative")
    return value


def _share(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{value} is not a share from 0 to 1")
    return value


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `xray-vqa data synth`."""
    parser.add_argument(
        "--output-dir", type=Path, required=True, metavar="DIR", help="dataset folder to make or go on with"
    )
    parser.add_argument(
        "--train", type=_count, default=300, metavar="N", help="scans in the train split (default %(default)s)"
    )
    parser.add_argument(
        "--test", type=_count, default=100, metavar="N", help="scans in the test split (default %(default)s)"
    )
    parser.add_argument("--seed", type=_count, default=0, help="everything is drawn from it (default %(default)s)")
    parser.add_argument(
        "--profile", nargs="+", metavar="NAME", help="scanner profiles by name or YAML path (default: all shipped ones)"
    )
    parser.add_argument(
        "--size", type=_size, default=(512, 384), metavar="WxH", help="image size in pixels (default 512x384)"
    )
    parser.add_argument(
        "--clean-share", type=_share, default=0.25, metavar="SHARE", help="bags without a threat (default %(default)s)"
    )
    parser.add_argument(
        "--workers",
        type=_count,
        default=min(os.cpu_count() or 1, 8),
        metavar="N",
        help="processes (default %(default)s)",
    )
    parser.add_argument("--masks", action="store_true", help="store run-length encoded masks of the threats")


def run(args: argparse.Namespace) -> int:
    """Write the dataset and say where it is."""
    from xray_vqa.core.records import Split
    from xray_vqa.simulation.profile import PROFILE_NAMES
    from xray_vqa.simulation.writer import SynthSettings, write_dataset

    settings = SynthSettings(
        seed=args.seed,
        profiles=tuple(args.profile or PROFILE_NAMES),
        size_wh=args.size,
        clean_share=args.clean_share,
        masks=args.masks,
    )
    counts: dict[Split, int] = {"train": args.train, "test": args.test}
    made = write_dataset(args.output_dir, counts, settings, workers=args.workers)
    print(f"{args.output_dir}: {args.train} train and {args.test} test scans, {made} of them made now", file=sys.stderr)
    return 0
