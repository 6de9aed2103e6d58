"""Every refusal of the API: one table of what it means, and the problem document (RFC 9457) that tells it.

Bad input is the caller's and never looks like a failure of ours. A valid scan that we fail to assess is no problem at
all: it is answered with `manual_inspection`. Texts of decoders, databases and engines stay in the log.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fastapi.responses import JSONResponse

from xray_vqa.errors import ImageUnreadable, XrayVqaError

MEDIA_TYPE = "application/problem+json"


@dataclass(frozen=True, slots=True)
class ProblemKind:
    """What one code means."""

    status: int
    title: str
    next_step: str


_EXPORT_AGAIN = "Export the scan again as JPEG, PNG or BMP and send the file's bytes unchanged."
_TRY_LATER = "Try again shortly. Until an answer comes, inspect the bag by hand."

PROBLEMS: Mapping[str, ProblemKind] = {
    "invalid_json": ProblemKind(400, "The body is not JSON", "Send one JSON object in UTF-8."),
    "invalid_request": ProblemKind(422, "The request does not fit the schema", "See /docs for the fields."),
    "unsupported_content_type": ProblemKind(
        415, "The content type is not supported", "Send the header `Content-Type: application/json`."
    ),
    "unsupported_encoding": ProblemKind(
        415, "The content encoding is not supported", "Send the body without Content-Encoding."
    ),
    "body_too_large": ProblemKind(413, "The request is too large", "Send one scan a request, at the scanner's size."),
    "broken_request": ProblemKind(400, "The request broke off", "Send it again."),
    "invalid_base64": ProblemKind(
        422, "image_base64 is not base64", "Encode the file's bytes as `base64 FILE` does (RFC 4648, with padding)."
    ),
    "empty": ProblemKind(422, "There is no image", "Put the scan's bytes in base64 into image_base64."),
    "not_an_image": ProblemKind(422, "The bytes are no image", _EXPORT_AGAIN),
    "broken_image": ProblemKind(422, "The image is damaged", _EXPORT_AGAIN),
    "too_many_bytes": ProblemKind(413, "The image is too large", "Send it at the scanner's own size."),
    "too_many_pixels": ProblemKind(422, "The image has too many pixels", "Send it at the scanner's own size."),
    "too_small": ProblemKind(422, "The image is too small", "Send the scan itself and no thumbnail."),
    "too_narrow": ProblemKind(422, "The image is too narrow", "Send the picture of one bag."),
    "unauthenticated": ProblemKind(
        401, "Credentials are missing", "Send `Authorization: Bearer KEY`; `xray-vqa keys create` makes a key."
    ),
    "invalid_credentials": ProblemKind(401, "The credentials are not valid", "Ask who runs the service for a new key."),
    "forbidden": ProblemKind(403, "The credentials do not allow this", "Ask who runs this service for another role."),
    "foreign_request": ProblemKind(
        403,
        "The request does not come from this machine",
        "Make a key (`xray-vqa keys create`), and name the proxy in XRAY_VQA_TRUSTED_PROXIES where there is one.",
    ),
    "too_often": ProblemKind(429, "Too many requests", "Wait as Retry-After says. Inspect the bag by hand meanwhile."),
    "keys_unavailable": ProblemKind(503, "Who asks cannot be checked now", _TRY_LATER),
    "not_stopped": ProblemKind(409, "This stop switch is not on", "GET /api/v1/stop names those that are."),
    "another_answer": ProblemKind(
        409, "The scan has another answer now", "Look at the newest one, and say again what you decide about it."
    ),
    "not_found": ProblemKind(404, "There is nothing at this address", "See /docs for the addresses."),
    "no_such_inspection": ProblemKind(404, "No inspection has this scan_id", "Check the scan_id."),
    "no_image": ProblemKind(
        404, "The image of this scan is not here", "Look at it at the scanner; XRAY_VQA_IMAGE_STORE keeps images."
    ),
    "method_not_allowed": ProblemKind(405, "The method is not allowed here", "See /docs, and the Allow header."),
    "scan_in_flight": ProblemKind(
        409, "This scan is being inspected", "Send it again after Retry-After: you get the answer, not a second one."
    ),
    "scan_id_taken": ProblemKind(
        422, "The scan_id stands for another scan", "Give each scan a scan_id of its own; never use one again."
    ),
    "audit_unavailable": ProblemKind(503, "The inspection could not be recorded, so it is not given", _TRY_LATER),
    "model_unavailable": ProblemKind(503, "The model is not ready", _TRY_LATER),
    "overloaded": ProblemKind(503, "Too many scans are waiting", _TRY_LATER),
    "timeout": ProblemKind(504, "The model did not answer in time", _TRY_LATER),
    "answer_unreadable": ProblemKind(502, "The model's answer could not be used", "Ask in other words."),
    "internal_error": ProblemKind(500, "An error of this service", _TRY_LATER),
}
"""The status table of the API: each refusal's code, what it answers, and what its reader can do."""

RETRY_AFTER_S = 2


@dataclass(frozen=True, slots=True)
class FieldError:
    """One field that does not fit."""

    field: str
    message: str


class Problem(XrayVqaError):
    """A request that is refused. `code` is a key of `PROBLEMS`."""

    def __init__(
        self,
        code: str,
        detail: str,
        *,
        errors: Sequence[FieldError] = (),
        headers: Mapping[str, str] | None = None,
        status: int | None = None,
    ) -> None:
        super().__init__(detail)
        self.code = code
        self.kind = PROBLEMS[code]
        self.status = status or self.kind.status
        self.errors = tuple(errors)
        self.headers = dict(headers or {})

    @classmethod
    def of_image(cls, error: ImageUnreadable) -> "Problem":
        """Return the problem of an image that `core.images` refused; its messages are made for callers."""
        return cls(error.code if error.code in PROBLEMS else "not_an_image", str(error))

    def response(self, instance: str, request_id: str) -> JSONResponse:
        """Return the problem document."""
        body: dict[str, Any] = {
            "type": f"urn:problem-type:xray-vqa:{self.code}",
            "title": self.kind.title,
            "status": self.status,
            "detail": str(self),
            "instance": instance,
            "code": self.code,
            "next_step": self.kind.next_step,
            "request_id": request_id,
        }
        if self.errors:
            body["errors"] = [{"field": error.field, "message": error.message} for error in self.errors]
        headers = dict(self.headers)
        if self.status == 503:
            headers.setdefault("Retry-After", str(RETRY_AFTER_S))
        return JSONResponse(body, self.status, headers, MEDIA_TYPE)
