"""Runs an engine over scans and their questions and writes one line for each scan.

A line is on disk before the next scan begins. Killed at any moment, the same command goes on behind the last whole
line. Predictions of another model, calibration or dataset are never continued: they are set aside, and that is said.
"""

import json
import logging
import os
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

from PIL import Image
from pydantic import ValidationError
from tqdm import tqdm

from xray_vqa.core.inspection import MISSING
from xray_vqa.core.jsonl import first_error, read_jsonl, write_jsonl
from xray_vqa.core.manifest import Manifest, make_manifest, manifest_path, read_manifest, write_manifest
from xray_vqa.core.records import compact
from xray_vqa.errors import AnswerUnreadable, DatasetError, ImageUnreadable, Incomplete, ModelUnavailable
from xray_vqa.evaluation.records import (
    AnswerRecord,
    Failure,
    OperatingPoint,
    PredictionsHeader,
    ScanPrediction,
    ScoreRecord,
)
from xray_vqa.evaluation.testset import EvaluationSet, PlannedScan, Question
from xray_vqa.evaluation.truth import known_of
from xray_vqa.inference.engine import Answer, Engine, EngineInfo, Reading

logger = logging.getLogger(__name__)

ANSWER_TOKENS = 128
"""An answer that has not ended by then is unreadable."""

FAILURES_IN_A_ROW = 5
"""So many scans in a row that the engine throws at are a broken engine and not hard scans."""

Variant = Literal["model", "blind", "untuned", "development"]


def predictions_name(variant: Variant, max_samples: int | None, max_images: int | None) -> str:
    """Return the name of a predictions file. A limit has one of its own, so that a trial never replaces a full run."""
    name = "predictions" if variant == "model" else variant
    name += f"-samples{max_samples}" if max_samples is not None else ""
    return f"{name}-images{max_images}.jsonl" if max_images is not None else f"{name}.jsonl"


def predict(
    engine: Engine,
    info: EngineInfo,
    data: EvaluationSet,
    output: Path,
    point: OperatingPoint,
    *,
    variant: Variant = "model",
    place: bool = True,
    batch_size: int = 1,
) -> list[ScanPrediction]:
    """Write the predictions of a started engine and return them, one for each planned scan, in order.

    Args:
        engine: Started.
        info: What its `start` returned.
        data: Scans and questions.
        output: `predictions.jsonl`; its manifest is written beside it.
        point: What is looked for (its categories), and at which thresholds boxes are decoded.
        variant: What these predictions are, for the header.
        place: Whether boxes are decoded at all.
        batch_size: How many scans the engine gets at once. More are faster on a GPU, and another order of sums moves a
            score in its seventh digit.

    Raises:
        ModelUnavailable: The engine is not running, or throws at one scan after another.
    """
    header = PredictionsHeader(
        identity=info.identity,
        model_name=info.model_name,
        covered_categories=list(info.covered_categories),
        variant=variant,
        point=point,
        answer_tokens=ANSWER_TOKENS,
        max_samples=data.max_samples,
        max_images=data.max_images,
    )
    done = _take_up(output, header, data)
    manifest = _make_manifest(output, header, data, info)
    write_manifest(output, manifest.model_copy(update={"counts": manifest.counts | {"done": len(done)}}))
    failures = 0
    categories = tuple(point.thresholds)
    place_from = point.place_from() if place else {}
    progress = tqdm(total=len(data.scans), initial=len(done), desc=variant, unit="scan", mininterval=0.5)
    with output.open("ab") as stream, progress:
        waiting = [scan for scan in data.scans if scan.record.image_path not in done]
        for at in range(0, len(waiting), batch_size):
            predicted = predict_scans(engine, waiting[at : at + batch_size], data, categories, place_from)
            lines = (json.dumps(compact(prediction), ensure_ascii=False) + "\n" for prediction in predicted)
            stream.write("".join(lines).encode())
            stream.flush()
            os.fsync(stream.fileno())
            progress.update(len(predicted))
            for prediction in predicted:
                done[prediction.image_path] = prediction
                failures = failures + 1 if prediction.failure == "engine" else 0
                if failures >= min(FAILURES_IN_A_ROW, len(data.scans)):
                    raise ModelUnavailable(
                        f"the engine failed on {failures} scans in a row, last {prediction.image_path}: "
                        f"{prediction.failure_text}"
                    )
    predictions = [done[scan.record.image_path] for scan in data.scans]
    _tell_failures(predictions, output)
    write_manifest(output, manifest.model_copy(update={"counts": manifest.counts | {"done": len(predictions)}}))
    return predictions


