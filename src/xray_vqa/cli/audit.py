"""Look after the audit store: `xray-vqa audit`."""

import argparse
import json
import logging
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

EPILOG = """\
examples:
  xray-vqa audit verify                                          every record is as it was written, and none is missing
  xray-vqa audit verify --public-key audit.key.pub --anchors s3://elsewhere/anchors
  xray-vqa audit export --output audit.jsonl --since 2026-11-01 --until 2026-12-01
  xray-vqa audit verify --file audit.jsonl --public-key audit.key.pub      without the database
  xray-vqa audit retain                                          erase what is older than XRAY_VQA_RETENTION_DAYS
  xray-vqa audit upgrade                                         bring an older PostgreSQL store up to date

The store, its key and the place of its checkpoints are those of `xray-vqa serve`: XRAY_VQA_DATABASE_URL,
XRAY_VQA_AUDIT_KEY and XRAY_VQA_AUDIT_ANCHORS, or the options here. `verify` prints what it found as JSON and exits
with 5 where a row is not as it was written; it names the first one. docs/AUDIT.md tells what that proves.
"""

logger = logging.getLogger(__name__)


def _day(text: str) -> str:
    """Read a moment as rows hold it; a day without a time is its beginning in UTC."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no date; write 2026-11-01 or 2026-11-01T08:00:00+00:00"
        ) from error
    moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    return moment.isoformat(timespec="microseconds")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the subcommands of `xray-vqa audit`."""
    subparsers = parser.add_subparsers(dest="subcommand", metavar="SUBCOMMAND", required=True)
    verify = subparsers.add_parser("verify", help="say which record is the first that is not as it was written")
    verify.add_argument("--file", type=Path, metavar="JSONL", help="verify an export and not the store")
    verify.add_argument("--public-key", type=Path, metavar="PEM", help="verify without the secret key")
    export = subparsers.add_parser("export", help="write records as JSON lines")
    export.add_argument("--output", type=Path, required=True, metavar="JSONL", help="the file to write")
    export.add_argument("--since", type=_day, metavar="DATE", help="from then on (default: the first record)")
    export.add_argument("--until", type=_day, metavar="DATE", help="before then (default: the last record)")
    retain = subparsers.add_parser("retain", help="erase records and images that are older than they have to be kept")
    upgrade = subparsers.add_parser("upgrade", help="make the tables those of this version")
    for subparser in (verify, export, retain, upgrade):
        subparser.add_argument(
            "--database-url", metavar="URL", help="the store (default: sqlite:///outputs/audit.sqlite3)"
        )
        subparser.add_argument("--audit-key", metavar="FILE", help="its key (default: beside the database)")
    verify.add_argument("--audit-anchors", "--anchors", metavar="PLACE", help="the checkpoints that are kept elsewhere")


def run(args: argparse.Namespace) -> int:
    """Run the subcommand that was chosen. Raises XrayVqaError."""
    from xray_vqa.config.loading import require
    from xray_vqa.config.serve import load_settings

    for package in ("sqlalchemy", "alembic", "cryptography"):
        require(package, extra="serve")
    names = ("database_url", "audit_key", "audit_anchors")
    settings = load_settings(**{name: getattr(args, name, None) for name in names})
    return {"verify": _verify, "export": _export, "retain": _retain, "upgrade": _upgrade}[args.subcommand](
        args, settings
    )


def _verify(args: argparse.Namespace, settings: Any) -> int:
    from xray_vqa.errors import IntegrityError
    from xray_vqa.serving.store.anchors import Anchors
    from xray_vqa.serving.store.database import beside, store_url
    from xray_vqa.serving.store.export import rows_in
    from xray_vqa.serving.store.keys import PublicKey, SigningKey
    from xray_vqa.serving.store.reading import erased_rows, reading, rows_of
    from xray_vqa.serving.store.verify import verify

    url = store_url(settings.database_url)
    key_path = settings.audit_key or beside(url, ".key")
    key = PublicKey.read(args.public_key) if args.public_key else SigningKey.load(key_path)
    if args.file:
        rows, follows, erased = rows_in(args.file)
        found = verify(rows, key, erased=erased, follows=follows)
    else:
        anchors = Anchors(settings.audit_anchors or str(beside(url, ".anchors.jsonl"))).read()
        with reading(settings.database_url) as connection:
            found = verify(rows_of(connection), key, erased=erased_rows(connection), anchors=anchors)
    told = {
        "rows": found.rows, "erased": found.erased, "checkpoints": found.checkpoints, "anchors": found.anchors,
        "signed_up_to": found.signed_up_to, "last_row": found.head.sequence, "last_hash": found.head.row_hash,
        "faults": found.num_faults, "first_faults": [{"row": row, "fault": text} for row, text in found.faults],
    }  # fmt: skip
    print(json.dumps(told, indent=2))
    if found.faults:
        row, text = found.faults[0]
        raise IntegrityError(f"row {row} {text} ({found.num_faults} faults)")
    if not found.rows:
        raise IntegrityError("there is no record at all, not even the key that a chain begins with")
    return 0


def _export(args: argparse.Namespace, settings: Any) -> int:
    from xray_vqa.core.jsonl import disk_errors
    from xray_vqa.serving.store.export import export

    with disk_errors(args.output):
        count = export(settings.database_url, args.output, args.since, args.until)
    logger.info("%d records in %s", count, args.output)
    return 0


def _retain(args: argparse.Namespace, settings: Any) -> int:
    from xray_vqa.serving.store.database import beside, store_url
    from xray_vqa.serving.store.images import ImageStore
    from xray_vqa.serving.store.keys import SigningKey
    from xray_vqa.serving.store.retention import erase_older_images, erase_older_records

    key = SigningKey.load(settings.audit_key or beside(store_url(settings.database_url), ".key"))
    erased = {"records": erase_older_records(settings.database_url, key, settings.retention_days), "images": 0}
    if settings.image_store:
        images = ImageStore(settings.image_store)
        erased["images"] = erase_older_images(settings.database_url, images, settings.image_retention_days)
    print(json.dumps(erased))
    return 0


def _upgrade(args: argparse.Namespace, settings: Any) -> int:
    from xray_vqa.serving.store.database import beside, prepare, store_url
    from xray_vqa.serving.store.keys import SigningKey
    from xray_vqa.serving.store.reading import opened

    key_path = settings.audit_key or beside(store_url(settings.database_url), ".key")
    with opened(settings.database_url) as engine:
        prepare(engine, SigningKey.load_or_make(key_path), upgrade=True)
    return 0
