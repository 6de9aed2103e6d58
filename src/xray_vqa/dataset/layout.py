"""The folder layout of a dataset, and reading and writing it without losing anything in silence.

<root>/manifest.json
<root>/{train,test}/annotations.json     a JSON list of ScanRecord
<root>/{train,test}/images/000000.jpg    six-digit running number, suffix by the bytes' true type
"""

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image
from pydantic import ValidationError

from xray_vqa.core.images import SUFFIXES, image_header, read_image
from xray_vqa.core.jsonl import first_error, read_json, replacing
from xray_vqa.core.manifest import MANIFEST_NAME, Manifest, read_manifest, sha256_file, write_manifest
from xray_vqa.core.records import SPLITS, Fault, ScanRecord, Split, compact
from xray_vqa.core.taxonomy import CATEGORIES
from xray_vqa.errors import DatasetError

DEVELOPMENT_SHARE = 0.1
DEVELOPMENT_SEED = 0


@dataclass(frozen=True, slots=True)
class SplitScans:
    """The scans of one split and what is wrong with its annotation file."""

    root: Path
    split: Split
    records: tuple[ScanRecord, ...]
    faults: tuple[Fault, ...]
    positions: tuple[int, ...] = ()
    """Index in the annotation file of each record; entries that are no record leave gaps."""

    def image(self, record: ScanRecord) -> Image.Image:
        """Return a scan's image as RGB. Raises ImageUnreadable naming the file."""
        return read_image(self.root / record.image_path)


def annotations_path(root: Path, split: Split) -> Path:
    return root / split / "annotations.json"


def read_split(root: Path, split: Split) -> SplitScans:
    """Return the scans of a split. Entries that are no record become faults and are left out.

    Raises:
        DatasetError: There is no annotation file, or it is not a JSON list.
    """
    path = annotations_path(root, split)
    if not path.is_file():
        raise DatasetError(
            f"{path}: no such file; make a dataset with `xray-vqa data synth`, `xray-vqa data import` or "
            "`xray-vqa data download`"
        )
    entries = read_json(path)
    if not isinstance(entries, list):
        raise DatasetError(f"{path}: expected a JSON list of scans, found {type(entries).__name__}")
    records: list[ScanRecord] = []
    faults: list[Fault] = []
    positions: list[int] = []
    for index in range(len(entries)):
        entry, entries[index] = entries[index], None  # read entries go while records come, so memory holds them once
        try:
            record = ScanRecord.model_validate(entry)
        except ValidationError as error:
            faults.append(Fault(path, first_error(error), index))
            continue
        if Path(record.image_path).is_absolute() or ".." in Path(record.image_path).parts:
            faults.append(Fault(path, f"image_path {record.image_path!r} leaves the dataset", index))
            continue
        records.append(record)
        positions.append(index)
        faults.extend(Fault(path, fault, index) for fault in record.box_faults())
    return SplitScans(root, split, tuple(records), tuple(faults), tuple(positions))


def write_split(root: Path, split: Split, records: Sequence[ScanRecord]) -> None:
    """Write a split's annotation file, a scan a line, whole or not at all."""
    with replacing(annotations_path(root, split)) as stream:
        # Line by line: the whole of a large split as one text would take hundreds of megabytes and, indented, minutes.
        stream.write(b"[")
        for number, record in enumerate(records):
            line = json.dumps(compact(record), ensure_ascii=False)
            stream.write((",\n" if number else "\n").encode() + line.encode())
        stream.write(b"\n]\n")


def store_image(root: Path, split: Split, image_id: int, data: bytes) -> tuple[str, tuple[int, int]]:
    """Write image bytes unchanged under their running number.

    Returns:
        The path relative to the root, and (width, height). A file that already holds these bytes is left alone.

    Raises:
        ImageUnreadable: The bytes are no image within the limits.
    """
    format_name, size_wh = image_header(data)
    relative = f"{split}/images/{image_id:06d}{SUFFIXES[format_name]}"
    path = root / relative
    if not (path.is_file() and path.stat().st_size == len(data) and path.read_bytes() == data):
        with replacing(path) as stream:
            stream.write(data)
    return relative, size_wh


def is_whole(path: Path, sha256: str) -> bool:
    """Whether an image is on disk with the bytes that its record names."""
    return path.is_file() and sha256_file(path) == sha256


def claim(root: Path, manifest: Manifest) -> None:
    """Write the manifest of a new dataset folder, to be filled from now on.

    Raises:
        DatasetError: The folder holds something that was made otherwise, so going on would mix two datasets.
    """
    root.mkdir(parents=True, exist_ok=True)
    if (root / MANIFEST_NAME).is_file():
        found = read_manifest(root)
        if (found.stage, found.config, found.inputs) != (manifest.stage, manifest.config, manifest.inputs):
            keys = {*found.config, *manifest.config}
            differing = sorted(key for key in keys if found.config.get(key) != manifest.config.get(key))
            raise DatasetError(
                f"{root}: holds a dataset made with other settings or from other data "
                f"({', '.join(differing) or found.stage}); choose another --output-dir"
            )
    elif any((root / split).exists() for split in SPLITS):
        raise DatasetError(f"{root}: holds train/ or test/ but no {MANIFEST_NAME}; choose another --output-dir")
    else:
        write_manifest(root, manifest)


def annotated_categories(root: Path) -> tuple[str, ...]:
    """Return the categories that the dataset's source labels at all, in the taxonomy's order.

    Raises:
        DatasetError: The manifest is missing or does not name them: then nobody can know whether a bag without a
            gun's box has no gun, so no negative question may be asked.
    """
    manifest: Manifest = read_manifest(root)
    if manifest.annotated_categories is None:
        raise DatasetError(
            f"{root}/manifest.json does not name annotated_categories, the categories that the source labels at all; "
            "without it absence cannot be told from silence"
        )
    unknown = set(manifest.annotated_categories) - set(CATEGORIES)
    if unknown:
        raise DatasetError(f"{root}/manifest.json: annotated_categories has unknown names {sorted(unknown)}")
    return tuple(category for category in CATEGORIES if category in manifest.annotated_categories)


def split_development(
    records: Sequence[ScanRecord], share: float = DEVELOPMENT_SHARE, seed: int = DEVELOPMENT_SEED
) -> tuple[list[ScanRecord], list[ScanRecord]]:
    """Divide training scans into (training, development), never through a group.

    A scan without a group is a group of its own.
    """
    names = [record.group or f"image:{record.image_path}" for record in records]
    chosen = groups_for_share(names, share, seed)
    training = [record for record, name in zip(records, names, strict=True) if name not in chosen]
    return training, [record for record, name in zip(records, names, strict=True) if name in chosen]


def groups_for_share(groups: Sequence[str], share: float, seed: int) -> set[str]:
    """Return the groups that together hold about a share of the scans, `groups[i]` being the group of scan i.

    They are taken in the order of a hash of seed and name until the share is reached, so a group mostly stays on its
    side when other scans come and go. One group at least is always left out, and where only one exists, that one.
    """
    sizes = Counter(groups)
    wanted = round(share * len(groups))
    chosen: set[str] = set()
    count = 0
    for name in sorted(sizes, key=lambda name: hashlib.sha256(f"{seed}:{name}".encode()).digest()):
        if count >= wanted or len(chosen) + 1 >= len(sizes):
            break
        chosen.add(name)
        count += sizes[name]
    return chosen
