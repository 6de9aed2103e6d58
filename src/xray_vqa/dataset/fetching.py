"""Brings the files beneath an address into a folder, so that importers read them as they read any folder.

What is there already is not fetched again, a file that was begun is gone on with, and a file stands under its name only
when it is whole. Names that would leave the folder are refused: they come from outside.
"""

import shutil
import threading
from collections import defaultdict
from collections.abc import Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple
from urllib.parse import unquote, urlsplit

from tqdm import tqdm

from xray_vqa.core.jsonl import append_jsonl, disk_errors, read_journal
from xray_vqa.core.manifest import sha256_bytes
from xray_vqa.core.records import Fault, Strict
from xray_vqa.dataset.address import Address, is_forbidden, is_missing, remote_errors
from xray_vqa.dataset.stcray import transfer
from xray_vqa.dataset.storing import require_space, unsafe_name
from xray_vqa.errors import DatasetError, Incomplete, XrayVqaError

FETCHED_NAME = ".fetched"
"""In the output folder, until the import is done."""
CONNECTIONS = 8
MAX_TRIES = 4
"""In a row without one new byte."""
BLOCK_BYTES = 8 << 20
_BATCH = 256
_SAFE_IN_THREADS = frozenset({"memory", "hf"})
"""Filesystems that may be read by several threads beside those that are asynchronous, which all may."""
_TAGS = ("ETag", "etag", "md5Hash", "md5", "content_md5", "Content-MD5", "checksum", "sha256", "blob_id", "CRC",
         "LastModified", "Last-Modified", "last_modified", "updated", "mtime", "modified", "created")  # fmt: skip
"""What filesystems tell of a file's version, the surest first."""


class RemoteFile(NamedTuple):
    """One file beneath an address."""

    path: str
    """For its filesystem."""
    name: str
    """Beneath the address, `/` between the parts; safe to write."""
    num_bytes: int | None
    tag: str
    """Changes when the file does; empty where the filesystem has nothing of the kind."""


class _Fetched(Strict):
    """A line of the journal."""

    name: str
    num_bytes: int
    tag: str


@dataclass(frozen=True, slots=True)
class Copy:
    """The files of an address in a folder of this machine."""

    address: str
    folder: Path
    base: str
    """What stands for the folder in all that is said of its files."""
    faults: tuple[Fault, ...] = ()

    @contextmanager
    def in_its_name(self) -> Generator[None]:
        """Let errors name the address and not the folder."""
        try:
            yield
        except XrayVqaError as error:
            error.args = tuple(str(part).replace(str(self.folder), self.base) for part in error.args)
            raise


def fetch_tree(address: Address, scratch_dir: Path) -> Copy:
    """Return a copy of all files beneath an address, or of the one file that it is.

    Args:
        address: Where to look.
        scratch_dir: Holds the copy and what is known of it; the caller's to remove.

    Raises:
        ConfigError: Nothing is there, or one may not read it.
        DatasetError: There is no file beneath it.
        Incomplete: The connection failed or the disk is full; the same command goes on.
    """
    with remote_errors(address.shown):
        listed, is_folder = _listing(address)
    home = scratch_dir / sha256_bytes(address.shown.encode())[:12]
    files, faults = _usable(listed, address, home / "tree")
    if not files:
        raise DatasetError(f"{address.shown}: holds no file{f'; {faults[0].message}' if faults else ''}")
    base = address.shown.rstrip("/") if is_folder else address.shown.rsplit("/", 1)[0]
    copy = Copy(address.shown, home / "tree", base, tuple(faults))
    with disk_errors(scratch_dir):
        _remove_others(scratch_dir, home, {file.name for file in files})
        known = {line.name: line for line in read_journal(home / "journal.jsonl", _Fetched)}
        missing = [file for file in files if not _is_here(file, copy.folder, known)]
        sizes = {file.name: file.num_bytes or 0 for file in files}
        wanted = sum(sizes[file.name] for file in missing)
        in_dataset = _num_bytes_in(scratch_dir.parent) - _num_bytes_in(scratch_dir)
        require_space(
            scratch_dir, wanted + max(0, sum(sizes.values()) - in_dataset), f"a copy of {address.shown} and the dataset"
        )
        (home / "parts").mkdir(parents=True, exist_ok=True)
        with tqdm(
            desc=f"fetching {len(files)} files", total=sum(sizes.values()), initial=sum(sizes.values()) - wanted,
            unit="B", unit_scale=True, unit_divisor=1000, disable=None,
        ) as progress:  # fmt: skip
            _Fetching(address, home, progress).fetch(missing)
    return copy


