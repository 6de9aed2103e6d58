"""Two predictions files of the same scans and questions, compared bag by bag."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
from pydantic import Field

from xray_vqa.core.jsonl import read_json
from xray_vqa.core.manifest import Manifest, sha256_bytes, sha256_file
from xray_vqa.core.records import Strict
from xray_vqa.errors import DatasetError
from xray_vqa.evaluation.comparison.judged import METRICS, Judged
from xray_vqa.evaluation.comparison.paired import DRAWS, BoolArray, Difference, holm, mcnemar_exact, paired_difference
from xray_vqa.evaluation.predict import predictions_name, read_predictions
from xray_vqa.evaluation.records import PredictionsHeader, ScanPrediction

COMPARE_VERSION = "1"
BAG_SLICES = ("clutter_level", "concealment")
"""Factors of the bag that detection is compared within, where the source knows them."""


class Delta(Difference):
    """A difference, judged by the margin."""

    not_worse: bool | None = None
    """Whether the interval excludes that B is worse by the margin or more; null without a margin."""

    @classmethod
    def of(cls, found: Difference, margin: float | None, *, lower_is_better: bool) -> "Delta":
        not_worse = None
        if margin is not None and found.difference is not None:
            bound = found.high if lower_is_better else found.low
            not_worse = bound is not None and (bound < margin if lower_is_better else bound > -margin)
        return cls(**found.model_dump(), not_worse=not_worse)


class Flips(Strict):
    """Bags that one model gets right and the other wrong, with McNemar's exact test."""

    n: int
    both: int
    only_a: int
    only_b: int
    neither: int
    p_value: float
    p_corrected: float | None = None
    """By Holm, over all slices of this comparison."""

    @classmethod
    def count(cls, right_a: BoolArray, right_b: BoolArray) -> "Flips":
        only_a, only_b = int((right_a & ~right_b).sum()), int((~right_a & right_b).sum())
        both = int((right_a & right_b).sum())
        return cls(
            n=len(right_a),
            both=both,
            only_a=only_a,
            only_b=only_b,
            neither=len(right_a) - both - only_a - only_b,
            p_value=mcnemar_exact(only_a, only_b),
        )


class Flip(Strict):
    """A scan that the two models judge differently."""

    kind: str
    """`threat lost`, `false alarm new`, `threat found` or `false alarm gone`, as seen from A to B."""
    image_path: str
    group: str
    categories: list[str]
    """What is in it."""


class Compared(Strict):
    """One side."""

    file: str
    sha256: str
    model: str
    engine: str
    dtype: str
    calibrated: bool


class Comparison(Strict):
    """The output of `xray-vqa compare`."""

    a: Compared
    b: Compared
    test_set: str
    """Digest over the pairs and annotations that both were made from."""
    num_scans: int
    num_groups: int
    num_questions: int
    margin: float | None = Field(ge=0)
    draws: int
    seed: int
    metrics: dict[str, Delta]
    detection: Flips
    """Bags with a threat: right is flagged."""
    alarms: Flips
    """Clean bags: right is not flagged."""
    slices: dict[str, Flips]
    """Detection by category, clutter and concealment, answers by question type (right: more than half of a bag's)."""
    flips: list[Flip]
    """Threats lost first."""
    notes: list[str]
    compare_version: str = COMPARE_VERSION


def predictions_file(path: Path) -> Path:
    """Return the predictions behind a results file (`evaluation.json`), or the file itself. Raises DatasetError."""
    if path.suffix != ".json":
        return path
    results = read_json(path)
    scored = results.get("scored") if isinstance(results, dict) else None
    if not isinstance(scored, dict):
        raise DatasetError(f"{path}: neither predictions (.jsonl) nor results of `xray-vqa evaluate`")
    return path.with_suffix("") / predictions_name("model", scored.get("max_samples"), scored.get("max_images"))


def compare(
    path_a: Path, path_b: Path, *, margin: float | None = None, draws: int = DRAWS, seed: int = 0
) -> Comparison:
    """Compare two results or predictions files.

    Args:
        path_a: The one that stands now.
        path_b: The one that may take its place.
        margin: B may be worse by less than this and still counts as not worse.
        draws: Of the bootstrap.
        seed: Of the draws.

    Raises:
        DatasetError: A file is missing or broken, or the two are of different scans, questions or annotations.
        Incomplete: Predicting one of them was stopped.
    """
    files = [predictions_file(path) for path in (path_a, path_b)]
    read = [read_predictions(file) for file in files]
    digests = [digest_of_inputs(manifest) for _, _, manifest in read]
    if digests[0] != digests[1]:
        raise DatasetError(
            f"{files[0]} and {files[1]} are of different test sets ({digests[0][:12]} and {digests[1][:12]} over pairs "
            "and annotations); only predictions of the same scans and questions can be compared"
        )
    ordered = [sorted(predictions, key=lambda p: p.image_path) for predictions, _, _ in read]
    _check_same(ordered[0], ordered[1], files)
    sides = [Judged.of(predictions, header) for predictions, (_, header, _) in zip(ordered, read, strict=True)]
    compared = [_compared(file, header) for file, (_, header, _) in zip(files, read, strict=True)]
    a, b = sides
    slices = _slices(a, b, ordered[0])
    corrected = holm([entry.p_value for entry in slices.values()])
    size = a.size
    deltas = {
        name: Delta.of(
            paired_difference(side(a), side(b), size, draws=draws, seed=seed), margin, lower_is_better=name == "pfa"
        )
        for name, side in METRICS.items()
    }
    return Comparison(
        a=compared[0],
        b=compared[1],
        test_set=digests[0],
        num_scans=len(a.member),
        num_groups=size,
        num_questions=sum(len(p.answers) for p in ordered[0]),
        margin=margin,
        draws=draws,
        seed=seed,
        metrics=deltas,
        detection=_detection(a, b, a.truth),
        alarms=Flips.count(*(side.right(side.clean, flagged_is_right=False) for side in sides)),
        slices={
            name: entry.model_copy(update={"p_corrected": p})
            for (name, entry), p in zip(slices.items(), corrected, strict=True)
        },
        flips=_flips(a, b, ordered[0]),
        notes=_notes(read[0][1], read[1][1], a),
    )


