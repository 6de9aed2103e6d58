"""Two predictions files of the same scans and questions, compared bag by bag."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from pydantic import Field

from xray_vqa.core.jsonl import read_json
from xray_vqa.core.manifest import Manifest, sha256_bytes, sha256_file
from xray_vqa.core.records import Strict
from xray_vqa.errors import DatasetError
from xray_vqa.evaluation.comparison.paired import (
    DRAWS,
    BoolArray,
    Difference,
    FloatArray,
    IntArray,
    Side,
    holm,
    mcnemar_exact,
    paired_difference,
    ranking,
    ratio,
)
from xray_vqa.evaluation.predict import read_predictions
from xray_vqa.evaluation.records import PredictionsHeader, ScanPrediction
from xray_vqa.evaluation.score import score_table
from xray_vqa.evaluation.screening_metrics import worst_case
from xray_vqa.evaluation.text_metrics import is_exact, is_long, rouge_l

COMPARE_VERSION = "1"
BAG_SLICES = ("clutter_level", "concealment")
"""Factors of the bag that detection is compared within, where the source knows them."""


class Delta(Strict):
    """One number of both models; the difference is B less A, with its 95 % interval."""

    a: float | None
    b: float | None
    difference: float | None
    low: float | None
    high: float | None
    p_value: float | None
    """Two-sided, by the paired bootstrap over groups; not corrected for how many numbers stand here."""
    detectable: float | None
    """The smallest true difference that so many such groups show with 80 % power at 5 %; null where none differs."""
    num_differing: int
    """Groups that are not the same for both."""
    not_worse: bool | None = None
    """Whether the interval excludes that B is worse by the margin or more; null without a margin."""

    @classmethod
    def of(cls, found: Difference, margin: float | None, *, lower_is_better: bool) -> "Delta":
        not_worse = None
        if margin is not None and found.low is not None and found.high is not None:
            not_worse = found.high < margin if lower_is_better else found.low > -margin
        return cls(**asdict(found), not_worse=not_worse)


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
    limits = "".join(
        f"-{name}{scored[key]}"
        for name, key in (("samples", "max_samples"), ("images", "max_images"))
        if scored.get(key) is not None
    )
    return path.with_suffix("") / f"predictions{limits}.jsonl"


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
    sides = [_Judged.of(predictions, header) for predictions, (_, header, _) in zip(ordered, read, strict=True)]
    compared = [_compared(file, header) for file, (_, header, _) in zip(files, read, strict=True)]
    a, b = sides
    slices = _slices(a, b, ordered[0])
    corrected = holm([entry.p_value for entry in slices.values()])
    size = len(set(a.groups))
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
        num_scans=len(a.groups),
        num_groups=size,
        num_questions=sum(len(p.answers) for p in ordered[0]),
        margin=margin,
        draws=draws,
        seed=seed,
        metrics=deltas,
        detection=a.flips(b, a.truth),
        alarms=a.flips(b, a.clean),
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


@dataclass(frozen=True, slots=True)
class _Judged:
    """What one model made of the scans, in the order of their paths."""

    groups: tuple[str, ...]
    member: IntArray
    truth: BoolArray
    """Scans with an annotated threat."""
    clean: BoolArray
    margins: FloatArray
    """The largest margin over a category's threshold, the worst case where a score is missing."""
    hits: FloatArray
    """Items rightly flagged, a scan."""
    named: FloatArray
    """Items flagged and items there, a scan."""
    found: dict[str, tuple[BoolArray, BoolArray]]
    """By category: scans with it, and those flagged for it."""
    answers: tuple[tuple[int, str, bool, float | None], ...]
    """(scan, question type, exact, ROUGE-L on a long reference)."""

    @classmethod
    def of(cls, predictions: Sequence[ScanPrediction], header: PredictionsHeader) -> "_Judged":
        table = score_table(predictions, header.point)
        limits = np.array([header.point.thresholds[name] for name in table.categories])
        truth: BoolArray = np.any(table.present, axis=1)
        clean = ~truth & ~table.unlisted & table.annotated.any(axis=1)
        margins = worst_case(np.where(table.annotated, table.scores - limits, -np.inf), truth[:, None])
        flagged = (worst_case(table.scores, table.truth) >= limits) & table.annotated
        return cls(
            groups=table.groups,
            member=np.unique(np.asarray(table.groups, dtype=str), return_inverse=True)[1],
            truth=truth,
            clean=clean,
            margins=margins.max(axis=1, initial=-np.inf),
            hits=(flagged & table.present).sum(axis=1).astype(float),
            named=(flagged.sum(axis=1) + table.present.sum(axis=1)).astype(float),
            found={
                name: (table.present[:, column], flagged[:, column]) for column, name in enumerate(table.categories)
            },
            answers=tuple(
                (
                    row,
                    answer.question_type,
                    is_exact(answer.said, answer.short_truth, answer.truth),
                    rouge_l(answer.said, answer.truth) if is_long(answer.truth) else None,
                )
                for row, prediction in enumerate(predictions)
                for answer in prediction.answers
            ),
        )

    @property
    def flagged(self) -> BoolArray:
        return self.margins >= 0

    @property
    def size(self) -> int:
        return len(set(self.groups))

    def flips(self, other: "_Judged", rows: BoolArray) -> Flips:
        """Count bags right and wrong among some scans; a bag with a threat is found if any of its scans is flagged."""
        right = [self._any_of_bag(side.flagged if rows is not self.clean else side.flagged, rows) for side in (self, other)]
        return Flips.count(right[0], right[1]) if rows is not self.clean else Flips.count(~right[0], ~right[1])

    def _any_of_bag(self, flagged: BoolArray, rows: BoolArray) -> BoolArray:
        bags = np.unique(self.member[rows])
        return np.bincount(self.member[rows], flagged[rows], self.size)[bags] > 0

    def mean(self, values: FloatArray, rows: BoolArray) -> Side:
        return ratio(values * rows, rows.astype(float), self.member, self.size)

    def ranked(self, pfa: float | None = None) -> Side:
        rows = self.truth | self.clean
        return ranking(self.margins[rows], self.truth[rows], self.member[rows], self.size, pfa)

    def answered(self, value: Callable[[bool, float | None], float | None]) -> Side:
        """The mean over answers of what `value` makes of one; None is left out."""
        kept = [(self.member[row], v) for row, _, e, r in self.answers if (v := value(e, r)) is not None]
        member = np.array([who for who, _ in kept], dtype=np.intp)
        above = np.array([v for _, v in kept], dtype=float)
        return ratio(above, np.ones(len(kept)), member, self.size)
