"""The page at /docs and the document behind it. Everything it loads comes from this server: sites have no internet."""

import importlib.util
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse, Response
from pydantic import BaseModel

from xray_vqa.config.loading import require
from xray_vqa.serving.access.roles import MAY, ROUTES, Role
from xray_vqa.serving.errors import MEDIA_TYPE
from xray_vqa.serving.schemas import EXAMPLES, AskRequest, InspectRequest, ProblemBody

_CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>xray-vqa API</title>
<link rel="icon" href="data:,"><link rel="stylesheet" href="docs/swagger-ui.css"></head>
<body><noscript>This page needs JavaScript; the same document is at <a href="openapi.json">openapi.json</a>.</noscript>
<div id="api"></div><script src="docs/swagger-ui-bundle.js"></script><script src="docs/start.js"></script></body></html>
"""
_START = """SwaggerUIBundle({url: "openapi.json", dom_id: "#api", deepLinking: true, validatorUrl: null,
  presets: [SwaggerUIBundle.presets.apis], layout: "BaseLayout", displayRequestDuration: true});
"""
_BODIES: tuple[type[BaseModel], ...] = (InspectRequest, AskRequest, ProblemBody)


def _asset_dir() -> Path:
    """Return the folder with Swagger UI's files; fastapi-offline is used for them alone and never imported."""
    require("fastapi_offline", extra="serve")
    spec = importlib.util.find_spec("fastapi_offline")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    return Path(spec.submodule_search_locations[0]) / "static"


def add_docs(app: FastAPI) -> None:
    """Serve /docs with its files, and the OpenAPI document with our own request bodies and problems in it."""
    asset_dir = _asset_dir()

    @app.get("/docs", include_in_schema=False)
    async def page() -> Response:
        return HTMLResponse(_PAGE, headers={"Content-Security-Policy": _CSP})

    @app.get("/docs/start.js", include_in_schema=False)
    async def start() -> Response:
        return Response(_START, media_type="text/javascript")

    @app.get("/docs/swagger-ui-bundle.js", include_in_schema=False)
    async def script() -> Response:
        return FileResponse(asset_dir / "swagger-ui-bundle.js", media_type="text/javascript")

    @app.get("/docs/swagger-ui.css", include_in_schema=False)
    async def style() -> Response:
        return FileResponse(asset_dir / "swagger-ui.css", media_type="text/css")

    @app.get("/openapi.json", include_in_schema=False)
    async def document() -> Response:
        return JSONResponse(app.openapi())

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _document(app)
        return app.openapi_schema

    app.openapi = openapi


def takes(body: type[BaseModel]) -> dict[str, Any]:
    """Return the OpenAPI part of a route that reads its body itself."""
    content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{body.__name__}"}}}
    return {"requestBody": {"required": True, "content": content}}


def refuses(**statuses: str) -> dict[int | str, dict[str, Any]]:
    """Return the OpenAPI responses of refusals: `refuses(s404="no such record")`."""
    content = {MEDIA_TYPE: {"schema": {"$ref": f"#/components/schemas/{ProblemBody.__name__}"}}}
    return {int(name[1:]): {"description": text, "content": content} for name, text in statuses.items()}


def _document(app: FastAPI) -> dict[str, Any]:
    document = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    for body in _BODIES:
        schema = body.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas.update(schema.pop("$defs", {}))
        schemas[body.__name__] = schema
    for name, example in EXAMPLES.items():
        schemas[name]["examples"] = [example]
    _tell_access(document)
    return document


def _tell_access(document: dict[str, Any]) -> None:
    """Say of each address which permission it needs, and how it refuses."""
    document["components"]["securitySchemes"] = {
        "bearer": {"type": "http", "scheme": "bearer", "description": "A key (`xvqa_...`), or a token of the site."}
    }
    refusals = refuses(
        s401="No credentials, or none that are valid",
        s403="These credentials do not allow it, or it came from elsewhere than this machine",
        s429="Too many requests; Retry-After says how long to wait",
    )
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            needed = ROUTES[method.upper(), path]
            if needed:
                roles = ", ".join(role for role in Role if role in MAY[needed])
                said = operation.get("description", "")
                operation["description"] = f"{said}\n\nNeeds the permission `{needed}` ({roles})."
                operation["security"] = [{"bearer": []}]
                operation["responses"].update({str(status): response for status, response in refusals.items()})
