"""OPIXray and HiXray: one txt file an image, `name class x1 y1 x2 y2` a line, in pixels.

`train/train_annotation/*.txt` belong to `train/train_image/*`, test likewise. The image is the one with the txt file's
own name. As the authors' loaders read it: github OPIXray-author/OPIXray, HiXray-author/HiXray.
"""

import posixpath

from xray_vqa.dataset.importers.source import (
    UNREADABLE,
    BoxXywh,
    Reading,
    Source,
    SourceFolder,
    SourceItem,
    box_of_corners,
    split_of_folders,
)
from xray_vqa.errors import DatasetError

CLASS_LISTS = (
    ("Folding_Knife", "Straight_Knife", "Scissor", "Utility_Knife", "Multi-tool_Knife"),
    ("Portable_Charger_1", "Portable_Charger_2", "Water", "Laptop", "Mobile_Phone", "Tablet", "Cosmetic",
     "Nonmetallic_Lighter"),
)  # fmt: skip
"""What OPIXray and HiXray annotate."""


class OpixrayImporter:
    """Reads OPIXray's and HiXray's txt files. Labels of one alone mean that all of its classes are annotated."""

    name = "opixray"
    description = "OPIXray or HiXray, one txt file an image with `name class x1 y1 x2 y2`"
    refines = ""

    def recognises(self, folder: SourceFolder) -> bool:
        return any(_first_item(folder.read_text(name)) for name in folder.sample(".txt"))

    def read(self, folder: SourceFolder) -> Source:
        reading = Reading(folder, self.name)
        for name in folder.with_suffix(".txt"):
            text = folder.read_text(name)
            stem = posixpath.splitext(posixpath.basename(name))[0]
            found = folder.images.with_stem(stem, name, split_of_folders(name))
            if not _first_item(text) and (text.strip() or not found):
                continue  # a list of names, or of what it is not known
            reading.see(name, text.encode())
            image = reading.claim(found, name)
            if image is not None:
                reading.add(image, name, items=tuple(_items(text, name, reading)))
        if not reading.num_seen:
            raise DatasetError(f"{folder.root}: no txt file with `name class x1 y1 x2 y2` is here")
        reading.name_left_over("have no txt file")
        occurring = {item.label for scan in reading.scans for item in scan.items}
        known = next((classes for classes in CLASS_LISTS if occurring and occurring.issubset(classes)), None)
        return reading.source(known or reading.labels_that_occur("these txt files have"))


IMPORTER = OpixrayImporter()


def parse_line(line: str) -> tuple[str, BoxXywh] | None:
    """Return class and box of a line, or None where it is no such line.

    >>> parse_line("009001.jpg Folding_Knife 10 20 30 50")
    ('Folding_Knife', (10.0, 20.0, 20.0, 30.0))
    """
    words = line.split()
    if len(words) < 6:
        return None
    try:
        float(words[1])
        return None  # a number is no class: YOLO has lines of many numbers too
    except ValueError:
        pass
    try:
        x0, y0, x1, y1 = map(float, words[2:6])
    except ValueError:
        return None
    return words[1], box_of_corners(x0, y0, x1, y1)


def _first_item(text: str) -> tuple[str, BoxXywh] | None:
    return next((parse_line(line) for line in text[:4096].splitlines() if line.strip()), None)


def _items(text: str, name: str, reading: Reading) -> list[SourceItem]:
    items: list[SourceItem] = []
    for position, line in enumerate(text.splitlines()):
        if not line.strip():
            continue
        parsed = parse_line(line)
        if parsed is None:
            reading.fault(name, f"line {line[:60]!r} is not `name class x1 y1 x2 y2`", position)
            items.append(UNREADABLE)
        else:
            items.append(SourceItem(*parsed, position))
    return items
