"""Where the model looked, for the scans that the page shows. The model runs again, once a category."""

from collections.abc import Sequence

import numpy as np

from xray_vqa.evaluation.report.gallery import ReportScan
from xray_vqa.evaluation.report.pictures import HeatMap

MAX_CATEGORIES = 4
"""Of one scan; more would say less, laid over each other, and each costs a backward pass."""


def heat_maps_of(model: str, device: str | None, scans: Sequence[ReportScan]) -> dict[str, HeatMap]:
    """Return a map by `image_path`: of several categories the hottest at each place.

    Those explained are what the scan is shown for: its misses, its false alarms, or what was found. A rightly quiet
    bag has no finding and no map.

    Args:
        model: Folder, hub name or `nano`.
        device: As for the predictions.
        scans: Shown on the page.

    Raises:
        ModelUnavailable: The model cannot be loaded, or nobody knows how to take its family apart.
    """
    from xray_vqa.inference.explain import explain  # torch
    from xray_vqa.modeling.loading import load_model

    explained = [(scan, names) for scan in scans if (names := _explained(scan))]
    if not explained:
        return {}
    loaded = load_model(model, device=device, merge=True)
    maps: dict[str, HeatMap] = {}
    for scan, names in explained:
        found = explain(loaded, scan.image, names)
        maps[scan.prediction.image_path] = np.max([heat.values for heat in found.values()], axis=0)
    return maps


def _explained(scan: ReportScan) -> list[str]:
    findings = [finding.category for finding in scan.inspection.findings]
    return list(dict.fromkeys([*scan.missed, *scan.alarms, *findings]))[:MAX_CATEGORIES]
