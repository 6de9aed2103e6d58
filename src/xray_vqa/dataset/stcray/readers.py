"""What is in an archive, entry by entry, by whatever this machine can read one with.

libarchive is asked first, as a library or as `bsdtar`, which turns any archive into a tar stream: both hand over each
entry and leave the writing to us. `unrar`, `unar` and `7z` write to disk by themselves, so they are given only archives
that are, byte for byte, the published ones.
"""

import os
import shutil
import subprocess
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

from xray_vqa.dataset.stcray import libarchive
from xray_vqa.errors import ConfigError, DatasetError

_CHUNK_BYTES = 1 << 20

PACKAGES = "Debian, Ubuntu: `apt-get install libarchive13` (`libarchive13t64` since Debian 13) or `libarchive-tools`"

_TOOLS: tuple[tuple[str, Callable[[str, str], list[str]]], ...] = (
    ("unrar", lambda archive, folder: ["x", "-o+", "-idq", "-p-", archive, f"{folder}/"]),
    ("unar", lambda archive, folder: ["-q", "-f", "-D", "-o", folder, archive]),
    ("7zz", lambda archive, folder: ["x", "-y", "-bd", f"-o{folder}", archive]),
    ("7z", lambda archive, folder: ["x", "-y", "-bd", f"-o{folder}", archive]),
)


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of an archive. Its content has to be taken before the next entry is asked for."""

    name: str
    """As the archive has it; bytes that are no UTF-8 as `\\xff`."""
    kind: Literal["file", "folder", "link", "other"]
    num_bytes: int | None
    """As the archive claims; the content may be longer."""
    chunks: Callable[[], Iterator[bytes]]
    has_utf8_name: bool = True
    is_encrypted: bool = False


def read_entries(archive: Path, *, trusted: bool, scratch_dir: Path) -> Iterator[Entry]:
    """Yield an archive's entries in their order.

    Args:
        archive: A RAR file, or a zip, tar or tar.gz that somebody repacked it as.
        trusted: Whether it is known byte for byte.
        scratch_dir: Where a tool that writes by itself may do so; made and removed here.

    Raises:
        ConfigError: Nothing here can read it.
        DatasetError: It is damaged.
    """
    if (library := libarchive.load()) is not None:
        return _from_libarchive(library, archive)
    if bsdtar := shutil.which("bsdtar"):
        return _from_bsdtar(bsdtar, archive)
    tools = [(path, arguments) for name, arguments in _TOOLS if (path := shutil.which(name))]
    if tools and trusted:
        return _from_tools(tools, archive, scratch_dir)
    if tools:
        raise ConfigError(
            f"{archive} is not one of the published archives, and {Path(tools[0][0]).name} would write whatever names "
            f"it has to this disk; install libarchive, which lets us look at each ({PACKAGES})"
        )
    raise ConfigError(
        f"{archive} is an archive, and this machine has neither libarchive nor any of bsdtar, "
        f"{', '.join(name for name, _ in _TOOLS)}; install one ({PACKAGES}), or unpack it elsewhere and give the "
        "folder with --source DIR"
    )


_RAR5 = b"Rar!\x1a\x07\x01\x00"
_END_OF_ARCHIVE = 5


def is_cut_off(archive: Path) -> bool:
    """Whether a RAR 5 archive lacks the block that ends it; libarchive takes a cut between two files for the end."""
    with archive.open("rb") as stream:
        if stream.read(len(_RAR5)) != _RAR5:
            return False
        stream.seek(max(len(_RAR5), archive.stat().st_size - 64))
        tail = stream.read()
    # CRC-32 of what follows, length of what follows that, type, flags
    return not any(
        tail[at + 5] == _END_OF_ARCHIVE
        and zlib.crc32(tail[at + 4 : at + 5 + tail[at + 4]]) == int.from_bytes(tail[at : at + 4], "little")
        for at in range(len(tail) - 6)
    )


def _entry(name: bytes, kind: str, num_bytes: int | None, chunks: Callable[[], Iterator[bytes]]) -> Entry:
    text = name.decode("utf-8", errors="backslashreplace")
    known = kind if kind in ("file", "folder", "link") else "other"
    return Entry(text, known, num_bytes, chunks, has_utf8_name=text.encode() == name)


def _from_libarchive(library: "libarchive.ctypes.CDLL", archive: Path) -> Iterator[Entry]:
    for header in libarchive.read_headers(library, archive):
        entry = _entry(header.name_bytes, header.kind, header.num_bytes, header.chunks)
        if header.is_encrypted:
            entry = Entry(entry.name, entry.kind, entry.num_bytes, entry.chunks, is_encrypted=True)
        yield entry


def _from_bsdtar(tool: str, archive: Path) -> Iterator[Entry]:
    # absolute, not resolved: the hub's cache is links to files without a suffix
    command = [tool, "--format", "pax", "-cf", "-", f"@{archive.absolute()}"]
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=said)  # noqa: S603 - no shell, full path
        assert process.stdout is not None
        is_read = False
        try:
            with tarfile.open(fileobj=process.stdout, mode="r|", errors="surrogateescape") as stream:
                for member in stream:
                    yield _tar_entry(stream, member)
            process.stdout.read()
            is_read = True
            process.wait()
            for line in _last_words(said).splitlines():
                if process.returncode == 0 and "pathname" in line:  # an entry that tar has no name for
                    yield Entry(line.strip(), "file", None, lambda: iter(()), has_utf8_name=False)
        except tarfile.TarError as error:
            process.wait()
            raise _tool_failure(tool, archive, process.returncode, _last_words(said)) from error
        finally:
            if not is_read:
                process.kill()
            process.stdout.close()
            process.wait()
        if process.returncode:
            raise _tool_failure(tool, archive, process.returncode, _last_words(said))


def _tar_entry(stream: tarfile.TarFile, member: tarfile.TarInfo) -> Entry:
    kind = "link" if member.issym() or member.islnk() else "folder" if member.isdir() else "file"
    kind = kind if member.isfile() or kind != "file" else "other"

    def chunks() -> Iterator[bytes]:
        content = stream.extractfile(member)
        while content is not None and (chunk := content.read(_CHUNK_BYTES)):
            yield chunk

    return _entry(os.fsencode(member.name), kind, member.size, chunks)


def _from_tools(
    tools: list[tuple[str, Callable[[str, str], list[str]]]], archive: Path, scratch_dir: Path
) -> Iterator[Entry]:
    said = ""
    try:
        for tool, arguments in tools:
            shutil.rmtree(scratch_dir, ignore_errors=True)
            scratch_dir.mkdir(parents=True)
            command = [tool, *arguments(str(archive.absolute()), str(scratch_dir.absolute()))]
            done = subprocess.run(  # noqa: S603 - a tool by its full path, paths as arguments, no shell
                command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
            )
            if done.returncode == 0:
                yield from _from_folder(scratch_dir)
                return
            said = str(_tool_failure(tool, archive, done.returncode, done.stderr or done.stdout))
        raise DatasetError(f"{said}. Not every such tool reads RAR; libarchive does ({PACKAGES})")
    finally:
        shutil.rmtree(scratch_dir, ignore_errors=True)


def _from_folder(folder: Path) -> Iterator[Entry]:
    for parent, folders, names in os.walk(os.fsencode(folder)):
        folders.sort()
        for name in sorted(names):
            path = Path(os.fsdecode(os.path.join(parent, name)))  # noqa: PTH118 - bytes

            def chunks(path: Path = path) -> Iterator[bytes]:
                with path.open("rb") as stream:
                    while chunk := stream.read(_CHUNK_BYTES):
                        yield chunk

            kind = "link" if path.is_symlink() else "file" if path.is_file() else "other"
            relative = os.path.relpath(os.path.join(parent, name), os.fsencode(folder))  # noqa: PTH118
            yield _entry(relative, kind, path.stat().st_size if kind == "file" else None, chunks)
            path.unlink()  # so that never much more than one copy lies on the disk


def _last_words(said: IO[bytes]) -> str:
    said.seek(0)
    return said.read(1 << 16).decode(errors="replace")


def _tool_failure(tool: str, archive: Path, code: int, said: str) -> DatasetError:
    return DatasetError(f"{archive} cannot be unpacked; {Path(tool).name} ended with {code}: {said.strip()[-300:]}")
