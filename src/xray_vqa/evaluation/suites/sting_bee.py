"""STING-BEE's VQA benchmark (arXiv 2504.02823, github Divs1159/STING-BEE): reading and scoring.

Published are a JSONL of questions (`image, text, category, question_id`), a sheet of answers (`Question ID, Answer`, an
option letter each; save it as CSV) and the names of images of public sets. Its own scorer leaves out what it cannot
parse; here that is wrong, and both numbers are shown. Most of it can be answered without the image, so that the rows of
who never looks stand beside the model.
"""

import csv
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ConfigDict

from xray_vqa.core.images import image_header
from xray_vqa.core.jsonl import read_jsonl
from xray_vqa.core.manifest import sha256_file
from xray_vqa.core.records import PairMetadata, ScanRecord, Strict, VQAPair
from xray_vqa.errors import AnswerUnreadable, DatasetError, ImageUnreadable
from xray_vqa.evaluation.metrics.bootstrap import draw_weights, drawn_estimate, ratio_over_groups
from xray_vqa.evaluation.records import AnswerRecord, ScanPrediction
from xray_vqa.evaluation.results import Estimate
from xray_vqa.evaluation.suites.letters import options_of, parse_letter
from xray_vqa.evaluation.testset import EvaluationSet, PlannedScan, Question

_TYPES = {
    "instances identity": "identification",
    "instances counting": "count",
    "instances location": "location",
    "misleading question": "absent",
}
"""The benchmark's types in our words; the others are `specific`. Scores are told in its own."""


class PublishedQuestion(Strict):
    """One line of the questions file; keys that are not needed here are let through."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    question_id: int
    image: str
    text: str
    category: str


@dataclass(frozen=True, slots=True)
class Benchmark:
    """The questions whose images are there."""

    data: EvaluationSet
    categories: Mapping[int, str]
    """The benchmark's own type of each question, by line of the questions file from 0."""
    keys: Mapping[int, str]
    """Letter of the right option, by line."""
    num_without_image: int


def read_benchmark(
    questions: Path, answers: Path, images: Path, names: Path | None = None, max_images: int | None = None
) -> Benchmark:
    """Return the benchmark's questions about the images that are there.

    Args:
        questions: The published JSONL.
        answers: The answer sheet as CSV, columns `Question ID` and `Answer`.
        images: Folder with the images.
        names: CSV of two columns, the name in the questions and the file's below `images`, where they differ.
        max_images: At most so many images, the first in the order of the questions.

    Raises:
        DatasetError: A file is missing or of another form, ids occur twice or have no answer, no image is there.
    """
    asked, faults = read_jsonl(questions, PublishedQuestion)
    if faults or not asked:
        raise DatasetError(
            f"{questions}: {f'{len(faults)} lines are no question, first {faults[0]}' if faults else 'empty'}"
        )
    repeated = [number for number, count in Counter(one.question_id for one in asked).items() if count > 1]
    if repeated:
        raise DatasetError(f"{questions}: {len(repeated)} question ids occur twice, first {repeated[0]}")
    letters = _read_letters(answers)
    unanswered = [one.question_id for one in asked if one.question_id not in letters]
    if unanswered:
        raise DatasetError(f"{answers}: no answer for {len(unanswered)} questions, first {unanswered[0]}")
    unknown = [one.question_id for one in asked if letters[one.question_id] not in options_of(one.text)]
    if unknown:
        raise DatasetError(f"{answers}: {len(unknown)} answers are no option of their question, first {unknown[0]}")
    file_of = dict(_rows(names)[1:]) if names else {}
    by_image: dict[str, list[Question]] = defaultdict(list)
    for line, one in enumerate(asked):
        letter = letters[one.question_id]
        metadata = PairMetadata(
            image_id=0,
            question_type=_TYPES.get(one.category.strip().lower(), "specific"),
            generated_by="person",
            model="STING-BEE",
            short_answer=letter,
        )
        name = file_of.get(one.image, one.image)
        pair = VQAPair(image_path=name, question=one.text, answer=letter, metadata=metadata)
        by_image[name].append(Question(line, pair))
    there = {name: entries for name, entries in by_image.items() if (images / name).is_file()}
    if not there:
        raise DatasetError(f"{images}: none of the {len(by_image)} images is here, such as {next(iter(by_image))}")
    chosen = list(there)[:max_images]
    scans = tuple(PlannedScan(_record(images, name, number), tuple(there[name])) for number, name in enumerate(chosen))
    kept = {question.line for scan in scans for question in scan.questions}
    files = [questions, answers, *([names] if names else [])]
    return Benchmark(
        data=EvaluationSet(
            root=images, split="test", annotated=(), scans=scans,
            inputs={str(path): sha256_file(path) for path in files}, max_images=max_images,
        ),
        categories={line: one.category for line, one in enumerate(asked) if line in kept},
        keys={line: letters[one.question_id] for line, one in enumerate(asked) if line in kept},
        num_without_image=sum(len(entries) for name, entries in by_image.items() if name not in there),
    )  # fmt: skip


def _read_letters(path: Path) -> dict[int, str]:
    letters: dict[int, str] = {}
    for number, row in enumerate(_rows(path)[1:], start=2):
        if len(row) < 2 or not row[0].strip().isdigit():
            raise DatasetError(f"{path}:{number}: expected a question id and a letter, found {row}")
        key = int(row[0])
        if key in letters:
            raise DatasetError(f"{path}:{number}: question {key} is answered twice")
        letters[key] = row[1].strip().upper()
    return letters


