"""A dataset as tar shards that WebDataset and whatever else reads tar files can stream.

`train-000000.tar` and so on. A sample is its image, byte for byte, and its whole record as JSON. The same dataset and
limits give the same bytes, and a shard appears whole or not at all, so an export that was stopped goes on behind the
last one. Our own importer gives the same dataset back.
"""

import hashlib
import io
import json
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from xray_vqa.core.images import SUFFIXES, image_header
from xray_vqa.core.jsonl import replacing
from xray_vqa.core.manifest import read_manifest, sha256_bytes, sha256_file
from xray_vqa.core.records import SPLITS, Fault, ScanRecord, Split, compact
from xray_vqa.dataset.exporters.exporter import ExportReport, ShardedExporter, write_folder_manifest
from xray_vqa.dataset.importers.webdataset import MARK_NAME, read_mark
from xray_vqa.dataset.layout import annotations_path, read_split
from xray_vqa.errors import ConfigError, DatasetError, ImageUnreadable


class _Sample(NamedTuple):
    key: str
    path: Path
    record: ScanRecord
    num_bytes: int
    """Of the image."""


@dataclass(frozen=True)
class WebDatasetExporter(ShardedExporter):
    """Writes a folder of numbered tar files for each split."""

    name = "webdataset"
    description = "WebDataset, tar shards with an image and its record as JSON for each scan"
    takes = "dataset"
    shard_bytes: int = 10**9
    shard_scans: int | None = 10_000

    def write(self, source: Path, target: Path) -> ExportReport:
        annotated = read_manifest(source).annotated_categories or []
        report = ExportReport()
        for path in _shards_in(target):
            if read_mark(path) is None:
                raise ConfigError(f"{path} is a shard of somebody else; choose another --output")
        for split in SPLITS:
            if not annotations_path(source, split).is_file():
                continue
            scans = read_split(source, split)
            report.faults.extend(scans.faults)
            report.counts[split] = 0
            samples = _samples(source, split, scans.records, report)
            with tqdm(total=len(samples), desc=f"writing {split}", unit="scan", disable=None) as progress:
                for number, shard in enumerate(self.in_shards(samples, [sample.num_bytes for sample in samples])):
                    path = target / f"{split}-{number:06d}.tar"
                    report.counts[split] += _write_shard(path, split, annotated, shard, report)
                    report.paths.append(path)
                    progress.update(len(shard))
        if not report.paths:
            raise DatasetError(f"{source}: neither train/ nor test/ with scans is here")
        for path in set(_shards_in(target)) - set(report.paths):
            path.unlink()  # of an earlier export with more shards; a reader would take it for part of this one
        write_folder_manifest(target, source, report.paths, report.counts)
        return report


EXPORTER = WebDatasetExporter()


def _shards_in(target: Path) -> list[Path]:
    return [path for split in SPLITS for path in target.glob(f"{split}-{'[0-9]' * 6}.tar")]


def _samples(source: Path, split: Split, records: Sequence[ScanRecord], report: ExportReport) -> list[_Sample]:
    samples: list[_Sample] = []
    for number, record in enumerate(records):
        path = source / record.image_path
        try:
            samples.append(_Sample(f"{split}-{number:06d}", path, record, path.stat().st_size))
        except OSError as error:
            report.faults.append(Fault(path, f"cannot be read: {error.strerror}; left out"))
    return samples


def _write_shard(
    path: Path, split: Split, annotated: Sequence[str], samples: Sequence[_Sample], report: ExportReport
) -> int:
    """Write one shard, or leave it where it is whole already, and return how many scans it holds."""
    texts = [json.dumps(compact(sample.record), ensure_ascii=False).encode() for sample in samples]
    digests = [sample.record.sha256 or sha256_file(sample.path) for sample in samples]
    content = hashlib.sha256("\n".join(digests).encode() + b"\n" + b"\n".join(texts)).hexdigest()
    mark = json.dumps({"split": split, "annotated_categories": list(annotated), "content": content}).encode()
    sizes = [len(mark), *map(len, texts), *(sample.num_bytes for sample in samples)]
    if path.is_file() and path.stat().st_size == _tar_size(sizes) and read_mark(path) == json.loads(mark):
        return len(samples)
    num_written = 0
    with replacing(path) as stream, tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        _add(tar, MARK_NAME, mark)
        for sample, text, digest in zip(samples, texts, digests, strict=True):
            try:
                data = sample.path.read_bytes()
                if sha256_bytes(data) != digest:
                    raise ImageUnreadable("has other bytes than its record says", code="changed")
                suffix = SUFFIXES[image_header(data)[0]]
            except ImageUnreadable as error:
                report.faults.append(Fault(sample.path, f"{error}; left out"))
                continue
            _add(tar, f"{sample.key}{suffix}", data)
            _add(tar, f"{sample.key}.json", text)
            num_written += 1
    return num_written


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    entry = tarfile.TarInfo(name)  # no time, no owner: the same scans are the same bytes
    entry.size = len(data)
    tar.addfile(entry, io.BytesIO(data))


def _tar_size(sizes: Sequence[int]) -> int:
    """Return how long a tar file with entries of these sizes is: blocks of 512 bytes, two at the end, in records."""
    num_blocks = sum(1 + -(-size // tarfile.BLOCKSIZE) for size in sizes) + 2
    return -(-num_blocks * tarfile.BLOCKSIZE // tarfile.RECORDSIZE) * tarfile.RECORDSIZE
