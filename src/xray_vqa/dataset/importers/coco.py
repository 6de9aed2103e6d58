"""COCO detection JSON: one or several files with `images`, `annotations` and `categories`.

Beside the standard keys an image may carry `group` (scans of one bag) and `split`. Without `split`, the file's name or
the folders around it or the image may say it (`instances_val2017.json`, `train/_annotations.coco.json`).
"""

import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from xray_vqa.core.jsonl import first_error, read_json
from xray_vqa.core.manifest import sha256_file
from xray_vqa.core.records import Fault
from xray_vqa.dataset.importers.source import (
    ImageFinder,
    Source,
    SourceItem,
    SourceScan,
    split_of_folders,
    split_word,
)
from xray_vqa.errors import DatasetError

_KEYS = ("images", "annotations", "categories")
_SNIFF_BYTES = 1 << 16


class _Lenient(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class _Image(_Lenient):
    id: int | str
    file_name: str
    width: int | None = None
    height: int | None = None
    license: int | str | None = None
    group: int | str | None = None
    split: str | None = None
    caption: str | None = None


class _Category(_Lenient):
    id: int | str
    name: str


class _Annotation(_Lenient):
    image_id: int | str
    category_id: int | str
    bbox: list[float] | None = None
    segmentation: Any = None


class CocoImporter:
    """Reads COCO detection files. The `categories` of a file are what it annotates."""

    name = "coco"
    description = "COCO JSON files with images, annotations and categories"

    def recognises(self, source_dir: Path) -> bool:
        return any(_looks_like_coco(path) for path in _json_files(source_dir))

    def read(self, source_dir: Path) -> Source:
        finder = ImageFinder(source_dir)
        scans: list[SourceScan] = []
        labels: dict[str, None] = {}
        faults: list[Fault] = []
        notices: list[Fault] = []
        inputs: dict[str, str] = {}
        for path in _json_files(source_dir):
            if not _looks_like_coco(path):
                continue
            content = read_json(path)
            if not isinstance(content, dict) or any(not isinstance(content.get(key), list) for key in _KEYS):
                continue
            inputs[path.relative_to(source_dir).as_posix()] = sha256_file(path)
            reader = _FileReader(path, content, finder, faults, notices)
            scans.extend(reader.scans())
            labels |= dict.fromkeys(reader.category_names.values())
        if not inputs:
            raise DatasetError(f"{source_dir}: no COCO file (a JSON object with the lists {', '.join(_KEYS)}) is here")
        scans = _without_repetitions(scans, faults)
        used = {scan.image_path for scan in scans}
        unmentioned = [finder.name_of(path) for path in finder.paths if path not in used]
        if unmentioned:
            notices.append(
                Fault(
                    source_dir,
                    f"{len(unmentioned)} images stand in no COCO file and are left out, first {unmentioned[0]}",
                )
            )
        return Source(self.name, source_dir, tuple(scans), tuple(labels), tuple(faults), tuple(notices), inputs)


class _FileReader:
    def __init__(
        self, path: Path, content: dict[str, Any], finder: ImageFinder, faults: list[Fault], notices: list[Fault]
    ) -> None:
        self.path, self.content, self.finder, self.faults, self.notices = path, content, finder, faults, notices
        self.category_names = {category.id: category.name for _, category in self._entries("categories", _Category)}
        self.licences = {
            entry["id"]: str(entry.get("name") or entry.get("url") or "")
            for entry in content.get("licenses") or ()
            if isinstance(entry, dict) and isinstance(entry.get("id"), int | str)
        }

    def _entries(self, key: str, kind: type[Any]) -> Sequence[tuple[int, Any]]:
        found: list[tuple[int, Any]] = []
        for index, entry in enumerate(self.content[key]):
            try:
                found.append((index, kind.model_validate(entry)))
            except ValidationError as error:
                self._fault(index, f"{key} entry is not readable: {first_error(error)}")
        return found

    def _fault(self, index: int, message: str) -> None:
        self.faults.append(Fault(self.path, message, index))

    def scans(self) -> list[SourceScan]:
        images = self._entries("images", _Image)
        items = self._items({image.id for _, image in images})
        relative = self.path.relative_to(self.finder.root).as_posix()
        file_split = split_word(self.path.stem) or split_of_folders(relative)
        seen: set[int | str] = set()
        scans: list[SourceScan] = []
        for index, image in images:
            if image.id in seen:
                self._fault(index, f"images entry repeats the id {image.id!r}; its annotations cannot be told apart")
                continue
            seen.add(image.id)
            found = self.finder.named(image.file_name, self.path.parent, file_split)
            if len(found) != 1:
                what = "missing" if not found else f"ambiguous, {len(found)} files have this name"
                self._fault(index, f"image {image.file_name!r} is {what}")
                continue
            name = self.finder.name_of(found[0])
            scans.append(
                SourceScan(
                    image_path=found[0],
                    original_name=name,
                    annotation_path=self.path,
                    items=tuple(items.get(image.id, ())),
                    position=index,
                    split=(image.split or file_split or split_of_folders(name)).strip().lower(),
                    group="" if image.group is None else str(image.group),
                    size_wh=(image.width, image.height) if image.width and image.height else None,
                    caption=image.caption or "",
                    licence=self.licences.get(image.license, "") if image.license is not None else "",
                )
            )
        return scans

    def _items(self, image_ids: set[int | str]) -> dict[int | str, list[SourceItem]]:
        items: dict[int | str, list[SourceItem]] = defaultdict(list)
        num_polygons = 0
        for index, annotation in self._entries("annotations", _Annotation):
            label = self.category_names.get(annotation.category_id)
            if annotation.image_id not in image_ids:
                self._fault(index, f"annotation is of image {annotation.image_id!r}, which is not in the file")
                continue
            if label is None:
                # The item is there whatever it is called: kept under the number, which maps to UNLISTED.
                self._fault(index, f"annotation has category {annotation.category_id!r}, which is not in the file")
                label = f"category {annotation.category_id}"
            box = annotation.bbox
            if box is not None and len(box) != 4:
                self.notices.append(Fault(self.path, f"{label} box {box} is not four numbers; label kept", index))
                box = None
            mask = annotation.segmentation if isinstance(annotation.segmentation, dict) else None
            num_polygons += isinstance(annotation.segmentation, list) and bool(annotation.segmentation)
            items[annotation.image_id].append(
                SourceItem(label, (box[0], box[1], box[2], box[3]) if box else None, index, mask)
            )
        if num_polygons:
            self.notices.append(Fault(self.path, f"{num_polygons} polygon outlines are not imported, their boxes are"))
        return items


def _without_repetitions(scans: list[SourceScan], faults: list[Fault]) -> list[SourceScan]:
    first: dict[Path, SourceScan] = {}
    for scan in scans:
        other = first.setdefault(scan.image_path, scan)
        if other is not scan:
            where = Fault(other.annotation_path, "", other.position)
            message = (
                f"image {scan.original_name} is annotated before at {str(where).rstrip(': ')}; the first one is used"
            )
            faults.append(Fault(scan.annotation_path, message, scan.position))
    return list(first.values())


def _json_files(source_dir: Path) -> list[Path]:
    return [path for path in sorted(source_dir.rglob("*.json")) if not path.name.startswith("._") and path.is_file()]


def _looks_like_coco(path: Path) -> bool:
    """Look at the beginning of a file, and only where that says nothing (a long `info`) at all of it."""
    with path.open("rb") as stream:
        head = stream.read(_SNIFF_BYTES)
        if not head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{"):
            return False
        if len(head) == _SNIFF_BYTES:
            return any(f'"{key}"'.encode() in head for key in _KEYS)
    try:
        content = json.loads(head)
    except (json.JSONDecodeError, UnicodeDecodeError):
        return all(f'"{key}"'.encode() in head for key in _KEYS)
    return isinstance(content, dict) and all(isinstance(content.get(key), list) for key in _KEYS)
