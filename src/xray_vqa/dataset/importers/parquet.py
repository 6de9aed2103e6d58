"""Parquet with image bytes, as the Hugging Face hub stores data sets (needs the extra `parquet`).

A row is a scan: `image` as bytes or as {bytes, path}, and boxes in `objects` (or beside it) under the names that data
sets on the hub use (`rows.py`). What numbers of categories mean stands in the schema's metadata, if anywhere.
"""

import json
import posixpath
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from xray_vqa.config.loading import require
from xray_vqa.core.images import image_header
from xray_vqa.dataset.importers.rows import Place, items_of, says_items, settle_boxes
from xray_vqa.dataset.importers.source import (
    Reading,
    Source,
    SourceFolder,
    number_pair,
    split_of_folders,
    split_word,
)
from xray_vqa.errors import DatasetError, ImageUnreadable

OWN_KEY = b"xray_vqa"
"""Schema metadata of our own export: which categories are annotated, and that boxes are x, y, width, height."""

_IMAGE_KEYS = ("image", "img", "picture")
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
            settle_boxes(reading)
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
    if not says_items(schema.names):
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
        items=tuple(items_of(values, Place(table.name, row, table.class_names), reading)),
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
