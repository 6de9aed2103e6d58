"""Simulated scans on disk, in the layout of dataset/layout.py: by several processes, resumable at any moment.

Scan i of a split is a function of (seed, split, i) and the settings alone, whatever the number of workers. Each
finished scan is an image (written to a temporary name, then renamed) and then one line in
`<split>/annotations.partial.jsonl`; the same command later goes on from those lines. The annotation file is written
when a split is whole.
"""

# ruff: noqa: D417  (arguments that belong together are described together, obvious ones not at all)

from __future__ import annotations

import io
import multiprocessing
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field
from tqdm import tqdm

from xray_vqa.core.jsonl import read_jsonl, replacing
from xray_vqa.core.manifest import (
    MANIFEST_NAME,
    make_manifest,
    read_manifest,
    sha256_bytes,
    sha256_file,
    write_manifest,
)
from xray_vqa.core.records import SPLITS, ScanRecord, Split
from xray_vqa.core.taxonomy import CATEGORIES
from xray_vqa.dataset.layout import annotations_path, read_split, write_split
from xray_vqa.errors import DatasetError
from xray_vqa.simulation.profile import PROFILE_NAMES, load_profile
from xray_vqa.simulation.scene import DEFAULT_SIZE_WH, GENERATOR_VERSION
from xray_vqa.simulation.shapes import BENIGN
from xray_vqa.simulation.simulate import ScanStream, SimulatedScan

JPEG_QUALITY = 92
LICENCE = "CC0-1.0"
PARTIAL_NAME = "annotations.partial.jsonl"


class SynthSettings(BaseModel):
    """What a simulated dataset depends on, apart from how many scans it has."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    seed: int = 0
    profiles: tuple[str, ...] = PROFILE_NAMES
    """Names of scanner profiles or paths of their files."""
    size_wh: tuple[int, int] = DEFAULT_SIZE_WH
    clean_share: float = Field(0.25, ge=0, le=1)
    """Share of bags without a threat."""
    masks: bool = False
    """Store run-length encoded masks."""


@lru_cache(maxsize=4)
def _open_stream(settings: SynthSettings, split: Split) -> ScanStream:
    return ScanStream(
        (settings.seed, SPLITS.index(split)), settings.profiles, settings.size_wh, clean_share=settings.clean_share
    )


def encode_mask(mask: NDArray[np.bool_]) -> dict[str, Any]:
    """Return COCO's uncompressed run-length encoding of a (height, width) mask: down the columns, zeros first."""
    flat = mask.ravel(order="F")
    changes = np.flatnonzero(np.diff(flat)) + 1
    runs = np.diff(np.r_[0, changes, flat.size]).tolist()
    return {"size": [int(s) for s in mask.shape], "counts": [0, *runs] if flat[0] else runs}


def declare(scan: SimulatedScan) -> list[str]:
    """Return what the traveller would say is in the bag: most of the harmless goods, by their everyday names."""
    rng = np.random.default_rng(scan.spec.noise_seed)
    goods = sorted({shape.declared_as for shape in map(BENIGN.__getitem__, scan.co_items) if shape.declared_as})
    return [name for name in goods if rng.random() < 0.8]


def write_scan(root: Path, split: Split, image_id: int, settings: SynthSettings) -> ScanRecord:
    """Simulate one scan, write its image, and return its record."""
    source = _open_stream(settings, split)  # pyright: ignore[reportArgumentType]  (frozen, so hashable)
    scan = source.scan(image_id)
    buffer = io.BytesIO()
    Image.fromarray(scan.image).save(buffer, "JPEG", quality=JPEG_QUALITY)
    name = f"{image_id:06d}.jpg"
    with replacing(root / split / "images" / name) as stream:
        stream.write(buffer.getvalue())
    height, width = scan.image.shape[:2]
    profile = next(p for p in source.profiles if p.name == scan.profile_name)
    return ScanRecord(
        image_id=image_id,
        image_filename=name,
        image_path=f"{split}/images/{name}",
        width=width,
        height=height,
        sha256=sha256_bytes(buffer.getvalue()),
        caption=scan.caption,
        categories=[annotation.category for annotation in scan.annotations],
        bboxes=[tuple(round(value, 1) for value in annotation.box.as_xywh()) for annotation in scan.annotations],  # type: ignore[misc]
        group=f"synth-{settings.seed}-{split}-{image_id}",
        source=f"synth/{profile.name}@{profile.version}",
        licence=LICENCE,
        masks=[encode_mask(mask) for mask in scan.masks] if settings.masks else None,
        occlusion=list(scan.occlusion),
        factors=scan.factors,
        co_items=list(scan.co_items),
        declared_items=declare(scan),
    )