def _listing(address: Address) -> tuple[list[Mapping[str, Any]], bool]:
    info = address.filesystem.info(address.path)
    # A web server has pages and files; a page is a folder in so far as it lists what is beneath it.
    is_folder = info["type"] == "directory" or str(info.get("mimetype", "")).startswith("text/html")
    return (list(_walk(address)), True) if is_folder else ([info], False)


def _walk(address: Address) -> Iterator[Mapping[str, Any]]:
    """Give the files beneath a folder. Links of a page that lead elsewhere are not followed."""
    base = address.path.rstrip("/")
    waiting, seen = [address.path], {base}
    while waiting:
        for info in address.filesystem.ls(waiting.pop(), detail=True):
            path = info["name"].rstrip("/")
            if not path.startswith(f"{base}/" if base else ""):
                continue
            if address.is_http and not set("?#").isdisjoint(path.removeprefix(base)):
                continue  # another order of the same list
            if info["type"] != "directory":
                yield info
            elif path not in seen:
                seen.add(path)
                waiting.append(info["name"])


def _usable(
    listed: Sequence[Mapping[str, Any]], address: Address, folder: Path
) -> tuple[list[RemoteFile], list[Fault]]:
    """Return the files that can be fetched, in the order of their names, and what is refused, a fault a reason."""
    refused: dict[str, list[str]] = defaultdict(list)
    found: dict[str, Mapping[str, Any]] = {}
    for info in listed:
        name = _name_of(info["name"], address)
        if name.endswith("/") or not name:
            continue  # what some object stores keep in place of a folder
        reason = unsafe_name(name) or ("the name stands there twice" if name in found else "")
        if reason:
            refused[reason].append(name)
        else:
            found[name] = info
    for name in list(found):
        parents = name.split("/")[:-1]
        if any("/".join(parents[: end + 1]) in found for end in range(len(parents))):
            refused["a file and a folder of one name"].append(name)
            del found[name]
    files = []
    for name, info in sorted(_with_sizes(found, address).items()):
        if info is None:
            refused["listed and not there"].append(name)
            continue
        tag = next((str(info[key]) for key in _TAGS if info.get(key) not in (None, "")), "")
        files.append(RemoteFile(info["name"], name, info["size"], tag))
    faults = [
        Fault(folder, f"{len(names)} files are not fetched: {reason}, first {min(names)[:200]!a}")
        for reason, names in sorted(refused.items())
    ]
    return files, faults


def _name_of(path: str, address: Address) -> str:
    base = address.path.rstrip("/")
    if path.rstrip("/") == base:
        return unquote(urlsplit(path).path.rsplit("/", 1)[-1]) if address.is_http else path.rsplit("/", 1)[-1]
    name = path.removeprefix(base).removeprefix("/")
    return unquote(name) if address.is_http else name


def _with_sizes(found: Mapping[str, Mapping[str, Any]], address: Address) -> dict[str, Mapping[str, Any] | None]:
    """Return what is known of each file, asking where the listing had no size; None where one is not there at all."""

    def ask(info: Mapping[str, Any]) -> Mapping[str, Any] | None:
        if info.get("size") is not None or "mimetype" in info:
            return info
        try:
            return address.filesystem.info(info["name"])
        except Exception as error:
            if is_missing(error):
                return None
            raise

    with remote_errors(address.shown), ThreadPoolExecutor(_num_connections(address)) as pool:
        return dict(zip(found, pool.map(ask, found.values()), strict=True))


def _num_connections(address: Address) -> int:
    filesystem = address.filesystem
    protocol = filesystem.protocol if isinstance(filesystem.protocol, str) else filesystem.protocol[0]
    return CONNECTIONS if getattr(filesystem, "async_impl", False) or protocol in _SAFE_IN_THREADS else 1


def _is_here(file: RemoteFile, folder: Path, known: Mapping[str, _Fetched]) -> bool:
    line, path = known.get(file.name), folder / file.name
    return (
        line is not None
        and line.tag == file.tag
        and file.num_bytes in (None, line.num_bytes)
        and path.is_file()
        and path.stat().st_size == line.num_bytes
    )


def _remove_others(scratch_dir: Path, home: Path, names: set[str]) -> None:
    """Remove the copy of another address, and files that are no longer there."""
    for path in scratch_dir.iterdir() if scratch_dir.is_dir() else ():
        if path != home:
            shutil.rmtree(path)
    for path in (home / "tree").rglob("*"):
        if not path.is_dir() and path.relative_to(home / "tree").as_posix() not in names:
            path.unlink()


