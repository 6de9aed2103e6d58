"""What people do about the machine's answers, put on record before it counts."""

import asyncio
import hashlib
import json
from datetime import datetime

from xray_vqa.core.inspection import Action, RiskLevel
from xray_vqa.core.policy import CLEAR_CONDITIONS
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
    PolicyBody,
    StopBody,
    StopRequest,
    StopsBody,
)
from xray_vqa.serving.oversight.stops import Stop, StopBook, stops_after
from xray_vqa.serving.service import InspectionService
from xray_vqa.serving.store.audit import AuditUnavailable
from xray_vqa.serving.store.records import Stored


class OversightDesk:
    """Takes what people decide, and tells what the service goes by."""

    def __init__(self, service: InspectionService) -> None:
        self._service = service
        self.stops = StopBook(self._read_stops)

    async def stops_on(self) -> StopsBody:
        """Return the switches that are on. Raises Problem `audit_unavailable`."""
        try:
            stops = await asyncio.to_thread(self.stops.look)
        except AuditUnavailable as error:
            raise Problem("audit_unavailable", "the audit store cannot be read now") from error
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
        await self._service.on_record(self._service.store.add("stop", record))
        self.stops.forget()
        return await self.stops_on()

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
        return _override_body(await self._beside(given, "override", record))

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
        return _feedback_body(await self._beside(given, "feedback", record))

    def policies(self) -> list[PolicyBody]:
        """Return the rules by which bags are decided."""
        policy = self._service.inspector.policy
        rules = policy.model_dump(mode="json")
        text = json.dumps(rules, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
        return [
            PolicyBody(
                policy_version=f"{policy.name}@{policy.version}",
                sha256=hashlib.sha256(text.encode()).hexdigest(),
                clear_conditions=[condition.name for condition in CLEAR_CONDITIONS],
                rules=rules,
            )
        ]

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
