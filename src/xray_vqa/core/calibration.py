"""How a model's raw scores are read: a correction of its probabilities and a threshold for each category.

The file `calibration.json` stands beside the weights and names exactly what it was measured on. Used with anything
else it is refused, and without one no bag can be cleared.
"""

import bisect
import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from pydantic import Field, ValidationError, field_validator

from xray_vqa.core.jsonl import first_error, read_json, write_json
from xray_vqa.core.records import Strict
from xray_vqa.errors import DatasetError

CALIBRATION_NAME = "calibration.json"
_LOGIT_LIMIT = 30.0


class EngineIdentity(Strict):
    """Everything that can move a score."""

    engine: str
    model_digest: str
    adapter_digest: str = ""
    dtype: str
    processor_version: str
    prompt_version: str


class Calibration(Strict):
    """A correction of raw probabilities in logit space, and the thresholds that go with it."""

    identity: EngineIdentity
    scale: float = Field(default=1.0, gt=0)
    offset: float = 0.0
    """By temperature: a corrected logit is `scale * logit + offset`. Not used where there are knots."""
    knots: list[tuple[float, float]] = []
    """Isotonic: (raw, corrected) logits, both rising. Between them straight lines, beyond them a slope of one."""
    thresholds: dict[str, float]
    """By category, on the corrected probability."""
    unsure_from: dict[str, float] = {}
    """By category, the corrected probability from which the item may well be there: up to the threshold the answer is
    `unsure`. A category that so few development bags hold that no such limit can be told is absent, and clears no bag.
    """
    unsure_error: float | None = Field(default=None, gt=0, lt=1)
    """At most this share of the bags with an item score below its category's `unsure_from`. Unset in files of earlier
    versions, which call nothing unsure."""
    target_pd: float | None = Field(default=None, gt=0, lt=1)
    confidence: float | None = Field(default=None, gt=0, lt=1)
    """What each threshold claims, by Clopper and Pearson's bound; unset where thresholds are those of best F1."""
    measured_on: str
    """Which scans: dataset, split and number."""
    num_scans: int = Field(ge=0)
    simulated: bool = True
    """Whether simulated scans are or may be among them. Such thresholds are used but clear no bag (see the policy)."""
    num_positives: dict[str, int] = {}
    notes: list[str] = []

    @field_validator("knots")
    @classmethod
    def _check_rising(cls, knots: list[tuple[float, float]]) -> list[tuple[float, float]]:
        if any(not (x0 < x1 and y0 < y1) for (x0, y0), (x1, y1) in pairwise(knots)):
            raise ValueError("knots have to rise in both numbers")
        return knots

    def correct(self, probability: float) -> float:
        """Return the corrected probability, 0 to 1; NaN stays NaN."""
        if math.isnan(probability):
            return probability
        logit = _logit(min(max(probability, 1e-12), 1 - 1e-12))
        return _expit(_along(self.knots, logit) if self.knots else self.scale * logit + self.offset)

    def uncorrect(self, probability: float) -> float:
        """Return the raw probability that `correct` turns into this one."""
        logit = _logit(probability)
        if self.knots:
            return _expit(_along([(corrected, raw) for raw, corrected in self.knots], logit))
        return _expit((logit - self.offset) / self.scale)

    def may_clear(self, category: str) -> bool:
        """Whether enough was measured of a category that a low score may count as its absence."""
        return category in self.thresholds and (self.unsure_error is None or category in self.unsure_from)

    def is_unsure(self, category: str, corrected: float, threshold: float) -> bool:
        """Whether a corrected probability is too low for a finding and too high to say that nothing is there."""
        return self.unsure_from.get(category, threshold) <= corrected < threshold


def _along(knots: Sequence[tuple[float, float]], x: float) -> float:
    (first_x, first_y), (last_x, last_y) = knots[0], knots[-1]
    if x <= first_x:
        return first_y + x - first_x
    if x >= last_x:
        return last_y + x - last_x
    after = bisect.bisect_right(knots, x, key=lambda knot: knot[0])
    (x0, y0), (x1, y1) = knots[after - 1], knots[after]
    return y0 + (y1 - y0) * (x - x0) / (x1 - x0)


def _logit(probability: float) -> float:
    return math.log(probability / (1 - probability))


def _expit(logit: float) -> float:
    return 1 / (1 + math.exp(-min(max(logit, -_LOGIT_LIMIT), _LOGIT_LIMIT)))


def read_calibration(model_dir: Path) -> Calibration | None:
    """Return the calibration beside some weights, or None where there is none. Raises DatasetError if broken."""
    path = model_dir / CALIBRATION_NAME
    if not path.is_file():
        return None
    try:
        return Calibration.model_validate(read_json(path))
    except ValidationError as error:
        raise DatasetError(f"{path}: no calibration of this version: {first_error(error)}") from error


def write_calibration(model_dir: Path, calibration: Calibration) -> Path:
    """Write the calibration beside some weights and return its path."""
    path = model_dir / CALIBRATION_NAME
    write_json(path, calibration.model_dump(mode="json"))
    return path
