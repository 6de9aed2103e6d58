"""What an importer reads out of somebody's annotation files, before anything is checked, mapped or written.

An importer knows one format and gives back what it says, in the source's own words. What that means for us (the
taxonomy, the splits, boxes outside the image, copies) is decided in one place for all formats: `dataset/importing.py`.
"""

import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from xray_vqa.core.records import Fault

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff"})
"""Files that are taken for scans. TIFF is among them so that one is named as unreadable, not overlooked."""

_SPLIT_WORDS = {
    "train": "train", "training": "train", "trainset": "train", "trainval": "train",
    "val": "val", "valid": "val", "validation": "val", "valset": "val",
    "test": "test", "testing": "test", "testset": "test",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class SourceItem:
    """One annotated item in the source's own words."""

    label: str
    box_xywh: tuple[float, float, float, float] | None
    """As the source has it: it may lack area, leave the image or not be finite."""
    position: int | None = None
    """Where the item stands in the scan's annotation file, from 0."""
    mask: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class SourceScan:
    """One scan of a source."""

    image_path: Path
    original_name: str
    """Relative to the source's folder, `/` between the parts."""
    annotation_path: Path
    """The file to name when something is wrong with the scan or its items."""
    items: tuple[SourceItem, ...] = ()
    position: int | None = None
    """Where the scan stands in its annotation file, from 0, where that file holds several."""
    split: str = ""
    """The source's own word, empty where it has none."""
    group: str = ""
    size_wh: tuple[int, int] | None = None
    """The image's size that the annotation was made for; None where it does not say."""
    caption: str = ""
    licence: str = ""
    factors: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Source:
    """All that an importer read. Nothing that stood in the files and could not be used is missing from `faults`."""

    format: str
    root: Path
    scans: tuple[SourceScan, ...]
    labels: tuple[str, ...]
    """What the source annotates at all, in its own words: absence of a box of these means absence of the item."""
    faults: tuple[Fault, ...] = ()
    """Scans or items that cannot be imported."""
    notices: tuple[Fault, ...] = ()
    """Choices made for the user and things that were left aside."""
    inputs: Mapping[str, str] = field(default_factory=dict)
    """SHA-256 by path of the annotation files."""


class Importer(Protocol):
    """One annotation format."""

    name: str
    description: str

    def recognises(self, source_dir: Path) -> bool:
        """Return whether a folder looks like this format; looks at no more files than that takes."""
        ...

    def read(self, source_dir: Path) -> Source:
        """Return everything that a folder's annotation files say. Raises DatasetError where there are none."""
        ...


class ImageFinder:
    """The image files beneath a folder, found by what annotation files call them."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @cached_property
    def paths(self) -> tuple[Path, ...]:
        """Every image file, in the order of their names."""
        return tuple(
            path
            for path in sorted(self.root.rglob("*"))
            if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith("._") and path.is_file()
        )

    @cached_property
    def _by_name(self) -> Mapping[str, list[Path]]:
        found: dict[str, list[Path]] = defaultdict(list)
        for path in self.paths:
            found[path.name.lower()].append(path)
        return found

    @cached_property
    def _by_stem(self) -> Mapping[str, list[Path]]:
        found: dict[str, list[Path]] = defaultdict(list)
        for path in self.paths:
            found[path.stem.lower()].append(path)
        return found

    def named(self, name: str, near: Path, split: str = "") -> list[Path]:
        """Return the images that a file name, with or without folders, may mean to an annotation file in `near`.

        One is the answer, none is missing, several are ambiguous. Of several, those in folders of the annotation
        file's split are preferred, then those nearest to it. A name that leaves the source's folder (absolute or
        with `..`) is looked up by its last part alone.
        """
        parts = PurePosixPath(name.replace("\\", "/")).parts
        if not parts:
            return []
        if ".." not in parts and not parts[0].startswith("/") and ":" not in parts[0]:
            for folder in (near, near / "images", self.root, self.root / "images"):
                path = folder.joinpath(*parts)
                if path.is_file():
                    return [path]
            candidates = [
                path
                for path in self._by_name.get(parts[-1].lower(), [])
                if tuple(path.relative_to(self.root).parts[-len(parts) :]) == parts
            ]
            if candidates:
                return self._likeliest(candidates, near, split)
        return self._likeliest(self._by_name.get(parts[-1].lower(), []), near, split)

    def with_stem(self, stem: str, near: Path, split: str = "") -> list[Path]:
        """Return the images whose name without suffix is `stem`; of several as `named` does."""
        return self._likeliest(self._by_stem.get(stem.lower(), []), near, split)

    def _likeliest(self, candidates: list[Path], near: Path, split: str) -> list[Path]:
        if len(candidates) < 2:
            return candidates
        same_split = [path for path in candidates if split and split_of_folders(self.name_of(path)) == split]
        return _nearest(same_split or candidates, near)

    def name_of(self, path: Path) -> str:
        """Return an image's path relative to the source's folder, `/` between the parts."""
        return path.relative_to(self.root).as_posix()


def _nearest(candidates: list[Path], near: Path) -> list[Path]:
    def shared(path: Path) -> int:
        count = 0
        for one, other in zip(path.parent.parts, near.parts, strict=False):
            if one != other:
                break
            count += 1
        return count

    best = max((shared(path) for path in candidates), default=0)
    return [path for path in candidates if shared(path) == best]


def split_word(text: str) -> str:
    """Return `train`, `val` or `test` where a folder's or file's name says exactly one of them, else nothing.

    >>> split_word("instances_val2017"), split_word("xray_test_hidden"), split_word("images"), split_word("train_test")
    ('val', 'test', '', '')
    """
    words = {_SPLIT_WORDS[token] for token in re.findall(r"[a-z]+", text.lower()) if token in _SPLIT_WORDS}
    return words.pop() if len(words) == 1 else ""


def split_of_folders(relative: str) -> str:
    """Return the split that the folders of a path name, the innermost that names one."""
    return next((word for part in reversed(PurePosixPath(relative).parts[:-1]) if (word := split_word(part))), "")
