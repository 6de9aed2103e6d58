"""Scans as the model sees them, resized once and kept on disk; an epoch then reads and never decodes.

A cache folder holds, for each processor version, safetensors files with one uint8 tensor (height, width, 3) a scan,
named by the SHA-256 of the scan's file. They are mapped into memory, so processes share them and the system keeps as
much of them in memory as there is room for. Files are written whole or not at all and never changed; the same command
adds what is missing. Of several processes that start at once one fills the folder and the others wait for it.
"""

import fcntl
import json
import logging
import os
import shutil
import zlib
from collections.abc import Callable, Generator, Iterator, Sequence, Set
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import PIL
from numpy.typing import NDArray
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from tqdm import tqdm

from xray_vqa.core.images import check_image, decode_image
from xray_vqa.core.jsonl import disk_errors, replacing
from xray_vqa.core.manifest import sha256_bytes
from xray_vqa.errors import ConfigError, ImageUnreadable, Incomplete
from xray_vqa.modeling.processor import Processor
from xray_vqa.training.inputs.faulty import ScanFaulty
from xray_vqa.training.inputs.scans import TrainingScan

logger = logging.getLogger(__name__)

SHARD_BYTES = 128 * 2**20
"""Frames of one file. While it is written, its frames, their serialised form and the next ones are in memory."""
_FORMAT = "1"
"""Of the files, and of what `core.images` makes of a scan's bytes."""
_THREADS = os.cpu_count() or 1
"""Decoding and resizing happen outside of Python's lock, so that processes would be no faster."""
Result = TypeVar("Result")


def read_frame(scan: TrainingScan, processor: Processor) -> NDArray[np.uint8]:
    """Return a scan decoded and resized, (height, width, 3) uint8. Raises ScanFaulty."""
    image = _decode(scan)
    _check_size(scan, image.size)
    return processor.resize(image)


def check_scan(scan: TrainingScan) -> None:
    """Raise ScanFaulty where `read_frame` would, for a fraction of its time."""
    data = _read(scan)
    with _readable(scan):
        size_wh = check_image(data).size_wh
    _check_size(scan, size_wh)


def check_scans(scans: Sequence[TrainingScan]) -> dict[Path, ScanFaulty]:
    """Read every image once and return what is wrong, by path."""
    with ThreadPoolExecutor(_THREADS) as pool:
        looks = pool.map(lambda scan: _attempt(check_scan, scan), scans)
        found = zip(scans, tqdm(looks, "images checked", len(scans), unit="image"), strict=True)
        return {scan.image_path: fault for scan, fault in found if fault is not None}


