"""The flow of one request, free of HTTP: into the engine's line, written down, given out."""

import asyncio
import logging
import time
import uuid
from collections.abc import Callable, Collection
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from xray_vqa.config.serve import ServeSettings
from xray_vqa.core.inspection import Action, Inspection, Scan
from xray_vqa.core.manifest import package_version
from xray_vqa.core.prompts import PROMPT_VERSION
from xray_vqa.errors import AnswerUnreadable, ModelUnavailable, Overloaded, XrayVqaError
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
from xray_vqa.serving.store.audit import AuditStore, AuditUnavailable, OtherPayload, ScanInFlight
from xray_vqa.serving.store.chain import Row
from xray_vqa.serving.store.images import ImageStore
from xray_vqa.serving.store.records import (
    DEFAULT_LANE,
    OPEN,
    InspectionRecord,
    Intent,
    Origin,
    QuestionRecord,
    Stored,
)
from xray_vqa.serving.store_metrics import watch_store

logger = logging.getLogger(__name__)

Result = TypeVar("Result")
MAX_ANSWER_LENGTH = 2000
_STALLED_AFTER_TIMEOUTS = 6
"""A call of the engine that runs for this many time limits is taken for hung."""
_STORE_TIMEOUT_S = 5.0
"""How long an answer waits for its record before it is withheld."""
_GRACE = timedelta(seconds=2 * _STORE_TIMEOUT_S)
"""From a scan's time limit until its intent counts as given up: the answer may be waiting for the store."""
_HOUSEKEEPING_S = 5.0


