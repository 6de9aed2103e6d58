"""Simulated scans on disk, in the layout of dataset/layout.py: by several processes, resumable at any moment.

Bag i of a split is a function of (seed, split, i) and the settings alone, whatever the number of workers. Each finished
bag is one image a view (written to a temporary name, then renamed) and then their lines in
`<split>/annotations.partial.jsonl`; the same command later goes on from those lines. The annotation file is written
when a split is whole.
"""

# ruff: noqa: D417  (arguments that belong together are described together, obvious ones not at all)

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field
from tqdm import tqdm

from xray_vqa.core.jsonl import append_jsonl, disk_errors, read_journal, replacing
from xray_vqa.core.manifest import (
    make_manifest,
    sha256_bytes,
    write_manifest,
)
from xray_vqa.core.records import SPLITS, ScanRecord, Split
from xray_vqa.core.taxonomy import CATEGORIES
from xray_vqa.core.workers import open_runner
from xray_vqa.dataset.layout import annotations_path, claim, is_whole, read_split, write_split
from xray_vqa.errors import ConfigError
from xray_vqa.simulation.packing import DEFAULT_CLEAN_SHARE
from xray_vqa.simulation.profile import PROFILE_NAMES, load_profile
from xray_vqa.simulation.scene import DEFAULT_SIZE_WH, GENERATOR_VERSION
from xray_vqa.simulation.shapes import BENIGN
from xray_vqa.simulation.simulate import ScanStream, SimulatedScan, shared_renderer, simulate

JPEG_QUALITY = 92
LICENCE = "CC0-1.0"
PARTIAL_NAME = "annotations.partial.jsonl"
MAX_IMAGES = 1_000_000
"""What six-digit file names hold in each split, and more than a folder should."""
ImageFormat = Literal["jpg", "png"]
Honesty = Literal["honest", "partial", "fraudulent"]


class SynthSettings(BaseModel):
    """What a simulated dataset depends on, apart from how many bags it has."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    seed: int = 0
    profiles: tuple[str, ...] = PROFILE_NAMES
    """Names of scanner profiles or paths of their files."""
    size_wh: tuple[int, int] = DEFAULT_SIZE_WH
    clean_share: float = Field(default=DEFAULT_CLEAN_SHARE, ge=0, le=1)
    """Share of bags without a threat."""
    masks: bool = False
    """Store run-length encoded masks."""
    views: int = Field(default=1, ge=1, le=2)
    """2: every bag is also seen from the side, as a scan of its own in the same group."""
    image_format: ImageFormat = "jpg"


@lru_cache(maxsize=4)
def open_stream(settings: SynthSettings, split: Split) -> ScanStream:
    """Return the bags of one split."""
    return ScanStream(
        (settings.seed, SPLITS.index(split)), settings.profiles, settings.size_wh, clean_share=settings.clean_share
    )


def encode_mask(mask: NDArray[np.bool_]) -> dict[str, Any]:
    """Return COCO's uncompressed run-length encoding of a (height, width) mask: down the columns, zeros first."""
    flat = mask.ravel(order="F")
    changes = np.flatnonzero(np.diff(flat)) + 1
    runs = np.diff(np.r_[0, changes, flat.size]).tolist()
    return {"size": [int(s) for s in mask.shape], "counts": [0, *runs] if flat[0] else runs}


def decode_mask(encoded: Mapping[str, Any]) -> NDArray[np.bool_] | None:
    """Return the (height, width) mask that `encode_mask` wrote; None for COCO's compressed form or a broken one."""
    size, counts = encoded.get("size"), encoded.get("counts")
    if not isinstance(size, list) or not isinstance(counts, list) or sum(counts) != math.prod(size):
        return None
    return np.repeat(np.arange(len(counts)) % 2 == 1, counts).reshape(size, order="F")


def declare(scan: SimulatedScan) -> tuple[Honesty, list[str]]:
    """Return what the traveller says is in the bag, and how true that is.

    Half are honest and name all harmless goods by their everyday names; some forget a few; some name other things, as
    those who want to hide what they carry do. Threats are never declared.
    """
    rng = np.random.default_rng(scan.spec.noise_seed)
    goods = sorted({shape.declared_as for shape in map(BENIGN.__getitem__, scan.co_items) if shape.declared_as})
    honesty: Honesty = ("honest", "partial", "fraudulent")[int(rng.choice(3, p=(0.5, 0.35, 0.15)))]
    if honesty == "partial":
        goods = [name for name in goods if rng.random() < 0.6]
    elif honesty == "fraudulent":
        absent = sorted({shape.declared_as for shape in BENIGN.values() if shape.declared_as} - set(goods))
        others = [absent[int(index)] for index in rng.choice(len(absent), min(3, len(absent)), replace=False)]
        goods = sorted({*(name for name in goods if rng.random() < 0.3), *others})
    return honesty, goods


def encode_image(image: NDArray[np.uint8], image_format: ImageFormat) -> bytes:
    """Return the bytes of a (height, width, 3) uint8 picture."""
    buffer = io.BytesIO()
    if image_format == "png":
        Image.fromarray(image).save(buffer, "PNG", compress_level=1)
    else:
        Image.fromarray(image).save(buffer, "JPEG", quality=JPEG_QUALITY)
    return buffer.getvalue()


