"""A dataset of scans from outside with threats projected into some of them: resumable at any moment.

What is inserted into a scan is a function of the seed and the scan's bytes. Scans are taken in the order of a hash of
both until enough of them hold a threat; those that are refused, or where no place is found, and all others go over
unchanged. Each scan that was tried is a line in `<split>/tip.partial.jsonl` after its image is on disk; the same
command later goes on from those lines. `tip_report.json` names every refused scan with its reason.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field
from tqdm import tqdm

from xray_vqa.core.images import SUFFIXES, JpegEncoding, decode_image, image_header, jpeg_encoding
from xray_vqa.core.jsonl import append_jsonl, disk_errors, read_journal, read_json, replacing, write_json
from xray_vqa.core.manifest import (
    MANIFEST_NAME,
    make_manifest,
    sha256_bytes,
    sha256_file,
    write_manifest,
)
from xray_vqa.core.records import SPLITS, ScanRecord, Split, Strict
from xray_vqa.core.taxonomy import CATEGORIES
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
from xray_vqa.simulation.placement import PlacedThreat, Placer, find_bags
from xray_vqa.simulation.profile import PROFILE_NAMES, ScannerProfile, load_profile
from xray_vqa.simulation.scene import GENERATOR_VERSION
from xray_vqa.simulation.tip import Host, Projection, ScanRefused, open_host, project
from xray_vqa.simulation.writer import JPEG_QUALITY, encode_mask

TIP_VERSION = 2
"""Raised when the same seed and scan give another picture."""
REPORT_NAME = "tip_report.json"
PARTIAL_NAME = "tip.partial.jsonl"


class TipSettings(Strict):
    """What a projected dataset depends on, apart from the host scans."""

    split: Split = "train"
    """The split whose scans get threats; the other one goes over unchanged."""
    count: int | None = Field(default=None, ge=1)
    """How many scans get threats; overrules `share`."""
    share: float = Field(default=0.5, gt=0, le=1)
    """Share of the split's scans that get threats."""
    categories: tuple[str, ...] = ()
    """What threats are drawn from; empty for all that the host labels."""
    max_threats: int = Field(default=2, ge=1, le=8)
    """Threats a scan at most; one is twice as likely as two, and so on."""
    seed: int = Field(default=0, ge=0)
    profile: str = "auto"
    """Scanner profile by name or path of its file, or `auto` to fit the shipped ones to each scan."""
    pixel_cm: float | None = Field(default=None, gt=0)
    """Width of a pixel on the belt; by default the largest bag is taken to be 50 cm long."""
    format: Literal["png", "jpg"] = "png"
    only_projected: bool = False
    """Leave out all scans without a projected threat."""
    host_is_clean: bool = False
    """The operator vouches that no host scan holds an unlabelled item of the inserted categories."""


class TipOutcome(Strict):
    """What became of one scan that was to get a threat: a line of the journal."""

    host_path: str
    """The scan's path in the host."""
    result: Literal["projected", "refused", "no_place", "unreadable"]
    reason: str = ""
    record: ScanRecord | None = None
    """The scan with its threats; none for other results, whose scan goes over unchanged if it can be read."""
    round_trip_error: float | None = None
    profile: str = ""


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


