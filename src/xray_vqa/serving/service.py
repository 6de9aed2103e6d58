"""The flow of one request, free of HTTP: into the engine's line, written down, given out."""

import asyncio
import logging
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TypeVar

from xray_vqa.config.serve import ServeSettings
from xray_vqa.core.inspection import Action, Scan
from xray_vqa.core.manifest import package_version
from xray_vqa.core.prompts import PROMPT_VERSION
from xray_vqa.errors import AnswerUnreadable, ModelUnavailable, Overloaded
from xray_vqa.inference.inspector import Inspector
from xray_vqa.serving.errors import Problem
from xray_vqa.serving.metrics import Metrics
from xray_vqa.serving.oversight.stops import StopBook, read_stops
from xray_vqa.serving.queue import EngineQueue, EngineState
from xray_vqa.serving.schemas import (
    AskResponse,
    InspectResponse,
    ReadyBody,
    RecordBody,
    inspect_response,
    scores_body,
)
from xray_vqa.serving.store.audit import AuditStore, AuditUnavailable, InspectionRecord, Origin, QuestionRecord

logger = logging.getLogger(__name__)

Result = TypeVar("Result")
MAX_ANSWER_LENGTH = 2000
_STALLED_AFTER_TIMEOUTS = 6
"""A call of the engine that runs for this many time limits is taken for hung."""


@dataclass(frozen=True, slots=True)
class Submission:
    """A scan that was understood, and what the record needs to know of its request."""

    scan: Scan
    fingerprint: str
    request_id: str
    received_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    started: float = field(default_factory=time.perf_counter)
    """When its last byte was there; the clock of its deadline."""

    def elapsed_s(self) -> float:
        return time.perf_counter() - self.started


