"""Makes the page: scans as JPEG data URIs with their boxes over them, and everything else from the results."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from xray_vqa.core.images import jpeg_uri, read_image
from xray_vqa.core.inspection import Inspection, Scan
from xray_vqa.core.page import write_page
from xray_vqa.core.policy import Policy
from xray_vqa.errors import ImageUnreadable
from xray_vqa.evaluation.records import AnswerRecord, Corners, PredictionsHeader, ScanPrediction
from xray_vqa.evaluation.replay import ReplayEngine
from xray_vqa.evaluation.report.charts import BAR_STEP, BAR_WIDTH, category_bars, roc_chart
from xray_vqa.evaluation.results import Estimate, EvaluationResults
from xray_vqa.evaluation.table import COLUMNS, cells_of
from xray_vqa.evaluation.metrics.text import is_exact, is_lenient
from xray_vqa.inference.inspector import Inspector

MAX_SHOWN = 12
_TEMPLATE = Path(__file__).with_name("page.html.j2")


@dataclass(frozen=True, slots=True)
class ReportScan:
    """A scan to show: the image, what was predicted for it and what an inspection makes of that."""

    image: Image.Image
    prediction: ScanPrediction
    inspection: Inspection


def choose_scans(
    root: Path,
    predictions: Sequence[ScanPrediction],
    header: PredictionsHeader,
    policy: Policy,
    limit: int = MAX_SHOWN,
) -> list[ReportScan]:
    """Return scans of every kind in turn: found, missed, falsely flagged, rightly quiet; the same ones each time."""
    kinds: dict[str, list[ScanPrediction]] = {"found": [], "missed": [], "alarm": [], "quiet": []}
    ordered = sorted(predictions, key=lambda p: hashlib.sha256(p.image_path.encode()).digest())
    for prediction in ordered:
        kinds[_kind_of(prediction, header)].append(prediction)
    queues = [queue for queue in kinds.values() if queue]
    chosen: list[ScanPrediction] = []
    for place in range(max((len(queue) for queue in queues), default=0)):
        chosen += [queue[place] for queue in queues if place < len(queue)]
    scans: list[ReportScan] = []
    for prediction in chosen:
        if len(scans) == limit:
            break
        try:
            image = read_image(root / prediction.image_path)
        except ImageUnreadable:  # counted and named in the results; there is nothing to show
            continue
        inspector = Inspector(ReplayEngine(header, [prediction]), policy)
        inspector.info = inspector.engine.start()
        (inspection,) = inspector.inspect([Scan(prediction.image_path, image)])
        scans.append(ReportScan(image, prediction, inspection))
    return scans


def _kind_of(prediction: ScanPrediction, header: PredictionsHeader) -> str:
    flagged = {
        name
        for name in prediction.annotated_categories
        if (raw := prediction.probability(name)) is not None
        and header.point.correct(raw) >= header.point.thresholds[name]
    }
    if prediction.present:
        return "found" if prediction.present <= flagged else "missed"
    return "alarm" if flagged else "quiet"


def write_report(
    path: Path, results: EvaluationResults, scans: Sequence[ReportScan] = (), title: str = "X-ray VQA evaluation"
) -> Path:
    """Write the page, whole or not at all, and return its path. It refers to nothing outside itself.

    Args:
        path: Of the HTML file.
        results: What was measured.
        scans: Shown in this order.
        title: Of the page.
    """
    values = {
        "title": title,
        "results": results,
        "columns": [name for name, _ in COLUMNS],
        "rows": [(row, cells_of(row)) for row in results.rows],
        "roc": roc_chart(results.screening.bag),
        "bars": category_bars(results.screening.categories),
        "bar_width": BAR_WIDTH,
        "bar_step": BAR_STEP,
        "scans": [_scan_view(scan) for scan in scans],
    }
    return write_page(path, _TEMPLATE, values, {"number": _number, "interval": _interval, "percent": _percent})


def _number(estimate: Estimate | float | None) -> str:
    value = estimate.value if isinstance(estimate, Estimate) else estimate
    return "–" if value is None else f"{value:.3f}"


def _interval(estimate: Estimate) -> str:
    return "" if estimate.low is None or estimate.high is None else f"{estimate.low:.3f} to {estimate.high:.3f}"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f} %"


def _scan_view(scan: ReportScan) -> dict[str, Any]:
    width, height = scan.image.size
    unit = max(width, height)
    prediction, inspection = scan.prediction, scan.inspection
    return {
        "name": prediction.image_path,
        "width": width,
        "height": height,
        "unit": unit,
        "uri": jpeg_uri(scan.image),
        "truth_boxes": [_box_view(item.category, item.box, height, unit) for item in prediction.truth if item.box],
        "predicted_boxes": [
            _box_view(f"{f.category} {100 * f.probability:.0f} %", f.box.as_xywh(), height, unit, below=True)
            for f in inspection.findings
            if f.box
        ],
        "truth": ", ".join(sorted(prediction.present)) or "nothing prohibited",
        "action": inspection.decision.action.value,
        "risk": inspection.decision.risk_level.value,
        "reasoning": inspection.reasoning,
        "answers": [_answer_view(answer) for answer in prediction.answers],
    }


def _box_view(label: str, box: Corners, height: float, unit: float, *, below: bool = False) -> dict[str, Any]:
    """A rectangle and where its label stands: truth above its box, prediction below, inside where there is no room."""
    x, y, w, h = box
    size = unit / 32
    text_y = y + h + size if below else y - size * 0.3
    if text_y > height - size * 0.2:
        text_y = y + h - size * 0.3
    if text_y < size:
        text_y = y + size
    return {"label": label, "x": x, "y": y, "w": w, "h": h, "text_x": x + size * 0.15, "text_y": text_y, "size": size}


def _answer_view(answer: AnswerRecord) -> dict[str, Any]:
    if answer.failure:
        verdict = "unreadable"
    elif is_exact(answer.said, answer.short_truth, answer.truth):
        verdict = "right"
    elif is_lenient(answer.said, answer.short_truth, answer.truth):
        verdict = "same meaning"
    else:
        verdict = "wrong"
    return {
        "question": answer.question,
        "kind": answer.question_type,
        "said": answer.answer or answer.failure_text or "(nothing)",
        "truth": answer.truth,
        "verdict": verdict,
    }
