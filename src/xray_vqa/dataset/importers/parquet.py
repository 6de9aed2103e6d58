"""Parquet with image bytes, as the Hugging Face hub stores data sets (needs the extra `parquet`).

A row is a scan: `image` as bytes or as {bytes, path}, and boxes in `objects` (or beside it) under the names that data
sets on the hub use. What numbers of categories mean stands in the schema's metadata, if anywhere. Nothing says whether
four numbers are a corner and a size or two corners; that is decided by what fits into the images and said aloud.
"""

import json
import posixpath
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from xray_vqa.config.loading import require
from xray_vqa.core.images import image_header
from xray_vqa.dataset.importers.source import (
    UNREADABLE,
    BoxXywh,
    Reading,
    Source,
    SourceFolder,
    SourceItem,
    box_of_corners,
    number_pair,
    split_of_folders,
    split_word,
)
from xray_vqa.errors import DatasetError, ImageUnreadable

OWN_KEY = b"xray_vqa"
"""Schema metadata of our own export: which categories are annotated, and that boxes are x, y, width, height."""

_IMAGE_KEYS = ("image", "img", "picture")
_OBJECT_KEYS = ("objects", "annotations", "detections")
_BOX_KEYS = ("bbox", "bboxes", "box", "boxes")
_LABEL_KEYS = ("raw_label", "category", "categories", "category_id", "label", "labels", "class", "name")
_BATCH = 16
"""Rows in memory at a time: some MB, whatever the size of the file."""


class ParquetImporter:
    """Reads Parquet files. The class names of the schema are what is annotated; without any, those that occur."""

    name = "parquet"
    description = "Parquet with image bytes, as on the Hugging Face hub"
    refines = ""

    def recognises(self, folder: SourceFolder) -> bool:
        for name in folder.sample(".parquet"):
            with folder.path(name).open("rb") as stream:
                if stream.read(4) == b"PAR1":
                    return True
        return False

    def read(self, folder: SourceFolder) -> Source:
        require("pyarrow", extra="parquet")
        reading = Reading(folder, self.name)
        names: dict[str, None] = {}
        tables = [table for name in folder.with_suffix(".parquet") if (table := _open(name, reading)) is not None]
        for table in tables:
            reading.see_list(table.name)
            names |= dict.fromkeys(table.annotated or table.class_names)
            for row, values in enumerate(_rows(table)):
                _read_row(table, row, values, reading)
        if not tables:
            raise DatasetError(f"{folder.root}: no Parquet file with a column of images is here")
        if not all(table.is_own for table in tables):
            _settle_boxes(reading)
        return reading.source(names or reading.labels_that_occur("these Parquet files have"))


IMPORTER = ParquetImporter()


@dataclass(frozen=True, slots=True)
class _Table:
    name: str
    file: Any
    image_key: str
    class_names: tuple[str, ...]
    annotated: tuple[str, ...]
    is_own: bool


def _open(name: str, reading: Reading) -> _Table | None:
    import pyarrow
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(reading.folder.path(name), pre_buffer=False)
    except (pyarrow.ArrowException, OSError) as error:
        reading.fault(name, f"is no Parquet file: {str(error).splitlines()[0][:120]}")
        return None
    schema = file.schema_arrow
    image_key = next(
        (key for key in (*_IMAGE_KEYS, *schema.names) if key in schema.names and _is_image(schema, key)), ""
    )
    if not image_key:
        reading.fault(name, f"has no column of image bytes, only {', '.join(schema.names)}")
        return None
    metadata = schema.metadata or {}
    own = _json(metadata.get(OWN_KEY))
    features = _json(metadata.get(b"huggingface")).get("info", {}).get("features", {})
    annotated = tuple(own.get("annotated_categories") or ())
    class_names = tuple(_class_names(features))
    if not {*_OBJECT_KEYS, *_BOX_KEYS, *_LABEL_KEYS[:-1]}.intersection(schema.names):
        columns = ", ".join(schema.names)
        reading.notice(name, f"has no column of labels or boxes, only {columns}; nothing of it is taken as annotated")
        class_names = ()
    return _Table(name, file, image_key, class_names, annotated, bool(own))


def _is_image(schema: Any, key: str) -> bool:
    import pyarrow.types as types

    kind = schema.field(key).type
    if types.is_struct(kind):
        return any(field.name == "bytes" for field in kind)
    return types.is_binary(kind) or types.is_large_binary(kind)


def _json(text: bytes | None) -> dict[str, Any]:
    try:
        value = json.loads(text or b"{}")
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _class_names(features: Any) -> Sequence[str]:
    """Return the names of the first ClassLabel in a schema's description, at any depth."""
    if isinstance(features, list):
        features = dict(enumerate(features))
    if not isinstance(features, dict):
        return ()
    if features.get("_type") == "ClassLabel" and isinstance(features.get("names"), list):
        return [str(name) for name in features["names"]]
    return next((names for value in features.values() if (names := _class_names(value))), ())


