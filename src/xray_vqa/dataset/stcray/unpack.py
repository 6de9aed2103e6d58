"""Unpacks an archive as if an enemy had packed it.

Written are plain files that are images, JSON or captions, under names that stay in the folder, within limits of size
and number. All else is left out and counted: what every copy has (resource forks of a Mac, folders) aside, what nobody
should meet (a path out of the folder, a link) as a fault by name.

An unpacking that was stopped goes on: files stand under their name only when they are whole, and how many of them the
disk is known to hold is written down every so often.
"""

import os
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from pydantic import ValidationError
from tqdm import tqdm

from xray_vqa.core.jsonl import disk_errors, replacing
from xray_vqa.core.records import Fault, Strict
from xray_vqa.dataset.importers.source import IMAGE_SUFFIXES
from xray_vqa.dataset.stcray.readers import Entry, is_cut_off, read_entries
from xray_vqa.dataset.storing import unsafe_name
from xray_vqa.errors import DatasetError

_KEPT_SUFFIXES = IMAGE_SUFFIXES | {".json", ".txt"}
_SYSTEM_FILES = frozenset({".ds_store", "thumbs.db", "desktop.ini"})
_MARKER, _PROGRESS, _PART = ".complete", ".progress", ".entry"
_NUM_NAMED = 50
_SYNC_EVERY_S = 30.0
"""A sync waits for all that this machine has to write, so it is rare; a power cut costs this much work."""

RESOURCE_FORK = "resource-fork files (._*)"
"""What a Mac adds for each file; they end in .jpg too and hold no image."""


@dataclass(frozen=True, slots=True)
class UnpackLimits:
    """What an archive may unpack to. Scans are compressed already, so a large ratio is a bomb."""

    max_ratio: float = 20.0
    floor_bytes: int = 64 << 20
    """Below this a ratio is not looked at."""
    max_file_bytes: int = 64 << 20
    max_entries: int = 4_000_000


LIMITS = UnpackLimits()


class UnpackReport(Strict):
    """What came out of an archive and what did not. Stands beside it as `.complete`."""

    archive: str
    num_bytes: int
    sha256: str = ""
    num_files: int = 0
    left_out: dict[str, int] = {}
    """By reason; nothing that anybody misses."""
    refused: dict[str, int] = {}
    """By reason; something is wrong with the archive."""
    refused_names: list[str] = []
    """The first of them."""

    def notices(self, archive: Path) -> list[Fault]:
        return [Fault(archive, f"{count} {reason} left out") for reason, count in sorted(self.left_out.items())]

    def faults(self, archive: Path) -> list[Fault]:
        """Return what was refused, the first by name and the rest by number."""
        named = [Fault(archive, f"{name}; left out") for name in self.refused_names]
        more = sum(self.refused.values()) - len(named)
        if more:
            counts = ", ".join(f"{count} x {reason}" for reason, count in sorted(self.refused.items()))
            named.append(Fault(archive, f"{more} more entries left out, in all {counts}"))
        return named


@dataclass(slots=True)
class _Tally:
    left_out: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    names: list[str] = field(default_factory=list)

    def refuse(self, name: str, reason: str) -> None:
        self.refused[reason] += 1
        if len(self.names) < _NUM_NAMED:
            self.names.append(f"{_shown(name)}: {reason}")


def unpack(
    archive: Path, target: Path, *, sha256: str = "", trusted: bool = False, limits: UnpackLimits = LIMITS
) -> UnpackReport:
    """Unpack an archive into a folder of its own and return what came out. A finished one is left alone.

    Args:
        archive: RAR, or zip, tar and tar.gz.
        target: Holds nothing else.
        sha256: Of the archive, where it is known: what was begun with another one is thrown away.
        trusted: Whether it is known byte for byte; lets tools write that we cannot watch.
        limits: Where to stop.

    Raises:
        ConfigError: Nothing on this machine reads such archives.
        DatasetError: It is damaged or beyond the limits. Nothing of it is left on disk.
        Incomplete: The disk is full.
    """
    stamp = UnpackReport(archive=archive.name, num_bytes=archive.stat().st_size, sha256=sha256)
    finished = _read_report(target / _MARKER)
    if finished is not None and _same_archive(finished, stamp):
        return finished
    begun = _read_report(target / _PROGRESS)
    if begun is None or not _same_archive(begun, stamp):
        shutil.rmtree(target, ignore_errors=True)
        begun = stamp
    scratch_dir = target.with_name(f"{target.name}.tool")
    try:
        with disk_errors(target):
            target.mkdir(parents=True, exist_ok=True)
            _write_report(target / _PROGRESS, begun)
            entries = read_entries(archive, trusted=trusted, scratch_dir=scratch_dir)
            report = _write_entries(entries, target, stamp, begun.num_files, limits, cut_off=is_cut_off(archive))
            os.sync()
            _write_report(target / _MARKER, report)
            for name in (_PROGRESS, _PART):
                (target / name).unlink(missing_ok=True)
    except DatasetError:
        shutil.rmtree(target, ignore_errors=True)
        raise
    return report


