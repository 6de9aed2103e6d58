"""Tar shards as WebDataset lays them out: entries that share a name up to its first dot are one sample.

A shard is read once from front to back. Names of entries are keys and nothing else: no file is ever written under one.
Our own export carries a whole record beside each image, which comes back as it was. For other shards, `.json` says
items under the names that data sets on the hub use (`rows.py`), `.cls` is a label, and `.txt` is one where every one
of them names a category; else it is a caption, which is what most shards have there.
"""

import json
import posixpath
import re
import tarfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from xray_vqa.core.images import DEFAULT_LIMITS, image_header
from xray_vqa.core.jsonl import first_error
from xray_vqa.core.manifest import sha256_bytes
from xray_vqa.core.records import SPLITS, ScanRecord
from xray_vqa.core.taxonomy import CATEGORIES, UNLISTED, canonical_category, is_clean_label
from xray_vqa.dataset.importers.rows import Place, items_of, says_items, settle_boxes
from xray_vqa.dataset.importers.source import (
    IMAGE_SUFFIXES,
    UNREADABLE,
    Reading,
    Source,
    SourceFolder,
    SourceItem,
    is_utf8,
    split_of_folders,
    split_word,
)
from xray_vqa.errors import DatasetError, ImageUnreadable

MARK_NAME = "__xray_vqa__"
"""First entry of our own shards: what is annotated, and of what the shard was made. WebDataset passes by such names."""
CLASSES_NAME = "classes.txt"
"""Beside shards: what the numbers in `.cls` mean, a name a line from 0."""

_NAME = re.compile(r"((?:.*/)?[^./][^/.]*)\.([^/]+)", re.DOTALL)
_TEXTS = frozenset({"json", "cls", "txt"})
_MAX_TEXT_BYTES = 16 << 20
_BLOCK = 512
_NUM_LOOKED_AT = 16


class WebDatasetImporter:
    """Reads `.tar` files. Compressed ones are named and left aside: they cannot be read within known bounds."""

    name = "webdataset"
    description = "tar shards of images with .json, .cls or .txt beside them, as WebDataset has them"
    refines = ""

    def recognises(self, folder: SourceFolder) -> bool:
        return any(_looks_like_a_shard(folder.path(name)) for name in folder.sample(".tar"))

    def read(self, folder: SourceFolder) -> Source:
        reading = Reading(folder, self.name)
        samples: list[_Sample] = []
        annotated: list[tuple[str, ...]] = []
        for name in folder.with_suffix(".tar"):
            reading.see_list(name)
            samples += _read_shard(name, reading, annotated)
        if not reading.inputs:
            raise DatasetError(f"{folder.root}: no tar file is here")
        for name in folder.with_suffix(".gz", ".tgz", ".zst", ".xz", ".bz2"):
            reading.fault(name, "is compressed; unpack it, shards are read as plain tar")
        foreign = [sample for sample in samples if sample.record is None]
        if foreign:
            annotated.append(_add_foreign(foreign, folder, reading, beside_own=len(foreign) < len(samples)))
        for sample in samples:
            if sample.record is not None:
                _add_own(sample, sample.record, reading)
        settle_boxes(reading)
        return reading.source(_annotated_everywhere(annotated, reading))


IMPORTER = WebDatasetImporter()


def read_mark(path: Path) -> dict[str, Any] | None:
    """Return what the first entry of a shard of ours says, or None where it is none."""
    first = next(_entries(path, lambda member: member.name == MARK_NAME and member.size < _MAX_TEXT_BYTES, []), None)
    return _object(first[1]) if first is not None and first[0].name == MARK_NAME else None


@dataclass(slots=True)
class _Sample:
    """What stands under one key of one shard."""

    shard: str
    key: str
    row: int
    fields: dict[str, bytes] = field(default_factory=dict)
    image_path: Path | None = None
    image_type: str = ""
    size_wh: tuple[int, int] = (0, 0)
    sha256: str = ""
    problem: str = ""
    """Why it cannot be used."""
    record: ScanRecord | None = None
    values: dict[str, Any] | None = None
    """What a `.json` of others says; None where there is none."""

    @property
    def name(self) -> str:
        return f"{self.shard}#{self.key}"

    @property
    def split(self) -> str:
        stated = (self.values or {}).get("split")
        if isinstance(stated, str):
            return stated.strip().lower()
        return split_word(posixpath.basename(self.shard)) or split_of_folders(self.shard)

    def text(self, suffix: str) -> str | None:
        data = self.fields.get(suffix)
        return None if data is None else data.decode("utf-8-sig", errors="replace").strip()


def _looks_like_a_shard(path: Path) -> bool:
    entries = _entries(path, lambda member: False, [])
    for _, (member, _) in zip(range(_NUM_LOOKED_AT), entries, strict=False):
        parts = _NAME.fullmatch(member.name)
        if member.name == MARK_NAME or (parts and f".{parts.group(2).lower()}" in IMAGE_SUFFIXES):
            return True
    return False


