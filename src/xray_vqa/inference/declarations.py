"""What was declared for each of many scans, from a file: CSV with `scan,declared_items`, or a JSON object."""

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xray_vqa.core.jsonl import read_json
from xray_vqa.errors import ConfigError, DatasetError

HEADER = ("scan", "declared_items")


@dataclass(frozen=True, slots=True)
class Declarations:
    """The manifest laid onto some scans."""

    items: list[tuple[str, ...] | None]
    """For each scan; None where no declaration was made."""
    unknown: list[str]
    """Names in the manifest that are no scan's."""
    missing: list[str]
    """Scans that the manifest does not name."""


def read_declarations(path: Path) -> dict[str, tuple[str, ...] | None]:
    """Return the declared items by the name of a scan: its path, file name or scan_id.

    In CSV the items stand in one cell, divided by `;`; an empty cell is nothing to declare. In JSON they are a list,
    empty for nothing to declare, null where no declaration was made.

    Raises:
        ConfigError: The file is missing, of another form, or names a scan twice.
    """
    try:
        rows = _json_rows(path) if path.suffix.lower() == ".json" else _csv_rows(path)
    except (OSError, UnicodeDecodeError, DatasetError) as error:
        raise ConfigError(f"{path}: cannot be read as a manifest: {error}") from error
    found: dict[str, tuple[str, ...] | None] = {}
    for name, items in rows:
        if name in found:
            raise ConfigError(f"{path}: {name} stands in it twice")
        if any(not item.strip() or not item.isprintable() for item in items or ()):
            raise ConfigError(f"{path}: {name} has a declared item that is empty or not printable")
        found[name] = None if items is None else tuple(item.strip() for item in items)
    return found


def _json_rows(path: Path) -> list[tuple[str, list[str] | None]]:
    value: Any = read_json(path)
    if not isinstance(value, dict):
        raise ConfigError(f"{path}: a JSON manifest is an object of names and lists of items")
    for name, items in value.items():
        if items is not None and not (isinstance(items, list) and all(isinstance(item, str) for item in items)):
            raise ConfigError(f"{path}: {name} has no list of items")
    return list(value.items())


def _csv_rows(path: Path) -> list[tuple[str, list[str] | None]]:
    lines = list(csv.reader(io.StringIO(path.read_text(encoding="utf-8-sig"))))
    if not lines or tuple(cell.strip() for cell in lines[0]) != HEADER:
        raise ConfigError(f"{path}: a CSV manifest begins with the line {','.join(HEADER)}")
    rows: list[tuple[str, list[str] | None]] = []
    for number, cells in enumerate(lines[1:], start=2):
        if not cells:
            continue
        if len(cells) != len(HEADER):
            raise ConfigError(f"{path}:{number}: {len(cells)} cells; items stand in one cell, divided by `;`")
        rows.append((cells[0].strip(), [item for item in cells[1].split(";") if item.strip()]))
    return rows


def lay_on(declared: dict[str, tuple[str, ...] | None], paths: Sequence[Path], scan_ids: Sequence[str]) -> Declarations:
    """Return what was declared for each file. Raises ConfigError where a name fits several of them."""
    by_name: dict[str, set[int]] = {}
    for at, (path, scan_id) in enumerate(zip(paths, scan_ids, strict=True)):
        for name in (str(path), path.name, scan_id):
            by_name.setdefault(name, set()).add(at)
    items: list[tuple[str, ...] | None] = [None] * len(paths)
    named: set[int] = set()
    for name, what in declared.items():
        places = by_name.get(name, set())
        if len(places) > 1 or places & named:
            which = _some(str(paths[at]) for at in sorted(places))
            raise ConfigError(f"the manifest's {name} is not the only name of one scan ({which}); give their paths")
        for at in places:
            items[at] = what
        named |= places
    return Declarations(
        items,
        [name for name in declared if name not in by_name],
        [str(path) for at, path in enumerate(paths) if at not in named],
    )


def _some(names: Iterable[str]) -> str:
    return ", ".join(list(names)[:3])
