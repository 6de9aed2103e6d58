"""What an importer reads out of somebody's annotation files, before anything is checked, mapped or written.

An importer knows one format and gives back what it says, in the source's own words. What that means for us (the
taxonomy, the splits, boxes outside the image, copies) is decided in one place for all formats: `dataset/importing.py`.

What several formats need stands here: the listing of a folder, the search for an image by what an annotation file
calls it, the choice of a split by name, and the list of what was read, lost and decided on the way.
"""

import hashlib
import json
import math
import os
import posixpath
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from xray_vqa.core.manifest import sha256_file
from xray_vqa.core.records import Fault, ScanRecord
from xray_vqa.errors import ConfigError

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff"})
"""Files that are taken for scans. TIFF is among them so that one is named as unreadable, not overlooked."""

_SPLIT_WORDS = {
    "train": "train", "training": "train", "trainset": "train", "trainval": "train",
    "val": "val", "valid": "val", "validation": "val", "valset": "val",
    "test": "test", "testing": "test", "testset": "test",
}  # fmt: skip

TREE_WORDS = frozenset(
    {
        "annotation", "annotations", "ann", "anns", "label", "labels", "json", "jsons", "xml", "xmls", "txt", "txts",
        "bb", "bboxes", "gt", "gtfine", "image", "images", "img", "imgs", "jpegimage", "jpegimages", "leftimg8bit",
    }
)  # fmt: skip
"""Words in folder names that tell the tree of images from the tree of their annotations and nothing else."""

_SNIFF_BYTES = 1 << 16
_LIKELY_LIST = re.compile(r"annot|coco|instance|label|train|val|test", re.IGNORECASE)

BoxXywh = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class SourceItem:
    """One annotated item in the source's own words."""

    label: str
    box_xywh: BoxXywh | None
    """As the source has it: it may lack area, leave the image or not be finite."""
    position: int | None = None
    """Where the item stands in the scan's annotation file, from 0."""
    mask: dict[str, Any] | None = None


UNREADABLE = SourceItem("(unreadable)", None)
"""Stands for what an annotation says and nobody can read. `Reading.add` leaves its scan out: it may be a threat."""


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
    relative: bool = False
    """Boxes are fractions of the image's width and height."""
    frame_doubt: str = ""
    """Why the boxes may belong to another size of the image, where the annotation does not say which."""
    also_called: str = ""
    """Another name that the annotation file has for the image."""
    record: ScanRecord | None = None
    """What an export of ours says of exactly these bytes: kept as it is, since it was all decided before."""


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
    address: str = ""
    """Where the folder's files come from, if it is a copy: the source's name then, in all that is written and said."""
    base: str = ""
    """What stands for the folder in messages, if it is a copy."""