def project_dataset(host_root: Path, root: Path, settings: TipSettings) -> dict[str, Any]:
    """Write a dataset with threats projected into a host's scans, or what is missing of it.

    Returns:
        The contents of `tip_report.json`.

    Raises:
        ConfigError: Categories, profile or host folder cannot be used.
        DatasetError: The output folder holds other data or other settings.
        Incomplete: The disk is full; the same command goes on.
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
        outcomes = _project_scans(host, root, settings, categories, profiles)
        records = _collect(host, root, settings, outcomes)
        report = _report(host, settings, outcomes, records)
        for split in SPLITS:
            write_split(root, split, records[split])
        write_manifest(root, manifest.model_copy(update={"counts": report["counts"]}))
        write_json(root / REPORT_NAME, report)
        (root / settings.split / PARTIAL_NAME).unlink(missing_ok=True)
    return report


def _project_scans(
    host: HostSet, root: Path, settings: TipSettings, categories: Sequence[str], profiles: Sequence[ScannerProfile]
) -> list[TipOutcome]:
    """Try scans in their order until enough hold a threat; what is in the journal is not done again."""
    scans = host.records[settings.split]
    wanted = min(_num_wanted(host, settings), len(scans))
    (root / settings.split / "images").mkdir(parents=True, exist_ok=True)
    journal = root / settings.split / PARTIAL_NAME
    done = _read_journal(journal, root)
    outcomes: list[TipOutcome] = []
    num_projected = 0
    with tqdm(total=wanted, unit="scan", desc="project", disable=None) as bar:
        for scan in sorted(scans, key=lambda scan: (_rank(scan, settings.seed), scan.image_id)):
            if num_projected == wanted:
                break
            outcome = done.get(scan.image_path)
            if outcome is None:
                outcome = project_scan(host.root, scan, root, settings, categories, profiles)
                append_jsonl(journal, [outcome])
            outcomes.append(outcome)
            if outcome.result == "projected":
                num_projected += 1
                bar.update()
    return outcomes


def _num_wanted(host: HostSet, settings: TipSettings) -> int:
    """Return how many scans are to get threats."""
    return settings.count or max(1, round(settings.share * len(host.records[settings.split])))


def _rank(scan: ScanRecord, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}:{scan.sha256 or scan.image_path}".encode()).digest()


def _read_journal(journal: Path, root: Path) -> dict[str, TipOutcome]:
    """Return what became of scans, by their path in the host, where it is still on disk."""
    outcomes = read_journal(journal, TipOutcome)
    return {out.host_path: out for out in outcomes if out.record is None or is_whole(root, out.record)}


def project_scan(
    host_root: Path,
    scan: ScanRecord,
    root: Path,
    settings: TipSettings,
    categories: Sequence[str],
    profiles: Sequence[ScannerProfile],
) -> TipOutcome:
    """Project threats into one scan, write its image, and return what became of it."""
    path = host_root / scan.image_path
    try:
        data = path.read_bytes()
        image = np.asarray(decode_image(data))
    except ImageUnreadable as error:
        return TipOutcome(host_path=scan.image_path, result="unreadable", reason=str(error))
    except OSError as error:
        return TipOutcome(host_path=scan.image_path, result="unreadable", reason=str(error.strerror))
    try:
        readings = _read_readings(path.with_suffix(".npz"))
        host = open_host(image, profiles, readings)
    except ScanRefused as error:
        return TipOutcome(host_path=scan.image_path, result="refused", reason=str(error))
    found = {"round_trip_error": host.fit.round_trip_error, "profile": host.fit.profile.name}
    rng = np.random.default_rng((settings.seed, int(sha256_bytes(data)[:16], 16)))
    bags = find_bags(host, settings.pixel_cm)
    if not len(bags.rooms):
        return TipOutcome(host_path=scan.image_path, result="no_place", reason="no bag was found", **found)
    weights = 0.5 ** np.arange(settings.max_threats)
    num_threats = 1 + int(rng.choice(settings.max_threats, p=weights / weights.sum()))
    placer = Placer(host, bags, [item.box for item in scan.annotations if item.box])
    tried = [categories[int(index)] for index in rng.integers(len(categories), size=num_threats)]
    threats = [placed for placed in (placer.place(category, rng) for category in tried) if placed is not None]
    if not threats:
        reason = f"no place inside a bag, visible and beside what is labelled, for {', '.join(tried)}"
        return TipOutcome(host_path=scan.image_path, result="no_place", reason=reason, **found)
    noise_seed = int(rng.integers(1 << 31))
    projection = project(host, [threat.shadow for threat in threats], noise_seed)
    stored = _encode(projection, jpeg_encoding(data), settings.format)
    relative, _ = store_image(root, settings.split, scan.image_id, stored)
    if readings is not None:
        _write_readings((root / relative).with_suffix(".npz"), projection.p)
    record = _record(scan, relative, stored, host, threats, bags.pixel_cm, noise_seed)
    return TipOutcome(host_path=scan.image_path, result="projected", record=record, **found)


def _read_readings(path: Path) -> NDArray[np.float32] | None:
    """Return the raw readings beside a scan, (2, height, width) float32; None where there are none.

    They are the array `p` of `<image stem>.npz`: -ln(signal / air signal), front detector first.
    """
    if not path.is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as arrays:
            readings = np.asarray(arrays["p"], np.float32)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise ScanRefused(
            f"{path.name} holds no array `p` of numbers, (2, height, width) -ln(signal / air signal), "
            "front detector first; export the readings again or remove the file"
        ) from error
    if not np.isfinite(readings).all():
        raise ScanRefused(f"{path.name} holds values that are no numbers; export the readings again")
    return readings


def _write_readings(path: Path, p: NDArray[np.float32]) -> None:
    with replacing(path) as stream:
        np.savez_compressed(stream, p=p)


def _encode(projection: Projection, encoding: JpegEncoding | None, format_name: str) -> bytes:
    """Return a picture's bytes; where the host was a JPEG, what was inserted is as coarse as what surrounds it."""
    stream = io.BytesIO()
    picture = Image.fromarray(projection.image)
    if format_name == "jpg":
        if encoding is not None:
            return encoding.encode(picture)
        picture.save(stream, "JPEG", quality=JPEG_QUALITY)
        return stream.getvalue()
    if encoding is not None:
        compressed = np.asarray(decode_image(encoding.encode(picture)))
        picture = Image.fromarray(np.where(projection.touched[..., None], compressed, projection.image))
    picture.save(stream, "PNG")
    return stream.getvalue()


