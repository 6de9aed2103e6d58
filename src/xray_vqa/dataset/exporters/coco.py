"""A split as COCO's instances JSON: boxes, run-length masks where the dataset has them, and our own fields beside."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from xray_vqa.core.jsonl import write_json
from xray_vqa.core.records import ScanRecord, Split
from xray_vqa.core.taxonomy import CATEGORIES, UNLISTED
from xray_vqa.dataset.layout import read_split

COCO_NAME = "instances.json"


def write_coco(root: Path, split: Split) -> Path:
    """Write `<root>/<split>/instances.json` and return its path.

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
    path = root / split / COCO_NAME
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
