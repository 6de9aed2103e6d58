"""DvXray: one JSON file a bag and two images of it, `x_OL.png` from above (overlook) and `x_SD.png` from the side.

`objects` is a list with a `label` each, or the word "None" for a clean bag. An item is in the bag and thus in both
views. The published loader (github Mbwslib/DvXray) reads labels alone; boxes came later, and no public text tells
what their keys are called. So a key of four numbers that names a view (`ol...`, `..._sd`, `overlook`, `side`) is
taken as the corners x1, y1, x2, y2 in that view, and what is no such box is said aloud.
"""

import json
import re
from typing import Any

from xray_vqa.core.jsonl import read_json
from xray_vqa.dataset.importers.source import (
    UNREADABLE,
    BoxXywh,
    Reading,
    Source,
    SourceFolder,
    SourceItem,
    box_of_corners,
    listed_splits,
    split_of_folders,
    top_keys,
)
from xray_vqa.errors import DatasetError

CLASSES = (
    "Gun", "Knife", "Wrench", "Pliers", "Scissors", "Lighter", "Battery", "Bat", "Razor_blade", "Saw_blade",
    "Fireworks", "Hammer", "Screwdriver", "Dart", "Pressure_vessel",
)  # fmt: skip
"""What the data set annotates."""

VIEWS = {"overlook": ("OL", {"ol", "overlook"}), "side": ("SD", {"sd", "side"})}
"""The ending of an image's name and the words in a box's key, by view."""


class DvxrayImporter:
    """Reads DvXray: one scan for each view, both in the group of their bag."""

    name = "dvxray"
    description = "DvXray, one JSON file a bag with the images x_OL and x_SD"
    refines = "cityscapes"

    def recognises(self, folder: SourceFolder) -> bool:
        return any(_views_of(folder, name) for name in folder.sample(".json") if "objects" in _keys(folder, name))

    def read(self, folder: SourceFolder) -> Source:
        reading = Reading(folder, self.name)
        listed = listed_splits(folder)
        num_unplaced = 0
        for name in folder.with_suffix(".json"):
            if "objects" in _keys(folder, name):
                num_unplaced += _read_bag(name, listed, reading)
            else:
                reading.notice(name, "has no objects; left aside")
        if not reading.num_seen:
            raise DatasetError(f"{folder.root}: no JSON file with `objects` and images x_OL and x_SD is here")
        if num_unplaced:
            message = f"{num_unplaced} items of a view have no box that names the view; their labels are kept"
            reading.notice("", message)
        reading.name_left_over("belong to no JSON file")
        occurring = {item.label for scan in reading.scans for item in scan.items}
        return reading.source(CLASSES if occurring.issubset(CLASSES) else reading.labels_that_occur("these files have"))


IMPORTER = DvxrayImporter()


def _keys(folder: SourceFolder, name: str) -> frozenset[str]:
    return top_keys(folder.path(name))[0]


def _views_of(folder: SourceFolder, name: str) -> dict[str, list[str]]:
    stem = folder.path(name).stem
    found = {
        view: folder.images.with_stem(f"{stem}_{ending}", name, split_of_folders(name))
        for view, (ending, _) in VIEWS.items()
    }
    return {view: images for view, images in found.items() if images}


def _read_bag(name: str, listed: dict[str, str], reading: Reading) -> int:
    """Read one bag and return how many items have no box in a view."""
    folder = reading.folder
    reading.see(name, folder.path(name).read_bytes())
    try:
        content = read_json(folder.path(name))
    except DatasetError as error:
        reading.fault(name, str(error).removeprefix(f"{folder.path(name)}: "))
        return 0
    objects = content["objects"] if isinstance(content, dict) else None
    if isinstance(objects, str) and objects.lower() == "none":
        objects = []
    if not isinstance(objects, list):
        reading.fault(name, f'objects is neither a list nor "None" but {json.dumps(objects)[:40]}')
        return 0
    stem = folder.path(name).stem
    found = _views_of(folder, name)
    num_unplaced = 0
    for view in VIEWS:
        image = reading.claim(found.get(view, []), name, called=f"its {view} image")
        if image is None:
            continue
        items = _items(objects, view, name, reading)
        num_unplaced += sum(item.box_xywh is None for item in items)
        reading.add(
            image,
            name,
            items=tuple(items),
            split=listed.get(stem) or split_of_folders(image) or split_of_folders(name),
            group=name.removesuffix(".json"),
            factors={"view": view},
        )
    return num_unplaced


def _items(objects: list[Any], view: str, name: str, reading: Reading) -> list[SourceItem]:
    items: list[SourceItem] = []
    for position, entry in enumerate(objects):
        label = entry.get("label") if isinstance(entry, dict) else None
        if isinstance(label, str) and label:
            items.append(SourceItem(label, view_box(entry, view), position))
        else:
            reading.fault(name, f"object has no label: {json.dumps(entry)[:60]}", position)
            items.append(UNREADABLE)
    return items


def view_box(entry: dict[str, Any], view: str) -> BoxXywh | None:
    """Return an object's box in a view, or None where no key of four numbers names the view.

    >>> view_box({"label": "Gun", "ol_bb": [10, 20, 30, 50]}, "overlook")
    (10.0, 20.0, 20.0, 30.0)
    """
    for key, value in entry.items():
        if VIEWS[view][1].intersection(re.findall(r"[a-z]+", key.lower())) and isinstance(value, list):
            try:
                x0, y0, x1, y1 = map(float, value)
            except (TypeError, ValueError):
                continue
            return box_of_corners(x0, y0, x1, y1)
    return None
