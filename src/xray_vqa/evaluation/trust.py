"""What must hold before anything is scored: no test scan was trained on, and the predictions are of this test set."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from xray_vqa.core.records import ScanRecord
from xray_vqa.dataset.layout import annotations_path, read_split
from xray_vqa.errors import DatasetError
from xray_vqa.evaluation.records import ScanPrediction
from xray_vqa.evaluation.testset import EvaluationSet, dataset_of


def find_leakage(data: EvaluationSet, train_file: Path | None = None) -> str:
    """Return which test scans were trained on, in words, or nothing.

    Files are compared by the SHA-256 that the annotations name. Groups are compared with the test set's own dataset,
    since two datasets may give one name to two bags.

    Args:
        data: The test set, with the training split beside it where there is one.
        train_file: Pairs that may have been written from another dataset.

    Raises:
        DatasetError: The training pairs do not say what they were written from.
    """
    roots = {data.root.resolve(): data.root}
    if train_file:
        root, _ = dataset_of(train_file)
        roots.setdefault(root.resolve(), root)
    by_hash: dict[str, str] = {}
    groups: dict[str, str] = {}
    for at, root in roots.items():
        if data.split != "train" and annotations_path(root, "train").is_file():
            for record in read_split(root, "train").records:
                by_hash.setdefault(record.sha256, record.image_path)
                if at == data.root.resolve():
                    groups.setdefault(record.group, record.image_path)
    by_hash.pop("", None)
    groups.pop("", None)
    scans = [planned.record for planned in data.scans]
    return "; ".join(
        told
        for told in (
            _tell("have the bytes of a training scan", [(s, by_hash[s.sha256]) for s in scans if s.sha256 in by_hash]),
            _tell("are of the group of a training scan", [(s, groups[s.group]) for s in scans if s.group in groups]),
        )
        if told
    )


def _tell(what: str, found: Sequence[tuple[ScanRecord, str]]) -> str:
    if not found:
        return ""
    return f"{len(found)} test scans {what}, first {found[0][0].image_path} (as {found[0][1]})"


def check_complete(path: Path, predictions: Sequence[ScanPrediction], data: EvaluationSet) -> None:
    """Check that predictions are one for each scan and question of a test set.

    Raises:
        DatasetError: Some are missing, doubled, of other scans, with other questions or another truth.
    """
    planned = {scan.record.image_path: scan for scan in data.scans}
    counts = Counter(prediction.image_path for prediction in predictions)
    faults = {
        "doubled": [name for name, count in counts.items() if count > 1],
        "not of this test set": [name for name in counts if name not in planned],
        "missing": [name for name in planned if name not in counts],
        "with other questions": [
            p.image_path
            for p in predictions
            if p.image_path in planned and tuple(a.pair for a in p.answers) != planned[p.image_path].lines
        ],
        "with other items than the annotations": [
            p.image_path
            for p in predictions
            if p.image_path in planned and p.present != planned[p.image_path].record.present
        ],
    }
    told = [f"{len(names)} scans {what}, first {names[0]}" for what, names in faults.items() if names]
    if told:
        raise DatasetError(f"{path}: {'; '.join(told)}; run `xray-vqa evaluate predict` again")


def notes_on_classes(data: EvaluationSet) -> list[str]:
    """Return which rates a test set cannot measure, for want of a class."""
    counts = Counter(name for scan in data.scans for name in scan.record.present)
    notes: list[str] = []
    empty = [name for name in data.annotated if not counts[name]]
    if empty:
        notes.append(f"no scan holds {', '.join(empty)}: detection of them is not measured")
    everywhere = [name for name in data.annotated if counts[name] == len(data.scans)]
    if everywhere:
        notes.append(f"every scan holds {', '.join(everywhere)}: false alarms for them are not measured")
    return notes
