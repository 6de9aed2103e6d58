"""From predictions to results: a pure function of the predictions file and its header, equal for equal inputs."""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydantic import BaseModel

from xray_vqa.core.geometry import Box
from xray_vqa.core.manifest import Manifest
from xray_vqa.errors import DatasetError
from xray_vqa.evaluation.metrics.answers import AnswerTable
from xray_vqa.evaluation.metrics.bootstrap import DETAIL_DRAWS, DRAWS
from xray_vqa.evaluation.metrics.calibration import score_calibration
from xray_vqa.evaluation.metrics.localisation import PlacedCategory, score_localisation
from xray_vqa.evaluation.metrics.ranking import BoolArray
from xray_vqa.evaluation.metrics.screening import ScoreTable, score_screening
from xray_vqa.evaluation.metrics.slices import score_slices
from xray_vqa.evaluation.metrics.text import NORMALISER
from xray_vqa.evaluation.records import OperatingPoint, PredictionsHeader, ScanPrediction
from xray_vqa.evaluation.results import (
    CalibrationChange,
    Estimate,
    EvaluationResults,
    LocalisationScores,
    Row,
    Scored,
    ScreeningScores,
    TextScores,
    Unreadable,
)

SCORE_VERSION = "3"
"""Raised when a number's meaning changes, so that results of two versions are not compared unawares."""

NAMED_FAILURES = 20
DECIMALS = 6


@dataclass(frozen=True, slots=True)
class Contender:
    """Predictions of one row of the table."""

    name: str
    what: str
    predictions: Sequence[ScanPrediction]
    point: OperatingPoint
    covered: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class ContenderScores:
    """What one row's predictions are worth."""

    text: TextScores
    screening: ScreeningScores
    localisation: LocalisationScores


GUIDE = {"exact_match_accuracy": 0.72, "item_f1": 0.85, "bleu": 0.68, "rouge_l": 0.74}
"""What the workflow guide expects; a mark to compare with that nobody measured on these scans."""


def score_contender(contender: Contender, *, draws: int = DRAWS, workers: int = 1) -> ContenderScores:
    """Return all scores of one row. Raises DatasetError where a scan stands there twice."""
    check_once(contender.predictions, contender.name)
    table = score_table(contender.predictions, contender.point)
    return _contender_scores(contender, answer_table(contender.predictions, workers), table, draws)


def _contender_scores(contender: Contender, answers: AnswerTable, table: ScoreTable, draws: int) -> ContenderScores:
    point = contender.point
    return ContenderScores(
        text=answers.scores(draws=draws),
        screening=score_screening(table, point.thresholds, point.origins, contender.covered, draws=draws),
        localisation=score_localisation(placed_categories(contender.predictions, point), draws=draws),
    )


def check_once(predictions: Sequence[ScanPrediction], name: str) -> None:
    """Raise DatasetError where a scan or a question stands in some predictions more than once."""
    scans = Counter(p.image_path for p in predictions)
    asked = Counter((p.image_path, answer.pair) for p in predictions for answer in p.answers)
    doubled = [path for path, count in scans.items() if count > 1]
    doubled += [f"{path}, question {pair + 1}" for (path, pair), count in asked.items() if count > 1]
    if doubled:
        raise DatasetError(f"predictions of {name}: {len(doubled)} entries are there twice, first {doubled[0]}")


def check_same_scans(predictions: Sequence[ScanPrediction], wanted: Sequence[str], name: str) -> None:
    """Raise DatasetError where predictions are not about exactly these images, by path; it names the first of each."""
    there, expected = {p.image_path for p in predictions}, set(wanted)
    faults = [
        f"{len(paths)} scans {what}, first {min(paths)}"
        for what, paths in (("are missing", expected - there), ("are not of this test set", there - expected))
        if paths
    ]
    if faults:
        raise DatasetError(f"predictions of {name}: {'; '.join(faults)}")