@dataclass(frozen=True, slots=True)
class Submission:
    """A scan that was understood, and what the record needs to know of its request."""

    scan: Scan
    fingerprint: str
    request_id: str
    principal: str = OPEN
    """Whose key asked."""
    lane: str = DEFAULT_LANE
    image_hash: str | None = None
    file_bytes: bytes | None = field(default=None, repr=False)
    """The image's file, where images are kept."""
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
        self.store = AuditStore(
            settings.database_url,
            self._interrupted,
            key_path=settings.audit_key,
            anchors=settings.audit_anchors,
        )
        watch_store(self.metrics, self.store)
        self.images = ImageStore(settings.image_store) if settings.image_store else None
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
        self._keeping = ThreadPoolExecutor(1, thread_name_prefix="keep")
        self._housekeeping: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to load the engine and open the store; neither is waited for or fatal."""
        self.queue.start()
        try:
            await self._stored(self.store.check())
        except AuditUnavailable:
            logger.error("no answer is given until the audit store can be written")
        self._housekeeping = asyncio.create_task(self._housekeep())

    async def stop(self) -> bool:
        """Finish what waits and close. Returns False where the engine did not stop in the time allowed."""
        stopped = await asyncio.to_thread(self.queue.close, self.settings.drain_s)
        self._decoding.shutdown()
        await asyncio.to_thread(self._keeping.shutdown)
        if self._housekeeping:
            self._housekeeping.cancel()
        await asyncio.to_thread(self.store.close)
        return stopped

    async def decode(self, work: Callable[[], Result]) -> Result:
        """Return what some work on a request's bytes gives, done away from the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self._decoding, work)

    async def inspect(self, submission: Submission) -> InspectResponse:
        """Return the decision on a scan, which then is on record; the one that it has, where it was sent before.

        Raises Problem `audit_unavailable`, `scan_in_flight` or `scan_id_taken`.
        """
        if not self.stops.is_fresh:
            with suppress(AuditUnavailable):  # what this process knows of the switches holds
                await asyncio.to_thread(self.stops.look)
        origin = self._origin(submission)
        try:
            before = await self._claim(submission, origin)
            if before is not None:
                self.metrics.replayed.inc()
                return _given_again(before)
            if self.images and submission.file_bytes:
                self._keeping.submit(self._keep_image, self.images, origin, submission.file_bytes)
            return await self._inspect(submission, origin)
        finally:
            self.store.release(origin.audit_id)

    async def _inspect(self, submission: Submission, origin: Origin) -> InspectResponse:
        remaining_s = self.settings.timeout_s - submission.elapsed_s()
        inspection = await self.queue.inspect(
            submission.scan, remaining_s, on_late=lambda late: self._record_late(origin, late)
        )
        if inspection.decision.action is Action.CLEAR and self.stops.is_on(submission.scan.lane):
            inspection = self.inspector.degraded(submission.scan, "stopped")  # thrown since it was decided
        record = _record_of(inspection, origin, processing_time_ms=submission.elapsed_s() * 1000)
        stored = await self.on_record(self.store.conclude(record))
        if (
            stored.record.answer != record.answer
        ):  # its intent was given up meanwhile, and somebody may have that answer
            self._record_late(origin, inspection)
            return _given_again(stored)
        self.metrics.count_inspection(inspection, submission.elapsed_s())
        return InspectResponse.model_validate(record.answer)

    async def _claim(self, submission: Submission, origin: Origin) -> Stored | None:
        """Put the scan on record, or return the answer that it has."""
        policy, declared = self.inspector.policy, submission.scan.declared_items
        limit = timedelta(seconds=self.settings.timeout_s)
        intent = Intent(
            origin=origin,
            policy_version=policy.label,
            declared_items=declared,
            deadline=submission.received_at + limit + _GRACE,
            owner=self.store.owner,
        )
        try:
            return await self.on_record(self.store.claim(intent))
        except ScanInFlight as error:
            raise Problem(
                "scan_in_flight", "this scan_id was sent before and is not answered yet", headers={"Retry-After": "1"}
            ) from error
        except OtherPayload as error:
            raise Problem("scan_id_taken", "this scan_id was sent before with another image or declaration") from error

    def _keep_image(self, images: ImageStore, origin: Origin, file_bytes: bytes) -> None:
        """Keep a scan's image. Its record names it either way; one that could not be kept is counted and logged."""
        try:
            images.put(origin.image_hash or "", file_bytes)
        except (XrayVqaError, OSError) as error:
            self.metrics.images_lost.inc()
            logger.error("the image of request %s is not kept in %s: %s", origin.request_id, images.shown, error)

    def _interrupted(self, intent: Intent) -> InspectionRecord:
        """Return the record of a scan that nobody answered: a person inspects the bag."""
        inspection = self.inspector.interrupted(intent.origin.scan_id, intent.declared_items)
        record = _record_of(inspection, intent.origin, processing_time_ms=0)
        return record.model_copy(update={"closed": "interrupted"})

    def _record_late(self, origin: Origin, inspection: Inspection) -> None:
        """Put on record what came too late to be given; from any thread."""
        record = _record_of(inspection, origin, processing_time_ms=inspection.processing_time_ms)
        self.store.add_late(record).add_done_callback(_log_failure)

    async def _housekeep(self) -> None:
        while True:
            await asyncio.sleep(_HOUSEKEEPING_S)
            try:
                given_up = await asyncio.to_thread(self.store.housekeep)
            except (AuditUnavailable, TimeoutError):
                continue  # the store has said so in the log
            except Exception:  # whatever it is, the next round has to come
                logger.exception("the audit store could not be looked after")
                continue
            for stored in given_up:
                request_id = stored.record.origin.request_id
                logger.warning("request %s was not answered; its bag goes to a person", request_id)

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
        record = QuestionRecord(origin=origin, question=question, answer=answer.model_dump(mode="json"))
        await self.on_record(self.store.add_question(record))
        return answer

    async def newest(self, scan_id: str, lanes: Collection[str] | None, audit_id: str | None = None) -> Stored:
        """Return the newest inspection of a scan, on some lanes or on any, or that of an audit_id.

        Raises Problem `no_such_inspection` or `audit_unavailable`.
        """
        try:
            stored = await asyncio.wait_for(
                asyncio.to_thread(self.store.newest, scan_id, lanes, audit_id), _STORE_TIMEOUT_S
            )
        except (AuditUnavailable, TimeoutError) as error:
            raise Problem("audit_unavailable", "the audit store cannot be read now") from error
        if stored is None:
            raise Problem("no_such_inspection", "the audit store has no inspection under this scan_id")
        return stored

    async def newest_record(
        self, scan_id: str, lanes: Collection[str] | None, audit_id: str | None = None
    ) -> RecordBody:
        """Return the record of a scan as it goes out. Raises Problem as `newest`."""
        stored = await self.newest(scan_id, lanes, audit_id)
        record, origin = stored.record, stored.record.origin
        return RecordBody.model_validate(
            {
                "inspection": record.answer,
                "request_id": origin.request_id,
                "received_at": origin.received_at,
                "recorded_at": record.first_recorded_at or stored.recorded_at,
                "fingerprint": origin.fingerprint,
                "scores": record.scores,
                "device": origin.device,
                "software_version": origin.software_version,
                "closed": record.closed,
                "sequence": stored.sequence,
                "record_hash": stored.row_hash,
            }
        )

    async def readiness(self) -> ReadyBody:
        """Return whether inspections can be answered now, and by what."""
        try:
            await self._stored(self.store.check())
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
            principal=submission.principal,
            lane=submission.lane,
            request_id=submission.request_id,
            fingerprint=submission.fingerprint,
            image_hash=submission.image_hash,
            received_at=submission.received_at,
            model_version=info.model_version if info else "none",
            prompt_version=PROMPT_VERSION,
            software_version=package_version(),
            device=info.device if info else "none",
        )

    async def on_record(self, written: "Future[Result]") -> Result:
        """Return what the store has written. Raises Problem `audit_unavailable` where it has not."""
        try:
            return await self._stored(written)
        except AuditUnavailable as error:
            self.metrics.audit_failures.inc()
            raise Problem("audit_unavailable", "the audit store cannot be written now") from error

    async def _stored(self, written: "Future[Result]") -> Result:
        """Return what the store says. Raises AuditUnavailable, also where it says nothing."""
        try:
            return await asyncio.wait_for(asyncio.wrap_future(written), _STORE_TIMEOUT_S)
        except TimeoutError as error:
            raise AuditUnavailable("the audit store does not answer") from error


def _record_of(inspection: Inspection, origin: Origin, *, processing_time_ms: float) -> InspectionRecord:
    answer = inspect_response(inspection, audit_id=origin.audit_id, processing_time_ms=processing_time_ms)
    return InspectionRecord(
        origin=origin.model_copy(update={"model_version": answer.model_version}),
        policy_version=answer.policy_version,
        risk_level=answer.risk_level.value,
        action=answer.action.value,
        degraded=answer.degraded,
        answer=answer.model_dump(mode="json"),
        scores=scores_body(inspection),
    )


def _given_again(stored: Stored) -> InspectResponse:
    return InspectResponse.model_validate({**stored.record.answer, "replayed": True})


def _log_failure(written: "Future[Row]") -> None:
    if error := written.exception():
        logger.error("a result that came too late is not on record: %s", error)


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
