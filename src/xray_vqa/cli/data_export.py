"""Write a dataset or pairs in another format: `xray-vqa data export`."""

import argparse
import dataclasses
import json
import sys
from pathlib import Path

from xray_vqa.cli.arguments import positive_count
from xray_vqa.errors import ConfigError

EPILOG = """\
examples:
  xray-vqa data export data/mine --format coco                                  instances.json beside the images
  xray-vqa data export data/mine --format parquet --output data/mine_hub        for the Hugging Face hub
  xray-vqa data export data/mine --format webdataset --output data/mine_shards  tar shards of about 1 GB, to stream
  xray-vqa data export data/mine --format webdataset --output data/mine_shards --shard-mb 250
  xray-vqa data export data/mine_train.jsonl --format llava --output llava.json
  xray-vqa data export data/mine_train.jsonl --format messages --output chat.jsonl

coco, parquet and webdataset take a dataset folder, llava and messages a file of pairs. Image bytes are never changed.
An export to webdataset that was stopped goes on with the same command: whole shards are kept. Exit code 1 where a scan
or a pair could not be written; each is named.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `xray-vqa data export`."""
    from xray_vqa.dataset.exporters import EXPORTERS

    parser.add_argument("source", type=Path, metavar="PATH", help="dataset folder, or JSONL file of pairs")
    parser.add_argument("--format", required=True, metavar="NAME", help=", ".join(EXPORTERS))
    parser.add_argument(
        "--output", type=Path, metavar="PATH", help="file or folder to write (for coco: default is the dataset itself)"
    )
    parser.add_argument(
        "--shard-mb",
        type=positive_count,
        metavar="MB",
        help="images in one file of parquet or webdataset (default 420 and 1000)",
    )
    parser.add_argument(
        "--shard-scans",
        type=positive_count,
        metavar="N",
        help="scans in one such file at most (default for webdataset 10000)",
    )
    parser.add_argument("--json", action="store_true", help="print what was written as JSON")


def run(args: argparse.Namespace) -> int:
    """Export and report; 1 where something could not be written."""
    from xray_vqa.cli.data_import import show_faults
    from xray_vqa.core.jsonl import disk_errors
    from xray_vqa.dataset.exporters import find_exporter
    from xray_vqa.dataset.exporters.exporter import ShardedExporter

    exporter = find_exporter(args.format)
    if exporter.takes == "dataset" and not args.source.is_dir():
        raise ConfigError(f"{args.source} is no folder; {exporter.name} takes a dataset folder")
    limits = {"shard_bytes": args.shard_mb and args.shard_mb * 10**6, "shard_scans": args.shard_scans}
    if limits := {name: value for name, value in limits.items() if value}:
        if not isinstance(exporter, ShardedExporter):
            raise ConfigError(f"--shard-mb and --shard-scans: {exporter.name} writes no shards")
        exporter = dataclasses.replace(exporter, **limits)
    if args.output is None and exporter.name != "coco":
        raise ConfigError("--output is missing: name the file or folder to write")
    target = args.output or args.source
    if args.output is not None and args.output.resolve() == args.source.resolve():
        raise ConfigError(f"--output {args.output} is the source itself; choose another place")
    with disk_errors(target):
        report = exporter.write(args.source, target)
    show_faults("fault", report.faults)
    if args.json:
        written = {"paths": [str(path) for path in report.paths], "counts": report.counts}
        print(json.dumps(written | {"faults": [str(fault) for fault in report.faults]}, ensure_ascii=False, indent=1))
    else:
        for path in report.paths:
            print(path)
    print(f"{exporter.description}: {', '.join(f'{name} {n}' for name, n in report.counts.items())}", file=sys.stderr)
    return 1 if report.faults else 0