def _write_entries(
    entries: Iterator[Entry], target: Path, stamp: UnpackReport, num_safe: int, limits: UnpackLimits, *, cut_off: bool
) -> UnpackReport:
    tally = _Tally()
    if cut_off:
        tally.refuse("the end of the archive", "it is missing, so the archive may be cut off")
    num_files, room = 0, max(limits.floor_bytes, int(limits.max_ratio * stamp.num_bytes))
    written: set[int] = set()  # hashes: a large archive has a million names
    synced_at = time.monotonic()
    with tqdm(entries, desc=f"unpacking {stamp.archive}", unit="file", disable=None) as progress:
        for number, entry in enumerate(progress, start=1):
            if number > limits.max_entries:
                raise DatasetError(f"{stamp.archive} has more than {limits.max_entries:,} entries; nothing is kept")
            path = _target_path(entry, target, tally)
            if path is None:
                continue
            if hash(path) in written:
                tally.refuse(entry.name, "a second file of this name")
                continue
            if num_files < num_safe and entry.num_bytes is not None and _size_of(path) == entry.num_bytes:
                length = entry.num_bytes
            else:
                length = _write(entry, path, target / _PART, limits.max_file_bytes, tally)
            if length is None:
                continue
            if length > room:
                raise DatasetError(
                    f"{stamp.archive} unpacks to more than {limits.max_ratio:g} times its own size; scans do not "
                    "compress like that, so nothing of it is kept"
                )
            num_files, room = num_files + 1, room - length
            written.add(hash(path))
            if num_files > num_safe and time.monotonic() - synced_at >= _SYNC_EVERY_S:
                os.sync()
                synced_at = time.monotonic()
                _write_report(target / _PROGRESS, stamp.model_copy(update={"num_files": num_files}))
    found = {
        "num_files": num_files,
        "left_out": dict(sorted(tally.left_out.items())),
        "refused": dict(sorted(tally.refused.items())),
        "refused_names": tally.names,
    }
    return stamp.model_copy(update=found)


def _target_path(entry: Entry, target: Path, tally: _Tally) -> Path | None:
    """Return where an entry goes, or None where it goes nowhere, with the reason in the tally."""
    name = entry.name.replace("\\", "/") if entry.has_utf8_name else entry.name
    if entry.kind == "folder":
        return None  # made when a file asks for it
    if not entry.has_utf8_name:
        return tally.refuse(entry.name, "the name is no UTF-8")
    reason = unsafe_name(name)
    if reason:
        return tally.refuse(entry.name, reason)
    if entry.kind != "file":
        return tally.refuse(entry.name, "a link" if entry.kind == "link" else "no plain file")
    parts = [part for part in PurePosixPath(name).parts if part != "."]
    if parts[-1].startswith("._") or parts[0] == "__MACOSX":
        tally.left_out[RESOURCE_FORK] += 1
        return None
    suffix = PurePosixPath(name).suffix.lower()
    if parts[-1].lower() in _SYSTEM_FILES or suffix not in _KEPT_SUFFIXES:
        tally.left_out["files that are no image, JSON or caption"] += 1
        return None
    if entry.is_encrypted:
        return tally.refuse(entry.name, "encrypted")
    return target.joinpath(*parts)


def _write(entry: Entry, path: Path, part: Path, limit: int, tally: _Tally) -> int | None:
    """Write an entry's content and return its length; None, and no file, where it is too long or has no place."""
    length = 0
    try:
        with part.open("wb") as stream:
            for chunk in entry.chunks() if (entry.num_bytes or 0) <= limit else ():
                length += len(chunk)
                if length > limit:
                    break
                stream.write(chunk)
        if max(length, entry.num_bytes or 0) > limit:
            return tally.refuse(entry.name, f"longer than {limit:,} bytes")
        if entry.num_bytes is not None and length != entry.num_bytes:
            raise DatasetError(
                f"{_shown(entry.name)} has {length:,} bytes instead of {entry.num_bytes:,}: the archive cannot be "
                "unpacked, it is damaged"
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        part.replace(path)
    except (FileExistsError, NotADirectoryError, IsADirectoryError):
        return tally.refuse(entry.name, "a file and a folder of one name")
    return length


def _size_of(path: Path) -> int | None:
    try:
        return path.lstat().st_size
    except OSError:
        return None


def _shown(name: str) -> str:
    text = name if name.isprintable() else name.encode("unicode_escape").decode()
    return text if len(text) <= 120 else f"{text[:117]}..."


def _same_archive(one: UnpackReport, other: UnpackReport) -> bool:
    return (one.archive, one.num_bytes, one.sha256) == (other.archive, other.num_bytes, other.sha256)


def _read_report(path: Path) -> UnpackReport | None:
    try:
        return UnpackReport.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None


def _write_report(path: Path, report: UnpackReport) -> None:
    with replacing(path) as stream:
        stream.write(report.model_dump_json().encode())
