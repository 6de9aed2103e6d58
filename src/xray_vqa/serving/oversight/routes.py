"""The addresses of oversight. Who may use which stands in `access/roles.py`."""

from typing import Annotated

from fastapi import APIRouter, Body, Depends, Path, Query, Request

from xray_vqa.serving.docs import refuses
from xray_vqa.serving.oversight.desk import OversightDesk
from xray_vqa.serving.oversight.schemas import (
    FeedbackBody,
    FeedbackRequest,
    ModelBody,
    OverrideBody,
    OverrideRequest,
    OversightBody,
    PolicyBody,
    StopRequest,
    StopsBody,
)
from xray_vqa.serving.schemas import SCAN_ID_PATTERN

router = APIRouter(prefix="/api/v1", tags=["oversight"])

_NOT_RECORDED = "It could not be recorded, so it does not count"


def _desk_of(request: Request) -> OversightDesk:
    return request.app.state.oversight


Desk = Annotated[OversightDesk, Depends(_desk_of)]
ScanId = Annotated[str, Path(pattern=SCAN_ID_PATTERN)]


@router.get("/stop", summary="Which stop switches are on", responses=refuses(s503="The store cannot be read"))
async def stops(desk: Desk) -> StopsBody:
    """While a switch is on, no bag of its lanes is cleared."""
    return await desk.stops_on()


@router.post("/stop", summary="Stop clearing bags", responses=refuses(s422="A field does not fit", s503=_NOT_RECORDED))
async def stop(request: Request, body: Annotated[StopRequest, Body()], desk: Desk) -> StopsBody:
    """From now on every bag of the lane, or of all lanes, goes to a person. It holds until it is put back."""
    return await desk.throw(body, request.state.principal, is_on=True)


@router.post(
    "/resume",
    summary="Put a stop switch back",
    responses=refuses(s409="It is not on", s422="A field does not fit", s503=_NOT_RECORDED),
)
async def resume(request: Request, body: Annotated[StopRequest, Body()], desk: Desk) -> StopsBody:
    """The switch for all lanes and those of single lanes are put back each by itself."""
    return await desk.throw(body, request.state.principal, is_on=False)


@router.post(
    "/inspections/{scan_id}/override",
    summary="Decide otherwise than the machine",
    responses=refuses(s404="No record", s409="Another answer", s422="A field does not fit", s503=_NOT_RECORDED),
)
async def override(
    scan_id: ScanId, request: Request, body: Annotated[OverrideRequest, Body()], desk: Desk
) -> OverrideBody:
    """The person's decision is put on record beside the answer, which stays as it was given."""
    return await desk.override(scan_id, body, request.state.principal)


@router.post(
    "/inspections/{scan_id}/feedback",
    summary="Say what was in the bag",
    responses=refuses(s404="No record", s409="Another answer", s422="A field does not fit", s503=_NOT_RECORDED),
)
async def feedback(
    scan_id: ScanId, request: Request, body: Annotated[FeedbackRequest, Body()], desk: Desk
) -> FeedbackBody:
    """Findings confirmed, rejected or added. Nothing is trained on it before a second person has looked at it."""
    return await desk.feedback(scan_id, body, request.state.principal)


@router.get(
    "/inspections/{scan_id}/oversight",
    summary="What people said of an answer",
    responses=refuses(s404="No record", s422="No valid scan_id", s503="The store cannot be read"),
)
async def oversight(
    scan_id: ScanId,
    request: Request,
    desk: Desk,
    audit_id: Annotated[
        str | None, Query(pattern=r"^[0-9a-f]{32}$", description="That answer, not the newest.")
    ] = None,
) -> OversightBody:
    """Overrides and feedback on the newest answer to a scan."""
    return await desk.beside(scan_id, request.state.principal, audit_id)


@router.get("/policies", summary="The rules by which bags are decided")
async def policies(desk: Desk) -> list[PolicyBody]:
    """With their versions and digests, as they stand in every answer."""
    return desk.policies()


@router.get("/models", summary="The model that runs")
async def models(desk: Desk) -> list[ModelBody]:
    """What it covers and on what its thresholds were measured; none while it is being loaded."""
    return desk.models()