def _entries(
    path: Path, wanted: Callable[[tarfile.TarInfo], bool], problems: list[str]
) -> Iterator[tuple[tarfile.TarInfo, bytes]]:
    """Give each entry of a tar file, with its content where it is wanted. What is wrong goes to `problems`."""
    try:
        with (
            path.open("rb") as stream,
            tarfile.open(fileobj=stream, mode="r:", encoding="utf-8", errors="surrogateescape") as tar,
        ):
            while (member := tar.next()) is not None:
                file = tar.extractfile(member) if wanted(member) else None
                yield member, file.read() if file else b""
                tar.members.clear()  # pyright: ignore[reportAttributeAccessIssue] - else it remembers a million
            stream.seek(tar.offset)
            if stream.read(_BLOCK) != bytes(_BLOCK):
                problems.append("has no end mark")
    except (tarfile.TarError, OSError, EOFError, ValueError) as error:
        problems.append(f"cannot be read on ({error})")


def _read_shard(name: str, reading: Reading, annotated: list[tuple[str, ...]]) -> list[_Sample]:
    samples: dict[str, _Sample] = {}
    passed: Counter[str] = Counter()
    problems: list[str] = []
    last: _Sample | None = None
    is_own = False
    for member, data in _entries(reading.folder.path(name), _is_wanted, problems):
        if member.name == MARK_NAME:
            mark = _object(data) or {}
            annotated.append(tuple(map(str, mark.get("annotated_categories") or ())))
            is_own = True
            continue
        reason = _passed_by(member)
        if reason:
            passed[reason] += 1
            continue
        key, suffix = _key_and_suffix(member.name)
        last = samples.setdefault(key, _Sample(name, key, len(samples)))
        _put(last, suffix, member, data, reading)
    if problems:
        after = f" after sample {last.key!r}, which is left out with what follows" if last else ""
        reading.fault(name, f"{problems[0]}: it is cut off or damaged{after}")
        if last:
            del samples[last.key]  # its label may be in what is lost
    for reason, count in sorted(passed.items()):
        (reading.fault if reason.startswith("links") else reading.notice)(name, f"{count} {reason}")
    return [sample for sample in samples.values() if _is_usable(sample, reading, is_own=is_own)]


def _is_wanted(member: tarfile.TarInfo) -> bool:
    if member.name == MARK_NAME:
        return member.isreg() and member.size <= _MAX_TEXT_BYTES
    if _passed_by(member):
        return False
    _, suffix = _key_and_suffix(member.name)
    return member.size <= _limit_of(suffix)


def _passed_by(member: tarfile.TarInfo) -> str:
    """Return why an entry is no part of a sample, or nothing."""
    if not member.isdir() and (not member.isreg() or member.issparse()):
        return "links, devices or other entries that are no plain files are left aside"
    if not is_utf8(member.name):
        return "links or files whose names are not UTF-8 are left aside"
    if member.isdir() or not _NAME.fullmatch(member.name):
        return "entries have no name of the form KEY.SUFFIX and are left aside"
    suffix = _key_and_suffix(member.name)[1]
    if f".{suffix}" not in IMAGE_SUFFIXES and suffix not in _TEXTS:
        return f".{suffix} entries are left aside"
    return ""


def _key_and_suffix(name: str) -> tuple[str, str]:
    parts = _NAME.fullmatch(name)
    assert parts is not None
    return parts.group(1).removeprefix("./"), parts.group(2).lower()


def _limit_of(suffix: str) -> int:
    return _MAX_TEXT_BYTES if suffix in _TEXTS else DEFAULT_LIMITS.max_bytes


def _put(sample: _Sample, suffix: str, member: tarfile.TarInfo, data: bytes, reading: Reading) -> None:
    is_text = suffix in _TEXTS
    if suffix in sample.fields or suffix == sample.image_type:
        sample.problem = f"it has two entries .{suffix}"
    elif member.size > _limit_of(suffix):
        sample.problem = f"its .{suffix} has {member.size:,} bytes, more than {_limit_of(suffix):,}"
    elif not is_text and sample.image_type:
        sample.problem = f"it has two images, .{sample.image_type} and .{suffix}"
    elif is_text:
        sample.fields[suffix] = data
    else:
        sample.image_type = suffix
        try:
            _, sample.size_wh = image_header(data)
        except ImageUnreadable as error:
            sample.problem = str(error)
            return
        sample.sha256 = sha256_bytes(data)
        sample.image_path = reading.folder.unpack(f"{posixpath.splitext(sample.shard)[0]}/{sample.row:07d}", data)


