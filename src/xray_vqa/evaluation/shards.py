"""Predictions in parts, one a GPU or a machine: `predictions.shard-1-of-4.jsonl` and so on, joined before scoring."""

import logging
import re
from dataclasses import replace
from pathlib import Path

from xray_vqa.core.jsonl import write_jsonl
from xray_vqa.core.manifest import read_manifest, sha256_file, write_manifest
from xray_vqa.core.records import compact
from xray_vqa.errors import DatasetError, Incomplete
from xray_vqa.evaluation.predict import read_predictions
from xray_vqa.evaluation.records import ScanPrediction
from xray_vqa.evaluation.testset import EvaluationSet

logger = logging.getLogger(__name__)

JOINED = "joined from shards"
_NAME = re.compile(r"\.shard-(\d+)-of-(\d+)\.jsonl$")


def shard_path(path: Path, shard: tuple[int, int]) -> Path:
    """Return where one part of a predictions file stands."""
    return path.with_name(f"{path.stem}.shard-{shard[0]}-of-{shard[1]}.jsonl")


def part_of(data: EvaluationSet, shard: tuple[int, int]) -> EvaluationSet:
    """Return every n-th scan of a test set, beginning with the i-th, for (i, n) with i from 1."""
    return replace(data, scans=data.scans[shard[0] - 1 :: shard[1]])


def join_shards(path: Path, data: EvaluationSet) -> None:
    """Join the parts that stand beside a predictions file into it, in the test set's order; nothing without parts.

    A predictions file that was made whole is left alone.

    Raises:
        Incomplete: A part is missing or was stopped.
        DatasetError: The parts are of different numbers of shards, models, thresholds or data.
    """
    found = {file: _NAME.search(file.name) for file in sorted(path.parent.glob(f"{path.stem}.shard-*-of-*.jsonl"))}
    numbers = {file: (int(match[1]), int(match[2])) for file, match in found.items() if match}
    if not numbers or (path.is_file() and JOINED not in read_manifest(path).notes):
        return
    totals = {total for _, total in numbers.values()}
    if len(totals) > 1:
        raise DatasetError(
            f"{path.parent}: {path.stem} is in parts of {' and of '.join(map(str, sorted(totals)))} shards; "
            "take away those that do not belong together"
        )
    total = totals.pop()
    missing = [shard_path(path, (k, total)).name for k in range(1, total + 1) if (k, total) not in numbers.values()]
    if missing:
        raise Incomplete(f"{path.parent}: {len(missing)} of {total} shards missing: {', '.join(missing)}")
    parts = {file: read_predictions(file) for file in numbers}
    (first, (_, header, manifest)), *rest = parts.items()
    for file, (_, other, made) in rest:
        changed = [name for name in type(header).model_fields if getattr(header, name) != getattr(other, name)]
        if sorted(made.inputs.values()) != sorted(manifest.inputs.values()):
            changed.append("the pairs or annotations")
        if changed:
            raise DatasetError(f"{first} and {file} cannot be joined: another {', '.join(changed)}")
    predictions: dict[str, ScanPrediction] = {}
    for file, (records, _, _) in parts.items():
        doubled = [record.image_path for record in records if record.image_path in predictions]
        if doubled:
            raise DatasetError(f"{file}: {len(doubled)} scans doubled, first {doubled[0]}")
        predictions |= {record.image_path: record for record in records}
    order = {scan.record.image_path: number for number, scan in enumerate(data.scans)}
    joined = sorted(predictions.values(), key=lambda record: order.get(record.image_path, len(order)))
    write_jsonl(path, map(compact, joined))
    counts = {"scans": len(joined), "done": len(joined), "questions": sum(len(record.answers) for record in joined)}
    write_manifest(
        path,
        manifest.model_copy(
            update={
                "counts": counts,
                "outputs": {file.name: sha256_file(file) for file in parts},
                "notes": [JOINED],
            }
        ),
    )
    logger.info("%s: joined from %d shards", path, total)
