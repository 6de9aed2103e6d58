"""Make, list, rotate and revoke the keys of the inspection API: `xray-vqa keys`."""

from __future__ import annotations

import argparse
import sys
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from xray_vqa.cli.arguments import positive_count
from xray_vqa.errors import ConfigError

if TYPE_CHECKING:
    from xray_vqa.serving.access.key_store import KeyStore
    from xray_vqa.serving.access.keys import ApiKey

EPILOG = """\
examples:
  xray-vqa keys create --name "scanner of lane 3" --role lane --lane lane-3
  xray-vqa keys create --name prometheus --role auditor --scope metrics --days 30
  xray-vqa keys list
  xray-vqa keys rotate 5f2c0a9d1b7e --overlap-hours 48      a new key; the old one ends two days later
  xray-vqa keys revoke 5f2c0a9d1b7e --reason "laptop lost"

A key is printed once, on stdout, and kept nowhere: only its hash is stored. The first key closes a service that ran
open. Running servers know of what is done here within five seconds. Whoever can write the store (--database-url, or
XRAY_VQA_DATABASE_URL) can make keys, and nobody can over HTTP.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the subcommands of `xray-vqa keys`."""
    from xray_vqa.serving.access.roles import Permission, Role

    kinds = parser.add_subparsers(dest="task", metavar="TASK", required=True)
    create = kinds.add_parser("create", help="make a key and print it")
    create.add_argument("--name", required=True, metavar="TEXT", help="what it is for; stands in lists and records")
    create.add_argument("--role", required=True, choices=[role.value for role in Role], help="what its holder is")
    create.add_argument(
        "--lane", action="append", metavar="NAME", help="a lane that it may speak for; several are given one by one"
    )
    create.add_argument(
        "--scope", action="append", choices=[permission.value for permission in Permission],
        help="narrow it to this part of what its role may do; several are given one by one",
    )  # fmt: skip
    listing = kinds.add_parser("list", help="print the keys, those that no longer open anything too")
    listing.add_argument("--json", action="store_true", help="one JSON object a line")
    rotate = kinds.add_parser("rotate", help="make a key in place of another and print it")
    rotate.add_argument(
        "--overlap-hours", type=float, default=24.0, metavar="N", help="the old key holds for so long (24)"
    )
    revoke = kinds.add_parser("revoke", help="end a key now")
    revoke.add_argument("--reason", default="", metavar="TEXT", help="stands in the record")
    for making in (create, rotate):
        making.add_argument("--days", type=positive_count, default=365, metavar="N", help="until it expires (365)")
    for naming in (rotate, revoke):
        naming.add_argument("key_id", metavar="ID", help="the first part of the key, behind xvqa_")
    for task in (create, listing, rotate, revoke):
        task.add_argument("--database-url", metavar="URL", help="the store (default: sqlite:///outputs/audit.sqlite3)")


def run(args: argparse.Namespace) -> int:
    """Do one of them. stdout has the key or the list and nothing else."""
    from xray_vqa.config.loading import require
    from xray_vqa.config.serve import load_settings

    for package in ("sqlalchemy", "alembic"):
        require(package, extra="serve")
    from xray_vqa.serving.access.key_store import KeyStore
    from xray_vqa.serving.store.audit import AuditStore
    from xray_vqa.serving.store.database import store_url

    settings = load_settings(database_url=args.database_url)
    print(f"store: {store_url(settings.database_url).render_as_string()}", file=sys.stderr)
    store = AuditStore(settings.database_url, key_path=settings.audit_key, anchors=settings.audit_anchors)
    try:
        store.open()
        _TASKS[args.task](KeyStore(store), args)
    finally:
        store.close()
    return 0


def _create(keys: KeyStore, args: argparse.Namespace) -> None:
    from xray_vqa.serving.access.roles import LANE_NAME, Permission, Role

    for lane in args.lane or ():
        if not LANE_NAME.fullmatch(lane):
            raise ConfigError(f"--lane: {lane!r} is no name of a lane; letters, digits and . _ - make one, up to 64")
    if not args.name.strip() or not args.name.isprintable() or len(args.name) > _MAX_NAME_LENGTH:
        raise ConfigError(f"--name has to be one line of visible text, up to {_MAX_NAME_LENGTH} characters")
    scopes = [Permission(scope) for scope in args.scope] if args.scope else None
    _show(*keys.make(args.name, Role(args.role), lanes=args.lane, scopes=scopes, lasts=timedelta(days=args.days)))


def _list(keys: KeyStore, args: argparse.Namespace) -> None:
    now = datetime.now(UTC)
    for key in keys.keys().values():
        if args.json:
            print(key.model_dump_json(exclude={"digest"}))
            continue
        bound = ",".join(key.lanes) if key.lanes else "every lane"
        narrowed = f" ({','.join(key.scopes)} only)" if key.scopes else ""
        ends = f"{key.state(now):<8} until {key.revoked_at or key.expires_at:%Y-%m-%d %H:%M} UTC"
        print(f"{key.key_id}  {key.role + narrowed:<10}  {bound:<12}  {ends}  {key.name}")


def _rotate(keys: KeyStore, args: argparse.Namespace) -> None:
    if args.overlap_hours < 0:
        raise ConfigError("--overlap-hours is not negative")
    overlap = timedelta(hours=args.overlap_hours)
    _show(*keys.rotate(args.key_id, lasts=timedelta(days=args.days), overlap=overlap))
    print(f"the key {args.key_id} ends in {args.overlap_hours:g} hours", file=sys.stderr)


def _revoke(keys: KeyStore, args: argparse.Namespace) -> None:
    key = keys.revoke(args.key_id, args.reason)
    print(f"the key {args.key_id} ({key.name}) opens nothing any more, in running servers within 5 s", file=sys.stderr)


def _show(key: ApiKey, text: str) -> None:
    print(text)
    print(
        f"key {key.key_id} for {key.name!r}, role {key.role}, until {key.expires_at:%Y-%m-%d}; it is not shown again",
        file=sys.stderr,
    )


_TASKS = {"create": _create, "list": _list, "rotate": _rotate, "revoke": _revoke}
_MAX_NAME_LENGTH = 100