def digest_of_inputs(manifest: Manifest) -> str:
    """Return one digest of the pairs and annotations that predictions were made from, wherever these lay."""
    return sha256_bytes("\n".join(sorted(manifest.inputs.values())).encode())


def _check_same(a: Sequence[ScanPrediction], b: Sequence[ScanPrediction], files: Sequence[Path]) -> None:
    for side, file in zip((a, b), files, strict=True):
        doubled = [p.image_path for p, after in pairwise(side) if p.image_path == after.image_path]
        if doubled:
            raise DatasetError(f"{file}: {len(doubled)} scans doubled, first {doubled[0]}; predict it again")
    asked = [{(p.image_path, answer.pair) for p in side for answer in p.answers} for side in (a, b)]
    scans = [{p.image_path for p in side} for side in (a, b)]
    for found, what in ((scans, "scans"), (asked, "questions")):
        differing = sorted(found[0] ^ found[1])
        if differing:
            raise DatasetError(
                f"{files[0]} and {files[1]}: {len(differing)} {what} are in one of them alone, first {differing[0]}; "
                "predict both with the same --max-samples and --max-images"
            )
    for one, other in zip(a, b, strict=True):
        if sorted(one.present) != sorted(other.present) or one.group != other.group:
            raise DatasetError(f"{files[0]} and {files[1]}: annotations of {one.image_path} differ")


def _detection(a: Judged, b: Judged, rows: BoolArray) -> Flips:
    return Flips.count(*(side.right(rows, flagged_is_right=True) for side in (a, b)))


def _slices(a: Judged, b: Judged, predictions: Sequence[ScanPrediction]) -> dict[str, Flips]:
    slices = {
        f"category {name}": Flips.count(a.found_of(name), b.found_of(name))
        for name, (there, _) in a.found.items()
        if there.any()
    }
    for factor in BAG_SLICES:
        values = [str(prediction.factors.get(factor, "")) for prediction in predictions]
        for value in sorted(set(values) - {""}):
            rows = np.array([found == value for found in values], dtype=bool) & a.truth
            if rows.any():
                slices[f"{factor.replace('_', ' ')} {value}"] = _detection(a, b, rows)
    for kind in sorted({kind for _, kind, _, _ in a.answers}):
        slices[f"questions {kind}"] = Flips.count(a.answers_right(kind), b.answers_right(kind))
    return slices


def _flips(a: Judged, b: Judged, predictions: Sequence[ScanPrediction]) -> list[Flip]:
    kinds = {
        "threat lost": a.truth & a.flagged & ~b.flagged,
        "false alarm new": a.clean & ~a.flagged & b.flagged,
        "threat found": a.truth & ~a.flagged & b.flagged,
        "false alarm gone": a.clean & a.flagged & ~b.flagged,
    }
    return [
        Flip(kind=kind, image_path=p.image_path, group=p.group, categories=sorted(p.present))
        for kind, rows in kinds.items()
        for p, flipped in zip(predictions, rows, strict=True)
        if flipped
    ]


def _compared(file: Path, header: PredictionsHeader) -> Compared:
    digests = "+".join(d[:12] for d in (header.identity.model_digest, header.identity.adapter_digest) if d)
    return Compared(
        file=str(file),
        sha256=sha256_file(file),
        model=f"{header.model_name}@{digests}",
        engine=header.identity.engine,
        dtype=header.identity.dtype,
        calibrated=header.point.calibration is not None,
    )


def _notes(a: PredictionsHeader, b: PredictionsHeader, judged: Judged) -> list[str]:
    notes: list[str] = []
    for what in ("engine", "dtype", "processor_version", "prompt_version"):
        found = [getattr(header.identity, what) for header in (a, b)]
        if found[0] != found[1]:
            notes.append(f"{what.replace('_', ' ')} differs: {found[0]} and {found[1]}")
    if a.point.thresholds != b.point.thresholds:
        notes.append("the thresholds differ: Pd and Pfa compare operating points, bag AUC and Pd at Pfa the scores")
    if not judged.clean.any():
        notes.append("no clean bag among the scans: false alarms and the bag AUC cannot be compared")
    if not judged.truth.any():
        notes.append("no bag with a threat among the scans: detection cannot be compared")
    return notes