def score(
    predictions: Sequence[ScanPrediction],
    header: PredictionsHeader,
    manifest: Manifest,
    others: Sequence[Contender] = (),
    notes: Sequence[str] = (),
    *,
    draws: int = DRAWS,
    workers: int = 1,
) -> EvaluationResults:
    """Return the results of a model's predictions.

    Args:
        predictions: Of the model.
        header: Of the predictions file.
        manifest: Of the predictions file.
        others: The rows beside the model: untuned base, majority, blind.
        notes: What a reader of the numbers has to know.
        draws: Of the bootstrap, for the rows; breakdowns take at most `DETAIL_DRAWS`.
        workers: Processes that judge answers; the numbers do not depend on it.

    Raises:
        DatasetError: A scan or question stands there twice, or a row is about other scans than the model's.
    """
    covered = frozenset(header.covered_categories)
    what = f"{header.model_name}@{header.identity.model_digest[:12]}"
    if header.identity.adapter_digest:
        what += f"+{header.identity.adapter_digest[:12]}"
    model = Contender("model", what, predictions, header.point, covered)
    for other in others:
        check_same_scans(other.predictions, [p.image_path for p in predictions], other.name)
    check_once(predictions, model.name)
    answers, table = answer_table(predictions, workers), score_table(predictions, header.point)
    scores = _contender_scores(model, answers, table, draws)
    rows = [
        _row(model, scores),
        *(_row(other, score_contender(other, draws=draws, workers=workers)) for other in others),
        _guide_row(),
    ]
    detail = min(draws, DETAIL_DRAWS)
    results = EvaluationResults(
        exact_match_accuracy=scores.text.exact_match.value,
        item_f1=scores.screening.item_f1.f1.value,
        bleu=scores.text.bleu.value,
        rouge_l=scores.text.rouge_l.value,
        rows=rows,
        text=scores.text,
        by_question_type=answers.by(answers.kind, draws=detail),
        by_language=answers.by(answers.language, draws=detail),
        screening=scores.screening,
        localisation=scores.localisation,
        calibration=_calibration_change(predictions, header.point, table),
        slices=score_slices(predictions, table, header.point.thresholds),
        unreadable=_unreadable(predictions),
        scored=_scored(predictions, header, manifest),
        notes=[*notes, *_notes_on(predictions, header)],
    )
    return EvaluationResults.model_validate(rounded(results))


