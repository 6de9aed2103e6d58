"""What every exporter offers, and what those of pairs have in common."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeVar

from xray_vqa.core.jsonl import read_jsonl
from xray_vqa.core.manifest import make_manifest, manifest_path, read_manifest, sha256_file, write_manifest
from xray_vqa.core.records import Fault, VQAPair
from xray_vqa.errors import ConfigError, DatasetError

Value = TypeVar("Value")


@dataclass(slots=True)
class ExportReport:
    """What an export wrote."""

    paths: list[Path] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    """Scans or pairs that are not in the result."""


class Exporter(Protocol):
    """One format."""

    name: str
    description: str
    takes: str
    """`dataset` (a folder in our layout) or `pairs` (a JSONL file of questions and answers)."""

    def write(self, source: Path, target: Path) -> ExportReport:
        """Write a dataset or pairs under `target`. Raises DatasetError or ConfigError where they cannot be read."""
        ...


@dataclass(frozen=True)
class ShardedExporter:
    """What exporters that write numbered files have in common: how large one becomes."""

    shard_bytes: int
    """Of images in one file, about."""
    shard_scans: int | None = None

    def in_shards(self, values: Sequence[Value], sizes: Sequence[int]) -> list[list[Value]]:
        """Return values in parts that each stay within the limits; one value is never too large."""
        shards: list[list[Value]] = []
        num_bytes = 0
        for value, size in zip(values, sizes, strict=True):
            if not shards or num_bytes + size > self.shard_bytes or len(shards[-1]) == self.shard_scans:
                shards.append([])
                num_bytes = 0
            shards[-1].append(value)
            num_bytes += size
        return shards


def read_pairs(path: Path) -> tuple[list[VQAPair], list[Fault]]:
    """Return the pairs of a file and what of it is no pair. Raises DatasetError where there is none at all."""
    if path.is_dir():
        raise ConfigError(f"{path} is a folder; this format takes a file of pairs, as `xray-vqa generate` writes it")
    pairs, faults = read_jsonl(path, VQAPair)
    if not pairs:
        raise DatasetError(f"{path}: not a single pair; {len(faults)} faults{f', first {faults[0]}' if faults else ''}")
    return pairs, faults


def write_pairs_manifest(result: Path, pairs_path: Path, num_pairs: int) -> None:
    """Say beside a file of pairs which pairs it was made of, and what its image paths are relative to."""
    dataset_root = split = None
    if manifest_path(pairs_path).is_file():
        manifest = read_manifest(pairs_path)
        split = manifest.split
        if manifest.dataset_root is not None:
            root = (pairs_path.parent / manifest.dataset_root).resolve()
            dataset_root = Path(os.path.relpath(root, result.parent.resolve())).as_posix()
    write_manifest(
        result,
        make_manifest(
            "export",
            inputs={str(pairs_path): sha256_file(pairs_path)},
            outputs={result.name: sha256_file(result)},
            counts={"pairs": num_pairs},
            dataset_root=dataset_root,
            split=split,
        ),
    )


def write_folder_manifest(folder: Path, source: Path, paths: Sequence[Path], counts: dict[str, int]) -> None:
    """Say in a folder of exported scans which dataset they are of."""
    write_manifest(
        folder,
        make_manifest(
            "export",
            inputs={str(manifest_path(source)): sha256_file(manifest_path(source))},
            outputs={path.relative_to(folder).as_posix(): sha256_file(path) for path in paths},
            counts=counts,
            annotated_categories=read_manifest(source).annotated_categories,
        ),
    )
