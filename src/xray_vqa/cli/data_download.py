"""Fetch STCray and write it as a dataset: `xray-vqa data download`, also `python data/download_stcray.py`."""

import argparse
import logging
import shutil
import sys
from pathlib import Path

EPILOG = """\
examples:
  python data/download_stcray.py --output-dir data/stcray
  python data/download_stcray.py --output-dir data/stcray --verify
  python data/download_stcray.py --max-samples 1000                      a subset, drawn evenly
  xray-vqa data download --source DIR --output-dir data/stcray           DIR has the archives, packed or unpacked

STCray is gated: accept its conditions at https://huggingface.co/datasets/Naoufel555/STCray-Dataset, then
`hf auth login` or HF_TOKEN. HF_ENDPOINT sets a mirror. 2.1 GB are fetched whatever --max-samples says; a download that
stopped goes on with the same command. Unpacking needs bsdtar, unrar, unar or 7z.
Exit codes: 1 faults found, 2 login or a tool is missing, 3 no network or disk full, 5 an archive is not as published.
"""

HUB = "hub"
UNPACKED_NAME = ".unpacked"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `xray-vqa data download`."""
    parser.add_argument(
        "--output-dir", type=Path, default=Path("data/stcray"), metavar="DIR", help="dataset folder (%(default)s)"
    )
    parser.add_argument("--verify", action="store_true", help="download nothing; check what is in the output folder")
    parser.add_argument("--max-samples", type=_positive, metavar="N", help="keep only so many scans in all")
    parser.add_argument(
        "--source",
        default=HUB,
        metavar="hub|DIR",
        help="the hub, or a folder with the archives or what was unpacked from them (default %(default)s)",
    )
    parser.add_argument(
        "--any-version", action="store_true", help="accept archives whose size or SHA-256 is not the published one"
    )
    parser.add_argument("--allow-faults", action="store_true", help="exit with 0 although scans were left out")
    parser.add_argument("--json", action="store_true", help="print the whole report as JSON")


def run(args: argparse.Namespace) -> int:
    """Fetch, unpack, convert and report; or verify only."""
    from xray_vqa.cli.data_import import show_import
    from xray_vqa.cli.data_verify import verify_and_show
    from xray_vqa.dataset.importing import import_source
    from xray_vqa.dataset.stcray import ARCHIVES, check_archive, fetch_archives, find_archives, read_stcray, unpack
    from xray_vqa.errors import ConfigError, Incomplete

    if args.verify:
        return verify_and_show(args.output_dir, as_json=args.json)
    folders: list[Path] = []
    if args.source == HUB:
        for name in ("httpx", "httpx2"):
            logging.getLogger(name).setLevel(logging.WARNING)  # they log every request
        _check_space(args.output_dir, sum(archive.num_bytes for archive in ARCHIVES))
        archives = fetch_archives()
    else:
        source_dir = Path(args.source)
        if not source_dir.is_dir():
            raise ConfigError(f"--source {source_dir}: no such folder; give hub or a folder with the archives")
        archives = find_archives(source_dir)
        folders.append(source_dir)
    unpacked_dir = args.output_dir / UNPACKED_NAME
    for archive in archives if not args.any_version else ():
        check_archive(archive)
    folders[:0] = [unpacked_dir / archive.stem for archive in archives]
    for archive in archives:
        print(f"unpacking {archive}", file=sys.stderr)
        try:
            unpack(archive, unpacked_dir / archive.stem)
        except OSError as error:
            raise Incomplete(f"{archive} cannot be unpacked to {unpacked_dir}: {error.strerror}") from error
    source = read_stcray(folders, args.max_samples)
    report = import_source(source, args.output_dir, stage="download", origin="stcray")
    show_import(report, as_json=args.json)
    if report.faults and not args.allow_faults:
        print(f"{len(report.faults)} faults; the rest is here. --allow-faults accepts them", file=sys.stderr)
        return 1
    shutil.rmtree(unpacked_dir, ignore_errors=True)
    return 0


def _check_space(output_dir: Path, archive_bytes: int) -> None:
    from xray_vqa.errors import Incomplete

    folder = next(parent for parent in (output_dir, *output_dir.resolve().parents) if parent.is_dir())
    free = shutil.disk_usage(folder).free
    needed = 3 * archive_bytes  # the archives, what is in them, and the dataset; scans hardly compress
    if free < needed:
        raise Incomplete(
            f"{folder} has {free / 1e9:.1f} GB free and STCray needs {needed / 1e9:.1f} GB; make room and run it again"
        )


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of scans from 1 up")
    return int(text)
