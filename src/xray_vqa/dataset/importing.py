"""From what an importer read to a dataset in our layout: checked, mapped, divided and written, nothing lost in silence.

Every scan, item and box of the source ends in the dataset or in the report, which stands beside it as
`import_report.json`. The order of work makes the command safe to repeat and to interrupt: all images are read and
checked first, then the report is written and old annotation files that would not fit are removed, then images are
stored, and annotation files and manifest come last. What was read is kept in a journal until the end, so that the same
command does not decode an image twice; what is stored is compared with its digest before it is believed.
"""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

from tqdm import tqdm

from xray_vqa.core.geometry import Box
from xray_vqa.core.images import SUFFIXES, check_image
from xray_vqa.core.jsonl import append_jsonl, disk_errors, flush_to_disk, read_journal, read_json, write_json
from xray_vqa.core.manifest import (
    MANIFEST_NAME,
    Manifest,
    make_manifest,
    read_manifest,
    sha256_bytes,
    sha256_file,
    write_manifest,
)
from xray_vqa.core.records import SPLITS, Fault, ScanRecord, Split, Strict, compact
from xray_vqa.core.taxonomy import CATEGORIES, UNLISTED, canonical_category, is_clean_label
from xray_vqa.core.workers import Runner, collecting_less, open_runner
from xray_vqa.dataset.frames import Frame, Frames, find_frames
from xray_vqa.dataset.importers.source import Source, SourceItem, SourceScan, split_word
from xray_vqa.dataset.layout import annotations_path, groups_for_share, write_split
from xray_vqa.dataset.storing import CHUNK, Errand, FileState, image_bytes, in_chunks, in_turns, store_chunk
from xray_vqa.errors import ConfigError, DatasetError, ImageUnreadable

REPORT_NAME = "import_report.json"
JOURNAL_NAME = "import_journal.jsonl"
"""What was read of the source's images; gone when the import is done."""
MEMORY_MB = 120
"""Of a worker process."""
SKIP = "skip"
_SPLIT_OF_WORD = {"train": "train", "val": "test", "test": "test"}
_STORED_NAME = re.compile(r"\d{6}\.(jpg|png|bmp)|\.\d{6}\.(jpg|png|bmp)\..+")
"""What an import stores, and what it leaves half written when it is killed."""
_ROUNDING_PIXELS = 1.0
"""Boxes that leave the image by no more than this are clipped without a line for each."""


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """What the user decided about an import."""

    split_map: Mapping[str, str] = field(default_factory=dict)
    """From the source's word to `train`, `test` or `skip`; overrules val -> test."""
    test_share: float = 0.2
    """Of the scans for which the source names no split."""
    seed: int = 0
    annotated: tuple[str, ...] | None = None
    """Overrules what the source says it annotates."""
    scale_boxes: bool = False
    """Where the annotation was made for another size of the image, scale its boxes."""
    box_factor: float | None = None
    """Multiplies the boxes of scans whose annotation does not say for which size of the image it was made."""
    group_pattern: str = ""
    """Regular expression on the original name; its first group (or all of the match) names the bag."""
    source_name: str = ""
    licence: str = ""


@dataclass(slots=True)
class ImportReport:
    """What an import did, in numbers and by name."""

    root: Path
    counts: dict[str, int] = field(default_factory=dict)
    categories: dict[str, dict[str, int]] = field(default_factory=dict)
    """Items by split and category."""
    unlisted: dict[str, int] = field(default_factory=dict)
    """Items by a label that the taxonomy does not know."""
    annotated: tuple[str, ...] = ()
    faults: list[Fault] = field(default_factory=list)
    """Scans that could not be imported, or not as the source has them."""
    notices: list[Fault] = field(default_factory=list)
    """Choices made for the user, each named."""
    copies: list[Fault] = field(default_factory=list)
    """Images that stand in the source twice, byte for byte."""
    renamed: tuple[str, str] = ("", "")
    """The source's folder and what it is called in messages, where it is a copy of another place."""

    def say(self, fault: Fault) -> str:
        """Return a fault as it is told."""
        return str(fault).replace(*self.renamed) if self.renamed[0] else str(fault)

    def as_json(self) -> dict[str, Any]:
        return {
            "counts": self.counts,
            "categories": self.categories,
            "unlisted": self.unlisted,
            "annotated_categories": list(self.annotated),
            "faults": [*map(self.say, self.faults)],
            "notices": [*map(self.say, self.notices)],
            "copies": [*map(self.say, self.copies)],
        }