def rounded(value: Any) -> Any:
    """Return a model or value as JSON values with floats rounded, so that equal runs give equal bytes."""
    if isinstance(value, BaseModel):
        return rounded(value.model_dump(mode="json"))
    if isinstance(value, dict):
        return {key: rounded(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(inner) for inner in value]
    return round(value, DECIMALS) if isinstance(value, float) else value


def score_table(predictions: Sequence[ScanPrediction], point: OperatingPoint) -> ScoreTable:
    """Return the corrected scores of some predictions as arrays, over the categories that any of them annotates."""
    annotated = {name for prediction in predictions for name in prediction.annotated_categories}
    categories = tuple(name for name in point.thresholds if name in annotated)
    raw = [[prediction.probability(name) for name in categories] for prediction in predictions]
    if point.calibration:
        raw = [[None if value is None else point.correct(value) for value in row] for row in raw]
    shape = (len(predictions), len(categories))
    return ScoreTable(
        categories=categories,
        scores=np.array(raw, dtype=float).reshape(shape),
        truth=_member_table([prediction.present for prediction in predictions], categories),
        annotated=_member_table([prediction.annotated_categories for prediction in predictions], categories),
        unlisted=np.array([prediction.num_unlisted > 0 for prediction in predictions], dtype=bool),
        groups=np.unique([prediction.group for prediction in predictions], return_inverse=True)[1],
    )


def _member_table(found: Sequence[Collection[str]], categories: Sequence[str]) -> BoolArray:
    """Return (scans, categories), whether each category is among what was found; equal findings are looked at once."""
    rows: dict[frozenset[str], list[bool]] = {}
    for names in found:
        key = frozenset(names)
        if key not in rows:
            rows[key] = [name in key for name in categories]
    return np.array([rows[frozenset(names)] for names in found], dtype=bool).reshape(len(found), len(categories))


def answer_table(predictions: Sequence[ScanPrediction], workers: int = 1) -> AnswerTable:
    """Return the answers of some predictions, judged in so many processes."""
    answers = [answer for prediction in predictions for answer in prediction.answers]
    groups = [prediction.group for prediction in predictions for _ in prediction.answers]
    return AnswerTable.of(answers, groups, workers=workers)


def placed_categories(
    predictions: Sequence[ScanPrediction], point: OperatingPoint | None = None
) -> list[PlacedCategory]:
    """Return predicted and annotated boxes, category by category; none where only the image is labelled.

    With an operating point a category's boxes have its corrected probability as their score.
    """
    placed: list[PlacedCategory] = []
    for prediction in predictions:
        named = prediction.present | prediction.boxes.keys()
        for name in prediction.annotated_categories:
            if name not in named:
                continue
            items = [item.box for item in prediction.truth if item.category == name]
            if None in items:  # labelled for the whole image: nobody knows where the item is
                continue
            predicted = prediction.boxes_of(name)
            if items or predicted:
                annotated = [Box.from_xywh(values) for values in items if values is not None]
                raw = prediction.probability(name)
                corrected = None if raw is None or point is None else point.correct(raw)
                placed.append(PlacedCategory(predicted, annotated, prediction.group, name, corrected))
    return placed


def _calibration_change(
    predictions: Sequence[ScanPrediction], point: OperatingPoint, after: ScoreTable
) -> CalibrationChange:
    before = score_table(predictions, point.model_copy(update={"calibration": None})) if point.calibration else after
    each = (
        score_calibration(table.scores[usable], table.truth[usable])
        for table in (before, after)
        for usable in [table.annotated & ~np.isnan(table.scores)]
    )
    return CalibrationChange(before=next(each), after=next(each))


def _guide_row() -> Row:
    nothing = Estimate(value=None, n=0)
    expected = {name: Estimate(value=value, n=0) for name, value in GUIDE.items()}
    return Row(
        name="guide",
        what="what the workflow guide expects; not measured on these scans",
        exact_match=expected["exact_match_accuracy"],
        item_f1=expected["item_f1"],
        bag_auc=nothing,
        pd_at_pfa_5=nothing,
        localisation=nothing,
        bleu=expected["bleu"],
        rouge_l=expected["rouge_l"],
    )


def _row(contender: Contender, scores: ContenderScores) -> Row:
    return Row(
        name=contender.name,
        what=contender.what,
        exact_match=scores.text.exact_match,
        item_f1=scores.screening.item_f1.f1,
        bag_auc=scores.screening.bag.auc,
        pd_at_pfa_5=scores.screening.bag.pd_at_pfa["0.05"],
        localisation=scores.localisation.accuracy,
        bleu=Estimate(value=scores.text.bleu.value, n=scores.text.bleu.n),
        rouge_l=scores.text.rouge_l,
    )


def _unreadable(predictions: Sequence[ScanPrediction]) -> Unreadable:
    scans = [f"{p.image_path}: {p.failure}: {p.failure_text}" for p in predictions if p.failure]
    answers = [
        f"{p.image_path}: question {a.pair + 1}: {a.failure}: {a.failure_text}"
        for p in predictions
        for a in p.answers
        if a.failure
    ]
    scores = sum(p.probability(name) is None for p in predictions for name in p.annotated_categories)
    return Unreadable(scans=len(scans), answers=len(answers), scores=scores, named=(scans + answers)[:NAMED_FAILURES])


def _scored(predictions: Sequence[ScanPrediction], header: PredictionsHeader, manifest: Manifest) -> Scored:
    return Scored(
        identity=header.identity,
        model_name=header.model_name,
        covered_categories=header.covered_categories,
        calibrated=header.point.calibration is not None,
        split=manifest.split or "unknown",
        num_scans=len(predictions),
        num_groups=len({prediction.group for prediction in predictions}),
        num_questions=sum(len(prediction.answers) for prediction in predictions),
        max_samples=header.max_samples,
        max_images=header.max_images,
        inputs=manifest.inputs,
        normaliser=NORMALISER,
        score_version=SCORE_VERSION,
    )


def _notes_on(predictions: Sequence[ScanPrediction], header: PredictionsHeader) -> list[str]:
    notes: list[str] = []
    if header.point.calibration is None:
        notes.append("no calibration fits this model: raw scores, and the policy's default threshold where it has none")
    annotated = dict.fromkeys(name for prediction in predictions for name in prediction.annotated_categories)
    uncovered = [name for name in annotated if name not in header.covered_categories]
    if uncovered:
        notes.append(f"the model does not claim to cover {', '.join(uncovered)}; they are scored all the same")
    if not any(not p.truth and not p.num_unlisted for p in predictions):
        notes.append("no clean bag among the scans: false alarm rates and the bag AUC cannot be measured")
    return notes
