"""The trivial rows beside a model: what one gets for never looking.

Most public questions about X-ray scans can be answered without the picture. A model is worth what it gains over the
same model on a grey picture, and over whoever always gives the commonest answer.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image

from xray_vqa.core.inspection import ScoreState
from xray_vqa.core.jsonl import read_jsonl
from xray_vqa.core.records import VQAPair
from xray_vqa.errors import DatasetError
from xray_vqa.evaluation.records import OperatingPoint, ScanPrediction, ScoreRecord
from xray_vqa.evaluation.testset import dataset_of
from xray_vqa.inference.engine import Answer, Engine, EngineInfo, Reading

BLIND_TOGETHER = 8
"""Scans at once: their questions about one grey image are answered side by side, which is most of the cost."""
GREY = (128, 128, 128)
TOKEN_SIDE = 28
"""Pixels that a visual token of Qwen2.5-VL is wide and high."""


class BlindEngine:
    """The same engine shown a grey image of about the scan's size: size and shape may give something away too.

    Sides are rounded to whole visual tokens, as the model's own resizing does, so that a set with as many sizes as
    scans has few different images. Equal images have equal readings and answers, so each is made once, and
    those to questions about one image together.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._readings: dict[tuple[tuple[int, int], tuple[str, ...], tuple[tuple[str, float], ...]], Reading] = {}
        self._answers: dict[tuple[tuple[int, int], str, int], Answer] = {}

    @property
    def loaded(self) -> None:
        """No heat maps of a picture that shows nothing."""

    def start(self) -> EngineInfo:
        return self._engine.start()

    def probe(self) -> None:
        self._engine.probe()

    def read(
        self, images: Sequence[Image.Image], categories: Sequence[str], place_from: Mapping[str, float]
    ) -> list[Reading]:
        return [self._read_one(image.size, tuple(categories), place_from) for image in images]

    def _read_one(
        self, size_wh: tuple[int, int], categories: tuple[str, ...], place_from: Mapping[str, float]
    ) -> Reading:
        shown_wh = whole_tokens(size_wh)
        key = (shown_wh, categories, tuple(sorted(place_from.items())))
        if key not in self._readings:
            (self._readings[key],) = self._engine.read([Image.new("RGB", shown_wh, GREY)], categories, place_from)
        reading = self._readings[key]
        factors = size_wh[0] / shown_wh[0], size_wh[1] / shown_wh[1]
        boxes = {name: tuple(box.scaled(*factors) for box in places) for name, places in reading.boxes.items()}
        return replace(reading, boxes=boxes)

    def ask(
        self, images: Sequence[Image.Image], questions: Sequence[Sequence[str]], max_tokens: int = 64
    ) -> list[list[Answer]]:
        sizes = [whole_tokens(image.size) for image in images]
        new: dict[tuple[int, int], dict[str, None]] = {}
        for size_wh, asked in zip(sizes, questions, strict=True):
            for question in asked:
                if (size_wh, question, max_tokens) not in self._answers:
                    new.setdefault(size_wh, {})[question] = None
        if new:
            greys = [Image.new("RGB", size_wh, GREY) for size_wh in new]
            answers = self._engine.ask(greys, [list(asked) for asked in new.values()], max_tokens)
            for (size_wh, asked), said in zip(new.items(), answers, strict=True):
                self._answers |= {(size_wh, q, max_tokens): answer for q, answer in zip(asked, said, strict=True)}
        return [
            [self._answers[size_wh, question, max_tokens] for question in asked]
            for size_wh, asked in zip(sizes, questions, strict=True)
        ]

    def close(self) -> None:
        self._engine.close()


def whole_tokens(size_wh: tuple[int, int]) -> tuple[int, int]:
    """Return a size with both sides rounded to multiples of `TOKEN_SIDE`, one at least."""
    width, height = (TOKEN_SIDE * max(1, round(side / TOKEN_SIDE)) for side in size_wh)
    return width, height


@dataclass(frozen=True, slots=True)
class Majority:
    """The commonest answer to each type of question, and how often each category is there, on the training pairs."""

    answers: Mapping[str, str]
    shares: Mapping[str, float]
    num_pairs: int

    @classmethod
    def fit(cls, pairs: Sequence[VQAPair]) -> "Majority":
        """Return the majority of some pairs; of equally common answers the first in the alphabet."""
        counts: dict[str, Counter[str]] = defaultdict(Counter)
        present: dict[str, set[str]] = {}
        for pair in pairs:
            counts[pair.metadata.question_type][pair.metadata.short_answer or pair.answer] += 1
            present.setdefault(pair.image_path, set()).update(pair.metadata.categories)
        totals = Counter(category for categories in present.values() for category in categories)
        return cls(
            answers={kind: min(counter, key=lambda text: (-counter[text], text)) for kind, counter in counts.items()},
            shares={category: total / len(present) for category, total in totals.items()},
            num_pairs=len(pairs),
        )

    def predict(self, predictions: Sequence[ScanPrediction]) -> list[ScanPrediction]:
        """Return predictions for the same scans and questions, made without looking at either."""
        return [
            prediction.model_copy(
                update={
                    "scores": {
                        name: ScoreRecord(state=ScoreState.VALUE, probability=self.shares.get(name, 0.0))
                        for name in prediction.annotated_categories
                    },
                    "boxes": {},
                    "failure": None,
                    "failure_text": "",
                    "answers": [
                        answer.model_copy(
                            update={
                                "answer": self.answers.get(answer.question_type, ""),
                                "failure": None,
                                "failure_text": "",
                            }
                        )
                        for answer in prediction.answers
                    ],
                }
            )
            for prediction in predictions
        ]

    def operating_point(self, categories: Sequence[str]) -> OperatingPoint:
        """Return the point of a majority: a category is flagged if at least half of the scans have it."""
        return OperatingPoint(thresholds=dict.fromkeys(categories, 0.5), origins=dict.fromkeys(categories, "default"))


def training_pairs_beside(test_file: Path) -> Path | None:
    """Return the training pairs that stand beside a test file (`..._val.jsonl`, `..._train.jsonl`), if they do."""
    for ending in ("_val", "_test"):
        if test_file.stem.endswith(ending):
            candidate = test_file.with_name(f"{test_file.stem.removesuffix(ending)}_train{test_file.suffix}")
            if candidate.is_file():
                return candidate
    return None


def fit_majority(train_file: Path) -> Majority:
    """Return the majority of a training pairs file.

    Raises:
        DatasetError: It is missing, broken, or its manifest does not say that it is of the training split: a majority
            fitted on the test set would know the answers.
    """
    _, split = dataset_of(train_file)
    if split != "train":
        raise DatasetError(f"{train_file}: its manifest says split {split}; the majority is fitted on training pairs")
    pairs, faults = read_jsonl(train_file, VQAPair)
    if faults or not pairs:
        raise DatasetError(f"{train_file}: {f'broken: {faults[0]}' if faults else 'no pairs in it'}")
    return Majority.fit(pairs)
