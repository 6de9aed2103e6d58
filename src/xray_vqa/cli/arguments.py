"""Options that several subcommands share."""

from __future__ import annotations

import argparse
import os


def count(text: str) -> int:
    """Read a number of things from the command line; none is negative."""
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{value} is negative")
    return value


def positive_count(text: str) -> int:
    """Read a number of things of which there is at least one."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is less than 1")
    return value


def add_workers(parser: argparse.ArgumentParser) -> None:
    """Declare `--workers`."""
    parser.add_argument(
        "--workers",
        type=count,
        default=min(os.cpu_count() or 1, 8),
        metavar="N",
        help="processes (default %(default)s)",
    )
