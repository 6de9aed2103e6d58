"""Reads the store for people who look: pages of answers, images, figures. Each image that is given out is on record."""

import asyncio
from collections.abc import Callable, Collection, Sequence
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from sqlalchemy import Connection

from xray_vqa.core.images import image_header
from xray_vqa.core.inspection import Action
from xray_vqa.errors import ImageUnreadable, XrayVqaError
from xray_vqa.serving.access.roles import Principal
from xray_vqa.serving.browsing.records import ViewRecord
from xray_vqa.serving.browsing.schemas import FiguresBody, HourBody, ListedBody, PageBody
from xray_vqa.serving.errors import Problem
from xray_vqa.serving.service import InspectionService
from xray_vqa.serving.store import listing
from xray_vqa.serving.store.audit import AuditUnavailable
from xray_vqa.serving.store.chain import FoundBy
from xray_vqa.serving.store.listing import Counted, Listed, Wanted
from xray_vqa.serving.store.records import Stored

Result = TypeVar("Result")

_TIMES = 1000
"""Answers whose times the percentiles are of."""
_MEDIA_TYPES = {"JPEG": "image/jpeg", "PNG": "image/png", "BMP": "image/bmp"}


class BrowsingDesk:
    """Shows what is on record, to whoever the gate has let in, of the lanes that they are for."""

    def __init__(self, service: InspectionService) -> None:
        self._service = service

    async def page(self, wanted: Wanted, before: int | None, limit: int) -> PageBody:
        """Return a page of answers, the newest first. Raises Problem `audit_unavailable`."""
        found = await self._from_store(lambda connection: listing.page(connection, wanted, before, limit + 1))
        shown = found[:limit]
        more = len(found) > limit
        return PageBody(
            inspections=[self._listed(one) for one in shown if one.row.body is not None],
            next_cursor=str(shown[-1].row.sequence) if more else None,
        )

    async def image(self, scan_id: str, audit_id: str | None, by: Principal) -> tuple[bytes, str]:
        """Return the bytes of a scan's image and their media type; that they were given out is on record.

        Raises Problem `no_such_inspection`, `no_image` or `audit_unavailable`.
        """
        stored = await self._service.newest(scan_id, by.lanes, audit_id)
        data = await self.image_of(stored)
        origin = stored.record.origin
        record = ViewRecord(scan_id=scan_id, by=by.name)
        found_by = FoundBy(scan_id=scan_id, principal=by.name, lane=origin.lane)
        store = self._service.store
        await self._service.on_record(store.add("view", record, audit_id=origin.audit_id, found_by=found_by))
        try:
            kind, _ = image_header(data, self._service.settings.image_limits)
        except ImageUnreadable as error:
            raise Problem("no_image", "what is kept of this scan is no image") from error
        return data, _MEDIA_TYPES[kind]

    async def image_of(self, stored: Stored) -> bytes:
        """Return the bytes of the image of an answer. Raises Problem `no_image`."""
        images, image_hash = self._service.images, stored.record.origin.image_hash
        if images is None or image_hash is None:
            raise Problem("no_image", "this service keeps no images (XRAY_VQA_IMAGE_STORE)")
        try:
            return await asyncio.to_thread(images.get, image_hash)
        except (XrayVqaError, OSError) as error:
            raise Problem("no_image", "the image of this scan is not kept, or not any more") from error

    async def figures(self, hours: int, lanes: Collection[str] | None) -> FiguresBody:
        """Return how things went in the last hours. Raises Problem `audit_unavailable`."""
        as_of = datetime.now(UTC)
        since = as_of - timedelta(hours=hours)

        def read(connection: Connection) -> tuple[list[Counted], list[int], dict[str, int]]:
            return (
                listing.count_by_hour(connection, lanes, since.isoformat(timespec="microseconds")),
                listing.newest_times_ms(connection, lanes, _TIMES),
                listing.count_standings(connection, lanes),
            )

        counted, times, waiting = await self._from_store(read)
        actions = {action: sum(one.count for one in counted if one.action == action.value) for action in Action}
        total = sum(actions.values())
        queue = self._service.queue
        return FiguresBody(
            as_of=as_of,
            since=since,
            inspections=total,
            clear=actions[Action.CLEAR],
            manual_inspection=actions[Action.MANUAL_INSPECTION],
            detain=actions[Action.DETAIN],
            degraded=sum(one.count for one in counted if one.degraded),
            clear_share=actions[Action.CLEAR] / total if total else None,
            p50_ms=_quantile(times, 0.5),
            p95_ms=_quantile(times, 0.95),
            queue_open=waiting.get("open", 0),
            queue_second=waiting.get("second", 0),
            engine=queue.state.value,
            engine_waiting=queue.num_waiting,
            hours=_hours(counted),
        )

    def _listed(self, one: Listed) -> ListedBody:
        stored = Stored.of(one.row)
        record, answer = stored.record, stored.record.answer
        return ListedBody(
            scan_id=record.origin.scan_id,
            audit_id=record.origin.audit_id,
            sequence=stored.sequence,
            recorded_at=record.first_recorded_at or stored.recorded_at,
            lane=record.origin.lane,
            action=Action(record.action),
            risk_level=answer["risk_level"],
            degraded=record.degraded,
            detected_items=answer["detected_items"],
            reasons=answer["reasons"],
            processing_time_ms=answer["processing_time_ms"],
            standing=one.standing,  # pyright: ignore[reportArgumentType] - pydantic checks it
            has_image=self._service.images is not None and record.origin.image_hash is not None,
        )

    async def _from_store(self, work: Callable[[Connection], Result]) -> Result:
        try:
            return await asyncio.to_thread(self._service.store.look, work)
        except AuditUnavailable as error:
            raise Problem("audit_unavailable", "the audit store cannot be read now") from error


def _quantile(values: Sequence[int], share: float) -> int | None:
    """Return the smallest value that at least a share of all do not exceed; None of nothing."""
    if not values:
        return None
    ordered = sorted(values)
    return ordered[max(0, -int(-share * len(ordered) // 1) - 1)]


def _hours(counted: Sequence[Counted]) -> list[HourBody]:
    by_hour: dict[str, dict[str, int]] = {}
    for one in counted:
        hour = by_hour.setdefault(one.hour, {**{action.value: 0 for action in Action}, "degraded": 0})
        hour[one.action] += one.count
        hour["degraded"] += one.count if one.degraded else 0
    return [HourBody(hour=datetime.fromisoformat(f"{name}:00:00+00:00"), **counts) for name, counts in by_hour.items()]
