"""Which scans the page shows, and what it shows of them: misses first, then false alarms, then some right ones."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from PIL import Image

from xray_vqa.core.images import read_image
from xray_vqa.core.inspection import Inspection, Scan
from xray_vqa.core.policy import Policy
from xray_vqa.core.records import SIMULATED_SOURCES
from xray_vqa.errors import ImageUnreadable
from xray_vqa.evaluation.metrics.text import is_exact, is_lenient
from xray_vqa.evaluation.records import AnswerRecord, Corners, PredictionsHeader, ScanPrediction
from xray_vqa.evaluation.replay import ReplayEngine
from xray_vqa.evaluation.report.pictures import HeatMap, heat_uri, thumbnail_uri
from xray_vqa.inference.inspector import Inspector

MAX_SHOWN = 60
KEPT_FOR_RIGHT = 12
"""Places that misses and false alarms never take: a reader has to see what a right answer looks like."""

Kind = Literal["missed", "alarm", "found", "quiet"]

KINDS: dict[Kind, str] = {
    "missed": "Missed",
    "alarm": "False alarm",
    "found": "Found",
    "quiet": "Rightly quiet",
}


@dataclass(frozen=True, slots=True)
class ReportScan:
    """A scan to show: the image, what was predicted for it and what an inspection makes of that."""

    image: Image.Image
    prediction: ScanPrediction
    inspection: Inspection
    kind: Kind
    missed: tuple[str, ...] = ()
    """Categories that are there and were not flagged."""
    alarms: tuple[str, ...] = ()
    """Categories that were flagged and are not there, or have no score that can be read."""

    @property
    def categories(self) -> frozenset[str]:
        """What the scan is about: what is in it and what was wrongly seen in it."""
        return self.prediction.present | frozenset(self.alarms)


@dataclass(frozen=True, slots=True)
class _Judged:
    prediction: ScanPrediction
    kind: Kind
    missed: tuple[str, ...]
    alarms: tuple[str, ...]
    margin: float
    """How far over its threshold the decisive category stands."""


def choose_scans(
    root: Path,
    predictions: Sequence[ScanPrediction],
    header: PredictionsHeader,
    policy: Policy,
    limit: int = MAX_SHOWN,
) -> list[ReportScan]:
    """Return misses, false alarms and some right answers, the plainest of each first; the same ones each time.

    Args:
        root: Of the dataset.
        predictions: Of the model.
        header: Of the predictions file.
        policy: That the inspections shown are made by.
        limit: How many scans; those whose image cannot be read are skipped, they are named in the results.
    """
    judged = [_judge(prediction, header) for prediction in predictions]
    scans: list[ReportScan] = []
    queues = {kind: _ordered(kind, judged) for kind in KINDS}
    num_right = min(KEPT_FOR_RIGHT, limit // 4, len(queues["found"]) + len(queues["quiet"]))
    num_alarms = min(len(queues["alarm"]), max((limit - num_right) // 3, limit - num_right - len(queues["missed"])))
    right = [entry for pair in _in_turn(queues["found"], queues["quiet"]) for entry in pair]
    for entries, room in (
        (queues["missed"], limit - num_right - num_alarms),
        (queues["alarm"], num_alarms),
        (right, limit),
    ):
        taken = 0
        for entry in entries:
            if taken == room or len(scans) == limit:
                break
            scan = _shown(root, entry, header, policy)
            if scan:
                scans.append(scan)
                taken += 1
    return scans


def _judge(prediction: ScanPrediction, header: PredictionsHeader) -> _Judged:
    margins: dict[str, float | None] = {}
    for name in prediction.annotated_categories:
        raw = prediction.probability(name)
        margins[name] = None if raw is None else header.point.correct(raw) - header.point.thresholds[name]
    missed = tuple(
        name for name, margin in margins.items() if name in prediction.present and (margin is None or margin < 0)
    )
    alarms = tuple(
        name for name, margin in margins.items() if name not in prediction.present and (margin is None or margin >= 0)
    )
    kind: Kind = "missed" if missed else "alarm" if alarms else "found" if prediction.present else "quiet"
    decisive = missed or alarms or tuple(prediction.present) or tuple(margins)
    known = [margin for name in decisive if (margin := margins.get(name)) is not None]
    margin = (min(known) if missed else max(known)) if known else 0.0
    return _Judged(prediction, kind, missed, alarms, margin)


def _ordered(kind: Kind, judged: Sequence[_Judged]) -> list[_Judged]:
    """The plainest first: a miss or a quiet bag far under its threshold, an alarm or a find far over it."""
    sign = 1 if kind in ("missed", "quiet") else -1
    mine = [entry for entry in judged if entry.kind == kind]
    return sorted(mine, key=lambda entry: (sign * entry.margin, entry.prediction.image_path))


def _in_turn(first: Sequence[_Judged], second: Sequence[_Judged]) -> list[list[_Judged]]:
    longest = max(len(first), len(second))
    return [[*first[place : place + 1], *second[place : place + 1]] for place in range(longest)]


def _shown(root: Path, entry: _Judged, header: PredictionsHeader, policy: Policy) -> ReportScan | None:
    try:
        image = read_image(root / entry.prediction.image_path)
    except ImageUnreadable:
        return None
    inspector = Inspector(ReplayEngine(header, [entry.prediction]), policy)
    inspector.info = inspector.engine.start()
    (inspection,) = inspector.inspect([Scan(entry.prediction.image_path, image)])
    return ReportScan(image, entry.prediction, inspection, entry.kind, entry.missed, entry.alarms)


def scan_view(
    scan: ReportScan, numbers: Mapping[str, int], heat: HeatMap | None, max_bytes: int
) -> tuple[dict[str, Any], int]:
    """Return what the template shows of a scan, and how many bytes its pictures take.

    Args:
        scan: To show.
        numbers: Of the categories, as the filters count them.
        heat: Where the model looked.
        max_bytes: That its pictures may take.
    """
    width, height = scan.image.size
    unit = max(width, height)
    prediction, inspection = scan.prediction, scan.inspection
    heat_data = heat_uri(heat) if heat is not None else ""
    uri = thumbnail_uri(scan.image, max_bytes - len(heat_data))
    return {
        "name": prediction.image_path,
        "kind": scan.kind,
        "title": KINDS[scan.kind],
        "about": ", ".join(scan.missed or scan.alarms or sorted(prediction.present)),
        "classes": " ".join(f"c{numbers[name]}" for name in sorted(scan.categories)),
        "simulated": prediction.source.startswith(SIMULATED_SOURCES),
        "source": prediction.source,
        "width": width,
        "height": height,
        "uri": uri,
        "heat": heat_data,
        "alt": _alt(scan),
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
    }, len(uri) + len(heat_data)


def _alt(scan: ReportScan) -> str:
    there = ", ".join(sorted(scan.prediction.present)) or "nothing prohibited"
    said = ", ".join(finding.category for finding in scan.inspection.findings) or "nothing"
    return f"X-ray scan with {there}; the model reports {said}"


def _box_view(label: str, box: Corners, height: float, unit: float, *, below: bool = False) -> dict[str, Any]:
    """A rectangle and where its label stands: truth above its box, prediction below, inside where there is no room."""
    x, y, w, h = box
    size = unit / 30
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
        "language": answer.language,
        "said": answer.answer or answer.failure_text or "(nothing)",
        "truth": answer.truth,
        "verdict": verdict,
    }