class SourceFolder:
    """The files beneath a folder, listed once for all importers. Names are relative to it, `/` between the parts.

    A link that leads out of the folder is not followed, nor one to a folder, and a name that is not UTF-8 fits into
    no annotation file: both are left out and stand in `faults`.
    """

    def __init__(self, root: Path, scratch_dir: Path | None = None) -> None:
        self.root = root
        self.scratch_dir = scratch_dir
        """Where an importer may put images that are no files of their own; theirs to fill, the caller's to remove."""

    @cached_property
    def _listing(self) -> tuple[tuple[str, ...], tuple[Fault, ...]]:
        names: list[str] = []
        skipped: dict[str, list[str]] = defaultdict(list)
        inside = self.root.resolve()
        waiting = [("", os.fspath(self.root))]
        while waiting:
            prefix, folder = waiting.pop()
            try:
                entries = list(os.scandir(folder))
            except OSError as error:
                skipped[f"folders cannot be read ({error.strerror})"].append(prefix)
                continue
            for entry in entries:
                name = prefix + entry.name
                if entry.name.startswith("._"):  # what macOS leaves beside the true files of an archive
                    continue
                if not is_utf8(entry.name):
                    skipped["names are not UTF-8; rename the files"].append(name)
                elif entry.is_symlink() and not _is_file_within(entry, inside):
                    skipped[
                        "symbolic links lead out of the folder, to a folder or nowhere and are not followed"
                    ].append(name)
                elif entry.is_dir(follow_symlinks=False):
                    waiting.append((f"{name}/", entry.path))
                elif entry.is_file():
                    names.append(name)
        faults = [
            Fault(self.root, f"{len(found)} {why}, first {min(found)!a}") for why, found in sorted(skipped.items())
        ]
        return tuple(sorted(names)), tuple(faults)

    @property
    def names(self) -> tuple[str, ...]:
        """Every file, in the order of the names."""
        return self._listing[0]

    @property
    def faults(self) -> tuple[Fault, ...]:
        """What of the folder could not be listed, one fault for each reason."""
        return self._listing[1]

    @cached_property
    def _by_suffix(self) -> Mapping[str, list[str]]:
        found: dict[str, list[str]] = defaultdict(list)
        for name in self.names:
            found[posixpath.splitext(name)[1].lower()].append(name)
        return found

    @cached_property
    def images(self) -> "ImageFinder":
        return ImageFinder(self)

    def count_of_suffixes(self) -> Mapping[str, int]:
        """Return how many files end how, the most frequent first; "" for names without a suffix."""
        return dict(Counter({suffix: len(names) for suffix, names in self._by_suffix.items()}).most_common())

    def with_suffix(self, *suffixes: str) -> list[str]:
        """Return the files that end so, in lower case with the dot."""
        return sorted(name for suffix in suffixes for name in self._by_suffix.get(suffix, ()))

    def sample(self, *suffixes: str) -> list[str]:
        """Return some of the files that end so, enough to recognise a format by.

        Of each folder the first and the last few, and those that are named like a list of annotations, so that a
        folder with a million files is recognised as fast as one with ten.
        """
        folders: dict[str, list[str]] = defaultdict(list)
        for name in self.with_suffix(*suffixes):
            folders[posixpath.dirname(name)].append(name)
        chosen: dict[str, None] = {}
        for names in folders.values():
            likely = [name for name in names if _LIKELY_LIST.search(posixpath.basename(name))]
            chosen |= dict.fromkeys([*names[:4], *names[-4:], *likely[:16], *likely[-16:]])
            if len(chosen) > 2000:
                break
        return list(chosen)

    def path(self, name: str) -> Path:
        return self.root / name

    def unpack(self, name: str, data: bytes) -> Path:
        """Put image bytes that are part of another file, or made from it, into a file and return its path.

        Raises:
            ConfigError: Nobody said where such files may go.
        """
        if self.scratch_dir is None:
            raise ConfigError(f"{self.root}: its images have to be unpacked; open the folder with a scratch_dir")
        path = self.scratch_dir / name
        if not (path.is_file() and path.stat().st_size == len(data) and path.read_bytes() == data):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        return path

    def read_text(self, name: str) -> str:
        """Return a text file's content, without a byte order mark; what is no UTF-8 becomes a replacement mark."""
        return self.path(name).read_bytes().decode("utf-8-sig", errors="replace")


class Importer(Protocol):
    """One annotation format. A module of `importers/` offers one under the name IMPORTER."""

    name: str
    description: str
    refines: str
    """The format of which this one is a special case, to be preferred where both recognise a folder; else empty."""

    def recognises(self, folder: SourceFolder) -> bool:
        """Return whether a folder looks like this format; looks at no more files than that takes."""
        ...

    def read(self, folder: SourceFolder) -> Source:
        """Return everything that a folder's annotation files say. Raises DatasetError where there are none."""
        ...


