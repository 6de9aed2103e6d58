"""Checks and measures a pairs file, and writes what stands beside it for people: `_quality.html` and `_card.md`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from xray_vqa.config.quality import PairGates
from xray_vqa.core.jsonl import read_json, replacing
from xray_vqa.core.policy import Policy
from xray_vqa.core.records import Fault
from xray_vqa.errors import DatasetError
from xray_vqa.generation.quality.card import card_of
from xray_vqa.generation.quality.meter import QualityMeter
from xray_vqa.generation.quality.page import write_quality_page
from xray_vqa.generation.quality.report import Making, Quality
from xray_vqa.generation.source import Source
from xray_vqa.generation.validation import check_file, kind_of


@dataclass(frozen=True, slots=True)
class Checked:
    """A measured set of pairs."""

    quality: Quality
    meter: QualityMeter
    """Has the sampled pairs."""
    making: Making | None
    faults: Sequence[Fault]
    gates: PairGates


def check_and_measure(path: Path, source: Source, policy: Policy, gates: PairGates) -> Checked:
    """Return what is wrong in a pairs file and its figures. Raises DatasetError where it is not there."""
    meter = QualityMeter({record.image_path: record.categories for record in source.records})
    faults: list[Fault] = []
    for line in check_file(path, source.records, source.annotated, policy, source.root):
        faults += line.faults
        if line.pair is None:
            meter.add_invalid()
            continue
        # A missing image is the fault of its file, told once for the pairs of one image.
        messages = [fault.message for fault in line.faults if kind_of(fault.message) != "missing"]
        meter.add(line.pair, messages)
    faults.sort(key=lambda fault: fault.position or 0)
    making = _making_of(path)
    return Checked(meter.result(gates, making), meter, making, faults, gates)


def _making_of(path: Path) -> Making | None:
    stats_path = path.with_name(f"{path.stem}_stats.json")
    try:
        stats = read_json(stats_path)
        return Making.from_stats(stats)
    except (DatasetError, ValueError, AttributeError):  # there is none, or it is not ours
        return None


def pages(path: Path) -> tuple[Path, Path]:
    """Return where the page and the card of a pairs file stand."""
    return path.with_name(f"{path.stem}_quality.html"), path.with_name(f"{path.stem}_card.md")


def write_pages(path: Path, source: Source, checked: Checked) -> list[Path]:
    """Write the page and the card beside a pairs file, and return their paths."""
    page_path, card_path = pages(path)
    faults = len(checked.faults)
    write_quality_page(
        page_path, path.name, source, checked.quality, checked.meter, checked.making, faults, checked.gates
    )
    with replacing(card_path) as stream:
        stream.write(card_of(path, source, checked.quality, checked.making, faults).encode())
    return [page_path, card_path]
