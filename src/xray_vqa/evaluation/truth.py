"""What is known of a scan beside its pixels, as it stands in a prediction: items, their difficulty, their source."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from xray_vqa.core.geometry import Box
from xray_vqa.core.records import ScanRecord
from xray_vqa.core.taxonomy import UNLISTED
from xray_vqa.evaluation.records import Scalar, TruthItem
from xray_vqa.evaluation.testset import PlannedScan


def known_of(planned: PlannedScan, annotated: Sequence[str]) -> dict[str, Any]:
    """Return the fields of a `ScanPrediction` that come from the annotations and not from the engine."""
    record = planned.record
    return {
        "image_path": record.image_path,
        "image_id": record.image_id,
        "group": planned.group,
        "width": record.width,
        "height": record.height,
        "source": record.source,
        "factors": _scalars(record.factors or {}),
        "truth": truth_of(record),
        "num_unlisted": record.categories.count(UNLISTED),
        "annotated_categories": list(annotated),
    }


def truth_of(record: ScanRecord) -> list[TruthItem]:
    """Return the annotated items of known category. A box without area inside the image is none: the item counts."""
    items: list[TruthItem] = []
    occlusion = record.occlusion if len(record.occlusion or []) == len(record.categories) else None
    about = _about_items(record)
    for index, (category, values) in enumerate(zip(record.categories, record.bboxes, strict=True)):
        if category != UNLISTED:
            box = None
            if values is not None and values[2] > 0 and values[3] > 0:
                box = Box.from_xywh(values).clipped(record.size_wh)
            facts = about.get(index, {})
            hidden = facts.get("occlusion") if occlusion is None else occlusion[index]
            factors = {name: value for name, value in facts.items() if name not in ("visible", "occlusion")}
            items.append(
                TruthItem(
                    category=category,
                    box=box.as_xywh() if box else None,
                    visible=_share(facts.get("visible")),
                    occlusion=_share(hidden),
                    factors=_scalars(factors),
                )
            )
    return items


def _about_items(record: ScanRecord) -> dict[int, Mapping[str, Any]]:
    """Facts by index of the item: the simulator writes one for each item, threat projection for those it added."""
    factors = record.factors or {}
    about: dict[int, Mapping[str, Any]] = {}
    simulated = factors.get("threats")
    if isinstance(simulated, list):
        about |= {index: facts for index, facts in enumerate(simulated) if isinstance(facts, Mapping)}
    projected = factors.get("tip")
    for facts in projected.get("threats", []) if isinstance(projected, Mapping) else []:
        if isinstance(facts, Mapping) and isinstance(index := facts.get("index"), int):
            about[index] = {key: value for key, value in facts.items() if key not in ("index", "category")}
    return about


def _share(value: Any) -> float | None:
    """A share that a foreign file gives outside 0 to 1, or as text, is none."""
    is_share = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1
    return float(value) if is_share else None


def _scalars(factors: Mapping[str, Any]) -> dict[str, Scalar]:
    return {
        name: value
        for name, value in factors.items()
        if isinstance(value, bool | int | str) or (isinstance(value, float) and math.isfinite(value))
    }
