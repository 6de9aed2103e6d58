"""Makes the page: one file, whole by itself, that a browser may not leave for anything."""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from xray_vqa.core.page import write_page
from xray_vqa.evaluation.report.about import About
from xray_vqa.evaluation.report.bars import BAR_WIDTH, absent_categories, bar_of, category_rows
from xray_vqa.evaluation.report.curves import cost_plot, coverage_plot, det_plot, reliability_plot, roc_plot
from xray_vqa.evaluation.report.gallery import KINDS, ReportScan, scan_view
from xray_vqa.evaluation.report.pictures import HeatMap
from xray_vqa.evaluation.report.words import headline, limits_of, unit_of
from xray_vqa.evaluation.results import Estimate, EvaluationResults
from xray_vqa.evaluation.table import COLUMNS, cells_of, told_scans

MAX_PICTURE_BYTES = 4_200_000
"""Of all pictures together, so that the page with everything else stays under 5 MB."""

MAX_PICTURE_BYTES_EACH = 110_000

_TEMPLATES = Path(__file__).with_name("templates")


def write_report(
    path: Path,
    results: EvaluationResults,
    scans: Sequence[ReportScan] = (),
    title: str = "X-ray VQA evaluation",
    *,
    about: About | None = None,
    heat_maps: Mapping[str, HeatMap] | None = None,
) -> Path:
    """Write the page, whole or not at all, and return its path. It refers to nothing outside itself.

    Args:
        path: Of the HTML file.
        results: What was measured.
        scans: Shown in this order.
        title: Of the page.
        about: Where the scans come from, what is confused with what, and what made the results.
        heat_maps: Where the model looked, by `image_path` of the scans shown; others have none.
    """
    script = (_TEMPLATES / "page.js").read_text(encoding="utf-8")
    shown = sorted({name for scan in scans for name in scan.categories})
    style = (_TEMPLATES / "page.css").read_text(encoding="utf-8") + _filter_rules(len(shown))
    screening = results.screening
    bag = screening.bag
    values: dict[str, Any] = {
        "title": title,
        "style": style,
        "style_hash": _csp_hash(style),
        "script": script,
        "script_hash": _csp_hash(script),
        "results": results,
        "about": about or About(),
        "headline": headline(results),
        "unit": unit_of(results),
        "sample": told_scans(results.scored.num_scans, results.scored.num_groups),
        "limits": limits_of(results),
        "columns": [name for name, _ in COLUMNS],
        "rows": [(row, cells_of(row)) for row in results.rows],
        "roc": roc_plot(bag),
        "det": det_plot(bag),
        "cost": cost_plot(bag),
        "reliability": _reliability(results),
        "coverage": coverage_plot(results.calibration.after.risk_coverage),
        "categories": category_rows(screening.categories),
        "absent": absent_categories(screening.categories),
        "bar_width": BAR_WIDTH,
        "bar_of": bar_of,
        "kinds": {kind: name for kind, name in KINDS.items() if any(scan.kind == kind for scan in scans)},
        "shown_categories": shown,
        "scans": _scan_views(scans, shown, heat_maps or {}),
    }
    filters = {
        "number": _number,
        "interval": _interval,
        "percent": _percent,
        "percents": _percents,
        "percent_range": _percent_range,
        "unhashed": _unhashed,
    }
    return write_page(path, _TEMPLATES / "page.html.j2", values, filters)


def _unhashed(text: str) -> Any:
    """The style and the script are ours and stand as they are, or their digests would not fit."""
    from markupsafe import Markup

    return Markup(text)  # noqa: S704 - files of this package, and numbers


def _csp_hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _filter_rules(num_categories: int) -> str:
    """Rules by which a category's button hides the scans of others: the filter works where scripts do not run."""
    return "".join(
        f"body:has(#cat-{index}:checked) .scan:not(.c{index}) {{ display: none; }}\n" for index in range(num_categories)
    )


def _reliability(results: EvaluationResults) -> list[tuple[str, Any]]:
    change = results.calibration
    parts = [("as the model gives them", change.before), ("corrected by its calibration", change.after)]
    if change.before == change.after:
        parts = parts[:1]
    return [(what, plot) for what, scores in parts if (plot := reliability_plot(scores, what))]


def _scan_views(
    scans: Sequence[ReportScan], shown: Sequence[str], heat_maps: Mapping[str, HeatMap]
) -> list[dict[str, Any]]:
    """Share the room for pictures out: what one scan leaves, the next ones may take."""
    numbers = {name: index for index, name in enumerate(shown)}
    left = MAX_PICTURE_BYTES
    views: list[dict[str, Any]] = []
    for place, scan in enumerate(scans):
        room = min(left // (len(scans) - place), MAX_PICTURE_BYTES_EACH)
        view, used = scan_view(scan, numbers, heat_maps.get(scan.prediction.image_path), room)
        left -= used
        views.append(view)
    return views


def _number(estimate: Estimate | float | None) -> str:
    value = estimate.value if isinstance(estimate, Estimate) else estimate
    return "–" if value is None else f"{value:.3f}"


def _interval(estimate: Estimate) -> str:
    return "" if estimate.low is None or estimate.high is None else f"{estimate.low:.3f} to {estimate.high:.3f}"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f} %"


def _percent_range(estimate: Estimate) -> str:
    if estimate.low is None or estimate.high is None:
        return ""
    return f"{100 * estimate.low:.1f} to {100 * estimate.high:.1f} %"


def _percents(estimate: Estimate) -> str:
    """Return "87.0 % [80.1, 92.2]"."""
    if estimate.value is None:
        return "–"
    if estimate.low is None or estimate.high is None:
        return _percent(estimate.value)
    return f"{_percent(estimate.value)} [{100 * estimate.low:.1f}, {100 * estimate.high:.1f}]"
