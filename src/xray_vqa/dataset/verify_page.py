"""Makes one page of what `data verify` found: the counts, every kind of fault, and the worst cases drawn."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from xray_vqa.core.images import jpeg_uri, read_image
from xray_vqa.core.page import write_page
from xray_vqa.core.records import SPLITS, ScanRecord
from xray_vqa.dataset.layout import read_split
from xray_vqa.dataset.verify import KINDS, Remark, VerifyReport
from xray_vqa.errors import DatasetError, ImageUnreadable

MAX_DRAWN = 6
"""Cases of each kind, faults and notices counted apart."""
MAX_LISTED = 100
"""Lines of each kind; the JSON report has all of them."""
MAX_SIDE = 480
"""Pixels of a drawn scan."""
_TEMPLATE = Path(__file__).with_name("verify_page.html.j2")


def write_verify_page(path: Path, report: VerifyReport) -> Path:
    """Write the page, whole or not at all, and return its path. It refers to nothing outside itself."""
    records = _records(report.root)
    sections = [
        section
        for severity, remarks in (("fault", report.faults), ("notice", report.notices))
        for section in _sections(severity, remarks, report.root, records)
    ]
    categories = sorted({name for counts in report.splits.values() for name in counts.categories})
    most = max((n for counts in report.splits.values() for n in counts.categories.values()), default=1)
    values = {
        "report": report,
        "name": report.root.resolve().name,
        "sections": sections,
        "categories": categories,
        "most": most,
        "max_listed": MAX_LISTED,
    }
    return write_page(path, _TEMPLATE, values, {"thousands": lambda number: f"{number:,}"})


def _records(root: Path) -> dict[str, ScanRecord]:
    records: dict[str, ScanRecord] = {}
    for split in SPLITS:
        try:
            records |= {record.image_path: record for record in read_split(root, split).records}
        except DatasetError:
            continue  # is a fault of the report
    return records


def _sections(
    severity: str, remarks: Sequence[Remark], root: Path, records: Mapping[str, ScanRecord]
) -> list[dict[str, Any]]:
    by_kind: dict[str, list[Remark]] = defaultdict(list)
    for remark in remarks:
        by_kind[remark.kind].append(remark)
    return [
        {
            "severity": severity,
            "kind": kind,
            "title": KINDS[kind],
            "count": len(by_kind[kind]),
            "cases": [_case(remark, root, records) for remark in by_kind[kind] if remark.images][:MAX_DRAWN],
            "lines": [_line(remark, root) for remark in by_kind[kind][:MAX_LISTED]],
        }
        for kind in KINDS
        if by_kind[kind]
    ]


def _line(remark: Remark, root: Path) -> tuple[str, str]:
    place = remark.path.relative_to(root).as_posix() if remark.path.is_relative_to(root) else str(remark.path)
    return (f"{place}:{remark.position}" if remark.position is not None else place, remark.message)


def _case(remark: Remark, root: Path, records: Mapping[str, ScanRecord]) -> dict[str, Any]:
    scans = [_scan(image_path, root, records.get(image_path)) for image_path in remark.images]
    return {"place": _line(remark, root)[0], "message": remark.message, "scans": scans}


def _scan(image_path: str, root: Path, record: ScanRecord | None) -> dict[str, Any]:
    view: dict[str, Any] = {"name": image_path, "uri": "", "problem": "", "labels": "", "group": "", "boxes": []}
    if record:
        view["labels"] = ", ".join(record.categories) or "clean"
        view["group"] = record.group
    try:
        image = read_image(root / image_path)
    except ImageUnreadable as error:
        return view | {"problem": str(error).removeprefix(f"{root / image_path}: ")}
    width, height = image.size
    boxes = [box for box in record.bboxes if box] if record else []
    # The frame grows so that a box outside of the image is seen to be outside.
    left, top = min([0.0, *(box[0] for box in boxes)]), min([0.0, *(box[1] for box in boxes)])
    right = max([float(width), *(box[0] + box[2] for box in boxes)])
    bottom = max([float(height), *(box[1] + box[3] for box in boxes)])
    limit = 5 * max(width, height)
    left, top, right, bottom = max(left, -limit), max(top, -limit), min(right, limit), min(bottom, limit)
    unit = max(right - left, bottom - top)
    named = [(name, box) for name, box in zip(record.categories, record.bboxes, strict=True) if box] if record else []
    return view | {
        "uri": jpeg_uri(image, MAX_SIDE),
        "width": width,
        "height": height,
        "frame": f"{left:g} {top:g} {right - left:g} {bottom - top:g}",
        "text_size": unit / 24,
        "boxes": [{"label": name, "x": x, "y": y, "w": max(w, 0), "h": max(h, 0)} for name, (x, y, w, h) in named],
    }
