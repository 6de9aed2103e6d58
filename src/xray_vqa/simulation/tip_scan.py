"""One scan from outside with threats projected into it, on disk, and its record.

What is inserted is a function of the seed, the settings and the scan's bytes, whichever process does it and when.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field

from xray_vqa.core.images import JpegEncoding, decode_image, jpeg_encoding
from xray_vqa.core.jsonl import replacing
from xray_vqa.core.manifest import sha256_bytes
from xray_vqa.core.records import ScanRecord, Split, Strict
from xray_vqa.dataset.layout import store_image
from xray_vqa.errors import ImageUnreadable
from xray_vqa.simulation.placement import PlacedThreat, Placer, find_bags
from xray_vqa.simulation.profile import ScannerProfile
from xray_vqa.simulation.tip import Host, Projection, ScanRefused, open_host, project
from xray_vqa.simulation.writer import JPEG_QUALITY, encode_mask

TIP_VERSION = 2
"""Raised when the same seed and scan give another picture."""


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
