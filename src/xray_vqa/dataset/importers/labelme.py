"""Labelme: one JSON file an image, beside it or in a parallel tree, with rectangles, polygons and circles.

The image is the one with the JSON file's own name; `imagePath` is often that of another machine.
"""

import math
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from xray_vqa.core.jsonl import first_error
from xray_vqa.dataset.importers.source import (
    UNREADABLE,
    BoxXywh,
    Reading,
    Source,
    SourceFolder,
    SourceItem,
    box_around,
    number_pair,
    split_of_folders,
    top_keys,
)
from xray_vqa.errors import DatasetError


class _Lenient(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class _Shape(_Lenient):
    label: str
    points: list[tuple[float, float]]
    shape_type: str = "polygon"


class _File(_Lenient):
    shapes: list[Any]
    imagePath: str = ""  # noqa: N815 - Labelme's own names
    imageWidth: int | None = None  # noqa: N815
    imageHeight: int | None = None  # noqa: N815


class LabelmeImporter:
    """Reads Labelme. The format has no list of categories: those that occur are what is annotated."""

    name = "labelme"
    description = "Labelme, one JSON file with shapes an image"
    refines = ""

    def recognises(self, folder: SourceFolder) -> bool:
        return any("shapes" in top_keys(folder.path(name))[0] for name in folder.sample(".json"))

    def read(self, folder: SourceFolder) -> Source:
        reading = Reading(folder, self.name)
        num_outlines = sum(_read_file(name, reading) for name in folder.with_suffix(".json"))
        if not reading.num_seen:
            raise DatasetError(f"{folder.root}: no Labelme file (a JSON object with the list shapes) is here")
        if num_outlines:
            reading.notice("", f"{num_outlines} outlines are not imported, the boxes around them are")
        reading.name_left_over("have no JSON file")
        return reading.source(reading.labels_that_occur("Labelme has"))


IMPORTER = LabelmeImporter()


def _read_file(name: str, reading: Reading) -> int:
    """Read one file and return how many outlines became boxes."""
    folder = reading.folder
    path = folder.path(name)
    if "shapes" not in top_keys(path)[0]:
        reading.notice(name, "is no Labelme file; left aside")
        return 0
    data = path.read_bytes()
    reading.see(name, data)
    try:
        content = _File.model_validate_json(data.removeprefix(b"\xef\xbb\xbf"))
    except ValidationError as error:
        reading.fault(name, f"is no Labelme annotation: {first_error(error)}")
        return 0
    split = split_of_folders(name)
    found = folder.images.with_stem(path.stem, name, split)
    if not found and content.imagePath:
        found = folder.images.named(content.imagePath, name, split)
    image = reading.claim(found, name)
    if image is None:
        return 0
    items: list[SourceItem] = []
    num_outlines = 0
    for position, entry in enumerate(content.shapes):
        try:
            shape = _Shape.model_validate(entry)
        except ValidationError as error:
            reading.fault(name, f"shape is not readable: {first_error(error)}", position)
            items.append(UNREADABLE)
            continue
        box = shape_box(shape.shape_type, shape.points)
        if box is None:
            reading.notice(name, f"{shape.label} is a {shape.shape_type}, which has no box; label kept", position)
        num_outlines += box is not None and shape.shape_type != "rectangle"
        items.append(SourceItem(shape.label, box, position))
    reading.add(
        image,
        name,
        items=tuple(items),
        size_wh=number_pair(content.imageWidth, content.imageHeight),
        also_called=content.imagePath,
    )
    return num_outlines


def shape_box(shape_type: str, points: list[tuple[float, float]]) -> BoxXywh | None:
    """Return the box around a shape; a circle is its centre and a point on its edge. None for points and lines."""
    if shape_type == "circle" and len(points) == 2:
        (x, y), edge = points
        radius = math.dist((x, y), edge)
        return box_around([(x - radius, y - radius), (x + radius, y + radius)])
    return box_around(points) if shape_type in ("rectangle", "polygon", "rotation", "linestrip", "") else None