def _is_usable(sample: _Sample, reading: Reading, *, is_own: bool) -> bool:
    """Parse a sample's JSON and say whether it can be used; a fault where not."""
    if "json" in sample.fields and not sample.problem:
        sample.values = _object(sample.fields.pop("json"))
        if sample.values is None:
            sample.problem = "its JSON cannot be read, and what it says may be a threat"
        elif is_own or ScanRecord.model_fields.keys() >= sample.values.keys() >= {"image_id", "image_path", "bboxes"}:
            try:
                sample.record = ScanRecord.model_validate(sample.values)
            except ValidationError as error:
                sample.problem = f"its record does not fit: {first_error(error)}"
    record = sample.record
    if sample.problem:
        pass
    elif sample.image_path is None:
        sample.problem = "it has no image"
    elif record is None and is_own:
        sample.problem = "it has no record"
    elif record is not None and record.sha256 not in ("", sample.sha256):
        sample.problem = "its image has other bytes than its record says"
    elif record is not None and record.size_wh != sample.size_wh:
        sample.problem = "its image has another size than its record says"
    if sample.problem:
        reading.fault(sample.shard, f"sample {sample.key!r} is left out: {sample.problem}", sample.row)
    return not sample.problem


def _object(data: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(data.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _add_own(sample: _Sample, record: ScanRecord, reading: Reading) -> None:
    labels = record.raw_labels or record.categories
    split = record.image_path.split("/")[0]
    reading.add(
        record.original_name or sample.name,
        sample.shard,
        image_path=sample.image_path,
        items=tuple(SourceItem(label, box) for label, box in zip(labels, record.bboxes, strict=False)),
        position=sample.row,
        split=split if split in SPLITS else sample.split,
        group=record.group,
        size_wh=record.size_wh,
        record=record,
    )


def _add_foreign(
    samples: Sequence[_Sample], folder: SourceFolder, reading: Reading, *, beside_own: bool
) -> tuple[str, ...]:
    """Add the samples of shards that somebody else has written and return what they annotate."""
    names = (
        tuple(line.strip() for line in folder.read_text(CLASSES_NAME).splitlines() if line.strip())
        if CLASSES_NAME in folder.names
        else ()
    )
    texts = [text for sample in samples if (text := sample.text("txt")) is not None]
    are_labels = bool(texts) and all(canonical_category(text) != UNLISTED or is_clean_label(text) for text in texts)
    if texts:
        reading.notice("", f"{len(texts)} .txt are taken as {'labels' if are_labels else 'captions'}")

    def says_something(sample: _Sample) -> bool:
        return (
            "cls" in sample.fields
            or (sample.values is not None and says_items(sample.values))
            or (are_labels and "txt" in sample.fields)
        )

    annotated = [sample for sample in samples if says_something(sample)]
    for sample in annotated or (() if beside_own else samples):
        values = sample.values or {}
        items = _foreign_items(sample, names, reading, text_is_label=are_labels) if annotated else []
        reading.add(
            sample.name,
            sample.shard,
            image_path=sample.image_path,
            items=tuple(items),
            position=sample.row,
            split=sample.split,
            group=str(values.get("group") or ""),
            size_wh=sample.size_wh,
            caption=str(values.get("caption") or ("" if are_labels else sample.text("txt") or "")),
            licence=str(values.get("licence") or values.get("license") or ""),
        )
    if len(annotated) < len(samples) and (annotated or beside_own):
        silent = next(sample for sample in samples if not says_something(sample))
        message = f"{len(samples) - len(annotated)} samples say nothing of items and are left out, first {silent.name}"
        reading.notice("", f"{message}: silence is no clean bag")
    elif not annotated:
        message = "nothing says what is in these scans, so nothing is taken as annotated; if somebody has looked and "
        reading.notice("", f"{message}found nothing, say what for with --annotated Gun,Knife")
    return names or (reading.labels_that_occur("these shards have") if annotated else ())


def _foreign_items(
    sample: _Sample, names: Sequence[str], reading: Reading, *, text_is_label: bool
) -> Sequence[SourceItem]:
    place = Place(sample.shard, sample.row, names, CLASSES_NAME)
    if sample.values is not None and says_items(sample.values):
        return items_of(sample.values, place, reading)
    label = sample.text("cls") if "cls" in sample.fields else sample.text("txt") if text_is_label else None
    if not label:
        return [UNREADABLE]
    return items_of({"label": int(label) if re.fullmatch(r"\d{1,9}", label) else label}, place, reading)


def _annotated_everywhere(annotated: Sequence[tuple[str, ...]], reading: Reading) -> Sequence[str]:
    """Return what all shards annotate: of what only some do, absence in the others says nothing."""
    if not annotated:
        return ()
    meant = [{canonical_category(label) for label in labels} for labels in annotated]
    if all(one == meant[0] for one in meant):
        return annotated[0]
    common = [category for category in CATEGORIES if all(category in one for one in meant)]
    message = "the shards do not all annotate the same; taken as annotated is what all do: "
    reading.notice("", f"{message}{', '.join(common) or 'nothing'}. --annotated overrules")
    return common