def read_predictions(path: Path) -> tuple[list[ScanPrediction], PredictionsHeader, Manifest]:
    """Return finished predictions with their header and manifest.

    Raises:
        Incomplete: Predicting was stopped before the end.
        DatasetError: The file or its manifest is missing, or lines of it are broken.
    """
    if not path.is_file():
        raise DatasetError(f"{path}: no such file; `xray-vqa evaluate predict` writes it")
    manifest = read_manifest(path)
    header = _header_of(manifest, path)
    records, faults = read_jsonl(path, ScanPrediction)
    if manifest.counts.get("done") != manifest.counts.get("scans"):
        raise Incomplete(
            f"{path}: predicting was stopped after {len(records)} of {manifest.counts.get('scans')} scans; "
            "run `xray-vqa evaluate predict` again with the same options"
        )
    if faults:
        raise DatasetError(f"{len(faults)} lines are no prediction, first {faults[0]}")
    return records, header, manifest


def predict_scans(
    engine: Engine,
    batch: Sequence[PlannedScan],
    data: EvaluationSet,
    categories: Sequence[str],
    place_from: dict[str, float],
) -> list[ScanPrediction]:
    """Return what an engine reads out of some scans, read together if that succeeds and else one after the other.

    Raises:
        ModelUnavailable: The engine is not running; no scan can be predicted.
    """
    if len(batch) > 1:
        try:
            return _predict_together(engine, batch, data, categories, place_from)
        except ModelUnavailable:
            raise
        except Exception as error:  # one bad scan, or too many for the memory; by itself each shows its own fault
            logger.warning("%d scans together failed, now one after the other", len(batch), exc_info=error)
    return [predict_scan(engine, planned, data, categories, place_from) for planned in batch]


def _predict_together(
    engine: Engine,
    batch: Sequence[PlannedScan],
    data: EvaluationSet,
    categories: Sequence[str],
    place_from: dict[str, float],
) -> list[ScanPrediction]:
    started = time.perf_counter()
    with ThreadPoolExecutor() as pool:  # Pillow decodes outside Python's lock
        images = list(pool.map(data.image, batch))
    readings = engine.read(images, categories, place_from)
    read_ms = (time.perf_counter() - started) * 1000 / len(batch)
    questions = [[question.pair.question for question in planned.questions] for planned in batch]
    started = time.perf_counter()
    num_questions = sum(map(len, questions))
    answers = engine.ask(images, questions, ANSWER_TOKENS) if num_questions else [[] for _ in batch]
    ask_ms = (time.perf_counter() - started) * 1000 / max(1, num_questions)
    return [
        _prediction(planned, data, categories, reading, read_ms, _said(planned.questions, said, ask_ms))
        for planned, reading, said in zip(batch, readings, answers, strict=True)
    ]


def predict_scan(
    engine: Engine,
    planned: PlannedScan,
    data: EvaluationSet,
    categories: Sequence[str],
    place_from: dict[str, float],
) -> ScanPrediction:
    """Return what an engine reads out of one scan. Whatever the engine throws stands in the prediction.

    Raises:
        ModelUnavailable: The engine is not running; no scan can be predicted.
    """
    started = time.perf_counter()
    reading = Reading({})
    failure: Failure | None = None
    failure_text = ""
    image: Image.Image | None = None
    try:
        image = data.image(planned)
        (reading,) = engine.read([image], categories, place_from)
    except (AnswerUnreadable, ImageUnreadable) as error:
        failure, failure_text = _failure_of(error)
    except ModelUnavailable:
        raise
    except Exception as error:  # whatever an engine throws at one scan, the others are predicted
        logger.exception("the engine failed on %s", planned.record.image_path)
        failure, failure_text = _failure_of(error)
    latency_ms = (time.perf_counter() - started) * 1000
    answers = _answers(engine, image, planned.questions, failure_text)
    return _prediction(planned, data, categories, reading, latency_ms, answers, failure, failure_text)


def _prediction(
    planned: PlannedScan,
    data: EvaluationSet,
    categories: Sequence[str],
    reading: Reading,
    latency_ms: float,
    answers: list[AnswerRecord],
    failure: Failure | None = None,
    failure_text: str = "",
) -> ScanPrediction:
    return ScanPrediction(
        **known_of(planned, data.annotated),
        scores={name: ScoreRecord.of(reading.scores.get(name, MISSING)) for name in categories},
        boxes={name: [box.as_xywh() for box in places] for name, places in reading.boxes.items() if places},
        failure=failure,
        failure_text=failure_text,
        latency_ms=round(latency_ms, 3),
        answers=answers,
    )


def _answers(
    engine: Engine, image: Image.Image | None, questions: Sequence[Question], why_no_image: str
) -> list[AnswerRecord]:
    """The answers to a scan's questions, asked together: the engine encodes the image once for all of them."""
    if image is None:
        return [_answer_record(question, None, "image", why_no_image) for question in questions]
    if not questions:
        return []
    started = time.perf_counter()
    try:
        (answers,) = engine.ask([image], [[question.pair.question for question in questions]], ANSWER_TOKENS)
    except ModelUnavailable:
        raise
    except Exception as error:
        logger.exception("the engine failed on the question in line %d", questions[0].line + 1)
        return [_answer_record(question, None, *_failure_of(error)) for question in questions]
    return _said(questions, answers, (time.perf_counter() - started) * 1000 / len(questions))


