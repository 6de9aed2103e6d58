"""Files and folders that appear whole or not at all, and JSON lines whose faults are named, not dropped in silence."""

import ctypes
import errno
import json
import os
import re
import shutil
import tempfile
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, TypeVar

from pydantic import ValidationError

from xray_vqa.core.records import Fault, Strict
from xray_vqa.errors import ConfigError, DatasetError, Incomplete, XrayVqaError

Record = TypeVar("Record", bound=Strict)


@contextmanager
def replacing(path: Path) -> Generator[IO[bytes]]:
    """Open a file for writing that takes the place of `path` when the block ends without an error.

    The content is on disk before the name is, so a reader or a power cut never meets half a file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        Path(temporary).chmod(0o666 & ~_umask())  # mkstemp gives 0600, which a server of another user could not read
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


@contextmanager
def replacing_folder(folder: Path) -> Generator[Path]:
    """Give an empty folder beside `folder` that takes its name when the block ends without an error, and goes if not.

    Until then it is hidden and has another name, so nobody takes half a result for a whole one. What a kill left of an
    earlier one is taken away.

    Raises:
        Incomplete: The disk is full or broken.
        ConfigError: The place cannot be written, or `folder` is not empty.
    """
    partial = folder.with_name(f".{folder.name}.partial")
    with disk_errors(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        if partial.exists():
            shutil.rmtree(partial)
        partial.mkdir()
        try:
            yield partial
            make_readable(partial)
            flush_to_disk(partial)
            partial.replace(folder)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise


@contextmanager
def disk_errors(output: Path) -> Generator[None]:
    """Turn what the disk refuses into an error that says how to go on, and what cannot be written at all into another.

    Raises:
        Incomplete: The disk is full or broken; with room the same command goes on.
        ConfigError: The place cannot be read or written.
    """
    try:
        yield
    except Exception as error:
        refused = error if isinstance(error, OSError) else _told_by_rust(error)
        if refused is None:
            raise
        place = refused.filename or output
        if refused.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO):
            raise Incomplete(f"{place}: {refused.strerror}; make room and start the same command again") from error
        raise ConfigError(f"{place}: {refused.strerror}") from error


def _told_by_rust(error: Exception) -> OSError | None:
    """What the disk refused, where safetensors or tokenizers say it in an error of their own; None for any other."""
    if isinstance(error, XrayVqaError):
        return None
    number = re.search(r"\(os error (\d+)\)", str(error))
    return OSError(int(number[1]), os.strerror(int(number[1]))) if number else None


def make_readable(folder: Path) -> None:
    """Give the files in a folder the usual rights; safetensors gives 0600, which another user could not serve."""
    for path in folder.iterdir():
        if path.is_file():
            path.chmod(0o666 & ~_umask())


def flush_to_disk(path: Path) -> None:
    """Return when everything written so far to a folder's file system is on disk.

    For many files at once, where waiting for each of them would take most of the time.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.syncfs(descriptor):
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), str(path))
    except AttributeError:  # not Linux
        os.sync()
    finally:
        os.close(descriptor)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_json(path: Path, value: Any) -> None:
    """Write a value as indented JSON, whole or not at all."""
    with replacing(path) as stream:
        stream.write((json.dumps(value, ensure_ascii=False, indent=1) + "\n").encode())


def read_json(path: Path) -> Any:
    """Return the value in a JSON file. Raises DatasetError naming the place where it stops being JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DatasetError(f"{path}: no such file") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path}: not JSON: {error}") from error


def write_jsonl(path: Path, values: Iterable[Mapping[str, Any]]) -> int:
    """Write one JSON object a line, whole or not at all, and return how many."""
    count = 0
    with replacing(path) as stream:
        for value in values:
            stream.write((json.dumps(value, ensure_ascii=False) + "\n").encode())
            count += 1
    return count


def read_jsonl(path: Path, kind: type[Record]) -> tuple[list[Record], list[Fault]]:
    """Return the records of a JSONL file and a fault for each line that is not one.

    Raises:
        DatasetError: The file is not there.
    """
    records: list[Record] = []
    faults: list[Fault] = []
    try:
        stream = path.open("rb")
    except FileNotFoundError as error:
        raise DatasetError(f"{path}: no such file") from error
    with stream:
        for number, line in enumerate(stream, start=1):
            if not line.strip():
                continue
            try:
                records.append(kind.model_validate_json(line))
            except ValidationError as error:
                faults.append(Fault(path, first_error(error), number))
    return records, faults


def append_jsonl(path: Path, records: Iterable[Strict]) -> None:
    """Add records to a journal, a line each."""
    with path.open("ab") as stream:
        stream.writelines(_line(record) for record in records)


def read_journal(path: Path, kind: type[Record]) -> list[Record]:
    """Return the records of a journal, none where there is no file; a line that was cut off is taken out of it."""
    if not path.is_file():
        return []
    records, faults = read_jsonl(path, kind)
    if faults:
        with replacing(path) as stream:
            stream.writelines(_line(record) for record in records)
    return records


def _line(record: Strict) -> bytes:
    return record.model_dump_json(exclude_none=True).encode() + b"\n"


def first_error(error: ValidationError) -> str:
    """Return the first thing that a validation found, in one line: where, what, and how many more."""
    details = error.errors(include_url=False)
    place = ".".join(str(part) for part in details[0]["loc"]) or "record"
    more = f" (and {len(details) - 1} more)" if len(details) > 1 else ""
    return f"{place}: {details[0]['msg']}{more}"
