"""An unpacked STCray as a `Source`: scans with boxes, masks, captions, factors and groups."""

import hashlib
import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, ValidationError
from tqdm import tqdm

from xray_vqa.core.jsonl import first_error
from xray_vqa.core.records import SPLITS, Fault, Split
from xray_vqa.core.taxonomy import CATEGORIES, UNLISTED, canonical_category, is_clean_label
from xray_vqa.dataset.importers.source import IMAGE_SUFFIXES, Source, SourceItem, SourceScan, split_word
from xray_vqa.dataset.stcray.names import bag_of, class_label, parse_file_name
from xray_vqa.dataset.stcray.polygons import bounding_xywh, match_polygons, polygon_mask
from xray_vqa.dataset.stcray.published import ARCHIVES
from xray_vqa.errors import ConfigError

LICENCE = "see the data set's page on the hub; treat as research only"
_AUGMENTED = re.compile(r"stcray.?aug", re.IGNORECASE)


class _Set(NamedTuple):
    """A folder with `Images` in it."""

    split: Split
    folder: Path
    augmented: bool


def read_stcray(folders: Sequence[Path], max_samples: int | None = None, *, augmented: bool = False) -> Source:
    """Return what the unpacked sets beneath some folders say.

    Args:
        folders: Where to look for `STCray_TrainSet` and `STCray_TestSet`, at most two levels deep; the first counts.
        max_samples: Read only so many scans in all, always the same ones, drawn evenly from splits and classes.
        augmented: Whether to take `STCray_Augmented` too. It goes to train.

    Raises:
        ConfigError: Neither the train nor the test set is there.
    """
    notices: list[Fault] = []
    faults: list[Fault] = []
    sets = _choose_sets(folders, notices, augmented=augmented)
    readers = [_SetReader(one, faults, notices) for one in sets]
    found = [(reader, path) for reader in readers for path in reader.images()]
    if max_samples is not None and max_samples < len(found):
        chosen = _spread([reader.name_of(path) for reader, path in found], max_samples)
        notices.append(Fault(folders[0], f"{max_samples} of {len(found)} scans are taken, as --max-samples says"))
        found = [(reader, path) for reader, path in found if reader.name_of(path) in chosen]
    digest = hashlib.sha256()
    scans: list[SourceScan] = []
    for reader, path in tqdm(found, desc="reading annotations", unit="scan", disable=None):
        scan = reader.scan(path, digest.update)
        if scan is not None:
            scans.append(scan)
    for reader in readers:
        reader.sum_up()
    inputs = {"annotations of all scans read": digest.hexdigest()}
    return Source("stcray", folders[0], tuple(scans), CATEGORIES, tuple(faults), tuple(notices), inputs)


def _choose_sets(folders: Sequence[Path], notices: list[Fault], *, augmented: bool) -> list[_Set]:
    found: dict[tuple[Split, bool], _Set] = {}
    for one in _find_sets(folders):
        found.setdefault((one.split, one.augmented), one)
    chosen = [found[split, False] for split in SPLITS if (split, False) in found]
    if not chosen:
        places = ", ".join(map(str, folders))
        raise ConfigError(
            f"{places}: neither STCray_TrainSet/Images nor STCray_TestSet/Images is here, and no "
            f"{' or '.join(archive.file_name for archive in ARCHIVES)}; give the folder that holds them"
        )
    notices += [
        Fault(folders[0], f"the {split} set is not here; its split stays empty")
        for split in SPLITS
        if (split, False) not in found
    ]
    for split in SPLITS:
        extra = found.get((split, True))
        if extra and split == "test":
            notices.append(Fault(extra.folder, "augmented test scans are left aside: they would not be comparable"))
        elif extra and augmented:
            chosen.append(extra)
        elif extra:
            notices.append(Fault(extra.folder, "augmented scans are left aside; --include-augmented takes them"))
    if augmented and ("train", True) not in found:
        notices.append(Fault(folders[0], "the augmented set is not here"))
    return chosen


def _find_sets(folders: Sequence[Path]) -> Iterator[_Set]:
    for folder in folders:
        for pattern in ("", "*", "*/*"):
            for path in sorted(folder.glob(pattern)) if pattern else [folder]:
                names = (folder.name, *path.relative_to(folder).parts)
                augmented = any(_AUGMENTED.search(name) for name in names)
                split = split_word(path.name) or ("train" if augmented else "")
                if split in ("train", "test") and path.is_dir() and _child(path, "images") is not None:
                    yield _Set(split, path, augmented)


def _child(folder: Path, name: str) -> Path | None:
    return next((path for path in sorted(folder.iterdir()) if path.name.lower() == name and path.is_dir()), None)