class Reading:
    """What an importer has read so far, and what it could not use."""

    def __init__(self, folder: SourceFolder, format_name: str) -> None:
        self.folder, self.format_name = folder, format_name
        self.scans: list[SourceScan] = []
        self.faults: list[Fault] = []
        self.notices: list[Fault] = []
        self.inputs: dict[str, str] = {}
        self._claimed: dict[str, str] = {}
        self._num_files: Counter[str] = Counter()
        self._digest = hashlib.sha256()

    def fault(self, name: str, message: str, position: int | None = None) -> None:
        self.faults.append(Fault(self.folder.path(name), message, position))

    def notice(self, name: str, message: str, position: int | None = None) -> None:
        self.notices.append(Fault(self.folder.path(name), message, position))

    def see(self, name: str, data: bytes) -> None:
        """Count the annotation file of one scan and add it to the digest of all of them."""
        folder, base = posixpath.split(name)
        self._num_files[f"{folder or '.'}/*{posixpath.splitext(base)[1].lower()}"] += 1
        self._digest.update(name.encode() + b"\0" + hashlib.sha256(data).digest())

    def see_list(self, name: str) -> None:
        """Name an annotation file of many scans by its own digest."""
        self.inputs[name] = sha256_file(self.folder.path(name))

    @property
    def num_seen(self) -> int:
        return self._num_files.total() + len(self.inputs)

    def claim(
        self, found: Sequence[str], annotation: str, position: int | None = None, called: str = "its image"
    ) -> str | None:
        """Return the one image that an annotation is of; none, several or one that is taken already is a fault."""
        if len(found) != 1:
            several = f"ambiguous, {len(found)} files may be meant: {', '.join(found[:3])}"
            self.fault(annotation, f"{called} is {several if found else 'missing'}", position)
            return None
        if found[0] in self._claimed:
            before = self._claimed[found[0]]
            self.fault(annotation, f"image {found[0]} is annotated before at {before}; the first one is used", position)
            return None
        where = self.folder.path(annotation)
        self._claimed[found[0]] = f"{where}" if position is None else f"{where}:{position}"
        return found[0]

    def add(self, image: str, annotation: str, **details: Any) -> None:
        """Add a scan. Its split is that of the image's folders, where nothing else is said.

        A scan of which something could not be read is a fault instead: without it the bag might look clean.
        """
        if UNREADABLE in details.get("items", ()):
            self.fault(annotation, f"image {image} is left out: what cannot be read of it may be a threat")
            return
        details.setdefault("split", split_of_folders(image) or split_of_folders(annotation))
        details.setdefault("image_path", self.folder.path(image))
        self.scans.append(
            SourceScan(
                original_name=image,
                annotation_path=self.folder.path(annotation),
                **details,
            )
        )

    def name_left_over(self, why: str) -> None:
        """Say how many images no annotation mentions: they are not taken for clean bags."""
        used = {scan.original_name for scan in self.scans} | self._claimed.keys()
        left_over = [name for name in self.folder.images.names if name not in used]
        if left_over:
            message = f"{len(left_over)} images {why} and are left out, first {left_over[0]}: silence is no clean bag"
            self.notices.append(Fault(self.folder.root, message))

    def labels_that_occur(self, what: str) -> tuple[str, ...]:
        """Return the labels that occur, as what is annotated, and say that this is a guess."""
        labels = tuple(sorted({item.label for scan in self.scans for item in scan.items}))
        message = (
            f"{what} no list of categories; those that occur are taken as annotated: {', '.join(labels) or 'none'}"
        )
        self.notices.append(Fault(self.folder.root, f"{message}. --annotated overrules"))
        return labels

    def source(self, labels: Iterable[str]) -> Source:
        files = " ".join(f"{pattern} ({count})" for pattern, count in sorted(self._num_files.items()))
        return Source(
            self.format_name,
            self.folder.root,
            tuple(self.scans),
            tuple(labels),
            tuple(self.faults),
            tuple(self.notices),
            self.inputs | ({files: self._digest.hexdigest()} if files else {}),
        )


class ImageFinder:
    """The image files beneath a folder, found by what annotation files call them."""

    def __init__(self, folder: SourceFolder) -> None:
        self.names = folder.with_suffix(*IMAGE_SUFFIXES)
        """Every image file, in the order of the names."""

    @cached_property
    def _all(self) -> frozenset[str]:
        return frozenset(self.names)

    @cached_property
    def _by_base(self) -> Mapping[str, list[str]]:
        return _index(self.names, lambda name: posixpath.basename(name).lower())

    @cached_property
    def _by_stem(self) -> Mapping[str, list[str]]:
        return _index(self.names, lambda name: _stem(name).lower())

    @cached_property
    def _by_tree(self) -> Mapping[str, list[str]]:
        return _index(self.names, _tree_key)

    def named(self, name: str, annotation: str, split: str = "") -> list[str]:
        """Return the images that a file name, with or without folders, may mean to an annotation file.

        One is the answer, none is missing, several are ambiguous. Of several, those in folders of the annotation
        file's split are preferred, then those nearest to it. A name that leaves the source's folder (absolute or
        with `..`) is looked up by its last part alone.
        """
        parts = PurePosixPath(name.replace("\\", "/")).parts
        if not parts:
            return []
        base = parts[-1].lower()
        if ".." not in parts and not parts[0].startswith("/") and ":" not in parts[0]:
            near = posixpath.dirname(annotation)
            for folder in (near, posixpath.join(near, "images"), "", "images"):
                path = posixpath.join(folder, *parts)
                if path in self._all:
                    return [path]
            candidates = [
                path for path in self._by_base.get(base, ()) if tuple(path.split("/")[-len(parts) :]) == parts
            ]
            if candidates:
                return _likeliest(candidates, annotation, split)
        return _likeliest(self._by_base.get(base, []), annotation, split)

    def with_stem(self, stem: str, annotation: str, split: str = "") -> list[str]:
        """Return the images whose name without suffix is `stem`; of several as `named` does.

        An image at the same place of a parallel tree (`labels/cam1/7.txt`, `images/cam1/7.png`) comes first.
        """
        mirrored = self._by_tree.get(_tree_key(posixpath.join(posixpath.dirname(annotation), f"{stem}.x")), [])
        if len(mirrored) == 1:
            return mirrored
        return _likeliest(self._by_stem.get(stem.lower(), []), annotation, split)


def _index(names: Iterable[str], key: Any) -> Mapping[str, list[str]]:
    found: dict[str, list[str]] = defaultdict(list)
    for name in names:
        found[key(name)].append(name)
    return found


