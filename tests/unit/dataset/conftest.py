import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image


def make_png(seed: int, size_wh: tuple[int, int] = (64, 48)) -> bytes:
    """A tiny image whose bytes differ for every seed."""
    pixels = np.random.default_rng(seed).integers(0, 255, (size_wh[1], size_wh[0], 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture
def png() -> Callable[..., bytes]:
    return make_png


@pytest.fixture
def coco(tmp_path: Path) -> Callable[..., Path]:
    """Write a COCO folder: scans are dicts with `name`, and where wanted `seed`, `boxes`, `group`, `split`, `size`."""

    def write(scans: list[dict[str, Any]], labels: tuple[str, ...] = ("Gun", "Knife"), name: str = "source") -> Path:
        folder = tmp_path / name
        (folder / "images").mkdir(parents=True)
        images, annotations = [], []
        for number, scan in enumerate(scans):
            if scan.get("data", b"-"):
                data = scan.get("data") or make_png(scan.get("seed", number))
                (folder / "images" / scan["name"]).write_bytes(data)
            width, height = scan.get("size", (64, 48))
            extra = {key: scan[key] for key in ("group", "split") if key in scan}
            images.append({"id": number, "file_name": scan["name"], "width": width, "height": height, **extra})
            for label, box in scan.get("boxes", ()):
                category_id = labels.index(label) + 1
                annotations.append({"image_id": number, "category_id": category_id, "bbox": box, "iscrowd": 0})
        categories = [{"id": number + 1, "name": label} for number, label in enumerate(labels)]
        content = {"images": images, "annotations": annotations, "categories": categories}
        (folder / "annotations.json").write_text(json.dumps(content))
        return folder

    return write


VOC_XML = """<annotation><filename>{filename}</filename>
<owner><name>Wrench</name></owner>
<size><width>{width}</width><height>{height}</height><depth>3</depth></size>{objects}</annotation>"""
VOC_OBJECT = """<object><name>{label}</name><part><name>barrel</name></part><bndbox><xmin>{0}</xmin><ymin>{1}</ymin>
<xmax>{2}</xmax><ymax>{3}</ymax></bndbox></object>"""


@pytest.fixture
def voc(tmp_path: Path) -> Callable[..., Path]:
    """Write a VOC folder: all XML in one folder, images in folders named by split, as SIXray copies have it."""

    def write(scans: list[dict[str, Any]]) -> Path:
        folder = tmp_path / "voc"
        (folder / "Annotation").mkdir(parents=True)
        for number, scan in enumerate(scans):
            image_dir = folder / scan.get("folder", "images")
            image_dir.mkdir(exist_ok=True)
            (image_dir / f"{scan['stem']}.png").write_bytes(make_png(scan.get("seed", number)))
            objects = "".join(VOC_OBJECT.format(*box, label=label) for label, box in scan.get("boxes", ()))
            width, height = scan.get("size", (64, 48))
            xml = VOC_XML.format(
                filename=scan.get("filename", "other.jpg"), width=width, height=height, objects=objects
            )
            (folder / "Annotation" / f"{scan['stem']}.xml").write_text(xml)
        return folder

    return write
