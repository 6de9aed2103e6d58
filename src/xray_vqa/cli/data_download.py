"""Fetch STCray and write it as a dataset: `xray-vqa data download`, also `python data/download_stcray.py`."""

import argparse
import fcntl
import os
import shutil
import sys
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from xray_vqa.cli.arguments import add_workers

if TYPE_CHECKING:
    from xray_vqa.dataset.importers.source import Source

EPILOG = """\
examples:
  python data/download_stcray.py --output-dir data/stcray
  python data/download_stcray.py --output-dir data/stcray --verify
  python data/download_stcray.py --max-samples 1000                      a subset, drawn evenly
  python data/download_stcray.py --source STCray_TestSet.rar             one archive from elsewhere
  xray-vqa data download --source DIR --output-dir data/stcray           DIR has the archives, packed or unpacked

STCray is gated: accept its conditions at https://huggingface.co/datasets/Naoufel555/STCray-Dataset, then
`hf auth login` or HF_TOKEN. HF_ENDPOINT sets a mirror. 2.1 GB are fetched whatever --max-samples says, and 21.5 GB more
with --include-augmented. Whatever stopped goes on with the same command: fetching, unpacking, writing. Archives are
kept in OUTPUT/.archives. Unpacking needs libarchive (Debian: libarchive13), bsdtar, unrar, unar or 7z.
Exit codes: 1 faults found, 2 login or a tool is missing, 3 no network or disk full, 5 an archive is not as published.
"""

HUB = "hub"
ARCHIVES_NAME = ".archives"
UNPACKED_NAME = ".unpacked"
NUM_COPIES = 2
"""Once unpacked and once as the dataset: scans are compressed already and hardly shrink in an archive."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `xray-vqa data download`."""
    parser.add_argument(
        "--output-dir", type=Path, default=Path("data/stcray"), metavar="DIR", help="dataset folder (%(default)s)"
    )
    parser.add_argument("--verify", action="store_true", help="download nothing; check what is in the output folder")
    parser.add_argument("--max-samples", type=_positive, metavar="N", help="keep only so many scans in all")
    parser.add_argument(
        "--include-augmented", action="store_true", help="take the authors' augmented scans too (21.5 GB), for training"
    )
    parser.add_argument(
        "--source",
        default=HUB,
        metavar="hub|DIR|ARCHIVE",
        help="the hub, a folder with the archives or what was unpacked from them, or one archive (default %(default)s)",
    )
    parser.add_argument(
        "--any-version", action="store_true", help="accept archives whose size or SHA-256 is not the published one"
    )
    parser.add_argument("--allow-faults", action="store_true", help="exit with 0 although scans were left out")
    add_workers(parser)
    parser.add_argument("--json", action="store_true", help="print the whole report as JSON")


def run(args: argparse.Namespace) -> int:
    """Fetch, unpack, convert and report; or verify only."""
    from xray_vqa.cli.data_import import show_import
    from xray_vqa.cli.data_verify import verify_and_show
    from xray_vqa.core.jsonl import disk_errors
    from xray_vqa.dataset.importing import ImportOptions, import_source

    if args.verify:
        return verify_and_show(args.output_dir, as_json=args.json)
    is_new = not args.output_dir.exists()
    try:
        with _alone(args.output_dir):
            if _is_finished(args):
                return 0
            source = _read(args)
            with disk_errors(args.output_dir):
                report = import_source(
                    source,
                    args.output_dir,
                    ImportOptions(source_name="stcray"),
                    stage="download",
                    origin="stcray",
                    request=_request(args),
                    workers=args.workers,
                )
            show_import(report, as_json=args.json)
            if report.faults and not args.allow_faults:
                print(f"{len(report.faults)} faults; the rest is here. --allow-faults accepts them", file=sys.stderr)
                return 1
            shutil.rmtree(args.output_dir / UNPACKED_NAME, ignore_errors=True)
    finally:
        if is_new:
            _remove_if_empty(args.output_dir)
    kept_dir = args.output_dir / ARCHIVES_NAME
    if kept_dir.is_dir():
        print(
            f"{kept_dir} keeps the archives for another run of this command; remove it when you like", file=sys.stderr
        )
    return 0


def _request(args: argparse.Namespace) -> dict[str, str | int | bool | None]:
    """Return the options that decide what the dataset holds."""
    source = args.source if args.source == HUB else str(Path(args.source).resolve())
    return {"source": source, "max_samples": args.max_samples, "augmented": args.include_augmented}