def _stem(name: str) -> str:
    return posixpath.splitext(posixpath.basename(name))[0]


def _tree_key(name: str) -> str:
    """Return a path without what tells images from annotations: `train/train_image/7.png` gives `train/train/7`."""
    kept: list[str] = []
    for part in posixpath.dirname(name).split("/"):
        words = [word for word in re.split(r"[_\-\s]+", part.lower()) if word not in TREE_WORDS]
        if any(words):
            kept.append("_".join(words))
    return "/".join([*kept, _stem(name).lower()])


def _likeliest(candidates: list[str], annotation: str, split: str) -> list[str]:
    if len(candidates) < 2:
        return candidates
    same_split = [name for name in candidates if split and split_of_folders(name) == split]
    candidates = same_split or candidates
    near = posixpath.dirname(annotation).split("/")

    def shared(name: str) -> int:
        pairs = zip(posixpath.dirname(name).split("/"), near, strict=False)
        return next((i for i, (one, other) in enumerate(pairs) if one != other), len(near))

    best = max(map(shared, candidates))
    return [name for name in candidates if shared(name) == best]


def is_utf8(name: str) -> bool:
    """Return whether a name from a file system or an archive can be written into a file of ours."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_file_within(link: os.DirEntry[str], inside: Path) -> bool:
    target = Path(link.path).resolve()
    return target.is_file() and inside in target.parents


# --- splits ------------------------------------------------------------------------------------------------------


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


def listed_splits(folder: SourceFolder) -> dict[str, str]:
    """Return the split of each image that `train.txt`, `val.txt`, `test.txt` or `trainval.txt` lists, by its stem.

    Where two lists have the same image, test wins over val and val over train. Lists of one class
    (`aeroplane_train.txt`) repeat the same images with 1 and -1 and are not among these files.
    """
    listed: dict[str, str] = {}
    rank = {"train": 0, "val": 1, "test": 2}
    for name in folder.with_suffix(".txt"):
        word = _SPLIT_WORDS.get(_stem(name).lower())
        if word is None:
            continue
        for line in folder.read_text(name).splitlines():
            stem = _stem(line.split()[0].replace("\\", "/")) if line.split() else ""
            if stem and rank[word] >= rank.get(listed.get(stem, "train"), 0):
                listed[stem] = word
    return listed


# --- boxes and JSON ----------------------------------------------------------------------------------------------


def box_of_corners(x0: float, y0: float, x1: float, y1: float) -> BoxXywh:
    """Return [x, y, w, h]; 209.601 - 115.731 is 93.87, not 93.86999999999999."""
    return (x0, y0, round(x1 - x0, 6), round(y1 - y0, 6))


def box_around(points: Any) -> BoxXywh | None:
    """Return the box around two or more points [[x, y], ...], or None where they are no such list."""
    try:
        corners = [(float(x), float(y)) for x, y in points]
    except (TypeError, ValueError):
        return None
    if len(corners) < 2 or not all(math.isfinite(value) for corner in corners for value in corner):
        return None
    xs, ys = zip(*corners, strict=True)
    return box_of_corners(min(xs), min(ys), max(xs), max(ys))


def number_pair(width: Any, height: Any) -> tuple[int, int] | None:
    """Return a size in pixels, or None where one of the two is no positive number."""
    try:
        size = (round(float(width)), round(float(height)))
    except (TypeError, ValueError, OverflowError):
        return None
    return size if min(size) > 0 else None


def top_keys(path: Path) -> tuple[frozenset[str], bool]:
    """Return the keys of the object in a JSON file as far as its first 64 KiB tell, and whether that is all of it.

    Nothing where the file holds no JSON object.
    """
    with path.open("rb") as stream:
        head = stream.read(_SNIFF_BYTES)
        is_whole = not stream.read(1)
    text = head.decode("utf-8-sig", errors="replace")
    if not text.lstrip().startswith("{"):
        return frozenset(), is_whole
    if is_whole:
        try:
            return frozenset(json.loads(text)), True
        except (json.JSONDecodeError, RecursionError):
            pass  # cut off or damaged: what can be seen decides whose error it becomes
    return frozenset(_keys_at_depth_one(text)), is_whole


_TOKEN = re.compile(r'"((?:[^"\\]|\\.)*)"(\s*:)?|[{}\[\]]')


def _keys_at_depth_one(text: str) -> list[str]:
    depth, keys = 0, []
    for match in _TOKEN.finditer(text):
        mark = match.group(0)
        if mark in "{[":
            depth += 1
        elif mark in "}]":
            depth -= 1
        elif depth == 1 and match.group(2):
            keys.append(match.group(1))
    return keys
