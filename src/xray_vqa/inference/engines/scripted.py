"""An engine that answers from a script: for tests, the console's demo and load tests without a model.

It is a true engine: it goes through the same inspector, policy and server, and can be told to fail.
"""

import itertools
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from xray_vqa.core.calibration import Calibration, EngineIdentity
from xray_vqa.core.geometry import Box
from xray_vqa.core.inspection import MISSING, Score
from xray_vqa.core.jsonl import read_json
from xray_vqa.core.prompts import PROMPT_VERSION
from xray_vqa.core.taxonomy import CATEGORIES
from xray_vqa.errors import ConfigError
from xray_vqa.inference.engine import Answer, EngineInfo, Reading

IDENTITY = EngineIdentity(
    engine="scripted", model_digest="scripted", dtype="none", processor_version="none", prompt_version=PROMPT_VERSION
)


@dataclass(frozen=True, slots=True)
class ScriptedReading:
    """One step of a script.

    `probabilities` by category (0.01 for those not named); a value outside 0 to 1 is a score that cannot be read.
    `boxes` are fractions of the image, `[x0, y0, x1, y1]`. `delay_s` is waited first; `error`, if set, is raised.
    """

    probabilities: Mapping[str, float] | None = None
    boxes: Mapping[str, Sequence[Sequence[float]]] | None = None
    delay_s: float = 0.0
    error: Exception | None = None
    missing: tuple[str, ...] = ()
    """Categories that get no score at all."""


class ScriptedEngine:
    """Gives the readings of a script in turn, and the last one for ever."""

    def __init__(
        self,
        script: Iterable[ScriptedReading],
        *,
        covered: Sequence[str] = CATEGORIES,
        calibrated: bool = True,
        answer: str = "I see a bag.",
        start_error: Exception | None = None,
        probe_error: Exception | None = None,
    ) -> None:
        steps = list(script)
        if not steps:
            raise ConfigError("a script needs at least one reading")
        self._steps = itertools.chain(steps, itertools.repeat(steps[-1]))
        self._covered = tuple(covered)
        self._calibrated = calibrated
        self._answer = answer
        self._start_error = start_error
        self._probe_error = probe_error

    @classmethod
    def from_file(cls, path: str) -> "ScriptedEngine":
        """Read a script from a JSON list of objects with `probabilities`, `boxes`, `delay_s`, `missing`."""
        steps = read_json(Path(path))
        try:
            return cls([ScriptedReading(**step) for step in steps])
        except TypeError as error:
            raise ConfigError(f"{path}: no script of readings: {error}") from error

    def start(self) -> EngineInfo:
        if self._start_error:
            raise self._start_error
        calibration = Calibration(
            identity=IDENTITY,
            thresholds=dict.fromkeys(CATEGORIES, 0.5),
            measured_on="a script",
            num_scans=0,
            simulated=False,
        )
        return EngineInfo(IDENTITY, "scripted", "none", self._covered, calibration if self._calibrated else None)

    def probe(self) -> None:
        """Nothing of the script is used up."""
        if self._probe_error:
            raise self._probe_error

    @property
    def loaded(self) -> None:
        return None

    def read(
        self, images: Sequence[Image.Image], categories: Sequence[str], place_from: Mapping[str, float]
    ) -> list[Reading]:
        return [self._read_one(image, categories, place_from) for image in images]

    def _read_one(self, image: Image.Image, categories: Sequence[str], place_from: Mapping[str, float]) -> Reading:
        step = next(self._steps)
        if step.delay_s:
            time.sleep(step.delay_s)
        if step.error:
            raise step.error
        probabilities = step.probabilities or {}
        scores = {
            name: MISSING if name in step.missing else Score.of(probabilities.get(name, 0.01)) for name in categories
        }
        boxes = {
            name: tuple(
                Box.from_xyxy(*corners).scaled(image.width, image.height)
                for corners in (step.boxes or {}).get(name, ())
            )
            for name, score in scores.items()
            if score.probability is not None and score.probability >= place_from.get(name, 1.0)
        }
        return Reading(scores, boxes)

    def ask(
        self, images: Sequence[Image.Image], questions: Sequence[Sequence[str]], max_tokens: int = 64
    ) -> list[list[Answer]]:
        return [[Answer(self._answer)] * len(asked) for asked in questions]

    def close(self) -> None:
        """Nothing is held."""
