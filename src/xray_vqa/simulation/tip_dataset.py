"""A dataset of scans from outside with threats projected into some of them: resumable at any moment.

Scans are taken in the order of a hash of the seed and their bytes until enough of them hold a threat, whatever the
number of workers; those that are refused, or where no place is found, and all others go over unchanged. Each scan that
was tried is a line in `<split>/tip.partial.jsonl` after its image is on disk; the same command later goes on from those
lines. `tip_report.json` names every refused scan with its reason. One scan is tip_scan.py's affair.
"""

# ruff: noqa: D417  (arguments that belong together are described together, obvious ones not at all)

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from xray_vqa.core.images import SUFFIXES, image_header
from xray_vqa.core.jsonl import append_jsonl, disk_errors, read_journal, read_json, replacing, write_json
from xray_vqa.core.manifest import (
    MANIFEST_NAME,
    make_manifest,
    sha256_bytes,
    sha256_file,
    write_manifest,
)
from xray_vqa.core.records import SPLITS, ScanRecord, Split
from xray_vqa.core.taxonomy import CATEGORIES
from xray_vqa.core.workers import open_runner
from xray_vqa.dataset.layout import (
    annotated_categories,
    annotations_path,
    claim,
    is_whole,
    read_split,
    store_image,
    write_split,
)
from xray_vqa.errors import ConfigError, DatasetError, ImageUnreadable
from xray_vqa.simulation.profile import PROFILE_NAMES, ScannerProfile, load_profile
from xray_vqa.simulation.scene import GENERATOR_VERSION
from xray_vqa.simulation.tip_scan import TIP_VERSION, TipOutcome, TipSettings, project_scan

REPORT_NAME = "tip_report.json"
PARTIAL_NAME = "tip.partial.jsonl"
_Job = tuple[Path, ScanRecord, Path, TipSettings, tuple[str, ...], tuple[ScannerProfile, ...]]


@dataclass(frozen=True)
class HostSet:
    """Scans to project into."""

    root: Path
    records: dict[Split, tuple[ScanRecord, ...]]
    annotated: tuple[str, ...]
    """Categories that their source labels at all; empty for a plain folder."""
    inputs: dict[str, str]
    """SHA-256 of what describes the host."""
    faults: tuple[str, ...] = ()
    """Entries and files that are no scans; they are left out."""


def open_host_set(root: Path) -> HostSet:
    """Return the scans of a dataset in our layout, or all images beneath a plain folder as train scans.

    Raises:
        ConfigError: There is no such folder, or it holds no image.
        DatasetError: It is a dataset, and its files are broken.
    """
    if not root.is_dir():
        raise ConfigError(f"{root}: no such folder; give a dataset that `xray-vqa data import` wrote, or a folder")
    found: list[Split] = [split for split in SPLITS if annotations_path(root, split).is_file()]
    if (root / MANIFEST_NAME).is_file() or found:
        splits = {split: read_split(root, split) for split in found}
        inputs = {f"{split}/annotations.json": sha256_file(annotations_path(root, split)) for split in found}
        faults = tuple(str(fault) for scans in splits.values() for fault in scans.faults)
        records: dict[Split, tuple[ScanRecord, ...]] = {
            split: splits[split].records if split in splits else () for split in SPLITS
        }
        return HostSet(root, records, annotated_categories(root), inputs, faults)
    paths = sorted(
        path for path in root.rglob("*") if path.suffix.lower() in {*SUFFIXES.values(), ".jpeg"} and path.is_file()
    )
    if not paths:
        raise ConfigError(f"{root}: neither a dataset (no {MANIFEST_NAME}) nor a folder with images")
    scans: list[ScanRecord] = []
    broken: list[str] = []
    for number, path in enumerate(paths):
        data = path.read_bytes()
        try:
            _, (width, height) = image_header(data)
        except ImageUnreadable as error:
            broken.append(f"{path}: {error}")
            continue
        name = path.relative_to(root).as_posix()
        scans.append(
            ScanRecord(
                image_id=number, image_filename=path.name, image_path=name, width=width, height=height,
                sha256=sha256_bytes(data), categories=[], bboxes=[], source=f"folder/{root.resolve().name}",
                original_name=name,
            )
        )  # fmt: skip
    digest = hashlib.sha256("".join(f"{scan.image_path}:{scan.sha256};" for scan in scans).encode()).hexdigest()
    return HostSet(root, {"train": tuple(scans), "test": ()}, (), {"images": digest}, tuple(broken))


