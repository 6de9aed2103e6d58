"""Writes RAR 5 archives whose content is stored, not compressed: no free tool writes RAR.

After the technical note "RAR 5.0 archive format" (rarlab.com/technote.htm): a signature, then blocks of CRC-32, header
size, header, data. Numbers are seven bits a byte, the lowest first, the high bit set on all but the last.
"""

import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

SIGNATURE = b"Rar!\x1a\x07\x01\x00"
MAIN, FILE, END = 1, 2, 5
HAS_EXTRA, HAS_DATA = 1, 2
IS_FOLDER, HAS_CRC = 1, 4
UNIX = 1
REDIRECTION, SYMBOLIC_LINK = 5, 1


@dataclass(frozen=True)
class Member:
    name: str | bytes
    data: bytes = b""
    link_to: str = ""
    is_folder: bool = False
    crc32: int | None = None
    """Another than the content's, to have a damaged archive."""
    num_bytes: int | None = None
    """Another than the content's, to have a lying one."""


def number(value: int) -> bytes:
    parts = []
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*parts, value])


def block(kind: int, body: bytes, extra: bytes = b"", data: bytes | None = None) -> bytes:
    flags = (HAS_EXTRA if extra else 0) | (HAS_DATA if data is not None else 0)
    header = number(kind) + number(flags)
    header += (number(len(extra)) if extra else b"") + (number(len(data)) if data is not None else b"")
    header += body + extra
    sized = number(len(header)) + header
    return zlib.crc32(sized).to_bytes(4, "little") + sized + (data or b"")


def file_block(member: Member) -> bytes:
    name = member.name.encode() if isinstance(member.name, str) else member.name
    crc32 = zlib.crc32(member.data) if member.crc32 is None else member.crc32
    num_bytes = len(member.data) if member.num_bytes is None else member.num_bytes
    body = number(IS_FOLDER if member.is_folder else HAS_CRC) + number(num_bytes)
    body += number(0o040755 if member.is_folder else 0o120777 if member.link_to else 0o100644)
    body += b"" if member.is_folder else crc32.to_bytes(4, "little")
    body += number(0) + number(UNIX) + number(len(name)) + name
    extra = b""
    if member.link_to:
        target = member.link_to.encode()
        record = number(REDIRECTION) + number(SYMBOLIC_LINK) + number(0) + number(len(target)) + target
        extra = number(len(record)) + record
    return block(FILE, body, extra, member.data)


def rar_bytes(members: Iterable[Member]) -> bytes:
    return b"".join([SIGNATURE, block(MAIN, number(0)), *map(file_block, members), block(END, number(0))])


def write_rar(path: Path, members: Iterable[Member]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(rar_bytes(members))
    return path