@dataclass(frozen=True, slots=True)
class _Checked:
    """A scan whose image was read once and is whole."""

    scan: SourceScan
    sha256: str
    suffix: str
    size_wh: tuple[int, int]
    orientation: int = 1
    """As its EXIF tag has it."""
    state: FileState | None = None
    group: str = ""
    split: Split | None = None


def import_source(
    source: Source,
    root: Path,
    options: ImportOptions | None = None,
    *,
    stage: str = "import",
    origin: str = "",
    request: Mapping[str, Any] | None = None,
    workers: int = 1,
) -> ImportReport:
    """Write a source's scans as a dataset under `root` and return what was done.

    The same source and options give the same files, byte for byte.

    `origin` is what the manifest calls the source, by default its address or folder, and `request` what else decided
    what the source holds. A dataset of another origin or stage is not written over. Images are read and stored by
    several processes where there are more than a few.

    Raises:
        ConfigError: The options do not fit the source, or `root` holds something else than an import of this source.
        DatasetError: Not a single scan could be read.
        Incomplete: The disk is full, or a worker process died; the same command goes on.
    """
    num_jobs = len(source.scans) // CHUNK
    with disk_errors(root), collecting_less(), open_runner(workers, num_jobs, root, memory_mb=MEMORY_MB) as run:
        return _import(source, root, options or ImportOptions(), stage, origin, request, run)


def _import(
    source: Source,
    root: Path,
    options: ImportOptions,
    stage: str,
    origin: str,
    request: Mapping[str, Any] | None,
    run: Runner,
) -> ImportReport:
    origin = origin or source.address or str(source.root.resolve())
    _check_root(source, root, stage, origin)
    report = ImportReport(root, faults=list(source.faults), notices=list(source.notices))
    if source.base:
        report.renamed = (str(source.root), source.base)
    report.annotated = _annotated(source, options)
    check_splits(source.scans, options)
    _group_pattern(options)

    checked = _read_images(source.scans, root, report, run)
    if not checked:
        first = f", first {report.faults[0]}" if report.faults else ""
        raise DatasetError(f"{source.root}: no scan could be imported; {len(report.faults)} faults{first}")
    checked = _divide(_with_source_groups(checked, options, report), options, report)

    config = {
        "format": source.format,
        "origin": origin,
        "split_map": dict(options.split_map),
        "test_share": options.test_share,
        "annotated": None if options.annotated is None else list(options.annotated),
        "scale_boxes": options.scale_boxes,
        "box_factor": options.box_factor,
        "group_pattern": options.group_pattern,
        **({} if request is None else {"request": dict(request)}),
    }
    by_split: dict[Split, list[_Checked]] = {
        split: _merge_copies([one for one in checked if one.split == split]) for split in SPLITS
    }
    name = options.source_name or f"{source.format}/{source.address or source.root.resolve().name}"
    frames = find_frames(
        [(one.scan, one.size_wh) for one in checked], scale_boxes=options.scale_boxes, factor=options.box_factor
    )
    records: dict[Split, list[ScanRecord]] = {
        split: [_record(one, split, number, name, frames, options, report) for number, one in enumerate(scans)]
        for split, scans in by_split.items()
    }
    _name_bags_that_disagree(records, report)
    _count(source, records, report)
    write_json(root / REPORT_NAME, report.as_json())
    _write(root, by_split, records, run)
    _write_manifest(
        root,
        make_manifest(
            stage,
            config=config,
            inputs=dict(source.inputs),
            outputs={f"{split}/annotations.json": sha256_file(annotations_path(root, split)) for split in SPLITS},
            counts=report.counts,
            seed=options.seed,
            annotated_categories=list(report.annotated),
            notes=[f"faults and choices by name: {REPORT_NAME}"],
        ),
    )
    (root / JOURNAL_NAME).unlink(missing_ok=True)
    return report