def _rows(table: _Table) -> Iterator[dict[str, Any]]:
    for batch in table.file.iter_batches(batch_size=_BATCH):
        yield from batch.to_pylist()


def _read_row(table: _Table, row: int, values: dict[str, Any], reading: Reading) -> None:
    data, path = _image_of(values[table.image_key])
    if not data:
        reading.fault(table.name, "row has no image bytes", row)
        return
    try:
        _, size_wh = image_header(data)
    except ImageUnreadable as error:
        reading.fault(table.name, f"image is left out: {error}", row)
        return
    stem = posixpath.splitext(table.name)[0]
    image_path = reading.folder.unpack(f"{stem}/{row:07d}", data)
    stated = values.get("split")
    split = stated if isinstance(stated, str) else split_word(posixpath.basename(stem)) or split_of_folders(table.name)
    reading.add(
        str(values.get("original_name") or f"{table.name}#{row}{f' ({path})' if path else ''}"),
        table.name,
        image_path=image_path,
        items=tuple(_items(values, table, row, reading)),
        position=row,
        split=split.strip().lower(),
        group=str(values.get("group") or ""),
        size_wh=number_pair(values.get("width"), values.get("height")) or size_wh,
        caption=str(values.get("caption") or ""),
        licence=str(values.get("licence") or values.get("license") or ""),
        factors=(_json(str(values.get("factors") or "").encode()) or None) if table.is_own else None,
    )


def _image_of(cell: Any) -> tuple[bytes, str]:
    if isinstance(cell, dict):
        return cell.get("bytes") or b"", str(cell.get("path") or "")
    return (cell, "") if isinstance(cell, bytes) else (b"", "")


def _items(values: dict[str, Any], table: _Table, row: int, reading: Reading) -> list[SourceItem]:
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
            reading.fault(table.name, f"objects have no label, only {', '.join(map(str, objects))}", row)
            return [UNREADABLE]
        if not isinstance(labels, list):  # one label for the whole image
            labels, boxes = ([] if labels is None else [labels]), None
        boxes = boxes if isinstance(boxes, list) else [None] * len(labels)
        if len(boxes) != len(labels):
            reading.fault(table.name, f"row has {len(labels)} labels and {len(boxes)} boxes; labels kept", row)
            boxes = [None] * len(labels)
        entries = list(zip(labels, boxes, strict=True))
    items: list[SourceItem] = []
    for label, box in entries:
        four = _four_numbers(box)
        if box is not None and four is None:
            reading.notice(table.name, f"{label} box {str(box)[:60]} is not four numbers; label kept", row)
        items.append(SourceItem(_label(label, table, row, reading), four))
    return items


def _first(values: dict[str, Any], keys: Sequence[str]) -> Any:
    return next((values[key] for key in keys if values.get(key) is not None), None)


def _four_numbers(box: Any) -> BoxXywh | None:
    try:
        x, y, w, h = map(float, box)
    except (TypeError, ValueError):
        return None
    return (x, y, w, h)


def _label(value: Any, table: _Table, row: int, reading: Reading) -> str:
    if value is None:
        reading.fault(table.name, "object has no label; kept as unlisted", row)
        return "(unnamed)"
    if not isinstance(value, int):
        return str(value)
    if 0 <= value < len(table.class_names):
        return table.class_names[value]
    # The item is there whatever it is called: kept under the number, which maps to UNLISTED.
    reading.fault(table.name, f"category {value} has no name in the schema", row)
    return f"category {value}"


def _settle_boxes(reading: Reading) -> None:
    """Decide for all scans what four numbers mean: x, y, width, height, as COCO has it, unless only corners fit."""
    boxes = [
        (box, scan.size_wh)
        for scan in reading.scans
        for item in scan.items
        if (box := item.box_xywh) is not None and scan.size_wh is not None
    ]
    if not boxes:
        return
    if all(max(box) <= 1 for box, _ in boxes):
        reading.notice("", "boxes are taken as fractions of the image, since no number is above 1")
        reading.scans = [replace(scan, relative=True) for scan in reading.scans]
    outside = sum(x + w > width * 1.02 or y + h > height * 1.02 for (x, y, w, h), (width, height) in boxes)
    as_corners = all(x < x1 <= width * 1.02 and y < y1 <= height * 1.02 for (x, y, x1, y1), (width, height) in boxes)
    if not (as_corners and outside):
        reading.notice("", "boxes are taken as x, y, width, height")
        return
    reading.notice("", f"boxes are taken as two corners: as x, y, width, height {outside} would leave their images")
    reading.scans = [
        replace(
            scan,
            items=tuple(
                replace(item, box_xywh=box_of_corners(*item.box_xywh)) if item.box_xywh else item for item in scan.items
            ),
        )
        for scan in reading.scans
    ]
