"""Describe a dataset: `xray-vqa data card`."""

import argparse
import json
import sys
from pathlib import Path

EPILOG = """\
examples:
  xray-vqa data card data/mine
  xray-vqa data card data/mine --name "Gate 4, spring" --licence https://example.org/terms

Writes three files into DIR: DATASET_CARD.md for people, croissant.json (Croissant 1.0 JSON-LD) for other programs, and
SHA256SUMS for `sha256sum -c`.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `xray-vqa data card`."""
    parser.add_argument("root", type=Path, metavar="DIR", help="dataset folder: manifest.json, train/ and test/")
    parser.add_argument("--name", default="", help="of the dataset (default: its folder's)")
    parser.add_argument("--licence", default="", metavar="TEXT", help="terms of the whole, where its records differ")
    parser.add_argument("--url", default="", help="the dataset's own page, where it has one")
    parser.add_argument("--json", action="store_true", help="print the Croissant file on stdout as well")


def run(args: argparse.Namespace) -> int:
    """Write the three files and say what is missing in them."""
    from xray_vqa.core.jsonl import disk_errors
    from xray_vqa.dataset.card import CARD_NAME, CROISSANT_NAME, UNKNOWN_LICENCE, write_card

    with disk_errors(args.root):
        facts = write_card(args.root, args.name, args.licence, args.url)
    if args.json:
        print(json.dumps(json.loads((args.root / CROISSANT_NAME).read_text()), ensure_ascii=False, indent=1))
    for name in (CARD_NAME, CROISSANT_NAME):
        print(f"{args.root / name}: written", file=sys.stderr)
    unknown = facts.licences.get(UNKNOWN_LICENCE, 0)
    if unknown and not args.licence:
        print(f"notice: {unknown} scans name no licence; --licence states one for the whole", file=sys.stderr)
    return 0
