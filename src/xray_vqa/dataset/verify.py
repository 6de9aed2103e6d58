"""Is a dataset on disk what its files say it is? Every scan is read; whatever is wrong is named by file and index."""

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from xray_vqa.core.images import decode_image
from xray_vqa.core.manifest import MANIFEST_NAME, read_manifest, sha256_bytes, sha256_file
from xray_vqa.core.records import SPLITS, Fault, ScanRecord, Split
from xray_vqa.dataset.importers.source import IMAGE_SUFFIXES
from xray_vqa.dataset.layout import SplitScans, annotated_categories, annotations_path, read_split
from xray_vqa.errors import DatasetError, ImageUnreadable


@dataclass(slots=True)
class SplitCounts:
    """What one split holds."""

    scans: int = 0
    clean: int = 0
    items: int = 0
    boxes: int = 0
    groups: int = 0
    categories: dict[str, int] = field(default_factory=dict)
    """Items by category."""


@dataclass(slots=True)
class VerifyReport:
    """What was found in a dataset. No faults means that every stage can use it."""

    root: Path
    annotated: tuple[str, ...] = ()
    splits: dict[Split, SplitCounts] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    notices: list[Fault] = field(default_factory=list)
    """What is allowed and worth knowing."""

    def as_json(self) -> dict[str, Any]:
        return {
            "root": str(self.root),
            "annotated_categories": list(self.annotated),
            "splits": {
                split: {name: getattr(counts, name) for name in SplitCounts.__dataclass_fields__}
                for split, counts in self.splits.items()
            },
            "faults": [str(fault) for fault in self.faults],
            "notices": [str(notice) for notice in self.notices],
        }


def verify_dataset(root: Path) -> VerifyReport:
    """Read every record and image beneath a dataset's root and return what is there and what is wrong."""
    report = VerifyReport(root)
    if not root.is_dir():
        report.faults.append(
            Fault(root, "no such folder; make a dataset with `xray-vqa data download`, `import` or `synth`")
        )
        return report
    try:
        report.annotated = annotated_categories(root)
    except DatasetError as error:
        report.faults.append(Fault(root / MANIFEST_NAME, _without_path(error, root / MANIFEST_NAME)))
    splits: list[SplitScans] = []
    for split in SPLITS:
        try:
            scans = read_split(root, split)
        except DatasetError as error:
            path = annotations_path(root, split)
            report.faults.append(Fault(path, _without_path(error, path)))
            continue
        splits.append(scans)
        report.faults.extend(scans.faults)
        _check_records(scans, report)
    for scans in splits:
        _check_images(scans, report)
        _look_for_strays(scans, report)
        report.splits[scans.split] = _counts(scans)
    _check_leaks(splits, report)
    _check_outputs(root, report)
    return report


def _without_path(error: DatasetError, path: Path) -> str:
    return str(error).removeprefix(f"{path}: ").removeprefix(f"{path} ")


def _placed(scans: SplitScans) -> Iterator[tuple[Path, int, ScanRecord]]:
    path = annotations_path(scans.root, scans.split)
    yield from ((path, index, record) for index, record in zip(scans.positions, scans.records, strict=True))


def _check_records(scans: SplitScans, report: VerifyReport) -> None:
    ids: dict[int, int] = {}
    paths: dict[str, int] = {}
    for path, index, record in _placed(scans):
        if (first := ids.setdefault(record.image_id, index)) != index:
            report.faults.append(Fault(path, f"image_id {record.image_id} is also that of entry {first}", index))
        if (first := paths.setdefault(record.image_path, index)) != index:
            report.faults.append(Fault(path, f"image {record.image_path} is also that of entry {first}", index))
        if record.image_path != f"{scans.split}/images/{record.image_filename}":
            message = f"image_path {record.image_path!r} is not {scans.split}/images/{record.image_filename}"
            report.faults.append(Fault(path, message, index))
        if report.annotated and (silent := sorted(record.present - set(report.annotated))):
            message = f"{', '.join(silent)} is labelled but not among the manifest's annotated_categories"
            report.faults.append(Fault(path, message, index))