def _spread(names: Sequence[str], limit: int) -> set[str]:
    return set(sorted(names, key=lambda name: hashlib.sha256(name.encode()).digest())[:limit])


class _Lenient(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class _Shape(_Lenient):
    label: str
    points: list[tuple[float, float]]


class _Labelme(_Lenient):
    shapes: list[_Shape]
    imageWidth: int | None = None  # noqa: N815 - Labelme's own names
    imageHeight: int | None = None  # noqa: N815

    @property
    def size_wh(self) -> tuple[int, int] | None:
        width, height = self.imageWidth or 0, self.imageHeight or 0
        return (width, height) if width > 0 and height > 0 else None


class _SetReader:
    """Reads the scans of one set and remembers what many of them have in common, to say it once."""

    def __init__(self, one: _Set, faults: list[Fault], notices: list[Fault]) -> None:
        self.split, self.folder, self.augmented = one.split, one.folder, one.augmented
        self.faults, self.notices = faults, notices
        self.home = one.folder.resolve()
        self.boxes, self.polygons, self.captions = (
            self._class_folders(name) for name in ("json_bb", "json", "captions")
        )
        self.num_by_folder_only = self.num_strange_names = self.num_from_polygons = self.num_resource_forks = 0
        self.num_masks = self.num_unmatched = 0

    def _class_folders(self, name: str) -> dict[str, Path]:
        """Return the class folders of one kind by label, since their numbers are not padded alike everywhere."""
        parent = _child(self.folder, name)
        if parent is None:
            return {}
        folders = {class_label(path.name).lower(): path for path in sorted(parent.iterdir()) if path.is_dir()}
        return {"": parent} | folders

    def images(self) -> list[Path]:
        """Return the set's images in the order of their names; what cannot be taken is named or counted."""
        images_dir = _child(self.folder, "images")
        found: list[Path] = []
        for parent, folders, names in os.walk(images_dir) if images_dir else ():
            for name in folders + names:
                path = Path(parent, name)
                if Path(name).suffix.lower() not in IMAGE_SUFFIXES and not path.is_symlink():
                    continue
                if name.startswith("._"):
                    self.num_resource_forks += 1
                elif not name.isprintable():  # bytes that are no UTF-8 among them
                    self.faults.append(Fault(images_dir or self.folder, f"{name!a}: no usable name; left out"))
                elif not self._is_inside(path):
                    self.faults.append(Fault(path, "is a link out of the folder; left out"))
                elif path.is_file():
                    found.append(path)
        return sorted(found)

    def _is_inside(self, path: Path) -> bool:
        """Whether reading a path reads something of this set, not what a link in somebody's copy points at."""
        return not path.is_symlink() or path.resolve().is_relative_to(self.home)

    def name_of(self, image_path: Path) -> str:
        """Return an image's path as it stands in its archive."""
        return image_path.relative_to(self.folder.parent).as_posix()

    def scan(self, image_path: Path, seen: Callable[[bytes], None]) -> SourceScan | None:
        """Return one scan, or None where nothing says what is in it; the bytes of its annotations go to `seen`."""
        label = class_label(image_path.parent.name)
        name = self.name_of(image_path)
        seen(name.encode() + b"\0")
        items, size_wh, annotation_path = self._annotation(image_path, label, seen)
        if items is None:
            if is_clean_label(label):
                items = [SourceItem(label, None)]
            elif canonical_category(label) != UNLISTED:
                self.num_by_folder_only += 1
                items = [SourceItem(label, None)]
            else:
                message = f"no readable annotation, and the folder {image_path.parent.name!r} names no one category"
                self.faults.append(Fault(image_path, f"{message}; left out"))
                return None
        meant = canonical_category(label)
        if meant != UNLISTED and meant not in {canonical_category(item.label) for item in items}:
            self.notices.append(Fault(annotation_path, f"no shape is a {label} as the folder says; added without box"))
            items = [*items, SourceItem(label, None)]
        parsed = parse_file_name(image_path.stem)
        self.num_strange_names += parsed is None
        return SourceScan(
            image_path=image_path,
            original_name=name,
            annotation_path=annotation_path,
            items=tuple(items),
            split=self.split,
            # The authors' two sets were collected apart and count their bags apart: B2 is not the same bag in both.
            group=f"{self.split}/{bag_of(image_path.stem, label)}",
            size_wh=size_wh,
            caption=self._caption(image_path, label, seen),
            licence=LICENCE,
            factors={
                "folder": label,
                **(parsed.factors() if parsed else {}),
                **({"augmented": True} if self.augmented else {}),
            },
        )

    def _annotation(
        self, image_path: Path, label: str, seen: Callable[[bytes], None]
    ) -> tuple[list[SourceItem] | None, tuple[int, int] | None, Path]:
        """Return a scan's items, None where no shape is there, with the size and the file that they come from."""
        boxes, boxes_path = self._labelme(self.boxes, image_path, label, seen)
        polygons, polygons_path = self._labelme(self.polygons, image_path, label, seen)
        if boxes is None and polygons is None:
            return None, None, image_path
        if boxes is None or (not boxes.shapes and polygons is not None and polygons.shapes):
            assert polygons is not None
            self.num_from_polygons += 1
            items = [self._item(shape, index, polygons_path) for index, shape in enumerate(polygons.shapes)]
            masks = [self._mask(shape, polygons.size_wh) for shape in polygons.shapes]
            items = [
                SourceItem(item.label, item.box_xywh, item.position, mask)
                for item, mask in zip(items, masks, strict=True)
            ]
            return (items or None), polygons.size_wh, polygons_path
        items = [self._item(shape, index, boxes_path) for index, shape in enumerate(boxes.shapes)]
        if polygons is not None and polygons.size_wh == boxes.size_wh:
            items = self._with_masks(items, polygons)
        return (items or None), boxes.size_wh, boxes_path

    def _labelme(
        self, folders: dict[str, Path], image_path: Path, label: str, seen: Callable[[bytes], None]
    ) -> tuple[_Labelme | None, Path]:
        path = self._companion(folders, label, f"{image_path.stem}.json")
        if path is None:
            return None, image_path
        data = path.read_bytes()
        seen(data)
        try:
            return _Labelme.model_validate_json(data), path
        except ValidationError as error:
            self.faults.append(Fault(path, f"is no Labelme annotation: {first_error(error)}"))
            return None, path

    def _companion(self, folders: dict[str, Path], label: str, name: str) -> Path | None:
        """Return the file of a name in the class folder of a label, or in the folder above where that has none."""
        folder = folders.get(label.lower(), folders.get(""))
        path = folder / name if folder else None
        if path is None or not path.is_file():
            return None
        if not self._is_inside(path) or (folder and not self._is_inside(folder)):
            self.faults.append(Fault(path, "is a link out of the folder; not read"))
            return None
        return path

    def _item(self, shape: _Shape, index: int, path: Path) -> SourceItem:
        label = class_label(shape.label)
        if len(shape.points) < 2:
            self.notices.append(Fault(path, f"{label} has {len(shape.points)} points, no box; label kept", index))
            return SourceItem(label, None, index)
        return SourceItem(label, bounding_xywh(shape.points), index)

    def _with_masks(self, items: Sequence[SourceItem], polygons: _Labelme) -> list[SourceItem]:
        def key(label: str) -> str:
            known = canonical_category(class_label(label))
            return known if known != UNLISTED else label.lower()

        chosen = match_polygons(
            [(key(item.label), item.box_xywh) for item in items],
            [(key(shape.label), shape.points) for shape in polygons.shapes],
        )
        self.num_unmatched += len(polygons.shapes) - sum(index is not None for index in chosen)
        return [
            item
            if index is None
            else SourceItem(
                item.label, item.box_xywh, item.position, self._mask(polygons.shapes[index], polygons.size_wh)
            )
            for item, index in zip(items, chosen, strict=True)
        ]

    def _mask(self, shape: _Shape, size_wh: tuple[int, int] | None) -> dict[str, object] | None:
        mask = polygon_mask(shape.points, size_wh) if size_wh else None
        self.num_masks += mask is not None
        return mask

    def _caption(self, image_path: Path, label: str, seen: Callable[[bytes], None]) -> str:
        path = self._companion(self.captions, label, f"{image_path.stem}.txt")
        if path is None:
            return ""
        data = path.read_bytes()
        seen(data)
        return " ".join(data.decode("utf-8", errors="replace").split())

    def sum_up(self) -> None:
        """Say once what holds for many scans."""
        for count, message in (
            (self.num_by_folder_only, "scans have no shape; their folder's label is kept without box"),
            (self.num_from_polygons, "scans have no Json_BB; their boxes are those around the polygons"),
            (self.num_masks, "items have a mask from the polygons in Json"),
            (self.num_unmatched, "polygons outline no item of Json_BB; left aside"),
            (self.num_strange_names, "file names do not follow the grammar; factors unknown, grouped by name"),
            (self.num_resource_forks, "resource-fork files (._*) left out"),
        ):
            if count:
                self.notices.append(Fault(self.folder, f"{count} {message}"))
