"""One line of a predictions file: what an engine read out of one scan, beside what is in it.

Scores are raw, as the engine gave them. Calibration and thresholds are applied when scoring, from the header that the
file's manifest holds, so that a prediction is made once and read in many ways.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, with_config

from xray_vqa.core.calibration import Calibration, EngineIdentity
from xray_vqa.core.geometry import Box
from xray_vqa.core.inspection import Score, ScoreState
from xray_vqa.core.policy import Policy
from xray_vqa.core.records import Strict
from xray_vqa.inference.engine import EngineInfo

Failure = Literal["image", "engine", "unreadable"]
"""`image`: the file cannot be decoded. `engine`: it threw. `unreadable`: it answered, and the answer has no meaning."""

ThresholdOrigin = Literal["policy", "calibration", "default"]

Corners = tuple[float, float, float, float]

Scalar = bool | int | float | str


class TruthItem(Strict):
    """An annotated item of known category."""

    category: str
    box: Corners | None = None
    """`[x, y, w, h]` in pixels of the scan; null where only the image is labelled."""
    visible: float | None = Field(None, ge=0, le=1)
    """Share of the item that a person can tell from what lies over it, where the source measured it."""
    occlusion: float | None = Field(None, ge=0, le=1)
    """Share of the item's attenuation that other things on the same rays own, where the source measured it."""
    factors: dict[str, Scalar] = {}
    """What else the source says of the item: shape, cell, angles, concealer."""


@with_config(ConfigDict(extra="forbid"))
@dataclass(frozen=True, slots=True)
class ScoreRecord:
    """A raw score. `probability` is null unless the state is `value`.

    There are twenty a scan, and a slotted dataclass is a fifth of a model's size.
    """

    state: ScoreState
    probability: Annotated[float | None, Field(ge=0, le=1, allow_inf_nan=False)] = None

    @classmethod
    def of(cls, score: Score) -> "ScoreRecord":
        return cls(state=score.state, probability=score.probability)


class AnswerRecord(Strict):
    """A question of the test file, the reference and what the engine said."""

    pair: int = Field(ge=0)
    """Which line of the pairs file, from 0."""
    question: str
    question_type: str
    language: str = "en"
    target: str = ""
    truth: str
    short_truth: str = ""
    answer: str | None = None
    """What the engine said, also where it broke off; null where it said nothing."""
    failure: Failure | None = None
    failure_text: str = ""
    latency_ms: float = 0.0

    @property
    def said(self) -> str:
        """The answer that is scored: an unreadable one is wrong, whatever it begins with."""
        return "" if self.failure or self.answer is None else self.answer


class ScanPrediction(Strict):
    """One line of `predictions.jsonl`."""

    image_path: str
    """Relative to the dataset root that the manifest names."""
    image_id: int
    group: str
    """Scans of one bag share it; intervals treat a group as one observation."""
    width: int
    height: int
    source: str = ""
    """Which data the scan is from, as its record says: scanner profile and version for a simulated one."""
    factors: dict[str, Scalar] = {}
    """What the source says of the bag in single values: clutter level, concealment, view."""
    truth: list[TruthItem]
    num_unlisted: int = 0
    """Items in the scan whose label is not in the taxonomy: neither a hit nor a false alarm can be told from them."""
    annotated_categories: list[str]
    """What the source labels at all; silence about any other says nothing."""
    scores: dict[str, ScoreRecord]
    boxes: dict[str, list[Corners]] = {}
    """`[x, y, w, h]` in pixels of the scan, for categories above their threshold."""
    failure: Failure | None = None
    failure_text: str = ""
    latency_ms: float = 0.0
    """Decoding the file and reading the scan, one at a time."""
    answers: list[AnswerRecord] = []

    @property
    def present(self) -> frozenset[str]:
        return frozenset(item.category for item in self.truth)

    @property
    def failed_for_now(self) -> bool:
        """Whether something failed that another try may mend: the file or the engine, not the model's own words."""
        return any(failure in ("image", "engine") for failure in (self.failure, *(a.failure for a in self.answers)))

    def area_share(self, item: TruthItem) -> float | None:
        """Return the share of the scan that an item's box covers, or None without a box."""
        return None if item.box is None else item.box[2] * item.box[3] / (self.width * self.height)

    def probability(self, category: str) -> float | None:
        """Return the raw probability, or None where there is no usable one."""
        record = self.scores.get(category)
        return record.probability if record else None

    def boxes_of(self, category: str) -> list[Box]:
        return [Box.from_xywh(values) for values in self.boxes.get(category, [])]


class OperatingPoint(Strict):
    """How raw scores are read: the correction and the thresholds in force, and where each threshold comes from."""

    calibration: Calibration | None = None
    """Only if it was measured on exactly what runs."""
    thresholds: dict[str, float]
    """On the corrected probability, for each category that is looked for."""
    origins: dict[str, ThresholdOrigin]

    @classmethod
    def of(cls, info: EngineInfo, policy: Policy, categories: Sequence[str]) -> "OperatingPoint":
        """Return the point that an `Inspector` with this engine and policy works at."""
        return cls.at(policy, categories, info.calibration if info.is_calibrated else None)

    @classmethod
    def at(cls, policy: Policy, categories: Sequence[str], calibration: Calibration | None = None) -> "OperatingPoint":
        """Return the point of a policy and a calibration that is known to fit."""
        calibrated = calibration.thresholds if calibration else {}
        origins: dict[str, ThresholdOrigin] = {}
        for name in categories:
            by_policy = policy.rule(name).threshold is not None
            origins[name] = "policy" if by_policy else "calibration" if name in calibrated else "default"
        thresholds = {name: policy.threshold(name, calibrated) for name in categories}
        return cls(calibration=calibration, thresholds=thresholds, origins=origins)

    def correct(self, probability: float) -> float:
        return self.calibration.correct(probability) if self.calibration else probability

    def place_from(self) -> dict[str, float]:
        """Return the raw probabilities from which boxes are decoded: the thresholds with the calibration undone."""
        if self.calibration is None:
            return dict(self.thresholds)
        return {name: self.calibration.uncorrect(value) for name, value in self.thresholds.items()}


class PredictionsHeader(Strict):
    """What was asked of what, in the `config` of a predictions file's manifest. Another header is another file."""

    identity: EngineIdentity
    model_name: str
    covered_categories: list[str]
    variant: Literal["model", "blind", "untuned", "development"]
    point: OperatingPoint
    """Its categories are those that were looked for."""
    answer_tokens: int
    max_samples: int | None = None
    max_images: int | None = None