def choose_categories(host: HostSet, settings: TipSettings) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return what threats are drawn from, and what the result labels at all.

    A category counts as labelled only if a scan without its box is known to be without it. So by default nothing is
    inserted that the host does not label: its presence would be true, its absence elsewhere unknown.

    Raises:
        ConfigError: A category is unknown, or the host does not label it and nobody vouches for the host.
    """
    unknown = [name for name in settings.categories if name not in CATEGORIES]
    if unknown:
        raise ConfigError(f"{', '.join(unknown)} is no category; there are {', '.join(CATEGORIES)}")
    wanted = settings.categories or host.annotated
    silent = [name for name in wanted if name not in host.annotated]
    if not wanted:
        raise ConfigError(
            f"{host.root} labels no category; name some with --categories, and say --host-is-clean if none of them is "
            "in any of its scans"
        )
    if silent and not settings.host_is_clean:
        raise ConfigError(
            f"{host.root} does not label {', '.join(silent)}, so its scans may hold some without a box, and the result "
            "would teach that they do not. Leave them out of --categories, or say --host-is-clean if you vouch for it"
        )
    labelled = {*host.annotated, *wanted}
    return tuple(wanted), tuple(name for name in CATEGORIES if name in labelled)


def project_dataset(host_root: Path, root: Path, settings: TipSettings, workers: int = 1) -> dict[str, Any]:
    """Write a dataset with threats projected into a host's scans, or what is missing of it.

    Args:
        workers: processes; with 1 everything happens in this one.

    Returns:
        The contents of `tip_report.json`.

    Raises:
        ConfigError: Categories, profile or host folder cannot be used.
        DatasetError: The output folder holds other data or other settings.
        Incomplete: The disk is full, or a worker process died; the same command goes on.
    """
    host = open_host_set(host_root)
    categories, annotated = choose_categories(host, settings)
    profiles = [load_profile(name) for name in (PROFILE_NAMES if settings.profile == "auto" else (settings.profile,))]
    manifest = make_manifest(
        "tip",
        seed=settings.seed,
        inputs=host.inputs,
        annotated_categories=list(annotated),
        config={
            **settings.model_dump(mode="json"),
            "categories": list(categories),
            "host": host_root.resolve().name,
            "projector": f"xray_vqa.simulation.tip@{TIP_VERSION}, simulation@{GENERATOR_VERSION}",
            "profile": [f"{profile.name}@{profile.version}" for profile in profiles],
        },
    )
    if root.resolve() == host_root.resolve():
        raise ConfigError(f"{root} is the host itself; choose another --output-dir")
    claim(root, manifest)
    if (root / REPORT_NAME).is_file() and all(annotations_path(root, split).is_file() for split in SPLITS):
        return dict(read_json(root / REPORT_NAME))
    with disk_errors(root):
        outcomes = _project_scans(host, root, settings, categories, profiles, workers)
        records = _collect(host, root, settings, outcomes)
        report = _report(host, settings, outcomes, records)
        for split in SPLITS:
            write_split(root, split, records[split])
        write_manifest(root, manifest.model_copy(update={"counts": report["counts"]}))
        write_json(root / REPORT_NAME, report)
        (root / settings.split / PARTIAL_NAME).unlink(missing_ok=True)
    return report


def _project_scans(
    host: HostSet,
    root: Path,
    settings: TipSettings,
    categories: Sequence[str],
    profiles: Sequence[ScannerProfile],
    workers: int,
) -> list[TipOutcome]:
    """Try scans in their order until enough hold a threat; what is in the journal is not done again.

    As many are tried at a time as threats are still missing, so none is tried that one process alone would not reach.
    """
    scans = sorted(host.records[settings.split], key=lambda scan: (_rank(scan, settings.seed), scan.image_id))
    wanted = min(_num_wanted(host, settings), len(scans))
    (root / settings.split / "images").mkdir(parents=True, exist_ok=True)
    journal = root / settings.split / PARTIAL_NAME
    done = _read_journal(journal, root)
    outcomes: list[TipOutcome] = []
    kept = min(sum(outcome.result == "projected" for outcome in done.values()), wanted)
    with (
        open_runner(workers, wanted - kept, root, memory_mb=700) as run,
        tqdm(total=wanted, initial=kept, unit="scan", desc="project", disable=None) as bar,
    ):
        while missing := wanted - sum(outcome.result == "projected" for outcome in outcomes):
            batch = scans[len(outcomes) : len(outcomes) + missing]
            if not batch:
                break
            new = [scan for scan in batch if scan.image_path not in done]
            jobs: list[_Job] = [(host.root, scan, root, settings, tuple(categories), tuple(profiles)) for scan in new]
            for _, outcome in run(_project_job, jobs):
                append_jsonl(journal, [outcome])
                done[outcome.host_path] = outcome
                bar.update(outcome.result == "projected")
            outcomes += [done[scan.image_path] for scan in batch]
    return outcomes


def _project_job(job: _Job) -> TipOutcome:
    return project_scan(*job)


def _num_wanted(host: HostSet, settings: TipSettings) -> int:
    """Return how many scans are to get threats."""
    return settings.count or max(1, round(settings.share * len(host.records[settings.split])))


def _rank(scan: ScanRecord, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}:{scan.sha256 or scan.image_path}".encode()).digest()


def _read_journal(journal: Path, root: Path) -> dict[str, TipOutcome]:
    """Return what became of scans, by their path in the host, where it is still on disk."""
    outcomes = read_journal(journal, TipOutcome)
    return {
        out.host_path: out
        for out in outcomes
        if out.record is None or is_whole(root / out.record.image_path, out.record.sha256)
    }


def _collect(
    host: HostSet, root: Path, settings: TipSettings, outcomes: Sequence[TipOutcome]
) -> dict[Split, list[ScanRecord]]:
    """Return the records of the result by split, after copying the scans that go over unchanged."""
    projected = {outcome.host_path: outcome.record for outcome in outcomes if outcome.record is not None}
    unreadable = {outcome.host_path for outcome in outcomes if outcome.result == "unreadable"}
    records: dict[Split, list[ScanRecord]] = {split: [] for split in SPLITS}
    for split in SPLITS:
        for scan in host.records[split]:
            done = projected.get(scan.image_path) if split == settings.split else None
            if done is not None:
                records[split].append(done)
            elif not settings.only_projected and scan.image_path not in unreadable:
                records[split].append(_copy(host.root, scan, root, split))
        (root / split / "images").mkdir(parents=True, exist_ok=True)
    return records


def _copy(host_root: Path, scan: ScanRecord, root: Path, split: Split) -> ScanRecord:
    path = host_root / scan.image_path
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read: {error.strerror}; `xray-vqa data verify` names all") from error
    relative, _ = store_image(root, split, scan.image_id, data)
    readings = path.with_suffix(".npz")
    if readings.is_file():
        with replacing((root / relative).with_suffix(".npz")) as stream:
            stream.write(readings.read_bytes())
    return scan.model_copy(update={"image_filename": Path(relative).name, "image_path": relative})


def _report(
    host: HostSet, settings: TipSettings, outcomes: Sequence[TipOutcome], records: dict[Split, list[ScanRecord]]
) -> dict[str, Any]:
    results = Counter(outcome.result for outcome in outcomes)
    projected = [outcome.record for outcome in outcomes if outcome.record is not None]
    inserted = Counter(
        threat["category"] for record in projected for threat in (record.factors or {})["tip"]["threats"]
    )
    errors = [outcome.round_trip_error for outcome in outcomes if outcome.round_trip_error is not None]
    quantiles = np.quantile(errors, (0.5, 0.95, 1)).round(2).tolist() if errors else []
    return {
        "counts": {
            "scans": sum(map(len, records.values())),
            **{split: len(records[split]) for split in SPLITS},
            "wanted": _num_wanted(host, settings),
            "tried": len(outcomes),
            "projected": results["projected"],
            "threats": sum(inserted.values()),
            "refused": results["refused"],
            "no_place": results["no_place"],
            "unreadable": results["unreadable"],
            "faults": len(host.faults),
        },
        "threats": dict(sorted(inserted.items())),
        "profiles": dict(Counter(outcome.profile for outcome in outcomes if outcome.profile).most_common()),
        "round_trip_error": dict(zip(("median", "p95", "max"), quantiles, strict=False)),
        **{
            name: [{"image": o.host_path, "reason": o.reason} for o in outcomes if o.result == name]
            for name in ("refused", "no_place", "unreadable")
        },
        "faults": list(host.faults),
    }