def _said(questions: Sequence[Question], answers: Sequence[Answer], each_ms: float) -> list[AnswerRecord]:
    cut_off = f"the answer does not end within {ANSWER_TOKENS} tokens"
    return [
        _answer_record(q, answer.text, *((None, "") if answer.complete else ("unreadable", cut_off)), each_ms)
        for q, answer in zip(questions, answers, strict=True)
    ]


def _answer_record(
    question: Question, said: str | None, failure: Failure | None, failure_text: str, latency_ms: float = 0.0
) -> AnswerRecord:
    pair, known = question.pair, question.pair.metadata
    return AnswerRecord(
        pair=question.line,
        question=pair.question,
        question_type=known.question_type,
        language=known.language,
        target=known.target,
        truth=pair.answer,
        short_truth=known.short_answer,
        answer=said,
        failure=failure,
        failure_text=failure_text,
        latency_ms=round(latency_ms, 3),
    )


def _failure_of(error: Exception) -> tuple[Failure, str]:
    if isinstance(error, ImageUnreadable):
        return "image", str(error)
    if isinstance(error, AnswerUnreadable):
        return "unreadable", str(error)
    return "engine", f"{type(error).__name__}: {error}"


def _make_manifest(output: Path, header: PredictionsHeader, data: EvaluationSet, info: EngineInfo) -> Manifest:
    manifest = make_manifest(
        "predict",
        config=header.model_dump(mode="json"),
        inputs=data.inputs,
        counts={"scans": len(data.scans), "questions": data.num_questions},
        dataset_root=os.path.relpath(data.root, output.parent),
        split=data.split,
        annotated_categories=list(data.annotated),
    )
    return manifest.model_copy(update={"environment": manifest.environment | {"device": info.device}})


def _header_of(manifest: Manifest, path: Path) -> PredictionsHeader:
    try:
        return PredictionsHeader.model_validate(manifest.config)
    except ValidationError as error:
        raise DatasetError(f"{manifest_path(path)}: no header of predictions: {first_error(error)}") from error


def _take_up(output: Path, header: PredictionsHeader, data: EvaluationSet) -> dict[str, ScanPrediction]:
    """Return what stands already, by image path, and leave the file with exactly that in it."""
    output.parent.mkdir(parents=True, exist_ok=True)
    if not output.exists():
        return {}
    reason = _why_anew(output, header, data)
    if reason:
        aside = output.with_name(f"{output.name}.previous")
        output.replace(aside)
        logger.warning("%s: starting anew, for %s; what was there is now %s", output, reason, aside)
        return {}
    records, faults = read_jsonl(output, ScanPrediction)
    planned = {scan.record.image_path: scan for scan in data.scans}

    def asked(image_path: str) -> tuple[int, ...] | None:
        return planned[image_path].lines if image_path in planned else None

    # What is known of a scan is written anew: a file of an earlier version has less of it, from the same annotations.
    kept = {
        record.image_path: record.model_copy(update=known_of(planned[record.image_path], data.annotated))
        for record in records
        if not record.failed_for_now and asked(record.image_path) == tuple(a.pair for a in record.answers)
    }
    if faults or list(kept.values()) != records or not output.read_bytes().endswith(b"\n"):
        write_jsonl(output, (compact(record) for record in kept.values()))
    dropped = len(records) + len(faults) - len(kept)
    again = f"; {dropped} broken or failed ones are made again" if dropped else ""
    logger.info("%s: going on after %d of %d scans%s", output, len(kept), len(data.scans), again)
    return kept


def _why_anew(output: Path, header: PredictionsHeader, data: EvaluationSet) -> str:
    """Return what makes the predictions that are there another thing, or nothing."""
    try:
        manifest = read_manifest(output)
        before = _header_of(manifest, output)
    except DatasetError as error:
        return f"its manifest cannot be read ({error})"
    changed = [name for name in type(header).model_fields if getattr(before, name) != getattr(header, name)]
    if sorted(manifest.inputs.values()) != sorted(data.inputs.values()):
        changed.append("the pairs or annotations")
    return f"another {', '.join(changed)}" if changed else ""


def _tell_failures(predictions: Sequence[ScanPrediction], output: Path) -> None:
    found = Counter(
        failure for p in predictions for failure in (p.failure, *(a.failure for a in p.answers)) if failure is not None
    )
    if found:
        told = ", ".join(f"{number} {kind}" for kind, number in sorted(found.items()))
        logger.warning("%s: failures that count as wrong: %s", output, told)