def _num_bytes_in(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


class _Stopped(Exception):
    """Another thread has failed, or the user wants to go home."""


class _Fetching:
    """Fetches files by several threads and writes down which are whole."""

    def __init__(self, address: Address, home: Path, progress: "tqdm[Any]") -> None:
        self.address, self.home, self.progress = address, home, progress
        self._stop = threading.Event()

    def fetch(self, files: Sequence[RemoteFile]) -> None:
        """Fetch files. The first error stops the others soon; what has become whole meanwhile is written down."""
        with ThreadPoolExecutor(_num_connections(self.address)) as pool:
            try:
                for start in range(0, len(files), _BATCH):
                    self._fetch_batch(pool, files[start : start + _BATCH])
            finally:
                self._stop.set()

    def _fetch_batch(self, pool: ThreadPoolExecutor, files: Sequence[RemoteFile]) -> None:
        errors: list[BaseException] = []
        for future in as_completed([pool.submit(self._fetch, file) for file in files]):
            error = future.exception()
            if error is None:
                append_jsonl(self.home / "journal.jsonl", [future.result()])
            elif not isinstance(error, _Stopped):
                self._stop.set()
                errors.append(error)
        if errors:
            raise errors[0]

    def _fetch(self, file: RemoteFile) -> _Fetched:
        target = self.home / "tree" / file.name
        part = self.home / "parts" / sha256_bytes(f"{file.name}\0{file.num_bytes}\0{file.tag}".encode())[:32]
        shown = f"{self.address.shown}: {file.name}"
        if self._stop.is_set():
            raise _Stopped
        with disk_errors(part):
            target.parent.mkdir(parents=True, exist_ok=True)
            if file.num_bytes is None:
                part.unlink(missing_ok=True)  # nobody knows whether it may be gone on with
            with part.open("ab") as stream:
                self.progress.update(stream.tell())
                try:
                    self._fetch_rest(file, stream, shown)
                except XrayVqaError:
                    self._stop.set()  # before this thread takes up the next file
                    raise
                num_bytes = stream.tell()
            part.replace(target)  # not synced, a file at a time would take most of the time: sizes tell what is whole
        return _Fetched(name=file.name, num_bytes=num_bytes, tag=file.tag)

    def _fetch_rest(self, file: RemoteFile, stream: IO[bytes], shown: str) -> None:
        num_failures, block_bytes = 0, BLOCK_BYTES
        while (have := stream.tell()) != file.num_bytes:
            reason = "it is shorter than its server says"
            try:
                self._read_on(file, stream, block_bytes)
                if file.num_bytes is None:
                    return
            except (XrayVqaError, _Stopped):
                raise
            except Exception as error:
                if is_missing(error) or is_forbidden(error):
                    with remote_errors(shown):
                        raise
                if isinstance(error, ValueError | NotImplementedError):  # how fsspec says that it cannot begin there
                    block_bytes = 0
                    self._start_over(stream)
                reason = f"the connection failed ({type(error).__name__})"
            if file.num_bytes is not None and stream.tell() > file.num_bytes:
                self._start_over(stream)
                raise Incomplete(f"{shown}: has changed while it was read; start the same command again")
            if stream.tell() == file.num_bytes:
                return
            num_failures = 1 if stream.tell() > have else num_failures + 1
            if num_failures >= MAX_TRIES:
                raise Incomplete(f"{shown}: stopped after {stream.tell():,} bytes, {reason}; the same command goes on")
            transfer.wait(transfer.pause_after(num_failures))

    def _read_on(self, file: RemoteFile, stream: IO[bytes], block_bytes: int) -> None:
        """Append what is missing, as far as the line holds."""
        extra = {"size": file.num_bytes} if self.address.is_http and file.num_bytes else {}  # else it asks again
        with self.address.filesystem.open(file.path, "rb", block_size=block_bytes, **extra) as remote:
            if stream.tell():
                remote.seek(stream.tell())
            while chunk := remote.read(BLOCK_BYTES):
                if self._stop.is_set():
                    raise _Stopped
                with disk_errors(Path(stream.name)):
                    stream.write(chunk)
                    stream.flush()
                self.progress.update(len(chunk))

    def _start_over(self, stream: IO[bytes]) -> None:
        self.progress.update(-stream.tell())
        stream.seek(0)
        stream.truncate()
