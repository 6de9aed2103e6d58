"""From scans to decisions: reads them with an engine, and never lets a fault look like an empty bag."""

import logging
import time
from collections.abc import Callable, Sequence

from PIL import Image

from xray_vqa.core.images import input_faults
from xray_vqa.core.inspection import MISSING, UNSURE, Evidence, Finding, Inspection, Scan, Score
from xray_vqa.core.policy import Policy, decide
from xray_vqa.core.policy.ontology import read_line
from xray_vqa.core.policy.stop import StopSwitch
from xray_vqa.core.prompts import PROMPT_VERSION
from xray_vqa.core.reasoning import write_reasoning
from xray_vqa.errors import AnswerUnreadable, ModelUnavailable
from xray_vqa.inference.engine import Engine, EngineInfo, Reading

logger = logging.getLogger(__name__)


class Inspector:
    """Inspects scans with one engine under one policy.

    `language` is that of the reasoning, one of the lexicons'. `stop` is the switch that is asked for each decision;
    None where there is none, as in an evaluation.
    """

    def __init__(self, engine: Engine, policy: Policy, language: str = "en", stop: StopSwitch | None = None) -> None:
        self.engine = engine
        self.language = language
        self.policy = policy
        self.stop = stop
        self.info: EngineInfo | None = None
        self.lane_is_stopped: Callable[[str | None], bool] = lambda lane: False
        """Asked for each decision, with the scan's lane: whether a person has stopped it. A service sets it."""

    def start(self) -> EngineInfo:
        """Start the engine and say aloud what keeps it from clearing bags. Raises ModelUnavailable."""
        read_line("")  # loads the ontology, which would cost the first declaration half a second
        self.info = info = self.engine.start()
        if not self.may_clear_by_scores(info):
            found = "has a calibration of something else: no bag can be cleared; run `xray-vqa evaluate --calibrate`"
            if info.calibration is None:
                found = "has no calibration: no bag can be cleared; run `xray-vqa evaluate --calibrate`"
            elif info.is_calibrated and info.calibration.simulated:
                found = (
                    "is calibrated on simulated scans: no bag can be cleared; calibrate on scans of your own scanner"
                )
            elif info.is_calibrated:
                found = (
                    "has a calibration that lacks required categories: no bag can be cleared; calibrate on more scans "
                    "that label them, or change required_categories in the policy"
                )
            logger.warning("%s %s", info.model_name, found)
        uncovered = [name for name in self.policy.required_categories if name not in info.covered_categories]
        if uncovered:
            logger.warning("%s does not cover %s: no bag can be cleared", info.model_name, ", ".join(uncovered))
        return info

    def inspect(self, scans: Sequence[Scan]) -> list[Inspection]:
        """Return an inspection for each scan, in order. Raises nothing that an engine can cause."""
        started = time.perf_counter()
        if self.info is None:
            return [self.degraded(scan, "unavailable", started) for scan in scans]
        categories, place_from = self.policy.required_categories, self._place_from(self.info)
        try:
            readings = self.engine.read([scan.image for scan in scans], categories, place_from)
        except AnswerUnreadable:
            logger.exception("the engine's answer could not be read")
            return [self.degraded(scan, "unreadable", started) for scan in scans]
        except ModelUnavailable:
            logger.exception("the engine is not available")
            return [self.degraded(scan, "unavailable", started) for scan in scans]
        except Exception:  # whatever an engine throws (out of memory, a broken kernel), the bag goes to a person
            logger.exception("the engine failed")
            return [self.degraded(scan, "engine_error", started) for scan in scans]
        if len(readings) != len(scans):
            logger.error("the engine gave %d readings for %d scans", len(readings), len(scans))
            return [self.degraded(scan, "unreadable", started) for scan in scans]
        return [self._conclude(scan, reading, started) for scan, reading in zip(scans, readings, strict=True)]

    def ask(self, image: Image.Image, question: str, max_tokens: int = 64) -> str:
        """Return the model's answer to a free question.

        Raises:
            ModelUnavailable: The engine has not been started.
            AnswerUnreadable: The answer breaks off.
        """
        if self.info is None:
            raise ModelUnavailable("the model is not loaded")
        ((answer,),) = self.engine.ask([image], [[question]], max_tokens)
        if not answer.complete:
            raise AnswerUnreadable(f"the answer does not end within {max_tokens} tokens", text=answer.text)
        return answer.text

    def degraded(self, scan: Scan, fault: str, started: float | None = None) -> Inspection:
        """Return the inspection of a scan that could not be assessed: high risk, to a person, and why.

        Args:
            scan: The scan.
            fault: `timeout`, `overloaded`, `unavailable`, `unreadable`, `engine_error` or `image_unreadable`.
            started: `time.perf_counter()` when work on it began.
        """
        scores = dict.fromkeys(self.policy.required_categories, MISSING)
        return self._answer(scan, scores, (), {}, (fault,), started if started is not None else time.perf_counter())

    def interrupted(self, scan_id: str, declared_items: tuple[str, ...] | None) -> Inspection:
        """Return the inspection of a scan whose image is gone and whose work broke off: high risk, to a person."""
        evidence = Evidence(
            scores=dict.fromkeys(self.policy.required_categories, MISSING),
            engine_faults=("interrupted",),
            declared_items=declared_items,
            covered_categories=frozenset(self.info.covered_categories) if self.info else frozenset[str](),
        )
        return self._inspection(scan_id, evidence, {}, time.perf_counter())

    def may_clear_by_scores(self, info: EngineInfo) -> bool:
        """Whether every required category has a threshold that somebody measured or set, for exactly what runs.

        Measured on too few bags that hold it, a category has none that may clear.

        A calibration on scans that say nothing of explosives leaves them at a default that nobody has tried, and one
        on simulated scans says nothing of a real scanner: nano cleared real bags with knives in them by its own.
        """
        calibration = info.calibration if info.is_calibrated else None
        if calibration is None or (calibration.simulated and not self.policy.clear_on_simulated_calibration):
            return False
        return all(
            calibration.may_clear(name) or self.policy.rule(name).threshold is not None
            for name in self.policy.required_categories
        )

    def _place_from(self, info: EngineInfo) -> dict[str, float]:
        """Raw probabilities from which boxes are decoded: the thresholds, with the calibration undone."""
        calibration = info.calibration if info.is_calibrated else None
        thresholds = self._thresholds(info)
        if calibration is None:
            return thresholds
        return {name: calibration.uncorrect(threshold) for name, threshold in thresholds.items()}

    def _thresholds(self, info: EngineInfo) -> dict[str, float]:
        calibrated = _calibrated_thresholds(info)
        return {name: self.policy.threshold(name, calibrated) for name in self.policy.required_categories}

    def _conclude(self, scan: Scan, reading: Reading, started: float) -> Inspection:
        assert self.info is not None
        info = self.info
        scores = {name: self._corrected(reading.scores.get(name, MISSING)) for name in self.policy.required_categories}
        findings: list[Finding] = []
        calibration = info.calibration if info.is_calibrated else None
        for name, threshold in self._thresholds(info).items():
            probability = scores[name].probability
            if probability is None:
                continue
            if probability < threshold:
                in_doubt = calibration is not None and calibration.is_unsure(name, probability, threshold)
                if in_doubt or name in reading.doubted:
                    scores[name] = UNSURE
                continue
            boxes = reading.boxes.get(name, ())
            findings.extend(Finding(name, probability, box, box.region(scan.image.size)) for box in boxes)
            if not boxes:
                findings.append(Finding(name, probability))
        findings.sort(key=lambda finding: (self.policy.rule(finding.category).risk_level, finding.probability))
        return self._answer(scan, scores, tuple(reversed(findings)), reading.timings_ms, (), started)

    def _corrected(self, score: Score) -> Score:
        calibration = self.info.calibration if self.info and self.info.is_calibrated else None
        if calibration is None or score.probability is None:
            return score
        return Score.of(calibration.correct(score.probability))

    def _is_stopped(self, scan: Scan) -> bool:
        return self.lane_is_stopped(scan.lane) or (self.stop is not None and self.stop.is_on(self.policy.lane))

    def _answer(
        self,
        scan: Scan,
        scores: dict[str, Score],
        findings: tuple[Finding, ...],
        timings_ms: dict[str, float],
        engine_faults: tuple[str, ...],
        started: float,
    ) -> Inspection:
        covered = frozenset(self.info.covered_categories) if self.info else frozenset[str]()
        evidence = Evidence(
            scores=scores,
            findings=findings,
            input_faults=input_faults(scan.image, self.policy.input),
            engine_faults=engine_faults,
            declared_items=scan.declared_items,
            covered_categories=covered,
            calibrated=bool(self.info and self.may_clear_by_scores(self.info)),
            thresholds=_calibrated_thresholds(self.info) if self.info else {},
            stopped=self._is_stopped(scan),
        )
        return self._inspection(scan.scan_id, evidence, timings_ms, started)

    def _inspection(self, scan_id: str, evidence: Evidence, timings_ms: dict[str, float], started: float) -> Inspection:
        decision = decide(self.policy, evidence)
        return Inspection(
            scan_id=scan_id,
            findings=evidence.findings,
            scores=evidence.scores,
            decision=decision,
            reasoning=write_reasoning(self.policy, evidence, decision, self.language),
            processing_time_ms=(time.perf_counter() - started) * 1000,
            screened_for=tuple(
                name for name in evidence.scores if name in evidence.covered_categories and not evidence.engine_faults
            ),
            model_version=self.info.model_version if self.info else "none",
            prompt_version=PROMPT_VERSION,
            timings_ms=timings_ms,
            engine_faults=evidence.engine_faults,
            thresholds=evidence.thresholds,
        )


def _calibrated_thresholds(info: EngineInfo) -> dict[str, float]:
    return info.calibration.thresholds if info.is_calibrated and info.calibration else {}
