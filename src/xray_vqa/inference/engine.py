"""The seam between what sees (an engine) and everything that must hold whichever engine it is (all else)."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from PIL import Image

from xray_vqa.core.answers import parse_box_digits
from xray_vqa.core.calibration import Calibration, EngineIdentity
from xray_vqa.core.geometry import Box
from xray_vqa.core.inspection import MISSING, UNSURE, Score
from xray_vqa.core.taxonomy import CATEGORIES
from xray_vqa.errors import AnswerUnreadable, ModelUnavailable

if TYPE_CHECKING:
    from xray_vqa.modeling.loading import LoadedModel
    from xray_vqa.modeling.processor import Processor

logger = logging.getLogger(__name__)

MIN_ANSWER_MASS = 0.05
"""When yes and no together get less than this, the model is not answering the question: the score is unsure."""


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """What runs. Stands in every record, answer and calibration."""

    identity: EngineIdentity
    model_name: str
    device: str
    covered_categories: tuple[str, ...]
    """The categories that the model was trained and evaluated on."""
    calibration: Calibration | None = None
    """The calibration that lies beside the weights, whether it fits or not."""

    @property
    def model_version(self) -> str:
        """Name and digest, short enough for a log line."""
        parts = [self.identity.model_digest[:12] or "unknown", *filter(None, [self.identity.adapter_digest[:12]])]
        return f"{self.model_name}@{'+'.join(parts)}"

    @property
    def is_calibrated(self) -> bool:
        """Whether the calibration was measured on exactly what runs; never where nobody knows what runs."""
        known = bool(self.identity.model_digest)
        return known and self.calibration is not None and self.calibration.identity == self.identity


@dataclass(frozen=True, slots=True)
class Reading:
    """What an engine read out of one scan."""

    scores: dict[str, Score]
    """One for each category asked for, not corrected by a calibration."""
    boxes: dict[str, tuple[Box, ...]] = field(default_factory=dict[str, tuple[Box, ...]])
    """For the categories that were placed, in pixels of the scan as sent; empty where no place could be read."""
    timings_ms: dict[str, float] = field(default_factory=dict[str, float])
    doubted: frozenset[str] = frozenset()
    """Categories that a part of the engine does not rule out, whatever the score: below its threshold, unsure."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model says to a free question."""

    text: str
    complete: bool = True
    """Whether the model came to an end by itself. An answer that was cut off has no meaning that we may act on."""


class Engine(Protocol):
    """Reads scans. Blocking; one call at a time. The caller keeps it off the event loop.

    Draining is not an engine's matter: whoever feeds it (`serving.queue`) takes nothing new, waits for the call in
    work, and closes it. An engine that cannot go on raises ModelUnavailable from each call until it can again.
    """

    @property
    def loaded(self) -> LoadedModel | None:
        """The model in this process, for heat maps; None where it runs elsewhere.

        Raises ModelUnavailable before `start`.
        """
        ...

    def start(self) -> EngineInfo:
        """Load and warm up. Raises ModelUnavailable."""
        ...

    def probe(self) -> None:
        """Have a small real question about a blank picture answered. Raises ModelUnavailable where it is not."""
        ...

    def read(
        self, images: Sequence[Image.Image], categories: Sequence[str], place_from: Mapping[str, float]
    ) -> list[Reading]:
        """Return a reading for each image, in order.

        Args:
            images: RGB scans of any size.
            categories: What to look for.
            place_from: Raw probability from which a category's boxes are decoded too.
        """
        ...

    def ask(
        self, images: Sequence[Image.Image], questions: Sequence[Sequence[str]], max_tokens: int = 64
    ) -> list[list[Answer]]:
        """Return the model's answers to free questions about scans, in order.

        Args:
            images: RGB scans of any size.
            questions: For each image its questions, possibly none.
            max_tokens: An answer that is longer breaks off.
        """
        ...

    def close(self) -> None:
        """Release the weights."""
        ...


def score_of(yes: float, no: float) -> Score:
    """Return the score that the probabilities of the two answers make, each out of the whole vocabulary.

    Where both together get less than `MIN_ANSWER_MASS`, or one is no number, the score is unsure.
    """
    mass = yes + no
    return Score.of(yes / mass) if mass >= MIN_ANSWER_MASS else UNSURE


def flags(score: Score, place_from: float | None) -> bool:
    """Return whether a category's places are wanted: its raw probability reaches the value from which they are."""
    return place_from is not None and score.probability is not None and score.probability >= place_from


def boxes_of(digits: Iterable[str], processor: Processor, size_wh: tuple[int, int]) -> tuple[Box, ...]:
    """Return the boxes that some groups of twelve digits name, in pixels of a scan of this size.

    What names no box is left out and logged: the finding stands without that place.
    """
    boxes: list[Box] = []
    for group in digits:
        try:
            boxes.append(processor.from_frame(parse_box_digits(group, processor.box_frame_wh(size_wh)), size_wh))
        except AnswerUnreadable as error:
            logger.info("a place was not readable: %s", error)
    return tuple(boxes)


def probe_by_reading(engine: Engine) -> None:
    """Read two categories and one place out of a blank picture. Raises ModelUnavailable where no answer comes."""
    categories = CATEGORIES[:2]
    try:
        (reading,) = engine.read([Image.new("RGB", (504, 392), "white")], categories, {categories[0]: 0.0})
    except AnswerUnreadable as error:
        raise ModelUnavailable(f"the answer about a blank picture cannot be read: {error}") from error
    lost = [name for name in categories if reading.scores.get(name, MISSING) == MISSING]
    if lost:
        raise ModelUnavailable(f"no answer about {', '.join(lost)} in a blank picture")
