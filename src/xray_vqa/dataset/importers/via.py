"""VGG Image Annotator: CSV files with a row for each region, the region's shape and attributes as JSON in cells.

The file says how many bytes an image had, not how many pixels. Where these are others than those of the file that is
here, the boxes may belong to another size of it, and the import asks for the factor (`--box-factor`).
"""

import csv
import io
import json
from collections import defaultdict
from typing import Any

from xray_vqa.dataset.importers.source import (
    UNREADABLE,
    BoxXywh,
    Reading,
    Source,
    SourceFolder,
    SourceItem,
    box_around,
    split_word,
)
from xray_vqa.errors import DatasetError

_SHAPE, _ATTRIBUTES = "region_shape_attributes", "region_attributes"
_LABEL_KEYS = ("name", "label", "class", "category", "type", "object")


class ViaImporter:
    """Reads VIA's CSV. The format has no list of categories: those that occur are what is annotated."""

    name = "via"
    description = "VGG Image Annotator, CSV with region_shape_attributes"
    refines = ""

    def recognises(self, folder: SourceFolder) -> bool:
        return any(_is_via(folder, name) for name in folder.sample(".csv"))

    def read(self, folder: SourceFolder) -> Source:
        reading = Reading(folder, self.name)
        for name in folder.with_suffix(".csv"):
            if _is_via(folder, name):
                _read_file(name, reading)
        if not reading.num_seen:
            raise DatasetError(f"{folder.root}: no VIA file (CSV with filename and {_SHAPE}) is here")
        empty = [scan.original_name for scan in reading.scans if not scan.items]
        if empty:
            message = f"{len(empty)} images are listed without a region and taken for clean bags, first {empty[0]}; "
            reading.notice("", f"{message}VIA lists images that nobody has looked at just like that")
        reading.name_left_over("stand in no VIA file")
        return reading.source(reading.labels_that_occur("VIA has"))


IMPORTER = ViaImporter()


def _is_via(folder: SourceFolder, name: str) -> bool:
    with folder.path(name).open("rb") as stream:
        header = stream.readline(4096)
    return b"filename" in header and _SHAPE.encode() in header


def _read_file(name: str, reading: Reading) -> None:
    reading.see_list(name)
    rows: dict[str, list[tuple[int, dict[str, str]]]] = defaultdict(list)
    for position, row in enumerate(csv.DictReader(io.StringIO(reading.folder.read_text(name)))):
        file_name = (row.get("filename") or row.get("#filename") or "").strip()
        if file_name:
            rows[file_name].append((position, row))
        else:
            reading.fault(name, "row names no image", position)
    for file_name, entries in rows.items():
        found = reading.folder.images.named(file_name, name)
        image = reading.claim(found, name, entries[0][0], f"image {file_name!r}")
        if image is None:
            continue
        items = [item for position, row in entries if (item := _item(row, position, name, reading))]
        stated = str(entries[0][1].get("file_size") or "").strip()
        num_bytes = reading.folder.path(image).stat().st_size
        doubt = ""
        if stated.isdigit() and int(stated) not in (num_bytes, 0):
            doubt = f"was made for a file of {int(stated):,} bytes and this one has {num_bytes:,}"
        details = {} if not (split := split_word(name.rpartition("/")[2])) else {"split": split}
        reading.add(image, name, items=tuple(items), position=entries[0][0], frame_doubt=doubt, **details)


def _item(row: dict[str, str], position: int, name: str, reading: Reading) -> SourceItem | None:
    """Return the item of a row; None where the row only lists the image."""
    try:
        shape, attributes = (json.loads(row.get(key) or "{}") for key in (_SHAPE, _ATTRIBUTES))
    except json.JSONDecodeError as error:
        reading.fault(name, f"row has a cell that is no JSON: {error}", position)
        return UNREADABLE
    if not shape and not attributes:
        return None
    label = region_label(attributes)
    if not label:
        reading.notice(name, f"region has no label in {attributes}; kept as unlisted", position)
        label = "(unnamed)"
    box = region_box(shape)
    if box is None:
        reading.notice(name, f"{label} has no box: {json.dumps(shape)[:80]}; label kept", position)
    return SourceItem(label, box, position)


def region_label(attributes: Any) -> str:
    """Return what a region is: the value of the attribute that is named like a label, or of the only one.

    >>> region_label({"name": "knife"}), region_label({"kind": {"gun": True, "toy": False}}), region_label({})
    ('knife', 'gun', '')
    """
    if not isinstance(attributes, dict):
        return ""
    keys = [key for key in _LABEL_KEYS if attributes.get(key)] or list(attributes)
    value = attributes.get(keys[0], "") if keys and (keys[0] in _LABEL_KEYS or len(keys) == 1) else ""
    if isinstance(value, dict):  # checkboxes
        value = next((name for name, chosen in value.items() if chosen), "")
    return str(value).strip()


def region_box(shape: Any) -> BoxXywh | None:
    """Return the box of a rectangle or around an outline; None for points and what is not readable."""
    if not isinstance(shape, dict):
        return None
    try:
        if shape.get("name") == "rect":
            x, y, w, h = (float(shape[key]) for key in ("x", "y", "width", "height"))
            return (x, y, w, h)
        if shape.get("name") in ("polygon", "polyline"):
            return box_around(list(zip(shape["all_points_x"], shape["all_points_y"], strict=True)))
        if shape.get("name") in ("circle", "ellipse"):
            rx, ry = (float(shape[key if key in shape else "r"]) for key in ("rx", "ry"))
            x, y = float(shape["cx"]), float(shape["cy"])
            return box_around([(x - rx, y - ry), (x + rx, y + ry)])
    except (KeyError, TypeError, ValueError):
        pass
    return None