def _write_job(job: tuple[Path, Split, int, SynthSettings]) -> ScanRecord:
    return write_scan(*job)


def write_dataset(root: Path, counts: dict[Split, int], settings: SynthSettings, workers: int = 1) -> int:
    """Write a simulated dataset, or what is missing of it.

    Args:
        counts: scans a split.
        workers: processes; with 1 everything happens in this one.

    Returns:
        How many scans were made by this call.

    Raises:
        ConfigError: A profile does not exist.
        DatasetError: The folder holds other data or other settings.
    """
    for profile in settings.profiles:
        load_profile(profile)
    _claim(root, settings)
    done = {split: _finished(root, split, count) for split, count in counts.items()}
    jobs = [(root, split, i, settings) for split, count in counts.items() for i in range(count) if i not in done[split]]
    journals = {split: root / split / PARTIAL_NAME for split in counts}
    with (
        _mapping(workers, len(jobs)) as mapped,
        tqdm(total=len(jobs), unit="scan", desc="simulate", disable=not jobs) as bar,
    ):
        for job, record in zip(jobs, mapped(_write_job, jobs), strict=True):
            split = job[1]
            with journals[split].open("ab") as journal:
                journal.write(record.model_dump_json(exclude_none=True).encode() + b"\n")
            done[split][record.image_id] = record
            bar.update()
    for split, count in counts.items():
        write_split(root, split, [done[split][i] for i in range(count)])
        journals[split].unlink(missing_ok=True)
    write_manifest(root, _manifest(settings, counts))
    return len(jobs)


def _manifest(settings: SynthSettings, counts: dict[Split, int]) -> Any:
    profiles = [load_profile(name) for name in settings.profiles]
    return make_manifest(
        "synth",
        seed=settings.seed,
        counts=dict(counts),
        annotated_categories=list(CATEGORIES),
        config={
            **settings.model_dump(mode="json"),
            "generator": f"xray_vqa.simulation@{GENERATOR_VERSION}",
            "profile": [f"{profile.name}@{profile.version}" for profile in profiles],
        },
    )


def _claim(root: Path, settings: SynthSettings) -> None:
    """Write the manifest of a new folder; refuse one that holds something else."""
    root.mkdir(parents=True, exist_ok=True)
    if (root / MANIFEST_NAME).is_file():
        found, wanted = read_manifest(root), _manifest(settings, {})
        if found.stage != "synth" or found.config != wanted.config:
            differing = sorted(
                k for k in {*found.config, *wanted.config} if found.config.get(k) != wanted.config.get(k)
            )
            raise DatasetError(
                f"{root}: holds a dataset made with other settings ({', '.join(differing) or found.stage}); "
                "choose another --output-dir"
            )
    elif any((root / split).exists() for split in SPLITS):
        raise DatasetError(f"{root}: holds train/ or test/ but no {MANIFEST_NAME}; choose another --output-dir")
    else:
        write_manifest(root, _manifest(settings, {}))


def _finished(root: Path, split: Split, count: int) -> dict[int, ScanRecord]:
    """Return the records of scans that are whole on disk, by number."""
    (root / split / "images").mkdir(parents=True, exist_ok=True)
    records: list[ScanRecord] = []
    if annotations_path(root, split).is_file():
        records.extend(read_split(root, split).records)
    journal = root / split / PARTIAL_NAME
    if journal.is_file():
        found, faults = read_jsonl(journal, ScanRecord)  # a cut-off last line is a fault; its scan is made again
        records.extend(found)
        if faults:
            with replacing(journal) as stream:
                stream.writelines(record.model_dump_json(exclude_none=True).encode() + b"\n" for record in found)
    return {r.image_id: r for r in records if r.image_id < count and _is_whole(root / r.image_path, r.sha256)}


def _is_whole(path: Path, sha256: str) -> bool:
    return path.is_file() and sha256_file(path) == sha256


@contextmanager
def _mapping(workers: int, num_jobs: int) -> Iterator[Any]:
    """Give an order-keeping map over several processes, or the built-in one."""
    if workers <= 1 or num_jobs < 8:
        yield map
        return
    with multiprocessing.get_context("spawn").Pool(min(workers, num_jobs)) as pool:

        def mapped(function: Any, jobs: Sequence[Any]) -> Iterable[Any]:
            return pool.imap(function, jobs, chunksize=4)

        yield mapped
