"""`xray-vqa data`: scans on disk. Each subcommand's module is imported only when it is the one asked for."""

import argparse
import importlib
from collections.abc import Sequence
from typing import Any

SUBCOMMANDS = {
    "synth": "simulate scans with exact boxes",
    "download": "fetch STCray from the hub, or read a copy of it",
    "import": "bring in scans with annotations in any of a dozen formats",
    "export": "write a dataset or pairs in another format",
    "tip": "project simulated threats into real scans",
    "verify": "check a dataset: images, boxes, digests, copies, leaks between the splits",
    "split": "divide a dataset anew, by bag and by category",
    "card": "describe a dataset: Markdown and Croissant JSON-LD",
}

EPILOG = """\
examples:
  xray-vqa data synth --output-dir data/synth               simulated scans, no network and no licence needed
  xray-vqa data import DIR --output-dir data/mine           your own annotated scans
  xray-vqa data download --output-dir data/stcray           STCray (gated: log in and accept its conditions first)
  xray-vqa data tip data/mine --output-dir data/tip         simulated threats inside your own scans
  xray-vqa data verify data/mine
  xray-vqa data export data/mine --format parquet --output data/mine_hub

`xray-vqa data SUBCOMMAND --help` tells more.
"""


class _LazyParser(argparse.ArgumentParser):
    """A parser that asks its module for options when it is the one that parses."""

    def __init__(self, *args: Any, module_name: str, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self._module_name: str | None = module_name

    def parse_known_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:
        if self._module_name is not None:
            module = importlib.import_module(self._module_name)
            self._module_name = None
            module.add_arguments(self)
            self.epilog = getattr(module, "EPILOG", None)
            self.set_defaults(run_subcommand=module.run)
        return super().parse_known_args(args, namespace)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the subcommands of `xray-vqa data`."""
    subparsers = parser.add_subparsers(dest="subcommand", metavar="SUBCOMMAND", required=True, parser_class=_LazyParser)
    for name, help_text in SUBCOMMANDS.items():
        subparsers.add_parser(
            name,
            help=help_text,
            description=help_text,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            module_name=f"xray_vqa.cli.data_{name}",
        )


def run(args: argparse.Namespace) -> int:
    """Run the subcommand that was chosen."""
    return args.run_subcommand(args)