def _record(
    scan: ScanRecord,
    image_path: str,
    stored: bytes,
    host: Host,
    threats: Sequence[PlacedThreat],
    pixel_cm: float,
    noise_seed: int,
) -> ScanRecord:
    """Return the host's record with the threats added; its caption, which knows nothing of them, is dropped."""
    num_old = len(scan.categories)
    width, height = host.size_wh
    masks = list(scan.masks or [None] * num_old)
    for threat in threats:
        whole = np.zeros((height, width), bool)
        whole[threat.shadow.window] = threat.shadow.mask
        masks.append(encode_mask(whole))
    labels = [threat.category for threat in threats]
    occlusion = [threat.occlusion for threat in threats]
    fit = host.fit
    about = {
        "profile": f"{fit.profile.name}@{fit.profile.version}",
        "hue_deg": fit.hue_deg,
        "saturation": fit.saturation,
        "air": list(fit.air),
        "round_trip_error": fit.round_trip_error,
        "noise": round(host.noise, 4),
        "noise_seed": noise_seed,
        "pixel_cm": round(pixel_cm, 4),
        "host_sha256": scan.sha256,
        "threats": [
            {
                "category": threat.category,
                "index": num_old + number,
                "item": threat.item.model_dump(mode="json"),
                "occlusion": threat.occlusion,
                "visible": threat.visible,
            }
            for number, threat in enumerate(threats)
        ],
    }
    return scan.model_copy(
        update={
            "image_filename": Path(image_path).name,
            "image_path": image_path,
            "width": width,
            "height": height,
            "sha256": sha256_bytes(stored),
            "caption": "",
            "categories": [*scan.categories, *labels],
            "bboxes": [*scan.bboxes, *(threat.box.as_xywh() for threat in threats)],
            "source": f"tip/{scan.source or 'unnamed'}@{TIP_VERSION}",
            "masks": masks,
            "occlusion": [*(scan.occlusion or []), *occlusion] if len(scan.occlusion or []) == num_old else None,
            "factors": {**(scan.factors or {}), "tip": about},
            "raw_labels": [*scan.raw_labels, *labels] if scan.raw_labels else None,
            "original_name": scan.original_name or scan.image_path,
        }
    )


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
