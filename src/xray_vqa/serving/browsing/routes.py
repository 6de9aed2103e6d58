"""The addresses of browsing. Who may use which stands in `access/roles.py`."""

from datetime import UTC, datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Path, Query, Request, Response

from xray_vqa.core.inspection import Action
from xray_vqa.core.taxonomy import CATEGORIES
from xray_vqa.serving.access.roles import LANE_NAME
from xray_vqa.serving.browsing.declarable import suggestions
from xray_vqa.serving.browsing.desk import BrowsingDesk
from xray_vqa.serving.browsing.schemas import DeclarableBody, FiguresBody, PageBody
from xray_vqa.serving.docs import refuses
from xray_vqa.serving.errors import Problem
from xray_vqa.serving.schemas import MAX_DECLARED_LENGTH, SCAN_ID_PATTERN
from xray_vqa.serving.store.listing import Standing, Wanted

router = APIRouter(prefix="/api/v1", tags=["browsing"])

MAX_PAGE = 100
AuditIdQuery = Annotated[str | None, Query(pattern=r"^[0-9a-f]{32}$", description="That answer; else the newest.")]


def _desk_of(request: Request) -> BrowsingDesk:
    return request.app.state.browsing


Desk = Annotated[BrowsingDesk, Depends(_desk_of)]


@router.get(
    "/inspections",
    summary="Answers, the newest first",
    responses=refuses(s422="A filter does not fit", s503="The store cannot be read"),
)
async def inspections(
    request: Request,
    desk: Desk,
    search: Annotated[str | None, Query(pattern=SCAN_ID_PATTERN, description="How the scan_id begins.")] = None,
    lane: Annotated[str | None, Query(pattern=f"^{LANE_NAME.pattern}$")] = None,
    action: Annotated[list[Action] | None, Query(description="One or several.")] = None,
    standing: Annotated[list[Standing] | None, Query(description="`open` and `second` are the queue.")] = None,
    category: Annotated[str | None, Query(description="Of a finding.", examples=["Knife"])] = None,
    degraded: Annotated[bool | None, Query()] = None,
    since: Annotated[datetime | None, Query(description="From then on; without an offset, UTC.")] = None,
    until: Annotated[datetime | None, Query(description="Before then.")] = None,
    cursor: Annotated[str | None, Query(pattern=r"^[0-9]{1,18}$", description="The last page's `next_cursor`.")] = None,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 50,
) -> PageBody:
    """Of the lanes that the credentials are for. New answers do not shift the pages that follow a cursor."""
    if category is not None and category not in CATEGORIES:
        raise Problem("invalid_request", f"category is none of {', '.join(CATEGORIES)}")
    wanted = Wanted(
        lanes=request.state.principal.lanes,
        lane=lane,
        begins_with=search,
        actions=[one.value for one in action] if action else None,
        standings=standing or None,
        category=category,
        degraded=degraded,
        since=_as_recorded(since),
        until=_as_recorded(until),
    )
    return await desk.page(wanted, int(cursor) if cursor else None, limit)


@router.get(
    "/inspections/{scan_id}/image",
    summary="The image of a scan",
    response_class=Response,
    responses={
        200: {"content": {"image/jpeg": {}, "image/png": {}, "image/bmp": {}}},
        **refuses(s404="No record, or no image is kept", s422="No valid scan_id", s503="The store cannot be used"),
    },
)
async def image(
    scan_id: Annotated[str, Path(pattern=SCAN_ID_PATTERN)], request: Request, desk: Desk, audit_id: AuditIdQuery = None
) -> Response:
    """Its bytes as they were sent. Who looked at it is on record before it is given."""
    data, media_type = await desk.image(scan_id, audit_id, request.state.principal)
    return Response(data, media_type=media_type)


@router.get("/figures", summary="How things go", responses=refuses(s503="The store cannot be read"))
async def figures(request: Request, desk: Desk, hours: Annotated[int, Query(ge=1, le=168)] = 24) -> FiguresBody:
    """Counts of the last hours, times, and what waits for people."""
    return await desk.figures(hours, request.state.principal.lanes)


@router.get("/declarable", summary="Words for a declaration")
async def declarable(
    search: Annotated[str, Query(max_length=MAX_DECLARED_LENGTH)] = "",
    language: Annotated[Literal["en", "zh", "ar", "es", "fr", "ru"], Query()] = "en",
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 10,
) -> list[DeclarableBody]:
    """What a text that was begun may become. Declarations take any other text too."""
    return suggestions(search, language, limit)


def _as_recorded(moment: datetime | None) -> str | None:
    if moment is None:
        return None
    utc = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    return utc.isoformat(timespec="microseconds")
