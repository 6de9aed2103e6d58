"""Look at policies before they are used: `xray-vqa policy check|diff|replay`."""

from __future__ import annotations

import argparse
import json
import re
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from xray_vqa.core.policy.replay import Replay

EPILOG = """\
examples:
  xray-vqa policy check configs/policy_cabin.yaml
  xray-vqa policy check mine.yaml --calibration outputs/qwen25vl_stcray_lora/calibration.json
  xray-vqa policy check configs/policy_hold.yaml --resolved
  xray-vqa policy diff configs/policy.yaml configs/policy_cabin.yaml
  xray-vqa policy replay mine.yaml --database-url sqlite:///outputs/audit.sqlite3 --since 30d

check exits with 1 where something in the policy cannot be meant; notices are for whoever signs it. diff says what
changes for whom. replay decides every recorded inspection again and names the bags that would have been cleared, or
no longer. Tables are on stderr, JSON on stdout.
"""

_SPAN = re.compile(r"(\d{1,4})([hdw])")
_HOURS = {"h": 1, "d": 24, "w": 168}


def moment_of(text: str) -> datetime:
    """Read `30d`, `12h`, `4w` (back from now) or a date such as 2026-11-01, which begins at midnight UTC."""
    if span := _SPAN.fullmatch(text):
        return datetime.now(UTC) - timedelta(hours=int(span[1]) * _HOURS[span[2]])
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a span such as 30d nor a date") from error
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare `check`, `diff` and `replay` with their options."""
    commands = parser.add_subparsers(dest="what", metavar="COMMAND", required=True)
    check = commands.add_parser("check", help="say what in a policy cannot work or never has a word")
    check.add_argument("file", type=Path, metavar="FILE")
    check.add_argument("--calibration", type=Path, metavar="PATH", help="calibration.json of its model, or its folder")
    check.add_argument("--resolved", action="store_true", help="print the whole policy, with what it extends")
    diff = commands.add_parser("diff", help="say what changes for whom from one policy to another")
    diff.add_argument("old", type=Path, metavar="A")
    diff.add_argument("new", type=Path, metavar="B")
    again = commands.add_parser("replay", help="decide the recorded inspections again")
    again.add_argument("file", type=Path, metavar="FILE")
    again.add_argument("--database-url", metavar="URL", help="the audit store (default: that of the server)")
    again.add_argument("--since", type=moment_of, default="30d", metavar="SPAN", help="30d, 12h, a date (default 30d)")


def run(args: argparse.Namespace) -> int:
    """Run one of the three."""
    return {"check": _check, "diff": _diff, "replay": _replay}[args.what](args)


def _check(args: argparse.Namespace) -> int:
    import yaml

    from xray_vqa.config.loading import load_policy
    from xray_vqa.core.calibration import CALIBRATION_NAME, read_calibration
    from xray_vqa.core.policy.checking import check_policy
    from xray_vqa.errors import ConfigError

    policy = load_policy(args.file)
    calibration = None
    if args.calibration:
        folder = args.calibration.parent if args.calibration.name == CALIBRATION_NAME else args.calibration
        if (calibration := read_calibration(folder)) is None:
            raise ConfigError(f"{folder / CALIBRATION_NAME}: no such calibration file")
    if args.resolved:
        print(yaml.safe_dump(policy.model_dump(mode="json"), sort_keys=False, allow_unicode=True), end="")
    remarks = check_policy(policy, calibration)
    for remark in remarks:
        print(f"{remark.severity}: {remark.text}", file=sys.stderr)
    faults = sum(remark.severity == "fault" for remark in remarks)
    told = f"{policy.label}: {faults} faults, {len(remarks) - faults} notices"
    print(told, file=sys.stderr if args.resolved else sys.stdout)
    return 1 if faults else 0


def _diff(args: argparse.Namespace) -> int:
    from xray_vqa.config.loading import load_policy
    from xray_vqa.core.policy.comparing import compare_policies

    old, new = load_policy(args.old), load_policy(args.new)
    changes = compare_policies(old, new)
    print(f"{old.label} -> {new.label}")
    for change in changes:
        print(f"{change.direction:8}  {change.whom}: {change.what}")
    if not changes:
        print("nothing changes for anyone")
    return 0


def _replay(args: argparse.Namespace) -> int:
    from xray_vqa.config.loading import load_policy, require
    from xray_vqa.config.serve import load_settings
    from xray_vqa.core.policy.replay import replay

    policy = load_policy(args.file)
    require("sqlalchemy", extra="serve")
    from xray_vqa.serving.store.reading import inspections_since

    found = replay(policy, inspections_since(load_settings(database_url=args.database_url).database_url, args.since))
    print(_table(found, args.since), file=sys.stderr)
    print(json.dumps(found.model_dump(mode="json"), ensure_ascii=False, indent=2))
    return 0


def _table(found: Replay, since: datetime) -> str:
    columns = sorted({name for row in found.actions.values() for name in row})
    width = max(map(len, [*found.actions, *columns, "as recorded"])) + 2
    lines = [f"{found.num_inspections} inspections since {since:%Y-%m-%d %H:%M} UTC, under {found.policy_version}:"]
    lines.append("as recorded".ljust(width) + "".join(name.rjust(width) for name in columns))
    for action, row in sorted(found.actions.items()):
        lines.append(action.ljust(width) + "".join(str(row.get(name, 0)).rjust(width) for name in columns))
    for told, ids in (("clear -> not clear", found.clear_to_manual), ("not clear -> clear", found.manual_to_clear)):
        shown = ", ".join(ids[:20]) + (f" and {len(ids) - 20} more" if len(ids) > 20 else "")
        lines.append(f"{told}: {len(ids)}{f' ({shown})' if ids else ''}")
    return "\n".join(lines)
