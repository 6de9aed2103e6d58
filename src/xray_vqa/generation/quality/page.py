"""One page of a pairs file for people: the verdict, every figure, and pairs with their evidence drawn on the scan."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from xray_vqa.config.quality import PairGates
from xray_vqa.core.images import jpeg_uri, read_image
from xray_vqa.core.page import write_page
from xray_vqa.core.records import ScanRecord, VQAPair
from xray_vqa.errors import ImageUnreadable
from xray_vqa.generation.quality.meter import QualityMeter
from xray_vqa.generation.quality.report import Making, Quality, YesRatio
from xray_vqa.generation.source import Source
from xray_vqa.generation.validation import DERIVED_TYPES

MAX_SIDE = 420
"""Pixels of a shown scan."""
MOST_IMAGE_BYTES = 4_000_000
"""Of all scans together, so that the page stays under 5 MB; what comes after is told and not drawn."""
_TEMPLATE = Path(__file__).with_name("page.html.j2")
_CHECKED = "agrees with the annotations"
_OPEN = "form, evidence and named items hold; an open answer is not derived"


def write_quality_page(
    path: Path,
    name: str,
    source: Source,
    quality: Quality,
    meter: QualityMeter,
    making: Making | None,
    num_faults: int,
    gates: PairGates,
) -> Path:
    """Write the page, whole or not at all, and return its path. It refers to nothing outside itself."""
    album = _Album(source)
    faulty = [album.case(pair, faults) for pair, faults in meter.faulty]
    faulty_keys = {(pair.image_path, pair.question): faults for pair, faults in meter.faulty}
    samples = {
        kind: [album.case(pair, faulty_keys.get((pair.image_path, pair.question), ())) for pair in pairs]
        for kind, pairs in meter.samples.items()
    }
    values = {
        "name": name,
        "source": f"{source.root.resolve().name}, {source.split} split",
        "quality": quality,
        "making": making,
        "num_faults": num_faults,
        "judged": [gate for gate in quality.gates if gate.passed is not None],
        "ratios": _ratios(quality, gates),
        "zone": gates.yes_ratio or (0.0, 1.0),
        "types": sorted({*quality.type_shares, *quality.type_shares_wanted}),
        "most_share": max([*quality.type_shares.values(), *quality.type_shares_wanted.values(), 0.01]),
        "made_of": _made_of(quality),
        "samples": samples,
        "faulty": faulty,
    }
    filters = {"thousands": lambda number: f"{number:,}", "percent": _percent, "figure": _figure}
    return write_page(path, _TEMPLATE, values, filters)


def _percent(share: float) -> str:
    """A share as a person reads it, never 0 % or 100 % where it is not exactly that."""
    text = f"{100 * share:.1f}".removesuffix(".0")
    if text in ("0", "100") and share not in (0, 1):
        text = "< 0.1" if share < 0.5 else "> 99.9"
    return f"{text} %"


def _figure(value: float | None) -> str:
    return "too few words" if value is None else f"{value:.3g}"


def _ratios(quality: Quality, gates: PairGates) -> list[dict[str, Any]]:
    low, high = gates.yes_ratio or (0.0, 1.0)

    def tone(ratio: YesRatio) -> str:
        if ratio.yes + ratio.no < gates.min_questions:
            return "pale"
        return "fill" if low <= ratio.ratio <= high else "off"

    rows = [("all", quality.yes_ratio)] if quality.yes_ratio else []
    rows += list(quality.yes_ratio_by_category.items())
    return [{"name": name, "yes": r.yes, "no": r.no, "ratio": r.ratio, "tone": tone(r)} for name, r in rows]


def _made_of(quality: Quality) -> list[dict[str, Any]]:
    """Rejections and refusals by what is in the bag."""
    if not quality.making:
        return []
    making = quality.making
    names = sorted({*making.rejected_by_category, *making.refusals_by_category})
    return [
        {
            "name": "clean bags" if name == "none" else name,
            "rejected": making.rejected_by_category.get(name, 0.0),
            "refused": making.refusals_by_category.get(name, 0),
        }
        for name in names
    ]


class _Album:
    """Draws scans, and stops where the page would get too large."""

    def __init__(self, source: Source) -> None:
        self._root = source.root
        self._records: Mapping[str, ScanRecord] = {record.image_path: record for record in source.records}
        self._num_bytes = 0

    def case(self, pair: VQAPair, faults: Sequence[str]) -> dict[str, Any]:
        """Return what the page shows of a pair."""
        about = pair.metadata
        good = _CHECKED if about.question_type in DERIVED_TYPES else _OPEN
        return {
            "pair": pair,
            "faults": faults,
            "verdict": "; ".join(faults) or good,
            "scan": self._scan(pair),
        }

    def _scan(self, pair: VQAPair) -> dict[str, Any]:
        scan: dict[str, Any] = {"uri": "", "problem": "", "boxes": [], "frame": "", "unplaced": []}
        record = self._records.get(pair.image_path)
        try:
            image = read_image(self._root / pair.image_path)
        except ImageUnreadable as error:
            return scan | {"problem": str(error).removeprefix(f"{self._root / pair.image_path}: ")}
        uri = jpeg_uri(image, MAX_SIDE, 78)
        if self._num_bytes + len(uri) > MOST_IMAGE_BYTES:
            return scan | {"problem": "not drawn, so that this page stays small"}
        self._num_bytes += len(uri)
        width, height = image.size
        scan |= {"uri": uri, "width": width, "height": height, "text_size": max(width, height) / 26}
        for index, (category, box) in enumerate(zip(record.categories, record.bboxes, strict=True) if record else ()):
            is_evidence = index in pair.metadata.evidence
            if box is None:
                scan["unplaced"] += [category] if is_evidence else []
                continue
            x, y, w, h = box
            scan["boxes"].append(
                {"label": category, "x": x, "y": y, "w": max(w, 0), "h": max(h, 0), "is_evidence": is_evidence}
            )
        return scan
