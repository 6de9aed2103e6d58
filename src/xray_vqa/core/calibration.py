"""How a model's raw scores are read: a correction of its probabilities and a threshold for each category.

The file `calibration.json` stands beside the weights and names exactly what it was measured on. Used with anything
else it is refused, and without one no bag can be cleared.
"""

import math
from pathlib import Path

from pydantic import Field, ValidationError

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
    """A correction in logit space, `scale * logit(p) + offset`, and the thresholds that go with it."""

    identity: EngineIdentity
    scale: float = Field(default=1.0, gt=0)
    offset: float = 0.0
    thresholds: dict[str, float]
    """By category, on the corrected probability."""
    measured_on: str
    """Which scans: dataset, split and number."""
    num_scans: int = Field(ge=0)
    simulated: bool = True
    """Whether simulated scans are or may be among them. Such thresholds are used but clear no bag (see the policy)."""
    num_positives: dict[str, int] = {}
    notes: list[str] = []

    def correct(self, probability: float) -> float:
        """Return the corrected probability, 0 to 1; NaN stays NaN."""
        if math.isnan(probability):
            return probability
        clipped = min(max(probability, 1e-12), 1 - 1e-12)
        logit = self.scale * math.log(clipped / (1 - clipped)) + self.offset
        return 1 / (1 + math.exp(-min(max(logit, -_LOGIT_LIMIT), _LOGIT_LIMIT)))

    def uncorrect(self, probability: float) -> float:
        """Return the raw probability that `correct` turns into this one."""
        logit = (math.log(probability / (1 - probability)) - self.offset) / self.scale
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
