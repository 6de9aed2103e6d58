"""As much of the C library libarchive as reading takes, through ctypes.

libarchive has kept this interface and its number (`libarchive.so.13`) since 2013. A binding from the package index
would add a dependency to these dozen functions, and none that is widely used brings the library itself. Only formats
that are whole in one file are switched on: of the others, mtree names files of this machine.

It does not compare the checksum of an entry that a RAR 5 archive merely stores (found in 3.6.2). Whoever needs
to know that nothing is damaged looks at the archive's own digest first.
"""

import ctypes
import ctypes.util
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from xray_vqa.errors import DatasetError

_OK, _EOF, _RETRY, _WARN = 0, 1, -10, -20
_FILE_TYPE, _REGULAR, _FOLDER, _LINK = 0o170000, 0o100000, 0o040000, 0o120000
_BLOCK_BYTES = 1 << 20
_NAMES = ("libarchive.so.13", "libarchive.13.dylib", "libarchive.dylib")


@cache
def load() -> ctypes.CDLL | None:
    """Return the library, or None where this machine has none that reads RAR 5 (3.4 of 2019 or later)."""
    for name in (*_NAMES, ctypes.util.find_library("archive")):
        try:
            library = ctypes.CDLL(name) if name else None
        except OSError:
            continue
        if library is not None and hasattr(library, "archive_read_support_format_rar5"):
            _declare(library)
            return library
    return None


def _declare(library: ctypes.CDLL) -> None:
    pointer, text, number = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int
    for name, result, arguments in (
        ("archive_read_new", pointer, []),
        ("archive_read_support_format_rar", number, [pointer]),
        ("archive_read_support_format_rar5", number, [pointer]),
        ("archive_read_support_format_zip", number, [pointer]),
        ("archive_read_support_format_tar", number, [pointer]),
        ("archive_read_support_filter_gzip", number, [pointer]),
        ("archive_read_open_filename", number, [pointer, text, ctypes.c_size_t]),
        ("archive_read_next_header", number, [pointer, ctypes.POINTER(pointer)]),
        ("archive_read_data", ctypes.c_ssize_t, [pointer, pointer, ctypes.c_size_t]),
        ("archive_read_free", number, [pointer]),
        ("archive_error_string", text, [pointer]),
        ("archive_entry_pathname", text, [pointer]),
        ("archive_entry_pathname_utf8", text, [pointer]),
        ("archive_entry_filetype", ctypes.c_uint, [pointer]),
        ("archive_entry_hardlink", text, [pointer]),
        ("archive_entry_size", ctypes.c_int64, [pointer]),
        ("archive_entry_size_is_set", number, [pointer]),
        ("archive_entry_is_encrypted", number, [pointer]),
    ):
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments


class Header:
    """One entry as the library tells of it; good until the next one is asked for."""

    def __init__(self, library: ctypes.CDLL, archive: Any, entry: Any, path: Path, buffer: Any) -> None:
        self._library, self._archive, self._path, self._buffer = library, archive, path, buffer
        self.name_bytes: bytes = (
            library.archive_entry_pathname_utf8(entry) or library.archive_entry_pathname(entry) or b""
        )
        file_type = library.archive_entry_filetype(entry) & _FILE_TYPE
        is_link = file_type == _LINK or library.archive_entry_hardlink(entry) is not None
        self.kind = "link" if is_link else {_REGULAR: "file", _FOLDER: "folder"}.get(file_type, "other")
        self.is_encrypted = bool(library.archive_entry_is_encrypted(entry))
        self.num_bytes: int | None = (
            library.archive_entry_size(entry) if library.archive_entry_size_is_set(entry) else None
        )

    def chunks(self) -> Iterator[bytes]:
        """Yield the content, a megabyte at most at a time. Raises DatasetError where it is damaged."""
        buffer = self._buffer
        while (count := self._library.archive_read_data(self._archive, buffer, len(buffer))) != 0:
            if count == _RETRY:
                continue
            if count < 0:
                raise _failure(self._library, self._archive, self._path)
            yield ctypes.string_at(buffer, count)


def read_headers(library: ctypes.CDLL, path: Path) -> Iterator[Header]:
    """Yield the entries of a RAR, zip, tar or tar.gz archive in their order. Raises DatasetError."""
    archive = library.archive_read_new()
    try:
        for name in ("format_rar", "format_rar5", "format_zip", "format_tar", "filter_gzip"):
            getattr(library, f"archive_read_support_{name}")(archive)
        if library.archive_read_open_filename(archive, str(path).encode(), _BLOCK_BYTES) != _OK:
            raise _failure(library, archive, path)
        entry = ctypes.c_void_p()
        buffer = ctypes.create_string_buffer(_BLOCK_BYTES)  # one for all entries: most are small
        while True:
            code = library.archive_read_next_header(archive, ctypes.byref(entry))
            if code == _EOF:
                return
            if code in (_OK, _WARN):
                yield Header(library, archive, entry, path, buffer)
            elif code != _RETRY:
                raise _failure(library, archive, path)
    finally:
        library.archive_read_free(archive)


def _failure(library: ctypes.CDLL, archive: Any, path: Path) -> DatasetError:
    said = library.archive_error_string(archive) or b"no reason given"
    return DatasetError(f"{path} cannot be unpacked: {said.decode(errors='replace')} (libarchive)")
