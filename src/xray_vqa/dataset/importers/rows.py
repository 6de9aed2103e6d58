"""What a row of a table, or a JSON object beside an image, says of its items, where nobody has fixed the names.

Labels and boxes are looked for under the names that data sets on the Hugging Face hub use, as lists beside each other
or as a list of objects. Nothing says whether four numbers are a corner and a size or two corners; that is decided by
what fits into the images and said aloud.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from xray_vqa.dataset.importers.source import (
    UNREADABLE,
    BoxXywh,
    Reading,
    SourceItem,
    box_of_corners,
)

_OBJECT_KEYS = ("objects", "annotations", "detections")
_BOX_KEYS = ("bbox", "bboxes", "box", "boxes")
_LABEL_KEYS = ("raw_label", "category", "categories", "category_id", "label", "labels", "class", "name")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a row stands, and what numbers of categories mean there."""

    file: str
    row: int
    class_names: Sequence[str] = ()
    names_stand_in: str = "the schema"


def says_items(keys: Iterable[str]) -> bool:
    """Return whether a row with these keys says anything of items. Its `name` is that of the image."""
    return not {*_OBJECT_KEYS, *_BOX_KEYS, *_LABEL_KEYS[:-1]}.isdisjoint(keys)


def items_of(values: dict[str, Any], place: Place, reading: Reading) -> list[SourceItem]:
    """Return the items that a row says, in its own words; what of them cannot be used is named."""
    objects = next((values[key] for key in _OBJECT_KEYS if isinstance(values.get(key), dict | list)), values)
    if isinstance(objects, list):  # a list of objects, not an object of lists
        entries = [
            (_first(entry, _LABEL_KEYS), _first(entry, _BOX_KEYS)) if isinstance(entry, dict) else (None, None)
            for entry in objects
        ]
    else:
        label_keys = _LABEL_KEYS[:-1] if objects is values else _LABEL_KEYS  # a row's `name` is that of its image
        labels, boxes = _first(objects, label_keys), _first(objects, _BOX_KEYS)
        if labels is None and isinstance(boxes, list):
            labels = [None] * len(boxes)
        elif labels is None and objects is not values and any(objects.values()):
            reading.fault(place.file, f"objects have no label, only {', '.join(map(str, objects))}", place.row)
            return [UNREADABLE]
        if not isinstance(labels, list):  # one label for the whole image
            labels, boxes = ([] if labels is None else [labels]), None
        boxes = boxes if isinstance(boxes, list) else [None] * len(labels)
        if len(boxes) != len(labels):
            reading.fault(place.file, f"row has {len(labels)} labels and {len(boxes)} boxes; labels kept", place.row)
            boxes = [None] * len(labels)
        entries = list(zip(labels, boxes, strict=True))
    items: list[SourceItem] = []
    for label, box in entries:
        four = _four_numbers(box)
        if box is not None and four is None:
            reading.notice(place.file, f"{label} box {str(box)[:60]} is not four numbers; label kept", place.row)
        items.append(SourceItem(_label(label, place, reading), four))
    return items


def _first(values: dict[str, Any], keys: Sequence[str]) -> Any:
    return next((values[key] for key in keys if values.get(key) is not None), None)


def _four_numbers(box: Any) -> BoxXywh | None:
    try:
        x, y, w, h = map(float, box)
    except (TypeError, ValueError):
        return None
    return (x, y, w, h)


def _label(value: Any, place: Place, reading: Reading) -> str:
    if value is None:
        reading.fault(place.file, "object has no label; kept as unlisted", place.row)
        return "(unnamed)"
    if not isinstance(value, int):
        return str(value)
    if 0 <= value < len(place.class_names):
        return place.class_names[value]
    # The item is there whatever it is called: kept under the number, which maps to UNLISTED.
    reading.fault(place.file, f"category {value} has no name in {place.names_stand_in}", place.row)
    return f"category {value}"


def settle_boxes(reading: Reading) -> None:
    """Decide for all scans what four numbers mean: x, y, width, height, as COCO has it, unless only corners fit.

    Scans that an export of ours describes say it themselves.
    """
    boxes = [
        (box, scan.size_wh)
        for scan in reading.scans
        if scan.record is None
        for item in scan.items
        if (box := item.box_xywh) is not None and scan.size_wh is not None
    ]
    if not boxes:
        return
    if all(max(box) <= 1 for box, _ in boxes):
        reading.notice("", "boxes are taken as fractions of the image, since no number is above 1")
        reading.scans = [scan if scan.record else replace(scan, relative=True) for scan in reading.scans]
    outside = sum(x + w > width * 1.02 or y + h > height * 1.02 for (x, y, w, h), (width, height) in boxes)
    as_corners = all(x < x1 <= width * 1.02 and y < y1 <= height * 1.02 for (x, y, x1, y1), (width, height) in boxes)
    if not (as_corners and outside):
        reading.notice("", "boxes are taken as x, y, width, height")
        return
    reading.notice("", f"boxes are taken as two corners: as x, y, width, height {outside} would leave their images")
    reading.scans = [
        scan
        if scan.record
        else replace(
            scan,
            items=tuple(
                replace(item, box_xywh=box_of_corners(*item.box_xywh)) if item.box_xywh else item for item in scan.items
            ),
        )
        for scan in reading.scans
    ]
