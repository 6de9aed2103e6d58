"""A split as COCO's instances JSON: boxes, run-length masks where the dataset has them, and our own fields beside."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from xray_vqa.core.jsonl import write_json
from xray_vqa.core.records import SPLITS, ScanRecord, Split
from xray_vqa.core.taxonomy import CATEGORIES, UNLISTED
from xray_vqa.dataset.exporters.exporter import ExportReport, write_folder_manifest
from xray_vqa.dataset.layout import annotations_path, read_split
from xray_vqa.errors import DatasetError

COCO_NAME = "instances.json"


class CocoExporter:
    """Writes instances.json for each split, into the dataset itself or, with its images, into another folder."""

    name = "coco"
    description = "COCO instances JSON, one a split"
    takes = "dataset"

    def write(self, source: Path, target: Path) -> ExportReport:
        report = ExportReport()
        target.mkdir(parents=True, exist_ok=True)
        is_copy = source.resolve() != target.resolve()
        for split in SPLITS:
            if not annotations_path(source, split).is_file():
                continue
            scans = read_split(source, split)
            report.faults.extend(scans.faults)
            if is_copy:
                (target / split / "images").mkdir(parents=True, exist_ok=True)
                for record in scans.records:
                    shutil.copyfile(source / record.image_path, target / record.image_path)
            report.paths.append(write_coco(source, split, target))
            report.counts[split] = len(scans.records)
        if not report.paths:
            raise DatasetError(f"{source}: neither train/ nor test/ with annotations.json is here")
        if is_copy:
            write_folder_manifest(target, source, report.paths, report.counts)
        return report


EXPORTER = CocoExporter()


def write_coco(root: Path, split: Split, target: Path | None = None) -> Path:
    """Write `<root>/<split>/instances.json`, or the same under another folder, and return its path.

    An item without a box is left out, since COCO cannot say "somewhere", and the image's `image_level` names it.

    Raises:
        DatasetError: The split has no annotation file.
    """
    names = [*CATEGORIES, UNLISTED]
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for record in read_split(root, split).records:
        images.append(_image_of(record, split))
        for index, (category, box) in enumerate(zip(record.categories, record.bboxes, strict=True)):
            if box is None:
                continue
            mask = record.masks[index] if record.masks else None
            item: dict[str, Any] = {
                "id": len(annotations) + 1,
                "image_id": record.image_id,
                "category_id": names.index(category) + 1,
                "bbox": list(box),
                "area": sum(mask["counts"][1::2]) if mask else round(box[2] * box[3], 1),
                "iscrowd": 0,
            }
            if mask:
                item["segmentation"] = mask
            if record.occlusion:
                item["occlusion"] = record.occlusion[index]
            annotations.append(item)
    path = (target or root) / split / COCO_NAME
    categories = [{"id": k, "name": name, "supercategory": "prohibited"} for k, name in enumerate(names, start=1)]
    info = {"description": f"{split} split, written by xray-vqa"}
    write_json(path, {"info": info, "images": images, "annotations": annotations, "categories": categories})
    return path


def _image_of(record: ScanRecord, split: Split) -> dict[str, Any]:
    image: dict[str, Any] = {
        "id": record.image_id,
        "file_name": f"images/{record.image_filename}",
        "width": record.width,
        "height": record.height,
        "group": record.group,
        "split": split,
    }
    somewhere = [name for name, box in zip(record.categories, record.bboxes, strict=True) if box is None]
    return image | ({"image_level": somewhere} if somewhere else {})
