"""Writing what comes from outside into a folder: under names that stay in it, where there is room, unchanged."""

import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

from xray_vqa.core.images import DEFAULT_LIMITS
from xray_vqa.core.manifest import sha256_file
from xray_vqa.dataset.layout import is_whole
from xray_vqa.errors import DatasetError, ImageUnreadable, Incomplete

CHUNK = 64
"""Images a job: some 60 ms of work, which makes handing it to another process cheap."""

Value = TypeVar("Value")


class FileState(NamedTuple):
    """What a file's system says of it; while that stays the same, so do the bytes."""

    num_bytes: int
    changed_ns: int
    """Its ctime, which nothing but the system can set."""

    @classmethod
    def of(cls, path: str) -> "FileState":
        """Return a file's state. Raises OSError where there is none."""
        status = Path(path).stat()
        return cls(status.st_size, status.st_ctime_ns)


class Errand(NamedTuple):
    """One image to store."""

    source: str
    target: str
    sha256: str
    state: FileState | None = None
    """Of the source when it was hashed; where it is not known, the source is hashed again."""


def in_chunks(values: Sequence[Value]) -> list[Sequence[Value]]:
    """Return a list in parts of `CHUNK`."""
    return [values[start : start + CHUNK] for start in range(0, len(values), CHUNK)]


def in_turns(lists: Sequence[Sequence[Value]]) -> list[Sequence[Value]]:
    """Return the chunks of several lists in turns, each list in proportion to its length.

    A file system lets one process at a time add a name to a folder, so several work best on several folders.
    """
    placed = [
        (place / len(values), number, values[place : place + CHUNK])
        for number, values in enumerate(lists)
        for place in range(0, len(values), CHUNK)
    ]
    return [chunk for _, _, chunk in sorted(placed, key=lambda each: each[:2])]


def image_bytes(path: Path) -> bytes:
    """Return a file's bytes. Raises ImageUnreadable where it is missing or larger than an image may be."""
    try:
        size = path.stat().st_size
        if size > DEFAULT_LIMITS.max_bytes:
            raise ImageUnreadable(f"the image has {size:,} bytes", code="too_many_bytes")
        return path.read_bytes()
    except OSError as error:
        raise ImageUnreadable(f"cannot be read: {error.strerror}", code="missing") from error


def store_chunk(errands: Sequence[Errand]) -> None:
    """Store images whose bytes are still those that were checked; one that is there with these bytes is left alone.

    The bytes are copied: a hard link would be free, but then a change to the dataset would change the original. They
    are on disk for certain only after `flush_to_disk`.

    Raises:
        DatasetError: A source file is gone or holds something else.
    """
    for errand in errands:
        target = Path(errand.target)
        if is_whole(target, errand.sha256):
            continue
        partial = target.with_name(f".{target.name}.{os.getpid()}")
        try:
            shutil.copyfile(errand.source, partial)
            if not _is_still(errand, partial):
                raise DatasetError(f"{errand.source} changed while it was read; run the command again")
            partial.replace(target)
        except BaseException as error:
            partial.unlink(missing_ok=True)
            if isinstance(error, OSError) and not os.access(errand.source, os.R_OK):
                message = f"{errand.source}: cannot be read: {error.strerror}; it was there when the command began"
                raise DatasetError(message) from None
            raise


def _is_still(errand: Errand, copy: Path) -> bool:
    """Whether the copy holds what was hashed: by the source's state, which costs a tenth of hashing again."""
    if errand.state is not None:
        return FileState.of(errand.source) == errand.state
    return sha256_file(copy) == errand.sha256


def unsafe_name(name: str) -> str:
    """Return why a name from outside, `/` between its parts, must not be written beneath a folder; else nothing."""
    parts = name.split("/")
    if name.startswith("/") or re.match(r"[A-Za-z]:", name):
        return "an absolute path"
    if ".." in parts:
        return "a path out of the folder"
    if not name.isprintable() or not any(part not in ("", ".") for part in parts):
        return "no usable name"
    if len(name.encode()) > 1024 or any(len(part.encode()) > 200 for part in parts):
        return "a name too long"
    return ""


def require_space(folder: Path, num_bytes: int, purpose: str) -> None:
    """Raise Incomplete where the disk of a folder, which need not exist yet, has not so much room."""
    there = next(parent for parent in (folder, *folder.resolve().parents) if parent.is_dir())
    free = shutil.disk_usage(there).free
    if free < num_bytes:
        raise Incomplete(
            f"{there} has {_size(free)} free, and {_size(num_bytes)} are needed for {purpose}; make room and start "
            "the same command again"
        )


def _size(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:,.1f} GB" if num_bytes >= 1e9 else f"{num_bytes / 1e6:,.2f} MB"
