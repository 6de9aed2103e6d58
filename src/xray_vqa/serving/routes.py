"""The addresses of the API. Each reads its request, hands it to the service and returns what that says."""

import time
from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST

from xray_vqa.core.inspection import Scan
from xray_vqa.core.manifest import package_version
from xray_vqa.serving.body import Body, read_bytes, understand
from xray_vqa.serving.docs import refuses, takes
from xray_vqa.serving.schemas import (
    SCAN_ID_PATTERN,
    AskRequest,
    AskResponse,
    HealthBody,
    InspectRequest,
    InspectResponse,
    ReadyBody,
    RecordBody,
)
from xray_vqa.serving.service import InspectionService, Submission

router = APIRouter()

_BAD_BODY = {
    "s400": "The body is not JSON",
    "s413": "The body or the image is too large",
    "s415": "The body is not announced as application/json",
    "s422": "A field does not fit, or the image cannot be read",
}


def _service_of(request: Request) -> InspectionService:
    return request.app.state.service


Service = Annotated[InspectionService, Depends(_service_of)]


@router.get("/health", tags=["operation"], summary="Does the process live")
async def health() -> HealthBody:
    """Answers at once, whatever the model and the store do."""
    return HealthBody(version=package_version())


@router.get(
    "/ready",
    tags=["operation"],
    summary="Can inspections be answered",
    responses={503: {"model": ReadyBody, "description": "Not now; `message` says why"}},
)
async def ready(service: Service, response: Response) -> ReadyBody:
    """While this says 503 because of the model, every scan goes to manual inspection; it is still answered."""
    readiness = await service.readiness()
    response.status_code = 200 if readiness.ready else 503
    return readiness


@router.get("/metrics", tags=["operation"], summary="For Prometheus", response_class=Response)
async def metrics(service: Service) -> Response:
    """Counts and times of this process in Prometheus' text format."""
    return Response(service.metrics.exposition(), media_type=CONTENT_TYPE_LATEST)


@router.post(
    "/api/v1/inspect",
    tags=["inspection"],
    summary="Inspect a scan",
    openapi_extra=takes(InspectRequest),
    responses=refuses(
        **{**_BAD_BODY, "s422": "A field does not fit, the image cannot be read, or the scan_id is another scan's"},
        s409="The same scan is being inspected",
        s503="The answer could not be recorded, so it is not given",
    ),
)
async def inspect(request: Request, service: Service) -> InspectResponse:
    """What is in the bag, how grave it is and what to do.

    A scan that cannot be assessed (no model, no answer in time, an error) is answered with status 200,
    `manual_inspection`, risk `high` and `degraded: true`. Anything but a 200 means: inspect by hand.
    """
    submission, _ = await _submission_of(request, InspectRequest, service)
    return await service.inspect(submission)


@router.post(
    "/api/v1/ask",
    tags=["inspection"],
    summary="Ask about a scan",
    openapi_extra=takes(AskRequest),
    responses=refuses(
        **_BAD_BODY,
        s502="The model's answer has no meaning",
        s503="The model is not ready, too much waits, or the answer could not be recorded",
        s504="No answer in time",
    ),
)
async def ask(request: Request, service: Service) -> AskResponse:
    """The model's own words. They may be wrong and decide nothing; use `inspect` to decide."""
    submission, question = await _submission_of(request, AskRequest, service)
    return await service.ask(submission, question)


@router.get(
    "/api/v1/inspections/{scan_id}",
    tags=["inspection"],
    summary="The newest record of a scan",
    responses=refuses(s404="No record", s422="No valid scan_id", s503="The store cannot be read"),
)
async def inspection(
    scan_id: Annotated[str, Path(pattern=SCAN_ID_PATTERN)],
    request: Request,
    service: Service,
    audit_id: Annotated[
        str | None, Query(pattern=r"^[0-9a-f]{32}$", description="That answer, not the newest.")
    ] = None,
) -> RecordBody:
    """A scan that was inspected more than once has a record for each time; this is the last one."""
    return await service.newest_record(scan_id, request.state.principal.lanes, audit_id)


async def _submission_of(request: Request, kind: type[Body], service: InspectionService) -> tuple[Submission, str]:
    """Return the scan in a request and its question, if it has one; nothing of the body outlives this call."""
    data = await read_bytes(request)
    # The clock starts with the last byte: a slow line is not the model's delay, a long wait for a decoder is.
    received_at, started = datetime.now(UTC), time.perf_counter()
    understood = await service.decode(lambda: understand(data, kind, service.settings.image_limits))
    body = understood.body
    declared = body.declared_items if isinstance(body, InspectRequest) else None
    scan = Scan(body.scan_id, understood.image, tuple(declared) if declared is not None else None, request.state.lane)
    submission = Submission(
        scan,
        understood.fingerprint,
        request.state.request_id,
        principal=request.state.principal.name,
        lane=request.state.lane,
        image_hash=understood.image_hash,
        file_bytes=understood.file_bytes if service.images else None,
        received_at=received_at,
        started=started,
    )
    return submission, body.question if isinstance(body, AskRequest) else ""