def _rows(path: Path) -> list[list[str]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            return [row for row in csv.reader(stream) if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(f"{path}: cannot be read as CSV: {error}; save the answer sheet (XLSX) as CSV") from error


def _record(images: Path, name: str, number: int) -> ScanRecord:
    try:
        _, (width, height) = image_header((images / name).read_bytes())
    except ImageUnreadable as error:
        raise DatasetError(f"{images / name}: {error}") from error
    return ScanRecord(
        image_id=number, image_filename=Path(name).name, image_path=name, width=width, height=height,
        categories=[], bboxes=[],
    )  # fmt: skip


class TypeScore(Strict):
    """The questions of one type, or all of them."""

    n: int
    accuracy: Estimate
    """Right letters among all questions; one that cannot be parsed is wrong. Intervals are over images."""
    num_unparsable: int
    accuracy_of_parsed: float | None
    """As the benchmark's own scorer has it: what it cannot parse is left out."""
    blind: float | None = None
    """The same model on grey images."""
    gain_over_blind: Estimate | None = None
    """Accuracy minus the blind row's, with the interval of the paired difference."""
    never_looking: float
    """Whoever always takes the option whose text is right most often in this type. Fitted on the key itself: a bound
    for what can be had from the wording, not a model."""


class BenchmarkResults(Strict):
    """What a model reaches on the benchmark."""

    overall: TypeScore
    by_type: dict[str, TypeScore]
    num_without_image: int
    """Questions whose image is not there; not asked and not scored."""


def score_benchmark(
    benchmark: Benchmark, predictions: Sequence[ScanPrediction], blind: Sequence[ScanPrediction] | None = None
) -> BenchmarkResults:
    """Return the letter accuracy of predictions, overall and by the benchmark's own types."""
    rows = [(prediction.group, answer) for prediction in predictions for answer in prediction.answers]
    blind_letters = {a.pair: letter_of(a) for p in blind for a in p.answers} if blind is not None else None
    by_type: dict[str, list[tuple[str, AnswerRecord]]] = defaultdict(list)
    for group, answer in rows:
        by_type[benchmark.categories[answer.pair]].append((group, answer))
    constant = {kind: _commonest_right(benchmark, [a for _, a in of_kind]) for kind, of_kind in by_type.items()}

    def scored(some: Sequence[tuple[str, AnswerRecord]]) -> TypeScore:
        groups = [group for group, _ in some]
        letters = [letter_of(answer) for _, answer in some]
        keys = [benchmark.keys[answer.pair] for _, answer in some]
        right = [float(letter == key) for letter, key in zip(letters, keys, strict=True)]
        parsed = [hit for hit, letter in zip(right, letters, strict=True) if letter]
        guessed = [_means(a.question, benchmark.keys[a.pair], constant[benchmark.categories[a.pair]]) for _, a in some]
        blind_right = None
        if blind_letters is not None:
            blind_right = [float(blind_letters.get(a.pair, "") == key) for (_, a), key in zip(some, keys, strict=True)]
        return TypeScore(
            n=len(some),
            accuracy=ratio_over_groups(right, [1.0] * len(some), groups, len(some)),
            num_unparsable=letters.count(""),
            accuracy_of_parsed=sum(parsed) / len(parsed) if parsed else None,
            blind=sum(blind_right) / len(some) if blind_right is not None else None,
            gain_over_blind=_gain(right, blind_right, groups) if blind_right is not None else None,
            never_looking=sum(guessed) / len(some),
        )

    return BenchmarkResults(
        overall=scored(rows),
        by_type={kind: scored(by_type[kind]) for kind in sorted(by_type)},
        num_without_image=benchmark.num_without_image,
    )


def letter_of(answer: AnswerRecord) -> str:
    """Return the letter that an answer chooses, or nothing where it cannot be told."""
    try:
        return parse_letter(answer.said, options_of(answer.question))
    except AnswerUnreadable:
        return ""


def _commonest_right(benchmark: Benchmark, answers: Iterable[AnswerRecord]) -> str:
    counts = Counter(_generic(options_of(a.question)[benchmark.keys[a.pair]]) for a in answers)
    return min(counts, key=lambda text: (-counts[text], text))


def _means(question: str, key: str, constant: str) -> bool:
    return _generic(options_of(question)[key]) == constant


def _generic(option: str) -> str:
    """Return an option's text, "There is no gun" and its like as one."""
    return "there is no" if option.casefold().startswith("there is no") else option.casefold()


def _gain(right: Sequence[float], blind_right: Sequence[float], groups: Sequence[str]) -> Estimate:
    difference = [a - b for a, b in zip(right, blind_right, strict=True)]
    weights = draw_weights(groups)
    totals = weights.sum(axis=1)
    drawn = (weights @ difference) / totals
    return drawn_estimate(float(drawn[0]), drawn[1:], len(difference))


def format_benchmark(results: BenchmarkResults) -> str:
    """Return the scores as a table for people."""
    from xray_vqa.evaluation.table import format_estimate

    lines = [["", "n", "accuracy", "unparsable", "of parsed", "blind", "gain over blind", "never looking"]]
    for name, row in {"all": results.overall, **results.by_type}.items():
        lines.append([
            name, str(row.n), format_estimate(row.accuracy), str(row.num_unparsable), _number(row.accuracy_of_parsed),
            _number(row.blind), format_estimate(row.gain_over_blind) if row.gain_over_blind else "-",
            _number(row.never_looking),
        ])  # fmt: skip
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    rows = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    left_out = f"{results.num_without_image} questions are left out, their images are not here"
    return "\n".join(
        [rows[0], "-" * max(map(len, rows)), *rows[1:], *([left_out] if results.num_without_image else [])]
    )


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