def check_splits(scans: Iterable[SourceScan], options: ImportOptions) -> None:
    """Raise ConfigError where a source's word for a split is neither known nor mapped, or the map is no map."""
    for word, side in options.split_map.items():
        if side not in (*SPLITS, SKIP):
            raise ConfigError(f"--split-map {word}={side}: a split maps to {', '.join(SPLITS)} or {SKIP}")
    unknown = sorted({scan.split for scan in scans if scan.split and _side_of(scan.split, options) is None})
    if unknown:
        words = ", ".join(repr(word) for word in unknown)
        raise ConfigError(f"the source has splits {words}; say what they are, as in --split-map {unknown[0]}=test")
    if not 0 <= options.test_share < 1:
        raise ConfigError(f"--test-share {options.test_share}: give a share from 0 to below 1")


def _side_of(word: str, options: ImportOptions) -> str | None:
    known = split_word(word)
    for name in (word, known):
        if name in options.split_map:
            return options.split_map[name]
    return _SPLIT_OF_WORD.get(known)


def _check_root(source: Source, root: Path, stage: str, origin: str) -> None:
    source_dir, target = source.root.resolve(), root.resolve()
    if target == source_dir or source_dir in target.parents:
        raise ConfigError(f"{root} lies inside the source {source.root}; choose an --output-dir outside of it")
    check_origin(root, stage, origin)


def check_origin(root: Path, stage: str, origin: str) -> None:
    """Raise ConfigError where a folder holds something else than a dataset that a stage has made of an origin."""
    target = root.resolve()
    if (target / MANIFEST_NAME).is_file():
        old = read_manifest(target)
        if old.stage != stage or old.config.get("origin") != origin:
            made_from = f" from {old.config['origin']}" if "origin" in old.config else ""
            raise ConfigError(
                f"{root} holds a dataset made by `{old.stage}`{made_from}; choose another --output-dir or remove it"
            )
    elif any((target / split).exists() for split in SPLITS) and not (target / REPORT_NAME).is_file():
        # An interrupted import leaves its report, which is written first; nobody else does.
        raise ConfigError(f"{root} holds train/ or test/ of unknown origin; choose another --output-dir or remove it")


def _annotated(source: Source, options: ImportOptions) -> tuple[str, ...]:
    names = source.labels if options.annotated is None else options.annotated
    meant = {canonical_category(name) for name in names}
    if options.annotated is not None and UNLISTED in meant:
        unknown = [name for name in names if canonical_category(name) == UNLISTED]
        raise ConfigError(f"--annotated: {', '.join(unknown)} is no category; they are {', '.join(CATEGORIES)}")
    return tuple(category for category in CATEGORIES if category in meant)


class _Reading(Strict):
    """What reading one image said, and of which state of the file."""

    path: str
    state: FileState = FileState(0, 0)
    """Zeros where the file could not even be opened."""
    sha256: str = ""
    format: str = ""
    size_wh: tuple[int, int] = (0, 0)
    orientation: int = 1
    refused: str = ""
    """Why it is no image; empty where it is one."""

    @property
    def is_lasting(self) -> bool:
        """Whether the same file would be read the same way again."""
        return self.state.changed_ns > 0


def _read_images(scans: Sequence[SourceScan], root: Path, report: ImportReport, run: Runner) -> list[_Checked]:
    """Read every image once, in as many processes as there are, and go on from what an earlier run has read."""
    journal_path = root / JOURNAL_NAME
    journal = {reading.path: reading for reading in read_journal(journal_path, _Reading)}
    paths = list(dict.fromkeys(str(scan.image_path) for scan in scans))
    readings = {path: journal[path] for path in paths if path in journal and _is_unchanged(journal[path])}
    missing = [path for path in paths if path not in readings]
    del journal
    if missing:
        root.mkdir(parents=True, exist_ok=True)
    with tqdm(total=len(paths), initial=len(readings), desc="reading", unit="scan", disable=None) as progress:
        for chunk, found in run(_read_chunk, in_chunks(missing)):
            append_jsonl(journal_path, (reading for reading in found if reading.is_lasting))
            readings.update((reading.path, reading) for reading in found)
            progress.update(len(chunk))
    checked: list[_Checked] = []
    for scan in scans:
        reading = readings[str(scan.image_path)]
        if reading.refused:
            message = f"image {scan.original_name} is left out: {reading.refused}"
            report.faults.append(Fault(scan.annotation_path, message, scan.position))
        else:
            checked.append(
                _Checked(
                    scan, reading.sha256, SUFFIXES[reading.format], reading.size_wh, reading.orientation, reading.state
                )
            )
    return checked


