"""YOLO: one txt file an image, `class x y w h` a line in fractions of the image, class names in a file of their own.

Also what Roboflow exports (`train/images`, `train/labels`, `data.yaml`) and outlines (`class x1 y1 x2 y2 ...`), of
which the box around them is taken. An empty txt file is a clean bag; an image without one is not, although YOLO's own
training takes it for one.
"""

import math
import posixpath
from typing import Any

import yaml

from xray_vqa.dataset.importers.source import (
    UNREADABLE,
    BoxXywh,
    Reading,
    Source,
    SourceFolder,
    SourceItem,
    box_around,
    listed_splits,
    split_of_folders,
)
from xray_vqa.errors import DatasetError

_NAME_LISTS = frozenset({"classes.txt", "obj.names", "_darknet.labels", "classes.names", "labels.names"})
_NO_LABELS = frozenset(
    {"train.txt", "val.txt", "valid.txt", "test.txt", "trainval.txt", "labels.txt", "requirements.txt"}
)
_SLACK = 0.02
"""By how much a value may leave 0..1, as rounding and clumsy tools make it, before it is no fraction."""


class YoloImporter:
    """Reads YOLO labels. The list of class names is what the source annotates."""

    name = "yolo"
    description = "YOLO, one txt file an image and data.yaml, classes.txt or obj.names"
    refines = ""

    def recognises(self, folder: SourceFolder) -> bool:
        return any(_looks_like_yolo(folder.read_text(name)) for name in folder.sample(".txt") if _may_hold_labels(name))

    def read(self, folder: SourceFolder) -> Source:
        reading = Reading(folder, self.name)
        class_names = _class_names(reading)
        listed = listed_splits(folder)
        for name in folder.with_suffix(".txt"):
            if not _may_hold_labels(name):
                continue
            text = folder.read_text(name)
            stem = posixpath.splitext(posixpath.basename(name))[0]
            found = folder.images.with_stem(stem, name, split_of_folders(name))
            if not found and not _looks_like_yolo(text):
                continue  # a README or another list
            reading.see(name, text.encode())
            image = reading.claim(found, name)
            if image is None:
                continue
            reading.add(
                image,
                name,
                items=tuple(_items(text, name, class_names, reading)),
                split=listed.get(stem) or split_of_folders(image) or split_of_folders(name),
                relative=True,
            )
        if not reading.num_seen:
            raise DatasetError(f"{folder.root}: no YOLO labels (txt files beside or parallel to the images) are here")
        reading.name_left_over("have no txt file")
        return reading.source(class_names)


IMPORTER = YoloImporter()


def parse_line(line: str) -> tuple[int, BoxXywh | None]:
    """Return class and box of a line, x and y being the upper left corner, all in fractions; no box where it has none.

    Raises:
        ValueError: The line is not a class and numbers.

    >>> parse_line("2 0.5 0.5 0.25 0.5")
    (2, (0.375, 0.25, 0.25, 0.5))
    """
    first, *rest = line.split()
    number = int(first)
    values = [float(word) for word in rest]
    if len(values) in (4, 5):  # a fifth is a confidence
        x, y, w, h = values[:4]
        box = (x - w / 2, y - h / 2, w, h)
        is_fraction = w <= 1 + _SLACK and h <= 1 + _SLACK and all(-_SLACK <= v <= 1 + _SLACK for v in (x, y))
    elif len(values) >= 6 and len(values) % 2 == 0:
        box = box_around(list(zip(values[::2], values[1::2], strict=True)))
        is_fraction = all(-_SLACK <= value <= 1 + _SLACK for value in values)
    else:
        raise ValueError(f"{len(values)} numbers after the class")
    return number, box if is_fraction and all(map(math.isfinite, values)) else None


def format_line(number: int, box: BoxXywh) -> str:
    """Return the line for a class and a box whose corner and size are fractions of the image."""
    x, y, w, h = box
    return f"{number} {x + w / 2:.6f} {y + h / 2:.6f} {w:.6f} {h:.6f}"


def _items(text: str, name: str, class_names: list[str], reading: Reading) -> list[SourceItem]:
    items: list[SourceItem] = []
    for position, line in enumerate(text.splitlines()):
        if not line.strip():
            continue
        try:
            number, box = parse_line(line)
        except ValueError as error:
            reading.fault(name, f"line {line[:60]!r} is no YOLO label: {error}", position)
            items.append(UNREADABLE)
            continue
        if 0 <= number < len(class_names):
            label = class_names[number]
        else:
            # The item is there whatever it is called: kept under the number, which maps to UNLISTED.
            reading.fault(name, f"class {number} is not among the {len(class_names)} names", position)
            label = f"class {number}"
        if box is None:
            reading.notice(name, f"{label} box is not in fractions of the image: {line[:60]!r}; label kept", position)
        items.append(SourceItem(label, box, position))
    return items


def _may_hold_labels(name: str) -> bool:
    base = posixpath.basename(name).lower()
    return base not in _NAME_LISTS | _NO_LABELS and not base.startswith("readme")


def _looks_like_yolo(text: str) -> bool:
    lines = [line for line in text[:4096].splitlines()[:20] if line.strip()]
    try:
        return bool(lines) and parse_line(lines[0])[1] is not None
    except ValueError:
        return False


def _class_names(reading: Reading) -> list[str]:
    """Return the class names by number. Raises DatasetError where no file has them, or two have different ones."""
    found: dict[str, list[str]] = {}
    folder = reading.folder
    for name in folder.with_suffix(".yaml", ".yml"):
        try:
            content = yaml.safe_load(folder.read_text(name))
        except (yaml.YAMLError, RecursionError) as error:
            reading.notice(name, f"is no YAML and is left aside: {str(error).splitlines()[0]}")
            continue
        if isinstance(content, dict) and (names := _names_of(content.get("names"))):
            found[name] = names
    for name in folder.with_suffix(".txt", ".names", ".labels"):
        if posixpath.basename(name).lower() in _NAME_LISTS:
            found[name] = [line.strip() for line in folder.read_text(name).splitlines() if line.strip()]
    if not found:
        raise DatasetError(
            f"{folder.root}: YOLO labels are numbers, and no file says what they mean; put a data.yaml with "
            "`names:` or a classes.txt (one name a line) beside them"
        )
    first = min(found, key=lambda name: (name.count("/"), name))
    other = next((name for name, names in found.items() if names != found[first]), None)
    if other is not None:
        raise DatasetError(
            f"{folder.root}: {first} and {other} give different class names; import the parts one by one"
        )
    for name in found:
        reading.see_list(name)
    return found[first]


def _names_of(value: Any) -> list[str]:
    """Return the names of a list, or of a mapping from number to name; a number that is missing has no known name."""
    if isinstance(value, list):
        return [str(name) for name in value]
    if isinstance(value, dict) and value and all(isinstance(number, int) and 0 <= number < 10_000 for number in value):
        return [str(value.get(number, f"class {number}")) for number in range(max(value) + 1)]
    return []
