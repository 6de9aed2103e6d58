"""Several models that look at each scan together: the mean of what they say, and a doubt where one disagrees."""

from __future__ import annotations

import hashlib
import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from xray_vqa.core.calibration import Calibration, EngineIdentity, read_calibration
from xray_vqa.core.geometry import Box
from xray_vqa.core.inspection import MISSING, UNSURE, Score
from xray_vqa.errors import ModelUnavailable
from xray_vqa.inference.engine import Answer, Engine, EngineInfo, Reading

if TYPE_CHECKING:
    from xray_vqa.modeling.loading import LoadedModel


@dataclass(frozen=True, slots=True)
class _Started:
    """A member that runs, and how its scores are read."""

    name: str
    engine: Engine
    info: EngineInfo
    calibration: Calibration

    def place_from(self, joint: Mapping[str, float]) -> dict[str, float]:
        """From which raw probability its places are wanted: where it finds the item, or may make the ensemble do so."""
        own = {name: self.calibration.uncorrect(limit) for name, limit in self.calibration.thresholds.items()}
        return {name: min(own.get(name, 1.0), self.calibration.uncorrect(limit)) for name, limit in joint.items()}

    def corrected(self, score: Score) -> float | None:
        return None if score.probability is None else self.calibration.correct(score.probability)

    def rules_out(self, category: str, corrected: float | None) -> bool:
        """Return whether this member by itself would say that the category is not there."""
        threshold = self.calibration.thresholds.get(category)
        if corrected is None or threshold is None or not self.calibration.may_clear(category):
            return False
        return corrected < threshold and not self.calibration.is_unsure(category, corrected, threshold)


class EnsembleEngine:
    """Reads each scan with every member, one after the other.

    A score is the mean of the members' calibrated probabilities. The ensemble has a calibration of its own beside
    `ensemble.yaml`, and its findings are decided by that. A category that not every member rules out is doubted:
    below the ensemble's threshold it is unsure, so that the bag goes to a person.
    """

    def __init__(self, folder: Path, members: Mapping[str, Engine]) -> None:
        self._folder, self._engines = folder, dict(members)
        self._members: list[_Started] = []

    @property
    def loaded(self) -> LoadedModel | None:
        """The first member's model."""
        return self._running()[0].engine.loaded

    def start(self) -> EngineInfo:
        """Start every member.

        Raises:
            ModelUnavailable: One does not start, has no calibration that fits it, or reads other prompts.
        """
        started: list[_Started] = []
        for name, engine in self._engines.items():
            try:
                info = engine.start()
            except ModelUnavailable as error:
                raise ModelUnavailable(f"{self._folder}: member {name}: {error}") from error
            if not info.is_calibrated or info.calibration is None:
                raise ModelUnavailable(
                    f"{self._folder}: member {name} has no calibration of what runs, so that its scores cannot be "
                    "averaged; run `xray-vqa evaluate --calibrate --model` for it"
                )
            started.append(_Started(name, engine, info, info.calibration))
        self._members = started
        infos = [member.info for member in started]
        covered = set[str].intersection(*(set(info.covered_categories) for info in infos))
        return EngineInfo(
            identity=_identity(started),
            model_name=self._folder.name,
            device=", ".join(dict.fromkeys(info.device for info in infos)),
            covered_categories=tuple(name for name in infos[0].covered_categories if name in covered),
            calibration=read_calibration(self._folder),
        )

    def probe(self) -> None:
        for member in self._running():
            member.engine.probe()

    def read(
        self, images: Sequence[Image.Image], categories: Sequence[str], place_from: Mapping[str, float]
    ) -> list[Reading]:
        """Return a reading for each image; see `Engine.read`. What one member cannot do, the ensemble cannot."""
        members = self._running()
        readings = [member.engine.read(images, categories, member.place_from(place_from)) for member in members]
        return [_joined(members, row, categories) for row in zip(*readings, strict=True)]

    def ask(
        self, images: Sequence[Image.Image], questions: Sequence[Sequence[str]], max_tokens: int = 64
    ) -> list[list[Answer]]:
        """Return the first member's answers; see `Engine.ask`."""
        return self._running()[0].engine.ask(images, questions, max_tokens)

    def close(self) -> None:
        for engine in self._engines.values():
            engine.close()
        self._members = []

    def _running(self) -> list[_Started]:
        if not self._members:
            raise ModelUnavailable("the ensemble is not started")
        return self._members


def _identity(members: Sequence[_Started]) -> EngineIdentity:
    identities = [member.info.identity for member in members]
    if len({identity.prompt_version for identity in identities}) > 1:
        raise ModelUnavailable("the ensemble's members read prompts of different versions")
    said = [[each.info.identity.model_dump(), each.calibration.model_dump(mode="json")] for each in members]
    return EngineIdentity(
        engine="ensemble of " + ", ".join(dict.fromkeys(identity.engine for identity in identities)),
        model_digest=hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest(),
        dtype=", ".join(dict.fromkeys(identity.dtype for identity in identities)),
        processor_version=", ".join(dict.fromkeys(identity.processor_version for identity in identities)),
        prompt_version=identities[0].prompt_version,
    )


def _joined(members: Sequence[_Started], readings: Sequence[Reading], categories: Sequence[str]) -> Reading:
    scores: dict[str, Score] = {}
    boxes: dict[str, tuple[Box, ...]] = {}
    doubted: set[str] = set()
    for category in categories:
        said = [reading.scores.get(category, MISSING) for reading in readings]
        corrected = [member.corrected(score) for member, score in zip(members, said, strict=True)]
        known = [(probability, at) for at, probability in enumerate(corrected) if probability is not None]
        scores[category] = Score.of(statistics.fmean(probability for probability, _ in known)) if known else UNSURE
        if not all(member.rules_out(category, value) for member, value in zip(members, corrected, strict=True)):
            doubted.add(category)
        for _, at in sorted(known, reverse=True):
            if category in readings[at].boxes:  # those of the member that is surest of it
                boxes[category] = readings[at].boxes[category]
                break
    stages = {stage for reading in readings for stage in reading.timings_ms}
    timings = {stage: sum(reading.timings_ms.get(stage, 0.0) for reading in readings) for stage in sorted(stages)}
    return Reading(scores, boxes, timings, frozenset(doubted))
