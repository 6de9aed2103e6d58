"""SIXray: CSV lists of which items are in an image (1) and which are not (-1), with VOC boxes where there are any.

`ImageSet/{10,100,1000}/{train,test}.csv` with the columns name, Gun, Knife, ...: the three sets hold the same positives
and more and more negatives, so an image may stand in several. An item with 1 and no box is kept without one. 0 means
that nobody decided, which fits into no dataset; such scans are left out by name.
"""

import csv
import io
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from xray_vqa.core.taxonomy import canonical_category
from xray_vqa.dataset.importers.source import Reading, Source, SourceFolder, SourceItem, SourceScan, split_word
from xray_vqa.dataset.importers.voc import read_xml_files
from xray_vqa.errors import DatasetError

_VALUES = {"1": 1, "1.0": 1, "-1": -1, "-1.0": -1, "0": 0, "0.0": 0}
_HEAD_BYTES = 8192
_NAME_COLUMNS = frozenset({"name", "image", "filename", "image_name"})


@dataclass(frozen=True, slots=True)
class _Row:
    list_name: str
    position: int
    present: frozenset[str]
    undecided: frozenset[str]
    split: str


class SixrayImporter:
    """Reads SIXray's lists. Their columns are what the source annotates."""

    name = "sixray"
    description = "SIXray, CSV with a column for each item and 1 or -1, with VOC XML where there is any"
    refines = "voc"

    def recognises(self, folder: SourceFolder) -> bool:
        return any(_columns(folder, name) for name in folder.sample(".csv"))

    def read(self, folder: SourceFolder) -> Source:
        reading = Reading(folder, self.name)
        labels: dict[str, None] = {}
        rows: dict[str, _Row] = {}
        for name in folder.with_suffix(".csv"):
            if columns := _columns(folder, name):
                labels |= dict.fromkeys(columns)
                _read_list(name, columns, rows, reading)
        if not labels:
            raise DatasetError(f"{folder.root}: no list (CSV with name and items, 1 or -1 in each cell) is here")
        read_xml_files(reading)
        rest = dict(rows)
        boxed, reading.scans = reading.scans, []
        for scan in boxed:
            key = next((key for key in _keys(scan) if key in rows), None)
            rest.pop(key or "", None)
            _add_with_boxes(scan, rows.get(key) if key else None, tuple(labels), reading)
        _add_without_boxes(rest, reading)
        reading.name_left_over("stand in no list and have no XML")
        return reading.source(labels)


IMPORTER = SixrayImporter()


def _columns(folder: SourceFolder, name: str) -> tuple[str, ...]:
    """Return the items that a CSV file has a column for; none where it is no list of 1 and -1."""
    with folder.path(name).open("rb") as stream:
        head = stream.read(_HEAD_BYTES).decode("utf-8-sig", errors="replace")
    whole_lines = head if len(head) < _HEAD_BYTES else head.rpartition("\n")[0]
    rows = list(csv.reader(io.StringIO(whole_lines)))
    if len(rows) < 2 or len(rows[0]) < 2 or rows[0][0].strip().lower() not in _NAME_COLUMNS:
        return ()
    cells = {cell.strip() for row in rows[1:] for cell in row[1:]}
    return tuple(column.strip() for column in rows[0][1:]) if cells <= _VALUES.keys() and cells & {"-1", "-1.0"} else ()


def _read_list(name: str, columns: tuple[str, ...], rows: dict[str, _Row], reading: Reading) -> None:
    reading.see_list(name)
    split = split_word(PurePosixPath(name).stem)
    num_again = 0
    for position, cells in enumerate(csv.reader(io.StringIO(reading.folder.read_text(name)))):
        if position == 0 or not any(cells):
            continue
        values = [_VALUES.get(cell.strip()) for cell in cells[1:]]
        if len(values) != len(columns) or None in values:
            reading.fault(name, f"row {','.join(cells)[:60]!r} does not have 1 or -1 for each item", position)
            continue
        said = {word: frozenset(c for c, v in zip(columns, values, strict=True) if v == word) for word in (1, 0)}
        row = _Row(name, position, said[1], said[0], split)
        key = PurePosixPath(cells[0].strip()).stem if "." in cells[0] else cells[0].strip()
        other = rows.get(key)
        if other is None:
            rows[key] = row
            continue
        num_again += 1
        if other.present != row.present:
            reading.fault(
                name, f"{key} has other items than in {other.list_name}:{other.position}; the first is used", position
            )
        if row.split == "test":  # as in importing: a test scan stays one
            rows[key] = replace(other, split="test")
    if num_again:
        reading.notice(name, f"{num_again} images stand in a list before and are taken once")


def _keys(scan: SourceScan) -> tuple[str, str]:
    """The names under which a list may have a scan: its file's, and the one in its XML."""
    return PurePosixPath(scan.original_name).stem, PurePosixPath(scan.also_called).stem


def _add_with_boxes(scan: SourceScan, row: _Row | None, labels: tuple[str, ...], reading: Reading) -> None:
    where = scan.annotation_path.relative_to(reading.folder.root).as_posix()
    if row is None:
        reading.notice(where, "has boxes and stands in no list; taken as it is")
        reading.scans.append(scan)
        return
    if row.undecided:
        reading.fault(row.list_name, f"{', '.join(sorted(row.undecided))} is 0, undecided; left out", row.position)
        return
    meant = {canonical_category(label): label for label in labels}
    boxed = {meant.get(canonical_category(item.label), item.label) for item in scan.items}
    denied = sorted((boxed & set(labels)) - row.present)
    if denied:
        message = f"the list says that there is no {', '.join(denied)} and {where} draws one; taken as present"
        reading.notice(row.list_name, message, row.position)
    added = tuple(SourceItem(label, None) for label in sorted(row.present - boxed))
    reading.scans.append(replace(scan, items=(*scan.items, *added), split=row.split or scan.split))


def _add_without_boxes(rows: dict[str, _Row], reading: Reading) -> None:
    missing: dict[str, list[str]] = {}
    for key, row in rows.items():
        found = reading.folder.images.with_stem(key, row.list_name, row.split)
        if not found:
            missing.setdefault(row.list_name, []).append(key)
            continue
        image = reading.claim(found, row.list_name, row.position, f"image {key!r}")
        if image is None:
            continue
        if row.undecided:
            reading.fault(row.list_name, f"{', '.join(sorted(row.undecided))} is 0, undecided; left out", row.position)
            continue
        items = tuple(SourceItem(label, None) for label in sorted(row.present))
        details = {"split": row.split} if row.split else {}
        reading.add(image, row.list_name, items=items, position=row.position, **details)
    for name, keys in missing.items():
        reading.fault(name, f"{len(keys)} images of the list are missing, first {keys[0]}")