def _is_unchanged(reading: _Reading) -> bool:
    try:
        return FileState.of(reading.path) == reading.state
    except OSError:
        return False


def _read_chunk(paths: Sequence[str]) -> list[_Reading]:
    return [_read(path) for path in paths]


def _read(path: str) -> _Reading:
    try:
        state = FileState.of(path)
        data = image_bytes(Path(path))
    except OSError as error:
        return _Reading(path=path, refused=f"cannot be read: {error.strerror}")
    except ImageUnreadable as error:
        return _Reading(path=path, refused=str(error))
    try:
        image = check_image(data)
    except ImageUnreadable as error:
        return _Reading(path=path, state=state, refused=str(error))
    return _Reading(
        path=path,
        state=state,
        sha256=sha256_bytes(data),
        format=image.format,
        size_wh=image.size_wh,
        orientation=image.orientation,
    )


def _group_pattern(options: ImportOptions) -> re.Pattern[str] | None:
    try:
        return re.compile(options.group_pattern) if options.group_pattern else None
    except re.error as error:
        raise ConfigError(f"--group-pattern {options.group_pattern!r}: {error}") from error


def _with_source_groups(checked: Sequence[_Checked], options: ImportOptions, report: ImportReport) -> list[_Checked]:
    """Give each scan the group that the source or the user's pattern names, and name byte-identical copies."""
    pattern = _group_pattern(options)
    first_of: dict[str, SourceScan] = {}
    grouped: list[_Checked] = []
    for one in checked:
        scan = one.scan
        match = pattern.search(scan.original_name) if pattern else None
        grouped.append(replace(one, group=(match.group(min(1, match.re.groups)) or "") if match else scan.group))
        first = first_of.setdefault(one.sha256, scan)
        if first is not scan:
            message = f"image {scan.original_name} is byte for byte the image {first.original_name}"
            if sorted(item.label for item in scan.items) != sorted(item.label for item in first.items):
                message += "; their labels differ"
            report.copies.append(Fault(scan.annotation_path, message, scan.position))
    report.counts["duplicates"] = len(report.copies)
    return grouped


def merged_groups(groups: Sequence[str], digests: Sequence[str]) -> list[str]:
    """Return the groups such that scans with the same bytes share one; groups that a copy connects become one.

    A scan without a group and without a copy stays without; a copied one without gets a name made of its digest. A
    merged group is called by the first of its names in the alphabet.
    """
    parent: dict[str, str] = {}

    def find(node: str) -> str:
        parent.setdefault(node, node)
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    for group, digest in zip(groups, digests, strict=True):
        if group:
            parent[find(f"g:{group}")] = find(f"d:{digest}")
    names: dict[str, list[str]] = defaultdict(list)
    for group, digest in zip(groups, digests, strict=True):
        if group:
            names[find(f"d:{digest}")].append(group)
    times = Counter(digests)
    merged: list[str] = []
    for digest in digests:
        known = names.get(find(f"d:{digest}"))
        merged.append(min(known) if known else f"copies-{digest[:12]}" if times[digest] > 1 else "")
    return merged


def _merge_copies(checked: Sequence[_Checked]) -> list[_Checked]:
    names = merged_groups([one.group for one in checked], [one.sha256 for one in checked])
    return [replace(one, group=name) for one, name in zip(checked, names, strict=True)]