@dataclass(frozen=True, slots=True)
class _Frame:
    """A scan as the model sees it, and how large it was before."""

    pixels: NDArray[np.uint8]
    size_wh: tuple[int, int]


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a frame is."""

    shard: Path
    crc32: int
    size_wh: tuple[int, int]
    """Of the scan that it was made from."""


class ImageCache:
    """The frames of one processor version in a folder."""

    def __init__(self, folder: Path, processor: Processor) -> None:
        self.processor = processor
        self.folder = folder / processor.version.replace("/", "_")
        self._places: dict[str, _Place] = {}
        self._hashes: dict[Path, str] = {}
        """Of files whose annotation names none."""
        self._damaged: set[Path] = set()
        self._files: dict[Path, Any] = {}
        """Mapped into this process's memory."""

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_files": {}}  # workers that are not forked get the cache by pickling

    def frame(self, scan: TrainingScan) -> NDArray[np.uint8]:
        """Return a scan that was added, (height, width, 3) uint8.

        A frame that was damaged since is made anew from the scan, aloud, and its file is removed, so that the next
        start writes it again. Raises ScanFaulty where the scan cannot be read any more.
        """
        key = self._key(scan)
        place = self._places[key]
        pixels = self._open(place.shard).get_tensor(key)
        if zlib.crc32(pixels.data) == place.crc32:
            return pixels
        if place.shard not in self._damaged:
            self._damaged.add(place.shard)
            logger.warning("%s is damaged: its scans are read anew, and the next start writes it again", place.shard)
            place.shard.unlink(missing_ok=True)
        return read_frame(scan, self.processor)

    def add(self, scans: Sequence[TrainingScan]) -> dict[Path, ScanFaulty]:
        """Read and keep every scan that is not there yet; return what is wrong with scans, by path.

        Raises:
            Incomplete: The disk has no room; what is whole stays, and the same command goes on.
            ConfigError: The folder cannot be written, or holds frames of another processor.
        """
        faults = self._hash([scan for scan in scans if not scan.sha256])
        with disk_errors(self.folder):
            self._read_index()
            if self._missing(scans, faults.keys()):
                self.folder.mkdir(parents=True, exist_ok=True)
                with self._alone():
                    self._read_index(mend=True)
                    # More than once where one of two files with the same bytes is faulty.
                    while missing := self._missing(scans, faults.keys()):
                        faults |= self._fill(missing)
        for scan in scans:
            if scan.image_path not in faults:
                try:
                    _check_size(scan, self._places[self._key(scan)].size_wh)
                except ScanFaulty as fault:
                    faults[scan.image_path] = fault
        return faults

    def _open(self, shard: Path) -> Any:
        if shard not in self._files:
            self._files[shard] = safe_open(shard, "numpy")
        return self._files[shard]

    def _key(self, scan: TrainingScan) -> str:
        return scan.sha256 or self._hashes[scan.image_path]

    def _hash(self, scans: Sequence[TrainingScan]) -> dict[Path, ScanFaulty]:
        faults: dict[Path, ScanFaulty] = {}
        with ThreadPoolExecutor(_THREADS) as pool:
            hashes = pool.map(lambda scan: _attempt(_hash_of, scan), scans)
            for scan, found in zip(scans, hashes, strict=True):
                if isinstance(found, ScanFaulty):
                    faults[scan.image_path] = found
                else:
                    self._hashes[scan.image_path] = found
        return faults

    def _missing(self, scans: Sequence[TrainingScan], faulty: Set[Path]) -> list[TrainingScan]:
        usable = (scan for scan in scans if scan.image_path not in faulty)
        return list({key: scan for scan in usable if (key := self._key(scan)) not in self._places}.values())

    @contextmanager
    def _alone(self) -> Generator[None]:
        """Hold the folder's lock, which the system takes from a process that dies."""
        with (self.folder / ".lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                logger.info("another process fills %s; waiting for it", self.folder)
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _read_index(self, *, mend: bool = False) -> None:
        """Note what each file holds; with `mend`, which needs the lock, remove what is damaged or was not finished."""
        self._places = {}
        self._files = {}  # a file that was written again has the same name
        for unfinished in self.folder.glob(".frames-*") if mend else ():
            unfinished.unlink()
        for shard in sorted(self.folder.glob("frames-*.safetensors")):
            try:
                told = self._open(shard).metadata() or {}
                version, scans = told["processor_version"], json.loads(told["scans"])
                places = {key: _Place(shard, each["crc32"], tuple(each["size_wh"])) for key, each in scans.items()}
            except (SafetensorError, KeyError, TypeError, ValueError) as error:
                if mend:
                    logger.warning("%s is damaged (%s): its scans are read anew", shard, error)
                    shard.unlink()
                continue
            if (version, told.get("format")) != (self.processor.version, _FORMAT):
                raise ConfigError(
                    f"{shard} holds frames of processor {version} (format {told.get('format')}), this run needs "
                    f"{self.processor.version} (format {_FORMAT}); remove it or name another image_cache"
                )
            self._places |= places

    def _fill(self, missing: Sequence[TrainingScan]) -> dict[Path, ScanFaulty]:
        """Write the frames of some scans and return what is wrong with the others. Needs the lock."""
        needed, free = sum(map(self._num_bytes, missing)), shutil.disk_usage(self.folder).free
        if needed > free:
            raise Incomplete(
                f"{self.folder}: {len(missing)} scans take {needed / 1e9:.2f} GB and {free / 1e9:.2f} GB are free; "
                "make room and start the same command again, or set image_cache=null"
            )
        faults: dict[Path, ScanFaulty] = {}
        with (
            ThreadPoolExecutor(_THREADS) as pool,
            tqdm(total=len(missing), desc="images cached", unit="image") as bar,
        ):

            def start(portion: Sequence[TrainingScan]) -> "list[Future[_Frame | ScanFaulty]]":
                return [pool.submit(_attempt, self._make, scan) for scan in portion]

            try:
                jobs = None
                for portion, following in pairwise([*self._portions(missing), ()]):
                    frames: dict[str, _Frame] = {}
                    for scan, job in zip(portion, jobs or start(portion), strict=True):
                        made = job.result()
                        if isinstance(made, ScanFaulty):
                            faults[scan.image_path] = made
                        else:
                            frames[self._key(scan)] = made
                        bar.update()
                    jobs = start(following)  # they are read while these are written
                    if frames:
                        self._write(frames)
            finally:
                pool.shutdown(cancel_futures=True)
        return faults

    def _make(self, scan: TrainingScan) -> _Frame:
        image = _decode(scan)
        return _Frame(np.ascontiguousarray(self.processor.resize(image)), image.size)

    def _num_bytes(self, scan: TrainingScan) -> int:
        width, height = self.processor.frame_wh(scan.size_wh)
        return width * height * 3

    def _portions(self, scans: Sequence[TrainingScan]) -> Iterator[list[TrainingScan]]:
        """Divide scans into those of one file each."""
        portion: list[TrainingScan] = []
        room = SHARD_BYTES
        for scan in scans:
            size = self._num_bytes(scan)
            if portion and size > room:
                yield portion
                portion, room = [], SHARD_BYTES
            portion.append(scan)
            room -= size
        yield portion

    def _write(self, frames: dict[str, _Frame]) -> None:
        path = self.folder / f"frames-{sha256_bytes(''.join(frames).encode())[:16]}.safetensors"
        places = {key: _Place(path, zlib.crc32(frame.pixels.data), frame.size_wh) for key, frame in frames.items()}
        told = {key: {"crc32": place.crc32, "size_wh": place.size_wh} for key, place in places.items()}
        metadata = {
            "format": _FORMAT,
            "processor_version": self.processor.version,
            "pillow": PIL.__version__,
            "scans": json.dumps(told),
        }
        with replacing(path) as stream:
            stream.write(save({key: frame.pixels for key, frame in frames.items()}, metadata))
        self._places |= places


def _attempt(function: Callable[[TrainingScan], Result], scan: TrainingScan) -> Result | ScanFaulty:
    try:
        return function(scan)
    except ScanFaulty as fault:
        return fault


def _read(scan: TrainingScan) -> bytes:
    try:
        data = scan.image_path.read_bytes()
    except FileNotFoundError as error:
        raise ScanFaulty(f"{scan.image_path}: no such file", kind="missing") from error
    except OSError as error:
        raise ScanFaulty(f"{scan.image_path}: cannot be read: {error.strerror}", kind="unreadable") from error
    if scan.sha256 and sha256_bytes(data) != scan.sha256:
        raise ScanFaulty(f"{scan.image_path}: its bytes are not those that its annotation names", kind="bytes")
    return data


def _hash_of(scan: TrainingScan) -> str:
    return sha256_bytes(_read(scan))


def _decode(scan: TrainingScan) -> Image.Image:
    data = _read(scan)
    with _readable(scan):
        return decode_image(data)


@contextmanager
def _readable(scan: TrainingScan) -> Generator[None]:
    try:
        yield
    except ImageUnreadable as error:
        raise ScanFaulty(f"{scan.image_path}: {error}", kind="unreadable") from error


def _check_size(scan: TrainingScan, size_wh: tuple[int, int]) -> None:
    if size_wh != scan.size_wh:
        raise ScanFaulty(
            "{}: is {}x{}, its annotation says {}x{}".format(scan.image_path, *size_wh, *scan.size_wh), kind="size"
        )