def _is_finished(args: argparse.Namespace) -> bool:
    """Say what an earlier run of the same command has made, where nothing of it is missing.

    What lies in a folder of the user's may have changed, so a `--source` is always read.
    """
    from xray_vqa.cli.data_import import show_report
    from xray_vqa.dataset.stcray.finished import finished_report
    from xray_vqa.dataset.stcray.published import wanted_archives

    if args.source != HUB:
        return False
    wanted = wanted_archives(augmented=args.include_augmented)
    digests = {archive.file_name: "" if args.any_version else archive.sha256 for archive in wanted}
    report = finished_report(args.output_dir, _request(args), digests)
    if report is None or (report["faults"] and not args.allow_faults):
        return False
    show_report(args.output_dir, report, as_json=args.json)
    print(
        f"{args.output_dir} is whole: an earlier run of this command has made it. --verify reads every image",
        file=sys.stderr,
    )
    return True


def _read(args: argparse.Namespace) -> "Source":
    """Return the source that the options name, fetched and unpacked."""
    from xray_vqa.dataset.stcray.published import check_archive, is_published
    from xray_vqa.dataset.stcray.tree import read_stcray
    from xray_vqa.dataset.stcray.unpack import unpack
    from xray_vqa.dataset.storing import require_space
    from xray_vqa.errors import IntegrityError

    archives, folders = _archives(args)
    kept_dir = args.output_dir / ARCHIVES_NAME
    digests: dict[Path, str] = {}
    for archive in archives:
        try:
            digests[archive] = check_archive(archive, any_version=args.any_version)
        except IntegrityError as error:
            if archive.parent != kept_dir:
                raise
            archive.unlink()
            raise IntegrityError(f"{error}. It is deleted: the same command fetches it again") from error
    unpacked_dir = args.output_dir / UNPACKED_NAME
    num_bytes = sum(archive.stat().st_size for archive in archives)
    there = sum(path.stat().st_size for path in args.output_dir.rglob("*") if path.is_file()) if archives else 0
    there -= sum(path.stat().st_size for path in kept_dir.rglob("*") if path.is_file())
    require_space(args.output_dir, max(0, NUM_COPIES * num_bytes - there), "unpacking and the dataset")
    faults, notices = [], []
    for archive in archives:
        target = unpacked_dir / archive.stem
        print(f"unpacking {archive}", file=sys.stderr)
        trusted = is_published(archive, digests[archive])
        unpacked = unpack(archive, target, sha256=digests[archive], trusted=trusted)
        faults += unpacked.faults(archive)
        notices += unpacked.notices(archive)
    folders = [*(unpacked_dir / archive.stem for archive in archives), *folders]
    source = read_stcray(folders, args.max_samples, augmented=args.include_augmented)
    return replace(
        source,
        faults=(*faults, *source.faults),
        notices=(*notices, *source.notices),
        inputs={**source.inputs, **{archive.name: digests[archive] for archive in archives}},
    )


def _archives(args: argparse.Namespace) -> tuple[list[Path], list[Path]]:
    """Return the archives to unpack and the folders that are unpacked already."""
    from xray_vqa.dataset.stcray.hub import fetch_archives
    from xray_vqa.dataset.stcray.published import find_archives, wanted_archives
    from xray_vqa.errors import ConfigError

    wanted = wanted_archives(augmented=args.include_augmented)
    if args.source == HUB:
        folder = args.output_dir / ARCHIVES_NAME
        return fetch_archives(wanted, folder, any_version=args.any_version, copies_to_come=NUM_COPIES), []
    source = Path(args.source)
    if source.is_file():
        return [source], []
    if not source.is_dir():
        raise ConfigError(f"--source {source}: no such file or folder; give hub, an archive or a folder with archives")
    return find_archives(source, wanted), [source]


@contextmanager
def _alone(output_dir: Path) -> Generator[None]:
    """Keep two commands out of one folder. The lock ends with the process, however that ends."""
    from xray_vqa.core.jsonl import disk_errors
    from xray_vqa.errors import ConfigError

    with disk_errors(output_dir):
        output_dir.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(output_dir, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(f"{output_dir}: another download is at work here; wait for it or stop it") from None
        except OSError:
            pass  # a file system without locks; the digests of what is fetched still hold
        yield
    finally:
        os.close(descriptor)


def _remove_if_empty(folder: Path) -> None:
    with suppress(OSError):
        folder.rmdir()


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of scans from 1 up")
    return int(text)