def _divide(checked: Sequence[_Checked], options: ImportOptions, report: ImportReport) -> list[_Checked]:
    """Give each scan its split, so that neither a group nor a copy stands on both sides.

    Where the source itself does that, its test scans stay as they are, so that results remain comparable, and the
    training scans in question are left out by name.
    """
    wanted = [_side_of(one.scan.split, options) if one.scan.split else None for one in checked]
    kept = _without_leaks(checked, wanted, options, report)
    linked = merged_groups([one.group for one, _ in kept], [one.sha256 for one, _ in kept])
    keys = [name or f"scan:{one.scan.original_name}" for name, (one, _) in zip(linked, kept, strict=True)]
    sides: dict[str, set[str]] = defaultdict(set)
    for key, (_, side) in zip(keys, kept, strict=True):
        if side is not None:
            sides[key].add(side)
    free = [key for key, (_, side) in zip(keys, kept, strict=True) if side is None and not sides[key]]
    tests = groups_for_share(free, options.test_share, options.seed)
    divided: list[_Checked] = []
    for key, (one, side) in zip(keys, kept, strict=True):
        if side is None and len(sides[key]) > 1:
            _leave_out(one, "it has no split and is tied to scans of both", report)
            continue
        if side is None:
            side = next(iter(sides[key])) if sides[key] else "test" if key in tests else "train"
        divided.append(replace(one, split=cast("Split", side)))
    if free:
        num_tests = sum(key in tests for key in free)
        message = (
            f"{len(free)} scans have no split in the source: {num_tests} go to test, by group, seed {options.seed}"
        )
        report.notices.append(Fault(report.root, message))
    if not any(one.split == "test" for one in divided):
        report.notices.append(Fault(report.root, "the test split is empty: nothing can be measured on this dataset"))
    return divided


def _without_leaks(
    checked: Sequence[_Checked], wanted: Sequence[str | None], options: ImportOptions, report: ImportReport
) -> list[tuple[_Checked, str | None]]:
    in_test = [one for one, side in zip(checked, wanted, strict=True) if side == "test"]
    test_digests = {one.sha256 for one in in_test}
    test_groups = {one.group for one in in_test if one.group}
    kept: list[tuple[_Checked, str | None]] = []
    touched: set[str] = set()
    num_skipped = 0
    for one, side in zip(checked, wanted, strict=True):
        if side == SKIP:
            num_skipped += 1
        elif side == "train" and one.group in test_groups:
            _leave_out(one, f"its group {one.group!r} also stands in test", report)
        elif side == "train" and one.sha256 in test_digests:
            _leave_out(one, "the same bytes also stand in test", report)
            touched.add(one.group)
        else:
            kept.append((one, side))
    if num_skipped:
        report.counts["skipped"] = num_skipped
        report.notices.append(Fault(report.root, f"{num_skipped} scans are skipped as --split-map says"))
    num_near = sum(side == "train" and one.group in touched for one, side in kept if one.group)
    if num_near:
        names = ", ".join(sorted(touched - {""}))
        message = (
            f"{num_near} scans stay in train whose groups ({names}) held copies of test scans; look whether they leak"
        )
        report.notices.append(Fault(report.root, message))
    return kept


def _leave_out(one: _Checked, reason: str, report: ImportReport) -> None:
    report.counts["left_out_leaking"] = report.counts.get("left_out_leaking", 0) + 1
    message = f"image {one.scan.original_name} is left out: {reason}"
    report.notices.append(Fault(one.scan.annotation_path, message, one.scan.position))


