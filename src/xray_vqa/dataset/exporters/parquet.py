"""A dataset as Parquet with image bytes, in the form of the Hugging Face hub (needs the extra `parquet`).

`data/train-00000-of-00002.parquet` and so on; `datasets.load_dataset("parquet", ...)` shows images and class names
without a script, and our own importer gives the same scans back. Masks, occlusion and co-items stay behind.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xray_vqa.config.loading import require
from xray_vqa.core.manifest import read_manifest, sha256_bytes
from xray_vqa.core.records import SPLITS, Fault, ScanRecord, Split
from xray_vqa.core.taxonomy import CATEGORIES, UNLISTED
from xray_vqa.dataset.exporters.exporter import ExportReport, ShardedExporter, write_folder_manifest
from xray_vqa.dataset.importers.parquet import OWN_KEY
from xray_vqa.dataset.layout import annotations_path, read_split
from xray_vqa.errors import DatasetError

ROWS_A_GROUP = 64
"""What a reader has to decode to see one image."""
_NAMES = [*CATEGORIES, UNLISTED]
_TEXTS = ("caption", "group", "source", "licence", "original_name")


@dataclass(frozen=True)
class ParquetExporter(ShardedExporter):
    """Writes a folder of Parquet files, image bytes unchanged, each about as large as the hub's own tools make it."""

    name = "parquet"
    description = "Parquet with image bytes and boxes, as on the Hugging Face hub"
    takes = "dataset"
    shard_bytes: int = 400 * 2**20

    def write(self, source: Path, target: Path) -> ExportReport:
        require("pyarrow", extra="parquet")
        annotated = read_manifest(source).annotated_categories or []
        report = ExportReport()
        for split in SPLITS:
            if not annotations_path(source, split).is_file():
                continue
            scans = read_split(source, split)
            report.faults.extend(scans.faults)
            shards = self.in_shards(scans.records, [_size_of(source / record.image_path) for record in scans.records])
            for number, records in enumerate(shards):
                path = target / f"data/{split}-{number:05d}-of-{len(shards):05d}.parquet"
                report.counts[split] = report.counts.get(split, 0) + _write_shard(
                    source, path, records, annotated, report
                )
                report.paths.append(path)
            _remove_others(target, split, report.paths)
        if not report.paths:
            raise DatasetError(f"{source}: neither train/ nor test/ with scans is here")
        write_folder_manifest(target, source, report.paths, report.counts)
        return report


EXPORTER = ParquetExporter()


def _size_of(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _write_shard(
    source: Path, path: Path, records: Sequence[ScanRecord], annotated: Sequence[str], report: ExportReport
) -> int:
    """Write one file, whole or not at all, and return how many scans it holds."""
    import pyarrow
    import pyarrow.parquet

    schema = _schema(annotated)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}")
    num_rows = 0
    with pyarrow.parquet.ParquetWriter(unfinished, schema, compression="none") as writer:
        for start in range(0, len(records), ROWS_A_GROUP):
            rows = list(_rows(source, records[start : start + ROWS_A_GROUP], report))
            if rows:
                writer.write_table(pyarrow.Table.from_pylist(rows, schema))
            num_rows += len(rows)
    unfinished.replace(path)
    return num_rows


def _rows(source: Path, records: Sequence[ScanRecord], report: ExportReport) -> Iterator[dict[str, Any]]:
    for record in records:
        path = source / record.image_path
        try:
            data = path.read_bytes()
        except OSError as error:
            report.faults.append(Fault(path, f"cannot be read: {error.strerror}; left out"))
            continue
        if record.sha256 and sha256_bytes(data) != record.sha256:
            report.faults.append(Fault(path, "has other bytes than its record says; left out"))
            continue
        yield {
            "image": {"bytes": data, "path": record.image_filename},
            "image_id": record.image_id,
            "width": record.width,
            "height": record.height,
            "objects": {
                "bbox": [None if box is None else list(box) for box in record.bboxes],
                "category": [_NAMES.index(category) for category in record.categories],
                "raw_label": record.raw_labels or record.categories,
            },
            "factors": json.dumps(record.factors, ensure_ascii=False) if record.factors else "",
            **{key: getattr(record, key) or "" for key in _TEXTS},
        }


def _schema(annotated: Sequence[str]) -> Any:
    import pyarrow as pa

    text, number = pa.string(), pa.int64()
    objects = {"bbox": pa.list_(pa.list_(pa.float64())), "category": pa.list_(number), "raw_label": pa.list_(text)}
    columns = {
        "image": pa.struct({"bytes": pa.binary(), "path": text}),
        "image_id": number,
        "width": number,
        "height": number,
        "objects": pa.struct(objects),
        "factors": text,
        **dict.fromkeys(_TEXTS, text),
    }

    def value(dtype: str) -> dict[str, Any]:
        return {"dtype": dtype, "_type": "Value"}

    def several(feature: dict[str, Any]) -> dict[str, Any]:
        return {"feature": feature, "_type": "Sequence"}

    features = {
        "image": {"_type": "Image"},
        **{key: value("int64") for key in ("image_id", "width", "height")},
        "objects": {
            "bbox": several(several(value("float64"))),
            "category": several({"names": _NAMES, "_type": "ClassLabel"}),
            "raw_label": several(value("string")),
        },
        **{key: value("string") for key in ("factors", *_TEXTS)},
    }
    own = {"annotated_categories": list(annotated), "boxes": "x, y, width, height in pixels"}
    metadata = {b"huggingface": json.dumps({"info": {"features": features}}), OWN_KEY: json.dumps(own)}
    return pa.schema(columns, metadata=metadata)


def _remove_others(target: Path, split: Split, paths: Sequence[Path]) -> None:
    """Remove what an earlier export of more or fewer files left: a reader would take it for part of this one."""
    for path in (target / "data").glob(f"{split}-?????-of-?????.parquet"):
        if path not in paths:
            path.unlink()
