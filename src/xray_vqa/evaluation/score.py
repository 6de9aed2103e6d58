"""From predictions to results: a pure function of the predictions file and its header, equal for equal inputs."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydantic import BaseModel

from xray_vqa.core.geometry import Box
from xray_vqa.core.manifest import Manifest
from xray_vqa.evaluation.records import AnswerRecord, OperatingPoint, PredictionsHeader, ScanPrediction
from xray_vqa.evaluation.results import (
    EvaluationResults,
    LocalisationScores,
    Row,
    Scored,
    ScreeningScores,
    TextScores,
    Unreadable,
)
from xray_vqa.evaluation.screening_metrics import PlacedCategory, ScoreTable, score_localisation, score_screening
from xray_vqa.evaluation.text_metrics import NORMALISER, score_answers

SCORE_VERSION = "1"
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


def score_contender(contender: Contender) -> ContenderScores:
    """Return all scores of one row."""
    answers, groups = _answers_of(contender.predictions)
    table = score_table(contender.predictions, contender.point)
    return ContenderScores(
        text=score_answers(answers, groups),
        screening=score_screening(table, contender.point.thresholds, contender.point.origins, contender.covered),
        localisation=score_localisation(placed_categories(contender.predictions)),
    )


def score(
    predictions: Sequence[ScanPrediction],
    header: PredictionsHeader,
    manifest: Manifest,
    others: Sequence[Contender] = (),
    notes: Sequence[str] = (),
) -> EvaluationResults:
    """Return the results of a model's predictions.

    Args:
        predictions: Of the model.
        header: Of the predictions file.
        manifest: Of the predictions file.
        others: The rows beside the model: untuned base, majority, blind.
        notes: What a reader of the numbers has to know.
    """
    covered = frozenset(header.covered_categories)
    what = f"{header.model_name}@{header.identity.model_digest[:12]}"
    if header.identity.adapter_digest:
        what += f"+{header.identity.adapter_digest[:12]}"
    model = Contender("model", what, predictions, header.point, covered)
    scores = score_contender(model)
    rows = [_row(model, scores), *(_row(other, score_contender(other)) for other in others)]
    results = EvaluationResults(
        exact_match_accuracy=scores.text.exact_match.value,
        item_f1=scores.screening.item_f1.f1.value,
        bleu=scores.text.bleu.value,
        rouge_l=scores.text.rouge_l.value,
        rows=rows,
        text=scores.text,
        by_question_type=_by_question_type(predictions),
        screening=scores.screening,
        localisation=scores.localisation,
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
    shape = (len(predictions), len(categories))
    scores, truth, mask = np.full(shape, np.nan), np.zeros(shape, dtype=bool), np.zeros(shape, dtype=bool)
    for row, prediction in enumerate(predictions):
        for column, name in enumerate(categories):
            probability = prediction.probability(name)
            if probability is not None:
                scores[row, column] = point.correct(probability)
            truth[row, column] = name in prediction.present
            mask[row, column] = name in prediction.annotated_categories
    return ScoreTable(
        categories=categories,
        scores=scores,
        truth=truth,
        annotated=mask,
        unlisted=np.array([prediction.num_unlisted > 0 for prediction in predictions], dtype=bool),
        groups=tuple(prediction.group for prediction in predictions),
    )


def _answers_of(predictions: Sequence[ScanPrediction]) -> tuple[list[AnswerRecord], list[str]]:
    answers = [answer for prediction in predictions for answer in prediction.answers]
    groups = [prediction.group for prediction in predictions for _ in prediction.answers]
    return answers, groups


def placed_categories(predictions: Sequence[ScanPrediction]) -> list[PlacedCategory]:
    """Return predicted and annotated boxes, category by category; none where only the image is labelled."""
    placed: list[PlacedCategory] = []
    for prediction in predictions:
        for name in prediction.annotated_categories:
            items = [item.box for item in prediction.truth if item.category == name]
            if None in items:  # labelled for the whole image: nobody knows where the item is
                continue
            predicted = prediction.boxes_of(name)
            if items or predicted:
                annotated = [Box.from_xywh(values) for values in items if values is not None]
                placed.append(PlacedCategory(predicted, annotated, prediction.group))
    return placed


def _by_question_type(predictions: Sequence[ScanPrediction]) -> dict[str, TextScores]:
    answers: dict[str, list[AnswerRecord]] = defaultdict(list)
    groups: dict[str, list[str]] = defaultdict(list)
    for prediction in predictions:
        for answer in prediction.answers:
            answers[answer.question_type].append(answer)
            groups[answer.question_type].append(prediction.group)
    return {kind: score_answers(answers[kind], groups[kind]) for kind in sorted(answers)}


def _row(contender: Contender, scores: ContenderScores) -> Row:
    return Row(
        name=contender.name,
        what=contender.what,
        exact_match=scores.text.exact_match,
        item_f1=scores.screening.item_f1.f1,
        bag_auc=scores.screening.bag.auc,
        pd_at_pfa_5=scores.screening.bag.pd_at_pfa["0.05"],
        localisation=scores.localisation.accuracy,
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