def _record(
    one: _Checked,
    split: Split,
    number: int,
    source_name: str,
    frames: Frames,
    options: ImportOptions,
    report: ImportReport,
) -> ScanRecord:
    scan = one.scan
    file_name = f"{number:06d}{one.suffix}"
    if scan.record is not None:
        return _record_again(one, split, number, file_name, options, report)
    threats = [item for item in scan.items if not is_clean_label(item.label)]
    num_clean = len(scan.items) - len(threats)
    report.counts["clean_labels"] = report.counts.get("clean_labels", 0) + num_clean
    if threats and num_clean:
        message = f"image {scan.original_name} is called clean and has {threats[0].label}; taken as not clean"
        report.notices.append(Fault(scan.annotation_path, message, scan.position))
    categories = [canonical_category(item.label) for item in threats]
    frame = _frame(one, frames, report) if any(item.box_xywh for item in threats) else Frame()
    raw_labels = [item.label for item in threats]
    masks = [item.mask for item in threats]
    return ScanRecord(
        image_id=number,
        image_filename=file_name,
        image_path=f"{split}/images/{file_name}",
        width=one.size_wh[0],
        height=one.size_wh[1],
        sha256=one.sha256,
        caption=scan.caption,
        categories=categories,
        bboxes=[_box(item, one, frame, report) for item in threats],
        group=one.group,
        source=source_name,
        licence=options.licence or scan.licence,
        masks=masks if any(mask is not None for mask in masks) and frame == Frame() else None,
        factors=dict(scan.factors) if scan.factors else None,
        original_name=scan.original_name,
        raw_labels=raw_labels if raw_labels != categories else None,
    )


def _record_again(
    one: _Checked, split: Split, number: int, file_name: str, options: ImportOptions, report: ImportReport
) -> ScanRecord:
    """Return a record that an export of ours has carried, under its new number; it was decided when it was made."""
    scan, record = one.scan, one.scan.record
    assert record is not None
    report.notices += [Fault(scan.annotation_path, fault, scan.position) for fault in record.box_faults()]
    report.counts["without_box"] = report.counts.get("without_box", 0) + record.bboxes.count(None)
    return record.model_copy(
        update={
            "image_id": number,
            "image_filename": file_name,
            "image_path": f"{split}/images/{file_name}",
            "sha256": one.sha256,
            "group": one.group,
            "source": options.source_name or record.source,
            "licence": options.licence or record.licence,
        }
    )


def _frame(one: _Checked, frames: Frames, report: ImportReport) -> Frame:
    """Return how a scan's boxes become pixels of its image, and say it where that is not as they stand."""
    frame = frames.of(one.scan, one.size_wh, one.orientation)
    if frame.message:
        report.counts["other_frame"] = report.counts.get("other_frame", 0) + 1
        fault = Fault(one.scan.annotation_path, f"image {one.scan.original_name} {frame.message}", one.scan.position)
        (report.faults if frame.scale is None else report.notices).append(fault)
    return frame


def _box(
    item: SourceItem, one: _Checked, frame: Frame, report: ImportReport
) -> tuple[float, float, float, float] | None:
    """Return an item's box inside its image. A box that cannot be kept is named; its label stays in any case."""
    if item.box_xywh is None:
        report.counts["without_box"] = report.counts.get("without_box", 0) + 1
        return None
    if frame.scale is None:
        report.counts["boxes_dropped"] = report.counts.get("boxes_dropped", 0) + 1
        return None
    x, y, w, h = item.box_xywh
    where = f"{item.label} box {[round(v, 2) if math.isfinite(v) else str(v) for v in (x, y, w, h)]}"
    size = f"the {one.size_wh[0]}x{one.size_wh[1]} image {one.scan.original_name}"

    def say(count: str, message: str) -> None:
        report.counts[count] = report.counts.get(count, 0) + 1
        report.notices.append(Fault(one.scan.annotation_path, message, item.position))

    try:
        box = frame.place(Box(x, y, w, h), one.size_wh)
    except ValueError:
        say("boxes_dropped", f"{where} has no area; label kept without box")
        return None
    clipped = box.clipped(one.size_wh)
    if clipped is None:
        say("boxes_dropped", f"{where} lies outside {size}; label kept without box")
        return None
    x0, y0, x1, y1 = box.as_xyxy()
    beyond = max(-x0, -y0, x1 - one.size_wh[0], y1 - one.size_wh[1])
    if beyond > _ROUNDING_PIXELS:
        say("boxes_clipped", f"{where} reaches {beyond:.1f} pixels out of {size}; clipped")
    return box.as_xywh() if beyond <= 0 else clipped.as_xywh()


