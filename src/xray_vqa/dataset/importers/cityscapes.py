"""Outlines as Cityscapes writes them and PIXray uses: a JSON file an image, `objects` with `label` and `polygon`.

The box around each outline is imported. Names are paired as they are, or as Cityscapes has them
(`x_gtFine_polygons.json` with `x_leftImg8bit.png`).
"""

import json
import re
from typing import Any

from xray_vqa.core.jsonl import read_json
from xray_vqa.dataset.importers.source import (
    UNREADABLE,
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

_ENDING = re.compile(r"_gt(?:Fine|Coarse)_polygons$")


class CityscapesImporter:
    """Reads polygon files. The format has no list of categories: those that occur are what is annotated."""

    name = "cityscapes"
    description = "Cityscapes or PIXray, one JSON file with objects and their polygons an image"
    refines = ""

    def recognises(self, folder: SourceFolder) -> bool:
        return any(_looks_like_polygons(folder, name) for name in folder.sample(".json"))

    def read(self, folder: SourceFolder) -> Source:
        reading = Reading(folder, self.name)
        for name in folder.with_suffix(".json"):
            if "objects" in top_keys(folder.path(name))[0]:
                _read_file(name, reading)
            else:
                reading.notice(name, "has no objects; left aside")
        if not reading.num_seen:
            raise DatasetError(f"{folder.root}: no JSON file with `objects` is here")
        reading.name_left_over("have no JSON file")
        return reading.source(reading.labels_that_occur("polygon files have"))


IMPORTER = CityscapesImporter()


def _read_file(name: str, reading: Reading) -> None:
    folder = reading.folder
    reading.see(name, folder.path(name).read_bytes())
    try:
        content = read_json(folder.path(name))
    except DatasetError as error:
        reading.fault(name, str(error).removeprefix(f"{folder.path(name)}: "))
        return
    objects = content.get("objects") if isinstance(content, dict) else None
    if not isinstance(objects, list):
        reading.fault(name, f"objects is no list but {json.dumps(objects)[:40]}")
        return
    split = split_of_folders(name)
    stem = folder.path(name).stem
    base = _ENDING.sub("", stem)
    found = folder.images.with_stem(stem, name, split) or folder.images.with_stem(f"{base}_leftImg8bit", name, split)
    image = reading.claim(found, name)
    if image is not None:
        items = tuple(_items(objects, name, reading))
        size_wh = number_pair(content.get("imgWidth"), content.get("imgHeight"))
        reading.add(image, name, items=items, size_wh=size_wh)


def _items(objects: list[Any], name: str, reading: Reading) -> list[SourceItem]:
    items: list[SourceItem] = []
    for position, entry in enumerate(objects):
        label = entry.get("label") if isinstance(entry, dict) else None
        if not isinstance(label, str) or not label:
            reading.fault(name, f"object has no label: {json.dumps(entry)[:60]}", position)
            items.append(UNREADABLE)
            continue
        box = box_around(entry.get("polygon"))
        if box is None:
            reading.notice(name, f"{label} has no polygon of two or more points; label kept", position)
        items.append(SourceItem(label, box, position))
    return items


def _looks_like_polygons(folder: SourceFolder, name: str) -> bool:
    keys, _ = top_keys(folder.path(name))
    if "objects" not in keys:
        return False
    if keys & {"imgWidth", "imgHeight"}:
        return True
    try:
        objects = read_json(folder.path(name))["objects"]
    except DatasetError:
        return False
    return isinstance(objects, list) and any(isinstance(entry, dict) and "polygon" in entry for entry in objects)