class InspectionService:
    """One engine, one policy, one audit store."""

    def __init__(self, settings: ServeSettings, inspector: Inspector) -> None:
        self.settings = settings
        self.inspector = inspector
        self.metrics = Metrics()
        self.store = AuditStore(settings.database_url)
        self.queue = EngineQueue(
            inspector,
            self.metrics,
            size=settings.queue_size,
            max_batch=settings.max_batch,
            stall_after_s=_STALLED_AFTER_TIMEOUTS * settings.timeout_s,
        )
        self.stops = StopBook(lambda: read_stops(self.store))
        inspector.lane_is_stopped = self.stops.is_on
        self.metrics.watch("xray_vqa_stop_switches", "Stop switches that are on", lambda: self.stops.num_on)
        self._decoding = ThreadPoolExecutor(2, thread_name_prefix="decode")
        # SQLite has one writer; a thread of its own keeps a slow disk away from the decoders.
        self._recording = ThreadPoolExecutor(1, thread_name_prefix="record")

    async def start(self) -> None:
        """Begin to load the engine and open the store; neither is waited for or fatal."""
        self.queue.start()
        try:
            await self._in_recording(self.store.check)
        except AuditUnavailable:
            logger.error("no answer is given until the audit store can be written")

    async def stop(self) -> bool:
        """Finish what waits and close. Returns False where the engine did not stop in the time allowed."""
        stopped = await asyncio.to_thread(self.queue.close, self.settings.drain_s)
        self._decoding.shutdown()
        self._recording.shutdown()
        self.store.close()
        return stopped

    async def decode(self, work: Callable[[], Result]) -> Result:
        """Return what some work on a request's bytes gives, done away from the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self._decoding, work)

    async def inspect(self, submission: Submission) -> InspectResponse:
        """Return the decision on a scan, which then is on record. Raises Problem `audit_unavailable`."""
        with suppress(AuditUnavailable):  # what this process knows of the switches holds
            await asyncio.to_thread(self.stops.look)
        remaining_s = self.settings.timeout_s - submission.elapsed_s()
        inspection = await self.queue.inspect(submission.scan, remaining_s)
        if inspection.decision.action is Action.CLEAR and self.stops.is_on(submission.scan.lane):
            inspection = self.inspector.degraded(submission.scan, "stopped")  # thrown since it was decided
        origin = self._origin(submission)
        answer = inspect_response(
            inspection, audit_id=origin.audit_id, processing_time_ms=submission.elapsed_s() * 1000
        )
        record = InspectionRecord(
            origin=origin,
            policy_version=answer.policy_version,
            risk_level=answer.risk_level.value,
            action=answer.action.value,
            degraded=answer.degraded,
            answer=answer.model_dump(mode="json"),
            scores=scores_body(inspection),
        )
        await self._record(record)
        self.metrics.count_inspection(inspection)
        return answer

    async def ask(self, submission: Submission, question: str) -> AskResponse:
        """Return the model's answer to a free question, which then is on record. Raises Problem."""
        remaining_s = self.settings.timeout_s - submission.elapsed_s()
        try:
            text = await self.queue.ask(submission.scan, question, remaining_s)
        except TimeoutError as error:
            raise Problem("timeout", f"no answer within {self.settings.timeout_s:g} s") from error
        except Overloaded as error:
            raise Problem("overloaded", "the line before the model is full") from error
        except ModelUnavailable as error:
            raise Problem("model_unavailable", "the model is not loaded; see /ready") from error
        except AnswerUnreadable as error:
            raise Problem("answer_unreadable", "the model's answer breaks off or has no meaning") from error
        except Exception as error:
            logger.exception("the engine failed on a question")
            raise Problem("model_unavailable", "the model failed on this question") from error
        origin = self._origin(submission)
        answer = AskResponse(
            scan_id=origin.scan_id,
            answer=text[:MAX_ANSWER_LENGTH],
            processing_time_ms=round(submission.elapsed_s() * 1000),
            model_version=origin.model_version,
            prompt_version=origin.prompt_version,
            audit_id=origin.audit_id,
        )
        await self._record(QuestionRecord(origin, question, answer.model_dump(mode="json")))
        return answer

    async def newest(self, scan_id: str) -> InspectionRecord:
        """Return the newest inspection of a scan. Raises Problem `no_such_inspection` or `audit_unavailable`."""
        try:
            record = await self._in_recording(lambda: self.store.newest(scan_id))
        except AuditUnavailable as error:
            raise Problem("audit_unavailable", "the audit store cannot be read now") from error
        if record is None:
            raise Problem("no_such_inspection", "the audit store has no inspection under this scan_id")
        return record

    async def newest_record(self, scan_id: str) -> RecordBody:
        """Return the newest record of a scan as it goes out. Raises Problem as `newest`."""
        record = await self.newest(scan_id)
        origin = record.origin
        return RecordBody.model_validate(
            {
                "inspection": record.answer,
                "request_id": origin.request_id,
                "received_at": origin.received_at,
                "recorded_at": origin.recorded_at,
                "fingerprint": origin.fingerprint,
                "scores": record.scores,
                "device": origin.device,
                "software_version": origin.software_version,
            }
        )

    async def readiness(self) -> ReadyBody:
        """Return whether inspections can be answered now, and by what."""
        try:
            await self._in_recording(self.store.check)
            writable = True
        except AuditUnavailable:
            writable = False
        state, info, policy = self.queue.state, self.inspector.info, self.inspector.policy
        required = policy.required_categories
        covered = info.covered_categories if info else ()
        uncovered = [name for name in required if name not in covered]
        calibrated = bool(info and self.inspector.may_clear_by_scores(info))
        return ReadyBody(
            ready=state is EngineState.READY and writable,
            engine=state.value,
            store="writable" if writable else "unavailable",
            message=_message(state, self.queue.message, writable),
            model_version=info.model_version if info else "none",
            device=info.device if info else "none",
            calibrated=calibrated,
            can_clear=calibrated and not uncovered,
            covered_categories=[name for name in required if name in covered],
            uncovered_categories=uncovered,
            policy_version=policy.label,
            prompt_version=PROMPT_VERSION,
        )

    def _origin(self, submission: Submission) -> Origin:
        info = self.inspector.info
        return Origin(
            audit_id=uuid.uuid4().hex,
            scan_id=submission.scan.scan_id,
            request_id=submission.request_id,
            fingerprint=submission.fingerprint,
            received_at=submission.received_at,
            recorded_at=datetime.now(UTC),
            model_version=info.model_version if info else "none",
            prompt_version=PROMPT_VERSION,
            software_version=package_version(),
            device=info.device if info else "none",
        )

    async def _record(self, record: InspectionRecord | QuestionRecord) -> None:
        try:
            await self._in_recording(lambda: self.store.write(record))
        except AuditUnavailable as error:
            self.metrics.audit_failures.inc()
            raise Problem("audit_unavailable", "the audit store cannot be written now") from error

    async def _in_recording(self, work: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._recording, work)


def _message(state: EngineState, failure: str | None, writable: bool) -> str | None:
    parts: dict[EngineState, str] = {
        EngineState.LOADING: "the model is being loaded",
        EngineState.FAILED: f"the model did not start: {failure}",
        EngineState.STALLED: "the model's present call does not end; restart the service",
        EngineState.STOPPED: "the service is stopping",
    }
    said = [parts[state]] if state in parts else []
    if not writable:
        said.append("the audit store cannot be written, so no answer is given")
    return "; ".join(said) or None
