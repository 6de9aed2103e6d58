"""Is a dataset on disk what its files say it is? Every scan is read; whatever is wrong is named by file and index.

A fault is what a stage would stumble over or what makes a figure untrue beyond doubt. A notice is what is allowed, or
what only a person can judge: two scans that look alike, a caption that speaks of another item. `strict` turns those
notices that put a measurement in doubt into faults.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from xray_vqa.core.answers import parse_categories
from xray_vqa.core.images import THUMBNAIL_SIDE, check_image
from xray_vqa.core.manifest import MANIFEST_NAME, read_manifest, sha256_bytes, sha256_file
from xray_vqa.core.records import SPLITS, Fault, ScanRecord, Split
from xray_vqa.core.taxonomy import UNLISTED
from xray_vqa.core.workers import collecting_less, open_runner
from xray_vqa.dataset.copies import MIN_CONTRAST, TURNS, find_near_copies, perceptual_hashes
from xray_vqa.dataset.importers.source import IMAGE_SUFFIXES
from xray_vqa.dataset.layout import SplitScans, annotated_categories, annotations_path, read_split
from xray_vqa.dataset.storing import CHUNK
from xray_vqa.errors import ConfigError, DatasetError, ImageUnreadable

MEMORY_MB = 120
"""Of a worker process."""

KINDS = {
    "structure": "folders, annotation files and manifest",
    "entry": "annotation entries that cannot be used",
    "missing": "images that are not there",
    "unreadable": "images that cannot be decoded",
    "bytes": "images with other bytes than their digest says",
    "size": "images of another size than their entry says",
    "box": "boxes without area or outside their image",
    "label": "labels outside the annotated categories",
    "byte leak": "the same bytes on both sides of the split",
    "group leak": "the same bag on both sides of the split",
    "label conflict": "copies of one image with different labels",
    "near leak": "test scans that look like a training scan",
    "near copy": "scans that look alike and share no group",
    "caption": "captions that speak of other items than the labels",
    "box conflict": "copies of one image with different boxes",
    "blank": "images that show nothing",
    "class": "annotated categories that are empty, or on one side only",
    "copy": "byte for byte copies within a split",
    "stray": "images that stand in no annotation",
    "edited": "files that were changed after they were made",
    "digest": "scans without a digest",
}
"""What can be found, the worst first."""

STRICT_KINDS = ("near leak", "caption", "box conflict", "blank")
"""Notices that `strict` makes faults: they put a measurement in doubt, and only a person can clear them."""


@dataclass(frozen=True, slots=True)
class Remark(Fault):
    """A fault or a notice, with what a page needs to show it."""

    kind: str = "structure"
    """One of `KINDS`."""
    images: tuple[str, ...] = ()
    """Relative to the root; of a pair the second is the one that it is like."""

    def as_json(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "path": str(self.path),
            "position": self.position,
            "message": self.message,
            "images": list(self.images),
        }


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
    faults: list[Remark] = field(default_factory=list)
    notices: list[Remark] = field(default_factory=list)
    """What is allowed and worth knowing."""

    def as_json(self) -> dict[str, Any]:
        return {
            "root": str(self.root),
            "annotated_categories": list(self.annotated),
            "splits": {
                split: {name: getattr(counts, name) for name in SplitCounts.__dataclass_fields__}
                for split, counts in self.splits.items()
            },
            "kinds": {
                severity: dict(Counter(remark.kind for remark in remarks))
                for severity, remarks in (("faults", self.faults), ("notices", self.notices))
            },
            "faults": [fault.as_json() for fault in self.faults],
            "notices": [notice.as_json() for notice in self.notices],
        }


class _Placed(NamedTuple):
    """A record and where it stands."""

    path: Path
    index: int
    record: ScanRecord

    def remark(self, kind: str, message: str, other: "_Placed | None" = None) -> Remark:
        images = (self.record.image_path, *((other.record.image_path,) if other else ()))
        return Remark(self.path, message, self.index, kind, images)


@collecting_less()
def verify_dataset(root: Path, *, workers: int = 1, strict: bool = False, near_copies: bool = True) -> VerifyReport:
    """Read every record and image beneath a dataset's root and return what is there and what is wrong.

    Args:
        root: of the dataset.
        workers: processes that read images; with 1 everything happens in this one.
        strict: take notices of `STRICT_KINDS` for faults.
        near_copies: look for scans that look alike, beside those with the same bytes.

    Raises:
        ConfigError: There is no dataset to look at, or it may not be read.
        Incomplete: A worker process died.
    """
    report = VerifyReport(root)
    _check_place(root)
    try:
        report.annotated = annotated_categories(root)
    except DatasetError as error:
        report.faults.append(Remark(root / MANIFEST_NAME, _without_path(error, root / MANIFEST_NAME)))
    splits: list[SplitScans] = []
    for split in SPLITS:
        try:
            scans = read_split(root, split)
        except DatasetError as error:
            path = annotations_path(root, split)
            report.faults.append(Remark(path, _without_path(error, path)))
            continue
        splits.append(scans)
        _check_records(scans, report)
    placed = [one for scans in splits for one in _placed(scans)]
    seen = look_at_images(root, [one.record for one in placed], workers)
    for place, kind, message in seen.remarks:
        severity = report.notices if kind == "blank" else report.faults
        severity.append(placed[place].remark(kind, message))
    _count_missing_digests(placed, report)
    for scans in splits:
        _look_for_strays(scans, report)
        report.splits[scans.split] = _counts(scans)
    _check_groups(placed, report)
    _check_copies(placed, seen, report)
    if near_copies:
        _check_near_copies(placed, seen, report)
    _check_classes(report)
    _check_outputs(root, report)
    if strict:
        report.faults += [notice for notice in report.notices if notice.kind in STRICT_KINDS]
        report.notices = [notice for notice in report.notices if notice.kind not in STRICT_KINDS]
    return report


def _check_place(root: Path) -> None:
    try:
        names = {path.name for path in root.iterdir()}
        for path in (root / MANIFEST_NAME, *(annotations_path(root, split) for split in SPLITS)):
            if path.is_file():
                path.open("rb").close()
    except FileNotFoundError:
        raise ConfigError(
            f"{root}: no such folder; make a dataset with `xray-vqa data download`, `import` or `synth`"
        ) from None
    except OSError as error:
        raise ConfigError(f"{error.filename or root}: cannot be read: {error.strerror}") from error
    if not names & {MANIFEST_NAME, *SPLITS}:
        raise ConfigError(
            f"{root}: holds no dataset ({MANIFEST_NAME}, {' and '.join(f'{split}/' for split in SPLITS)}); "
            "make one with `xray-vqa data import`"
        )


def _without_path(error: DatasetError, path: Path) -> str:
    return str(error).removeprefix(f"{path}: ").removeprefix(f"{path} ")


def _placed(scans: SplitScans) -> Iterator[_Placed]:
    path = annotations_path(scans.root, scans.split)
    yield from (_Placed(path, index, record) for index, record in zip(scans.positions, scans.records, strict=True))


def _check_records(scans: SplitScans, report: VerifyReport) -> None:
    readable = dict(zip(scans.positions, scans.records, strict=True))
    for fault in scans.faults:
        record = readable.get(fault.position) if fault.position is not None else None
        images = (record.image_path,) if record else ()
        report.faults.append(Remark(fault.path, fault.message, fault.position, "box" if record else "entry", images))
    ids: dict[int, int] = {}
    paths: dict[str, int] = {}
    annotated = set(report.annotated)
    for one in _placed(scans):
        record, index = one.record, one.index
        if (first := ids.setdefault(record.image_id, index)) != index:
            report.faults.append(one.remark("entry", f"image_id {record.image_id} is also that of entry {first}"))
        if (first := paths.setdefault(record.image_path, index)) != index:
            report.faults.append(one.remark("entry", f"image {record.image_path} is also that of entry {first}"))
        if record.image_path != f"{scans.split}/images/{record.image_filename}":
            message = f"image_path {record.image_path!r} is not {scans.split}/images/{record.image_filename}"
            report.faults.append(one.remark("entry", message))
        if annotated and (silent := sorted(record.present - annotated)):
            message = f"{', '.join(silent)} is labelled but not among the manifest's annotated_categories"
            report.faults.append(one.remark("label", message))
        if record.caption:
            _check_caption(one, annotated, report)


def _check_caption(one: _Placed, annotated: set[str], report: VerifyReport) -> None:
    """A caption that names an item which the labels lack, or none of those that they have, has another bag in mind."""
    record = one.record
    told = parse_categories(record.caption)
    extra = sorted((told & annotated if annotated else told) - record.present)
    if extra and UNLISTED not in record.categories:
        message = f"the caption speaks of {', '.join(extra)}, the labels of {_listed(record.present)}"
        report.notices.append(one.remark("caption", f"{message}: {record.caption[:120]!r}"))
    elif record.present and told and not told & record.present:
        message = f"the caption names {', '.join(sorted(told))} and none of {_listed(record.present)}"
        report.notices.append(one.remark("caption", f"{message}: {record.caption[:120]!r}"))


def _listed(names: frozenset[str]) -> str:
    return ", ".join(sorted(names)) or "nothing"


class _Job(NamedTuple):
    root: Path
    start: int
    """Place of the first scan in the list of all."""
    scans: tuple[tuple[str, str, tuple[int, int]], ...]
    """Path relative to the root, digest and size as the record has them."""


class Looks(NamedTuple):
    """What was seen in images, by their place in the list that was asked about."""

    remarks: list[tuple[int, str, str]]
    """Place, kind and message."""
    digests: list[str]
    """Of the bytes on disk; empty where there are none."""
    thumbnails: NDArray[np.uint8]
    """(n, 32, 32), zero where an image could not be decoded."""
    hashes: NDArray[np.uint64]
    """(n, 4)."""


def look_at_images(root: Path, records: Sequence[ScanRecord], workers: int) -> Looks:
    """Read and decode every image once and return what was seen, in the order of the records."""
    jobs = [
        _Job(root, start, tuple((one.image_path, one.sha256, one.size_wh) for one in records[start : start + CHUNK]))
        for start in range(0, len(records), CHUNK)
    ]
    thumbnails = np.zeros((len(records), THUMBNAIL_SIDE, THUMBNAIL_SIDE), np.uint8)
    hashes = np.zeros((len(records), len(TURNS)), np.uint64)
    digests = [""] * len(records)
    remarks: list[tuple[int, str, str]] = []
    with (
        open_runner(workers, len(jobs), root, memory_mb=MEMORY_MB) as run,
        tqdm(total=len(records), desc="looking", unit="scan", disable=None, leave=False) as progress,
    ):
        for job, look in run(_look_at, jobs):
            part = slice(job.start, job.start + len(job.scans))
            thumbnails[part], hashes[part], digests[part] = look.thumbnails, look.hashes, look.digests
            remarks += [(job.start + place, kind, message) for place, kind, message in look.remarks]
            progress.update(len(job.scans))
    return Looks(sorted(remarks), digests, thumbnails, hashes)


def _count_missing_digests(placed: Sequence[_Placed], report: VerifyReport) -> None:
    without = Counter(one.path for one in placed if not one.record.sha256)
    for path, count in without.items():
        message = f"{count} scans have no sha256, so changes cannot be noticed"
        report.notices.append(Remark(path, message, kind="digest"))


def _look_at(job: _Job) -> Looks:
    thumbnails = np.zeros((len(job.scans), THUMBNAIL_SIDE, THUMBNAIL_SIDE), np.uint8)
    remarks: list[tuple[int, str, str]] = []
    digests: list[str] = []
    for place, (image_path, sha256, size_wh) in enumerate(job.scans):
        try:
            data = (job.root / image_path).read_bytes()
        except OSError as error:
            remarks.append((place, "missing", f"image {image_path} cannot be read: {error.strerror}"))
            digests.append("")
            continue
        digests.append(sha256_bytes(data))
        if sha256 and digests[-1] != sha256:
            remarks.append((place, "bytes", f"image {image_path} has other bytes than its sha256 says"))
        try:
            image = check_image(data)
        except ImageUnreadable as error:
            remarks.append((place, "unreadable", f"image {image_path}: {error}"))
            continue
        thumbnails[place] = image.thumbnail()
        if image.size_wh != size_wh:
            message = f"image {image_path} is {image.size_wh[0]}x{image.size_wh[1]}, not {size_wh[0]}x{size_wh[1]}"
            remarks.append((place, "size", message))
        if float(thumbnails[place].std()) < MIN_CONTRAST:
            remarks.append((place, "blank", f"image {image_path} has hardly any contrast"))
    return Looks(remarks, digests, thumbnails, perceptual_hashes(thumbnails))


def _look_for_strays(scans: SplitScans, report: VerifyReport) -> None:
    images_dir = scans.root / scans.split / "images"
    known = {record.image_filename for record in scans.records}
    strays = sorted(
        path.name
        for path in (images_dir.iterdir() if images_dir.is_dir() else ())
        if path.suffix.lower() in IMAGE_SUFFIXES and path.name not in known
    )
    if strays:
        message = f"{len(strays)} images stand in no annotation, first {strays[0]}"
        images = tuple(f"{scans.split}/images/{name}" for name in strays[:1])
        report.notices.append(Remark(images_dir, message, None, "stray", images))


def _check_groups(placed: Sequence[_Placed], report: VerifyReport) -> None:
    """The same bag on both sides of a split makes every figure of a test too good."""
    by_group: dict[str, dict[Path, _Placed]] = defaultdict(dict)
    for one in placed:
        if one.record.group:
            by_group[one.record.group].setdefault(one.path, one)
    for group, places in by_group.items():
        if len(places) > 1:
            first, second = list(places.values())[:2]
            message = f"group {group!r} stands on both sides of the split, first {first.path}:{first.index}"
            report.faults.append(second.remark("group leak", message, first))


def _check_copies(placed: Sequence[_Placed], seen: Looks, report: VerifyReport) -> None:
    """Bytes that stand twice: across the splits, or with labels that cannot both be true."""
    by_digest: dict[str, list[_Placed]] = defaultdict(list)
    for one, digest in zip(placed, seen.digests, strict=True):
        if digest:
            by_digest[digest].append(one)
    within: Counter[Path] = Counter()
    for copies in by_digest.values():
        first = copies[0]
        for one in copies[1:]:
            if one.record.image_path == first.record.image_path:
                continue  # one file under two entries, said of the entries
            what = f"image {one.record.image_path} is byte for byte {first.record.image_path}"
            if one.path != first.path:
                report.faults.append(one.remark("byte leak", f"{what} (entry {first.index})", first))
            else:
                within[one.path] += 1
            if sorted(one.record.categories) != sorted(first.record.categories):
                labels = f"{_counted(one.record)} here, {_counted(first.record)} there (entry {first.index})"
                report.faults.append(one.remark("label conflict", f"{what}, and their labels differ: {labels}", first))
            elif sorted(map(str, one.record.bboxes)) != sorted(map(str, first.record.bboxes)):
                message = f"{what}, and their boxes differ (entry {first.index})"
                report.notices.append(one.remark("box conflict", message, first))
    for path, count in within.items():
        message = f"{count} images are byte for byte copies of another in this split"
        report.notices.append(Remark(path, message, kind="copy"))


def _counted(record: ScanRecord) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(Counter(record.categories).items())) or "nothing"


def _check_near_copies(placed: Sequence[_Placed], seen: Looks, report: VerifyReport) -> None:
    """Name each test scan that looks like a training scan, and scans of a split that look alike and share no group."""
    copies = find_near_copies(seen.hashes, seen.thumbnails)
    best: dict[tuple[str, int], tuple[int, int, int]] = {}
    for first, second, distance, turn in zip(
        copies.first.tolist(), copies.second.tolist(), copies.distance.tolist(), copies.turn.tolist(), strict=True
    ):
        one, other = placed[first], placed[second]
        if seen.digests[first] == seen.digests[second]:
            continue  # said above
        if one.path != other.path:
            kind = "near leak"
        elif one.record.group and one.record.group == other.record.group:
            continue
        else:
            kind = "near copy"
        # The list has all of train before all of test, so `second` is the test scan of a leak.
        best[kind, second] = min(best.get((kind, second), (99, 0, 0)), (distance, turn, first))
    for (kind, second), (distance, turn, first) in sorted(best.items(), key=lambda item: (item[1][0], item[0][1])):
        one, other = placed[second], placed[first]
        how = f"{TURNS[turn]}, " if turn else ""
        message = f"{one.record.image_path} looks like {other.record.image_path} ({how}{distance} of 64 bits differ)"
        report.notices.append(one.remark(kind, message, other))
    if not copies.is_complete:
        message = f"more than {len(copies.first)} pairs look alike; not all of them are named"
        report.notices.append(Remark(report.root, message, kind="near copy"))


def _check_classes(report: VerifyReport) -> None:
    for category in report.annotated:
        having = [split for split, counts in report.splits.items() if counts.categories.get(category)]
        if not having:
            message = f"{category} is annotated and never occurs"
        elif len(report.splits) == len(SPLITS) and len(having) < len(SPLITS):
            message = f"{category} occurs in {having[0]} alone"
        else:
            continue
        report.notices.append(Remark(report.root, message, kind="class"))


def _check_outputs(root: Path, report: VerifyReport) -> None:
    try:
        outputs = read_manifest(root).outputs
    except DatasetError:
        return  # said above
    for name, digest in outputs.items():
        path = root / name
        if path.is_file() and sha256_file(path) != digest:
            report.notices.append(Remark(path, "was changed by hand after it was made", kind="edited"))


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
