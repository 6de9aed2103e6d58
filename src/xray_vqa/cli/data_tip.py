"""Project simulated threats into scans from outside: `xray-vqa data tip`."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

from xray_vqa.cli.arguments import add_workers

EPILOG = """\
examples:
  xray-vqa data tip data/mine --output-dir data/tip                     half of the train scans get threats
  xray-vqa data tip data/mine --output-dir data/tip --count 50 --only-projected
  xray-vqa data tip data/mine --output-dir data/tip --categories Gun,Knife --profile my_scanner.yaml
  xray-vqa data tip FOLDER --output-dir data/tip --categories Explosive,Gun --host-is-clean

The host is a dataset (as `xray-vqa data import` writes it) or a plain folder of images. A scan is read back through its
colours into what the scanner measured; the threat's attenuation is added, with point spread, noise, unsharp mask and
colour. Pixels beyond a threat and its margin keep their values: in a PNG exactly; a JPEG is compressed anew as a whole.
Where IMAGE.npz lies beside IMAGE.png or IMAGE.jpg, its array `p`, (2, height, width) -ln(signal / air signal) with the
front detector first, is taken instead of the colours, and the readings with the threat are written beside the result.

Scans that no shipped scanner profile explains (palette round trip above 12 grey levels) are refused: they go over
unchanged and are named, with the reason, in tip_report.json of the output. Scans that get no threat, and the other
split, go over unchanged too, unless --only-projected. By default only categories that the host labels are inserted,
because of others nobody knows whether they are in its bags already. The same command goes on where it stopped, and the
same seed and scans give the same result with any number of workers.

Exit code 1 where no scan got a threat, or scans could not be read.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `xray-vqa data tip`."""
    parser.add_argument("host", type=Path, metavar="DIR", help="dataset or folder whose scans get threats")
    parser.add_argument(
        "--output-dir", type=Path, required=True, metavar="DIR", help="dataset folder to make or go on with"
    )
    parser.add_argument(
        "--split", choices=("train", "test"), default="train", help="whose scans get threats (default %(default)s)"
    )
    amount = parser.add_mutually_exclusive_group()
    amount.add_argument("--count", type=int, metavar="N", help="how many scans get threats")
    amount.add_argument(
        "--share",
        type=float,
        default=0.5,
        metavar="SHARE",
        help="share that gets threats (default %(default)s)",
    )
    parser.add_argument(
        "--categories",
        type=lambda text: tuple(name.strip() for name in text.split(",") if name.strip()),
        default=(),
        metavar="NAMES",
        help="what to insert, with commas between (default: all that the host labels)",
    )
    parser.add_argument(
        "--max-threats", type=int, default=2, metavar="N", help="threats a scan at most (default %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, help="everything is drawn from it (default %(default)s)")
    parser.add_argument(
        "--profile",
        default="auto",
        metavar="NAME",
        help="scanner profile by name or YAML path; auto fits the shipped ones to each scan (default %(default)s)",
    )
    parser.add_argument(
        "--pixel-cm",
        type=float,
        metavar="CM",
        help="width of a pixel on the belt (default: the largest bag of a scan is taken to be 50 cm long)",
    )
    parser.add_argument(
        "--format", choices=("png", "jpg"), default="png", help="of scans with threats (default %(default)s)"
    )
    add_workers(parser)
    parser.add_argument("--only-projected", action="store_true", help="leave out all scans that got no threat")
    parser.add_argument(
        "--host-is-clean",
        action="store_true",
        help="you vouch that no host scan holds an unlabelled item of --categories, so that they count as labelled",
    )
    parser.add_argument("--json", action="store_true", help="print the whole report as JSON")


def run(args: argparse.Namespace) -> int:
    """Write the dataset and report; 1 where no scan got a threat or scans could not be read."""
    from pydantic import ValidationError

    from xray_vqa.core.jsonl import first_error
    from xray_vqa.errors import ConfigError
    from xray_vqa.simulation.tip_dataset import REPORT_NAME, project_dataset
    from xray_vqa.simulation.tip_scan import TipSettings

    try:
        settings = TipSettings(
            split=args.split,
            count=args.count,
            share=args.share,
            categories=args.categories,
            max_threats=args.max_threats,
            seed=args.seed,
            profile=args.profile,
            pixel_cm=args.pixel_cm,
            format=args.format,
            only_projected=args.only_projected,
            host_is_clean=args.host_is_clean,
        )
    except ValidationError as error:
        raise ConfigError(f"--{first_error(error).replace('_', '-')}") from error
    start = time.monotonic()
    report = project_dataset(args.host, args.output_dir, settings, workers=args.workers)
    counts = report["counts"]
    if args.json:
        print(json.dumps(report, ensure_ascii=False, indent=1))
    else:
        print(args.output_dir)
        for name, count in counts.items():
            print(f"  {name:<12}{count:>8}")
        print(f"  inserted: {', '.join(f'{name} {count}' for name, count in report['threats'].items()) or 'nothing'}")
    print(f"took {time.monotonic() - start:.0f} s", file=sys.stderr)
    if counts["projected"] < counts["wanted"]:
        print(f"{counts['projected']} scans got threats, {counts['wanted']} were asked for", file=sys.stderr)
    for name in ("refused", "no_place", "unreadable"):
        if report[name]:
            first = report[name][0]
            print(
                f"{name}: {len(report[name])}, first {first['image']}: {first['reason']}; all in "
                f"{args.output_dir / REPORT_NAME}",
                file=sys.stderr,
            )
    return 0 if counts["projected"] and not counts["unreadable"] and not counts["faults"] else 1
