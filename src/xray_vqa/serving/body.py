"""From the bytes of a request to a scan: within the limits, every refusal named."""

import binascii
import hashlib
import json
import re
from dataclasses import dataclass
from typing import Generic, TypeVar

from fastapi import Request
from PIL import Image
from pydantic import ValidationError
from pydantic_core import ErrorDetails, from_json
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from xray_vqa.core.images import ImageLimits, decode_image
from xray_vqa.errors import ImageUnreadable
from xray_vqa.serving.errors import FieldError, Problem
from xray_vqa.serving.schemas import AskRequest, InspectRequest

Body = TypeVar("Body", InspectRequest, AskRequest)

_DATA_URL = re.compile(r"data:image/[\w.+-]{1,64};base64,", re.ASCII | re.IGNORECASE)
_WHITESPACE = b" \t\r\n\f\v"
_MAX_FIELDS = 32
_SHOWN_ERRORS = 10
_SHOWN_CHARACTERS = 64


class BodyLimit:
    """Middleware that refuses a body over a limit: by its Content-Length, and while a chunked one arrives."""

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        announced = _announced_bytes(scope)
        received = 0

        async def limited() -> Message:
            nonlocal received
            # Before the first read, so that a client that waits for `100 Continue` never sends the body.
            self._check(announced)
            message = await receive()
            received += len(message.get("body", b""))
            self._check(received)
            return message

        await self._app(scope, limited, send)

    def _check(self, num_bytes: int) -> None:
        if num_bytes > self._max_bytes:
            raise Problem("body_too_large", f"the body has more than the limit of {self._max_bytes:,} bytes")


def _announced_bytes(scope: Scope) -> int:
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit():
            return int(value)
    return 0


@dataclass(frozen=True, slots=True)
class Understood(Generic[Body]):
    """A request that fits the schema and whose image could be decoded."""

    body: Body
    image: Image.Image
    fingerprint: str
    """SHA-256 of the image's bytes and of what was declared or asked; the same for the same request."""
    image_hash: str
    """SHA-256 of the image's bytes."""
    file_bytes: bytes


async def read_bytes(request: Request) -> bytes:
    """Return a JSON request's body. Raises Problem for another content type and for a body over the limit."""
    if request.headers.get("content-encoding", "identity").strip().lower() != "identity":
        raise Problem("unsupported_encoding", "the body is compressed")
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise Problem("unsupported_content_type", "the body is not announced as application/json")
    try:
        # Not request.body(), which would keep the bytes for as long as the scan waits.
        return b"".join([chunk async for chunk in request.stream()])
    except ClientDisconnect as error:
        raise Problem("broken_request", "the connection was closed before the body was complete") from error


def understand(data: bytes, kind: type[Body], limits: ImageLimits) -> Understood[Body]:
    """Return what a body says, its image decoded. Blocking: up to a second for the largest images.

    Raises:
        Problem: It is no JSON, does not fit the schema, or holds no image that may be decoded.
    """
    try:
        value = from_json(data)
    except ValueError as error:
        raise Problem("invalid_json", f"the body is not JSON: {error}") from error
    if isinstance(value, dict) and len(value) > _MAX_FIELDS:  # each would become an error object of its own
        known = ", ".join(kind.model_fields)
        raise Problem("invalid_request", f"the body has {len(value):,} fields; known are {known}")
    try:
        body = kind.model_validate(value)
    except ValidationError as error:
        raise problem_of_validation(error.errors(include_url=False, include_input=False)) from error
    file_bytes = _decode_base64(body.image_base64)
    try:
        image = decode_image(file_bytes, limits)
    except ImageUnreadable as error:
        raise Problem.of_image(error) from error
    said = body.declared_items if isinstance(body, InspectRequest) else body.question
    digest = hashlib.sha256(file_bytes)
    image_hash = digest.hexdigest()
    digest.update(b"\0" + json.dumps(said).encode())
    return Understood(body, image, digest.hexdigest(), image_hash, file_bytes)


def _decode_base64(text: str) -> bytes:
    prefix = _DATA_URL.match(text)
    payload = text[prefix.end() :] if prefix else text
    try:
        return binascii.a2b_base64(payload.encode("ascii").translate(None, _WHITESPACE), strict_mode=True)
    except (binascii.Error, UnicodeEncodeError) as error:
        raise Problem(
            "invalid_base64",
            "image_base64 has a character or a length that base64 does not have; URLs are not fetched",
        ) from error


def problem_of_validation(details: list[ErrorDetails]) -> Problem:
    """Return the problem of a body or a path that does not fit its schema, each fault with its field's name."""
    errors = [FieldError(_field_of(detail), _message_of(detail)) for detail in details[:_SHOWN_ERRORS]]
    more = f" (and {len(details) - len(errors)} more)" if len(details) > len(errors) else ""
    said = "; ".join(f"{error.field}: {error.message}" for error in errors)
    return Problem("invalid_request", f"{said}{more}", errors=errors)


def _field_of(detail: ErrorDetails) -> str:
    name = ".".join(str(part) for part in detail["loc"]) or "body"
    printable = "".join(character if character.isprintable() else "?" for character in name)
    return printable if len(printable) <= _SHOWN_CHARACTERS else printable[:_SHOWN_CHARACTERS] + "..."


def _message_of(detail: ErrorDetails) -> str:
    if detail["type"] == "extra_forbidden":
        return "unknown field"
    if detail["type"] == "missing":
        return "required field is missing"
    return detail["msg"].removeprefix("Value error, ")