def _check_images(scans: SplitScans, report: VerifyReport) -> None:
    num_without_digest = 0
    for path, index, record in tqdm(
        list(_placed(scans)), desc=f"verifying {scans.split}", unit="scan", disable=None, leave=False
    ):
        try:
            data = (scans.root / record.image_path).read_bytes()
        except OSError as error:
            report.faults.append(Fault(path, f"image {record.image_path} cannot be read: {error.strerror}", index))
            continue
        if not record.sha256:
            num_without_digest += 1
        elif sha256_bytes(data) != record.sha256:
            report.faults.append(Fault(path, f"image {record.image_path} has other bytes than its sha256 says", index))
        try:
            size_wh = decode_image(data).size
        except ImageUnreadable as error:
            report.faults.append(Fault(path, f"image {record.image_path}: {error}", index))
            continue
        if size_wh != record.size_wh:
            message = f"image {record.image_path} is {size_wh[0]}x{size_wh[1]}, not {record.width}x{record.height}"
            report.faults.append(Fault(path, message, index))
    if num_without_digest:
        path = annotations_path(scans.root, scans.split)
        report.notices.append(Fault(path, f"{num_without_digest} scans have no sha256, so changes cannot be noticed"))


def _look_for_strays(scans: SplitScans, report: VerifyReport) -> None:
    images_dir = scans.root / scans.split / "images"
    known = {record.image_filename for record in scans.records}
    strays = sorted(
        path.name
        for path in (images_dir.iterdir() if images_dir.is_dir() else ())
        if path.suffix.lower() in IMAGE_SUFFIXES and path.name not in known
    )
    if strays:
        report.notices.append(Fault(images_dir, f"{len(strays)} images stand in no annotation, first {strays[0]}"))


def _check_leaks(splits: list[SplitScans], report: VerifyReport) -> None:
    """The same bytes or the same bag on both sides of a split make every figure of a test too good."""
    by_digest: dict[str, list[tuple[Path, int, ScanRecord]]] = defaultdict(list)
    by_group: dict[str, dict[Path, int]] = defaultdict(dict)
    for scans in splits:
        for path, index, record in _placed(scans):
            if record.sha256:
                by_digest[record.sha256].append((path, index, record))
            if record.group:
                by_group[record.group].setdefault(path, index)
    num_copies = 0
    for places in by_digest.values():
        first_path, first_index, first = places[0]
        num_copies += len(places) - 1
        for path, index, record in places[1:]:
            if path != first_path:
                message = f"image {record.image_path} is byte for byte {first.image_path} (entry {first_index})"
                report.faults.append(Fault(path, message, index))
    for group, places in by_group.items():
        if len(places) > 1:
            (first_path, first_index), (path, index) = list(places.items())[:2]
            message = f"group {group!r} stands on both sides of the split, first {Fault(first_path, '', first_index)}"
            report.faults.append(Fault(path, message.removesuffix(": "), index))
    if num_copies:
        report.notices.append(Fault(report.root, f"{num_copies} images are byte for byte copies of another"))


def _check_outputs(root: Path, report: VerifyReport) -> None:
    try:
        outputs = read_manifest(root).outputs
    except DatasetError:
        return  # said above
    for name, digest in outputs.items():
        path = root / name
        if path.is_file() and sha256_file(path) != digest:
            report.notices.append(Fault(path, "was changed by hand after it was made"))


def _counts(scans: SplitScans) -> SplitCounts:
    records = scans.records
    return SplitCounts(
        scans=len(records),
        clean=sum(not record.categories for record in records),
        items=sum(len(record.categories) for record in records),
        boxes=sum(box is not None for record in records for box in record.bboxes),
        groups=len({record.group for record in records if record.group}),
        categories=dict(sorted(Counter(name for record in records for name in record.categories).items())),
    )
