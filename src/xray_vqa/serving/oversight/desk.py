"""What people do about the machine's answers, put on record before it counts."""

import asyncio
from collections.abc import Callable
from datetime import datetime
from typing import TypeVar

from xray_vqa.core.policy import CLEAR_CONDITIONS
from xray_vqa.core.records import Strict
from xray_vqa.serving.access.roles import Principal
from xray_vqa.serving.errors import Problem
from xray_vqa.serving.oversight.records import FeedbackRecord, OverrideRecord, StopRecord
from xray_vqa.serving.oversight.schemas import (
    CalibrationBody,
    FeedbackBody,
    FeedbackRequest,
    ModelBody,
    OverrideBody,
    OverrideRequest,
    OversightBody,
    PolicyBody,
    StopBody,
    StopRequest,
    StopsBody,
)
from xray_vqa.serving.oversight.standing import standing_of
from xray_vqa.serving.oversight.stops import READ_AGAIN_AFTER_S
from xray_vqa.serving.service import InspectionService
from xray_vqa.serving.store.audit import AuditUnavailable
from xray_vqa.serving.store.chain import FoundBy, Row
from xray_vqa.serving.store.records import Stored

Result = TypeVar("Result")


class OversightDesk:
    """Takes what people decide, and tells what the service goes by."""

    def __init__(self, service: InspectionService) -> None:
        self._service = service

    async def stops_on(self, not_older_than_s: float = READ_AGAIN_AFTER_S) -> StopsBody:
        """Return the switches that are on. Raises Problem `audit_unavailable`."""
        stops = await self._from_store(lambda: self._service.stops.look(not_older_than_s))
        return StopsBody(
            stops=[
                StopBody(lane=lane, reason=stop.record.reason, by=stop.record.by, since=stop.since)
                for lane, stop in stops.items()
            ]
        )

    async def throw(self, request: StopRequest, by: Principal, *, is_on: bool) -> StopsBody:
        """Throw a switch or put it back, and return those that are on.

        Raises:
            Problem: It is for another lane, it is not on, or it could not be recorded.
        """
        if by.lanes is not None and request.lane not in by.lanes:
            raise Problem("forbidden", "these credentials are for other lanes, and not for all")
        if not is_on and all(stop.lane != request.lane for stop in (await self.stops_on()).stops):
            raise Problem("not_stopped", "this switch is not on")
        record = StopRecord(is_on=is_on, lane=request.lane, reason=request.reason, by=by.name)
        found_by = FoundBy(principal=by.name, lane=request.lane)
        await self._service.on_record(self._service.store.add("stop", record, found_by=found_by))
        return await self.stops_on(not_older_than_s=0)

    async def override(self, scan_id: str, request: OverrideRequest, by: Principal) -> OverrideBody:
        """Put a person's decision beside the answer to a scan. Raises Problem."""
        given = await self._given(scan_id, request.audit_id, by)
        record = OverrideRecord(
            scan_id=scan_id,
            given_action=given.record.action,
            given_risk_level=given.record.risk_level,
            action=request.action,
            reason=request.reason,
            by=by.name,
        )
        return _override_body(await self._put_beside(given, "override", record, by))

    async def feedback(self, scan_id: str, request: FeedbackRequest, by: Principal) -> FeedbackBody:
        """Put what an officer found beside the answer to a scan. Raises Problem."""
        given = await self._given(scan_id, request.audit_id, by)
        found = {finding["category"] for finding in given.record.answer["findings"]}
        strange = [item.category for item in request.findings if item.verdict != "added" and item.category not in found]
        if strange:
            detail = f"the answer has no finding of {', '.join(sorted(set(strange)))}; what it lacks is `added`"
            raise Problem("invalid_request", detail)
        record = FeedbackRecord(
            scan_id=scan_id,
            outcome=request.outcome,
            findings=tuple(request.findings),
            note=request.note,
            by=by.name,
        )
        return _feedback_body(await self._put_beside(given, "feedback", record, by))

    def policies(self) -> list[PolicyBody]:
        """Return the rules by which bags are decided."""
        policy = self._service.inspector.policy
        conditions = [condition.name for condition in CLEAR_CONDITIONS]
        rules = policy.model_dump(mode="json")
        return [PolicyBody(policy_version=policy.label, clear_conditions=conditions, rules=rules)]

    def models(self) -> list[ModelBody]:
        """Return the model that runs; nothing while it is being loaded."""
        info = self._service.inspector.info
        if info is None:
            return []
        identity, calibration = info.identity, info.calibration
        return [
            ModelBody(
                model_version=info.model_version,
                engine=identity.engine,
                device=info.device,
                dtype=identity.dtype,
                model_digest=identity.model_digest,
                adapter_digest=identity.adapter_digest,
                processor_version=identity.processor_version,
                prompt_version=identity.prompt_version,
                covered_categories=list(info.covered_categories),
                calibration=calibration
                and CalibrationBody(
                    matches=info.is_calibrated,
                    simulated=calibration.simulated,
                    measured_on=calibration.measured_on,
                    num_scans=calibration.num_scans,
                    num_positives=calibration.num_positives,
                    thresholds=calibration.thresholds,
                    notes=calibration.notes,
                ),
            )
        ]

    async def beside(self, scan_id: str, by: Principal, audit_id: str | None = None) -> OversightBody:
        """Return what people have said of an answer to a scan, the newest or another, oldest first. Raises Problem."""
        audit_id = (await self._service.newest(scan_id, by.lanes, audit_id)).record.origin.audit_id
        rows = await self._from_store(lambda: self._service.store.read_all(audit_id))
        return OversightBody(
            audit_id=audit_id,
            standing=standing_of(rows, four_eyes=self._service.settings.four_eyes),
            overrides=[_override_body(row) for row in rows if row.kind == "override"],
            feedback=[_feedback_body(row) for row in rows if row.kind == "feedback"],
        )

    async def _given(self, scan_id: str, audit_id: str, by: Principal) -> Stored:
        """Return the answer that is meant. Raises Problem where there is none, or the scan has another one now."""
        newest = await self._service.newest(scan_id, by.lanes)
        if newest.record.origin.audit_id == audit_id:
            return newest
        try:
            # Another key or lane may have a scan of the same name, with an answer that is newer and no answer to this.
            given = await self._service.newest(scan_id, by.lanes, audit_id)
        except Problem as problem:
            if problem.code != "no_such_inspection":
                raise
        else:
            origin = given.record.origin
            last = await self._from_store(
                lambda: self._service.store.newest(scan_id, (origin.lane,), principal=origin.principal)
            )
            if last and last.record.origin.audit_id == audit_id:
                return given
        raise Problem("another_answer", "the newest answer to this scan has another audit_id")

    async def _put_beside(self, given: Stored, kind: str, record: Strict, by: Principal) -> Row:
        origin = given.record.origin
        found_by = FoundBy(scan_id=origin.scan_id, principal=by.name, lane=origin.lane)
        store = self._service.store
        four_eyes = self._service.settings.four_eyes
        written = store.add_judgement(
            kind, record, origin.audit_id, found_by, lambda rows: standing_of(rows, four_eyes=four_eyes)
        )
        return await self._service.on_record(written)

    async def _from_store(self, work: Callable[[], Result]) -> Result:
        try:
            return await asyncio.to_thread(work)
        except AuditUnavailable as error:
            raise Problem("audit_unavailable", "the audit store cannot be read now") from error


def _override_body(row: Row) -> OverrideBody:
    return OverrideBody(audit_id=row.audit_id, recorded_at=datetime.fromisoformat(row.recorded_at), **row.record())


def _feedback_body(row: Row) -> FeedbackBody:
    return FeedbackBody(audit_id=row.audit_id, recorded_at=datetime.fromisoformat(row.recorded_at), **row.record())
