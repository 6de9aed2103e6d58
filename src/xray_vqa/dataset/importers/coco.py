"""COCO detection JSON: one or several files with `images`, `annotations` and `categories`.

Beside the standard keys an image may carry `group` (scans of one bag) and `split`. Without `split`, the file's name or
the folders around it or the image may say it (`instances_val2017.json`, `train/_annotations.coco.json`).
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from xray_vqa.core.jsonl import first_error, read_json
from xray_vqa.dataset.importers.source import (
    UNREADABLE,
    Reading,
    Source,
    SourceFolder,
    SourceItem,
    number_pair,
    split_of_folders,
    split_word,
    top_keys,
)
from xray_vqa.errors import DatasetError

_KEYS = ("images", "annotations", "categories")


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
    description = "JSON files with the lists images, annotations and categories"
    refines = ""

    def recognises(self, folder: SourceFolder) -> bool:
        return any(_looks_like_coco(folder, name) for name in folder.sample(".json"))

    def read(self, folder: SourceFolder) -> Source:
        reading = Reading(folder, self.name)
        labels: dict[str, None] = {}
        for name in folder.with_suffix(".json"):
            if not _looks_like_coco(folder, name):
                continue
            content = read_json(folder.path(name))
            if not isinstance(content, dict) or any(not isinstance(content.get(key), list) for key in _KEYS):
                continue
            reading.see_list(name)
            reader = _FileReader(name, content, reading)
            reader.read_scans()
            labels |= dict.fromkeys(reader.category_names.values())
        if not reading.num_seen:
            raise DatasetError(f"{folder.root}: no COCO file (a JSON object with the lists {', '.join(_KEYS)}) is here")
        reading.name_left_over("stand in no COCO file")
        return reading.source(labels)


IMPORTER = CocoImporter()


class _FileReader:
    def __init__(self, name: str, content: dict[str, Any], reading: Reading) -> None:
        self.name, self.content, self.reading = name, content, reading
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
        self.reading.fault(self.name, message, index)

    def read_scans(self) -> None:
        images = self._entries("images", _Image)
        items = self._items({image.id for _, image in images})
        file_split = split_word(self.name.rpartition("/")[2]) or split_of_folders(self.name)
        seen: set[int | str] = set()
        for index, image in images:
            if image.id in seen:
                self._fault(index, f"images entry repeats the id {image.id!r}; its annotations cannot be told apart")
                continue
            seen.add(image.id)
            found = self.reading.folder.images.named(image.file_name, self.name, file_split)
            name = self.reading.claim(found, self.name, index, f"image {image.file_name!r}")
            if name is None:
                continue
            self.reading.add(
                name,
                self.name,
                items=tuple(items.get(image.id, ())),
                position=index,
                split=(image.split or file_split or split_of_folders(name)).strip().lower(),
                group="" if image.group is None else str(image.group),
                size_wh=number_pair(image.width, image.height),
                caption=image.caption or "",
                licence=self.licences.get(image.license, "") if image.license is not None else "",
            )

    def _items(self, image_ids: set[int | str]) -> dict[int | str, list[SourceItem]]:
        items: dict[int | str, list[SourceItem]] = defaultdict(list)
        num_polygons = 0
        for index, entry in enumerate(self.content["annotations"]):
            try:
                annotation = _Annotation.model_validate(entry)
            except ValidationError as error:
                self._fault(index, f"annotations entry is not readable: {first_error(error)}")
                image_id = entry.get("image_id") if isinstance(entry, dict) else None
                if isinstance(image_id, int | str):
                    items[image_id].append(UNREADABLE)
                continue
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
                self.reading.notice(self.name, f"{label} box {box} is not four numbers; label kept", index)
                box = None
            mask = annotation.segmentation if isinstance(annotation.segmentation, dict) else None
            num_polygons += isinstance(annotation.segmentation, list) and bool(annotation.segmentation)
            items[annotation.image_id].append(
                SourceItem(label, (box[0], box[1], box[2], box[3]) if box else None, index, mask)
            )
        if num_polygons:
            self.reading.notice(self.name, f"{num_polygons} polygon outlines are not imported, their boxes are")
        return items


def _looks_like_coco(folder: SourceFolder, name: str) -> bool:
    """Whether all lists are there or, where only the beginning of a long file was looked at, one of them."""
    keys, is_whole = top_keys(folder.path(name))
    return keys.issuperset(_KEYS) if is_whole else bool(keys.intersection(_KEYS))