def write_bag(root: Path, split: Split, number: int, settings: SynthSettings) -> list[ScanRecord]:
    """Simulate one bag, write its image from each view, and return their records."""
    stream = open_stream(settings, split)  # pyright: ignore[reportArgumentType]  (frozen, so hashable)
    scan = stream.scan(number)
    profile = next(p for p in stream.profiles if p.name == scan.profile_name)
    scans = [scan] if settings.views == 1 else [scan, simulate(scan.spec, profile, "side")]
    names = [f"{number * settings.views + index:06d}.{settings.image_format}" for index in range(settings.views)]
    honesty, declared_items = declare(scan)
    records: list[ScanRecord] = []
    for name, seen in zip(names, scans, strict=True):
        data = encode_image(seen.image, settings.image_format)
        with replacing(root / split / "images" / name) as file:
            file.write(data)
        concealers = shared_renderer(settings.size_wh).main_concealers(seen)
        poses = [{**pose, "concealer": c} for pose, c in zip(seen.factors["threats"], concealers, strict=True)]
        records.append(
            ScanRecord(
                image_id=int(Path(name).stem),
                image_filename=name,
                image_path=f"{split}/images/{name}",
                width=settings.size_wh[0],
                height=settings.size_wh[1],
                sha256=sha256_bytes(data),
                caption=seen.caption,
                categories=[annotation.category for annotation in seen.annotations],
                bboxes=[tuple(round(v, 1) for v in annotation.box.as_xywh()) for annotation in seen.annotations],  # type: ignore[misc]
                group=f"synth-{settings.seed}-{split}-{number}",
                source=f"synth/{profile.name}@{profile.version}",
                licence=LICENCE,
                masks=[encode_mask(mask) for mask in seen.masks] if settings.masks else None,
                occlusion=list(seen.occlusion),
                factors={**seen.factors, "threats": poses, "view": seen.view, "declaration": honesty},
                co_items=list(seen.co_items),
                declared_items=declared_items,
                views=[f"{split}/images/{each}" for each in names] if settings.views > 1 else None,
            )
        )
    return records


_Job = tuple[Path, Split, int, SynthSettings]


def _write_job(job: _Job) -> list[ScanRecord]:
    return write_bag(*job)


def write_dataset(root: Path, counts: dict[Split, int], settings: SynthSettings, workers: int = 1) -> int:
    """Write a simulated dataset, or what is missing of it.

    Args:
        counts: bags a split.
        workers: processes; with 1 everything happens in this one.

    Returns:
        How many bags were made by this call.

    Raises:
        ConfigError: A profile does not exist.
        DatasetError: The folder holds other data or other settings.
        Incomplete: The disk is full, or a worker process died.
    """
    for profile in settings.profiles:
        load_profile(profile)
    if sum(counts.values()) * settings.views > MAX_IMAGES:
        raise ConfigError(f"{sum(counts.values())} bags: a dataset holds {MAX_IMAGES} images at most")
    with disk_errors(root):
        return _write_missing(root, counts, settings, workers)


def _write_missing(root: Path, counts: dict[Split, int], settings: SynthSettings, workers: int) -> int:
    claim(root, _manifest(settings, {}, {}))
    done = {split: _finished(root, split, count * settings.views) for split, count in counts.items()}
    jobs: list[_Job] = [
        (root, split, number, settings)
        for split, count in counts.items()
        for number in range(count)
        if any(number * settings.views + index not in done[split] for index in range(settings.views))
    ]
    if workers > 1 and jobs:
        shared_renderer(settings.size_wh)  # compiled once here, not in every worker
    journals = {split: root / split / PARTIAL_NAME for split in counts}
    with (
        open_runner(workers, len(jobs), root, memory_mb=400) as run,
        tqdm(total=len(jobs), unit="bag", desc="simulate", disable=not jobs) as bar,
    ):
        for job, records in run(_write_job, jobs):
            split = job[1]
            append_jsonl(journals[split], records)
            done[split].update({record.image_id: record for record in records})
            bar.update()
    for split, count in counts.items():
        write_split(root, split, [done[split][i] for i in range(count * settings.views)])
        journals[split].unlink(missing_ok=True)
    made = [record.factors or {} for split in counts for record in done[split].values() if _is_first_view(record)]
    redrawn = {name: sum(factors.get(name, 0) for factors in made) for name in ("num_redrawn", "num_missing")}
    images: dict[Split, int] = {split: count * settings.views for split, count in counts.items()}
    write_manifest(root, _manifest(settings, images, redrawn))
    return len(jobs)


def _is_first_view(record: ScanRecord) -> bool:
    return record.views is None or record.image_path == record.views[0]


def _manifest(settings: SynthSettings, counts: dict[Split, int], redrawn: dict[str, int]) -> Any:
    profiles = [load_profile(name) for name in settings.profiles]
    return make_manifest(
        "synth",
        seed=settings.seed,
        counts={**counts, **{name: count for name, count in redrawn.items() if count}},
        annotated_categories=list(CATEGORIES),
        config={
            **settings.model_dump(mode="json"),
            "generator": f"xray_vqa.simulation@{GENERATOR_VERSION}",
            "profile": [f"{profile.name}@{profile.version}" for profile in profiles],
        },
    )


def _finished(root: Path, split: Split, count: int) -> dict[int, ScanRecord]:
    """Return the records of scans that are whole on disk, by number."""
    (root / split / "images").mkdir(parents=True, exist_ok=True)
    records: list[ScanRecord] = []
    if annotations_path(root, split).is_file():
        records.extend(read_split(root, split).records)
    records.extend(read_journal(root / split / PARTIAL_NAME, ScanRecord))
    return {
        record.image_id: record
        for record in records
        if record.image_id < count and is_whole(root / record.image_path, record.sha256)
    }