def _name_bags_that_disagree(records: Mapping[Split, Sequence[ScanRecord]], report: ImportReport) -> None:
    """Say where one scan of a bag has items and another has none: what is in a bag is in all of its views."""
    bags: dict[str, list[ScanRecord]] = defaultdict(list)
    for record in (record for split in SPLITS for record in records[split] if record.group):
        bags[record.group].append(record)
    pairs = [
        (clean, next(other for other in bag if other.categories))
        for bag in bags.values()
        if any(other.categories for other in bag)
        for clean in bag
        if not clean.categories
    ]
    if pairs:
        clean, other = pairs[0]
        report.counts["clean_beside_item"] = len(pairs)
        message = f"{len(pairs)} scans without an item share a group with scans that have one, first "
        message += f"{clean.original_name} beside {other.original_name} ({', '.join(sorted(set(other.categories)))})"
        report.notices.append(Fault(report.root, f"{message}; look whether the item is in both"))


def _count(source: Source, records: Mapping[Split, Sequence[ScanRecord]], report: ImportReport) -> None:
    everything = [record for split in SPLITS for record in records[split]]
    unlisted: Counter[str] = Counter()
    for record in everything:
        labels = record.raw_labels or record.categories
        unlisted.update(
            label for label, category in zip(labels, record.categories, strict=True) if category == UNLISTED
        )
    report.unlisted = dict(sorted(unlisted.items()))
    if unlisted:
        named = ", ".join(f"{label} ({count})" for label, count in sorted(unlisted.items()))
        report.notices.append(Fault(source.root, f"labels outside the taxonomy become {UNLISTED}: {named}"))
    report.categories = {
        split: dict(sorted(Counter(name for record in records[split] for name in record.categories).items()))
        for split in SPLITS
    }
    silent = sorted({name for record in everything for name in record.present} - set(report.annotated))
    if silent:
        message = f"{', '.join(silent)} occur but are not among the annotated categories"
        report.faults.append(Fault(source.root, message))
    report.counts = {
        "scans": len(everything),
        **{split: len(records[split]) for split in SPLITS},
        "clean": sum(not record.categories for record in everything),
        "items": sum(len(record.categories) for record in everything),
        "boxes": sum(box is not None for record in everything for box in record.bboxes),
        "unlisted": sum(unlisted.values()),
        "faults": len(report.faults),
        "notices": len(report.notices),
        **{name: count for name, count in sorted(report.counts.items()) if count},
    }


def _write(
    root: Path,
    by_split: Mapping[Split, Sequence[_Checked]],
    records: Mapping[Split, Sequence[ScanRecord]],
    run: Runner,
) -> None:
    for split in SPLITS:
        path = annotations_path(root, split)
        if path.is_file() and not _holds(path, records[split]):
            # Other numbers would mean other images: no reader may meet old annotations beside new images.
            (root / MANIFEST_NAME).unlink(missing_ok=True)
            path.unlink()
        (root / split / "images").mkdir(parents=True, exist_ok=True)
    errands = [
        [
            Errand(str(one.scan.image_path), f"{root}/{record.image_path}", record.sha256, one.state)
            for one, record in zip(by_split[split], records[split], strict=True)
        ]
        for split in SPLITS
    ]
    with tqdm(total=sum(map(len, errands)), desc="storing", unit="scan", disable=None) as progress:
        for chunk, _ in run(store_chunk, in_turns(errands)):
            progress.update(len(chunk))
    flush_to_disk(root)
    for split in SPLITS:
        wanted = {record.image_filename for record in records[split]}
        for path in (root / split / "images").iterdir():
            if _STORED_NAME.fullmatch(path.name) and path.name not in wanted:
                path.unlink()  # of an earlier import with other options, or one that was killed
        if not annotations_path(root, split).is_file():
            write_split(root, split, records[split])


def _holds(path: Path, records: Sequence[ScanRecord]) -> bool:
    try:
        found = read_json(path)
        return len(found) == len(records) and all(
            one == compact(record) for one, record in zip(found, records, strict=True)
        )
    except DatasetError:
        return False


def _write_manifest(root: Path, manifest: Manifest) -> None:
    """Write the manifest unless the one that is there says the same but for the time."""
    try:
        old = read_manifest(root)
    except DatasetError:
        old = None
    if old is None or old.model_copy(update={"created": manifest.created}) != manifest:
        write_manifest(root, manifest)
