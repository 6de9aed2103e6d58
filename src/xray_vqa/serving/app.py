"""The application: routes, refusals and middleware around one inspection service."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from xray_vqa.config.serve import ServeSettings
from xray_vqa.core.manifest import package_version
from xray_vqa.inference.inspector import Inspector
from xray_vqa.serving.access.gate import AccessGate
from xray_vqa.serving.access.identity import Identity
from xray_vqa.serving.access.key_store import KeyStore
from xray_vqa.serving.access.rates import Rates
from xray_vqa.serving.body import BodyLimit, problem_of_validation
from xray_vqa.serving.browsing.desk import BrowsingDesk
from xray_vqa.serving.browsing.routes import router as browsing_router
from xray_vqa.serving.docs import add_docs
from xray_vqa.serving.errors import Problem
from xray_vqa.serving.middleware import RequestContext
from xray_vqa.serving.oversight.desk import OversightDesk
from xray_vqa.serving.oversight.routes import router as oversight_router
from xray_vqa.serving.routes import router
from xray_vqa.serving.service import InspectionService

_DESCRIPTION = """\
Sends a scan of a bag through a vision-language model and a written policy.

One rule for every client: **anything but a 200 whose `action` is `clear` means that a person looks.**
"""


def create_app(settings: ServeSettings, inspector: Inspector) -> FastAPI:
    """Return the API around an inspector that is not started yet; it is loaded in the background when the app starts.

    Raises:
        ConfigError: The database URL, a rate or the sign-in cannot be used, or a package of the `serve` extra is
            missing.
    """
    service = InspectionService(settings, inspector)
    identity = Identity(settings, KeyStore(service.store).keys)
    rates = Rates(settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await asyncio.gather(service.start(), identity.look())
        yield
        app.state.stopped_cleanly = await service.stop()

    app = FastAPI(
        title="xray-vqa",
        version=package_version(),
        description=_DESCRIPTION,
        lifespan=lifespan,
        openapi_url=None,  # add_docs serves the document and the page
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.service = service
    app.state.identity = identity
    app.state.stopped_cleanly = True
    app.state.oversight = OversightDesk(service)
    app.state.browsing = BrowsingDesk(service)
    app.include_router(router)
    app.include_router(oversight_router)
    app.include_router(browsing_router)
    add_docs(app)
    app.add_exception_handler(Problem, _answer_problem)
    app.add_exception_handler(HTTPException, _answer_http_exception)
    app.add_exception_handler(RequestValidationError, _answer_validation_error)
    # The last one that is added is the outermost: a request that may not pass meets nothing but the gate.
    app.add_middleware(BodyLimit, max_bytes=settings.max_body_bytes)
    app.add_middleware(AccessGate, identity=identity, rates=rates, metrics=service.metrics)
    app.add_middleware(RequestContext, metrics=service.metrics)
    return app


async def _answer_problem(request: Request, error: Any) -> Response:
    return error.response(request.url.path, request.state.request_id)


async def _answer_http_exception(request: Request, error: Any) -> Response:
    if error.status_code == 404:
        problem = Problem("not_found", "no route has this path")
    elif error.status_code == 405:
        problem = Problem("method_not_allowed", "the path does not take this method", headers=error.headers)
    else:
        problem = Problem("invalid_request", "the request cannot be served", status=error.status_code)
    return await _answer_problem(request, problem)


async def _answer_validation_error(request: Request, error: Any) -> Response:
    return await _answer_problem(request, problem_of_validation(list(error.errors())))
