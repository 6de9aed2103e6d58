"""The wire: what is asked and what is answered, under the names that the outside knows. Nothing else knows them."""

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any

from pydantic import AfterValidator, Field, JsonValue, StringConstraints

from xray_vqa.core.inspection import Action, AppliedRule, DeclaredItem, Inspection, RiskLevel
from xray_vqa.core.records import Strict

SCAN_ID_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
MAX_DECLARED_ITEMS = 64
MAX_DECLARED_LENGTH = 120
MAX_QUESTION_LENGTH = 500
MAX_REASON_LENGTH = 500

_NOT_IN_A_SCAN_ID = re.compile(r"[^A-Za-z0-9._-]+")


def _check_printable(text: str) -> str:
    if not text.strip() or not text.isprintable():
        raise ValueError("must have visible characters and no line breaks or control characters")
    return text


ScanId = Annotated[str, Field(pattern=SCAN_ID_PATTERN)]
DeclaredName = Annotated[str, StringConstraints(max_length=MAX_DECLARED_LENGTH), AfterValidator(_check_printable)]
Question = Annotated[str, StringConstraints(max_length=MAX_QUESTION_LENGTH), AfterValidator(_check_printable)]
Reason = Annotated[str, StringConstraints(max_length=MAX_REASON_LENGTH), AfterValidator(_check_printable)]
Category = Annotated[str, Field(examples=["Knife"])]

_TINY_PNG = (  # 48x32, an orange block and a blue bar: a body that can be sent as it stands
    "iVBORw0KGgoAAAANSUhEUgAAADAAAAAgCAIAAADbtmxLAAAAXUlEQVR42mP8//8/w2ACTAyDDIw6aNRBlAIWXBIfFzrS2m7++P2jUTbqoFEH"
    "jToIdzmECRwONJBq+gGHhtEoG3XQIE7UZKTQ0SgbddCog0YdRBgwjnalRx003BwEACueDb9tM/hKAAAAAElFTkSuQmCC"
)


class InspectRequest(Strict):
    """A scan of one bag, and what was declared of it."""

    scan_id: ScanId
    """Your name for the scan. Sent again with the same image and declaration it gets the same answer, and is not
    inspected again; a cleared bag is, after ten minutes or under another policy or model."""
    image_base64: str
    """The image file (JPEG, PNG or BMP) in base64. A `data:image/...;base64,` prefix and line breaks may stay."""
    declared_items: Annotated[list[DeclaredName], Field(max_length=MAX_DECLARED_ITEMS)] | None = None
    """Null or absent: no declaration was made. An empty list: nothing to declare."""


class AskRequest(Strict):
    """A scan and a free question about it."""

    scan_id: ScanId
    image_base64: str
    """As in an inspection."""
    question: Question


class FindingBody(Strict):
    """One prohibited item."""

    category: Category
    probability: float
    region: str | None
    """One of nine, `upper-left` to `lower-right`; null where the model is sure that it is there and not where."""
    box: tuple[float, float, float, float] | None
    """`[x, y, w, h]` in pixels of the image as it was sent."""


class InspectResponse(Strict):
    """The decision on one scan. Whatever is not this, with status 200, means: inspect the bag by hand."""

    scan_id: str
    detected_items: list[str]
    """The findings' categories in lower case, each once, the gravest first."""
    risk_level: RiskLevel
    action: Action
    """`clear` only where every condition of the policy holds."""
    reasoning: str
    match_declaration: bool
    """No finding lies outside the declaration and nothing declared is prohibited. False when degraded."""
    processing_time_ms: int
    """From the last byte of the request to the record."""
    degraded: bool
    """The scan was not fully assessed. Risk is then at least high and a person is asked."""
    reasons: list[str]
    """Why the bag was not cleared: faults (`timeout`, `overloaded`, `unavailable`, `unreadable`, `engine_error`,
    `interrupted`), then the names of the policy's conditions that do not hold."""
    findings: list[FindingBody]
    declaration: list[DeclaredItem]
    """What became of each declared item: `found`, `prohibited`, `over_count`, `missing`, `not_verified`, ..."""
    rules: list[AppliedRule] = []
    """The policy's rules that had a word in it; the strictest of them made the risk level."""
    screened_for: list[Category]
    """The categories that were looked for and that the model was trained on."""
    model_version: str
    policy_version: str
    prompt_version: str
    audit_id: str | None
    """Of the record that was written before this answer went out; null from the command line, which keeps none."""
    replayed: bool = False
    """This scan was sent before, and this is the answer that it got then."""


class AskResponse(Strict):
    """A model's answer to a free question. It may be wrong and decides nothing."""

    scan_id: str
    answer: str
    processing_time_ms: int
    model_version: str
    prompt_version: str
    audit_id: str


class ScoreBody(Strict):
    """What the model said of one category."""

    state: str
    """`value`, `unsure` or `missing`."""
    probability: float | None
    calibrated_threshold: float | None = None
    """The calibration's, where one was in force; a policy's own comes before it."""


class RecordBody(Strict):
    """What the audit store holds of one inspection: the answer as it was given, and what it came from."""

    inspection: InspectResponse
    request_id: str
    received_at: datetime
    recorded_at: datetime
    """UTC, both."""
    fingerprint: str
    """SHA-256 of the image's bytes and the declared items."""
    scores: dict[str, ScoreBody]
    """By category, with a matching calibration's correction."""
    device: str
    software_version: str
    closed: str
    """`answered`, or `interrupted` where the service broke off and gave the bag to a person afterwards."""
    sequence: int
    """Number of the record in the audit chain."""
    record_hash: str
    """SHA-256 of the record and all before it."""


class HealthBody(Strict):
    """The process lives; it says nothing of the model."""

    status: str = "ok"
    version: str


class ReadyBody(Strict):
    """Whether inspections can be answered, and by what."""

    ready: bool
    engine: str
    """`loading`, `ready`, `failed`, `stalled` (one call has run for far longer than the time limit) or `stopped`."""
    store: str
    """`writable` or `unavailable`."""
    message: str | None
    """What is wrong, in words for the operator."""
    model_version: str
    device: str
    calibrated: bool
    """Without a calibration on real scans that fits the model exactly, no bag is cleared."""
    can_clear: bool
    """Whether model and policy together allow `clear` at all."""
    covered_categories: list[str]
    """Categories that the policy requires and the model was trained on."""
    uncovered_categories: list[str]
    policy_version: str
    prompt_version: str


class FieldErrorBody(Strict):
    """One field that does not fit."""

    field: str
    message: str


class ProblemBody(Strict):
    """A refusal (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    code: str
    """Stable, for programs."""
    next_step: str
    """What to do about it."""
    request_id: str
    """Also in the header X-Request-ID and in the log."""
    errors: list[FieldErrorBody] = []


INSPECT_EXAMPLE: dict[str, JsonValue] = {
    "scan_id": "TEST-001",
    "image_base64": _TINY_PNG,
    "declared_items": ["clothing", "electronics"],
}
ASK_EXAMPLE: dict[str, JsonValue] = {
    "scan_id": "TEST-001",
    "image_base64": _TINY_PNG,
    "question": "How many metal items are in the bag?",
}
ANSWER_EXAMPLE: dict[str, JsonValue] = {
    "scan_id": "TEST-001",
    "detected_items": ["knife", "scissors"],
    "risk_level": "high",
    "action": "manual_inspection",
    "reasoning": "Two prohibited sharp items detected: knife (center-left), scissors (upper-right). "
    "Items declared (clothing, electronics) do not match detected items.",
    "match_declaration": False,
    "processing_time_ms": 156,
    "degraded": False,
    "reasons": ["no_findings", "declaration_matches"],
    "findings": [
        {"category": "Knife", "probability": 0.93, "region": "center-left", "box": [12.0, 96.0, 88.0, 40.0]},
        {"category": "Scissors", "probability": 0.81, "region": "upper-right", "box": [380.0, 20.0, 96.0, 70.0]},
    ],
    "declaration": [
        {"item": "clothing", "status": "not_verified", "category": None, "quantity": None, "num_found": None},
        {"item": "electronics", "status": "not_verified", "category": None, "quantity": None, "num_found": None},
    ],
    "rules": [
        {"rule": "finding", "risk_level": "high", "about": ["Knife", "Scissors"]},
        {"rule": "undeclared", "risk_level": "medium", "about": ["Knife", "Scissors"]},
    ],
    "screened_for": ["Knife", "Scissors"],
    "model_version": "nano@5f2c0a9d1b7e",
    "policy_version": "general@2026.11+4b1d9e07",
    "prompt_version": "2",
    "audit_id": "0b9f6c1e5a4d4e0f9a51d3f6a7c8e901",
    "replayed": False,
}

EXAMPLES: dict[str, JsonValue] = {
    "InspectRequest": INSPECT_EXAMPLE,
    "AskRequest": ASK_EXAMPLE,
    "InspectResponse": ANSWER_EXAMPLE,
}
"""By schema, for the API's page; beside the classes because pydantic would sort their keys."""


def inspect_response(inspection: Inspection, *, audit_id: str | None, processing_time_ms: float) -> InspectResponse:
    """Return an inspection as it goes out, over HTTP and from `xray-vqa inspect --json` alike."""
    decision = inspection.decision
    return InspectResponse(
        scan_id=inspection.scan_id,
        detected_items=list(dict.fromkeys(finding.category.lower() for finding in inspection.findings)),
        risk_level=decision.risk_level,
        action=decision.action,
        reasoning=inspection.reasoning,
        match_declaration=decision.match_declaration,
        processing_time_ms=round(processing_time_ms),
        degraded=decision.degraded,
        reasons=[*inspection.engine_faults, *decision.reasons],
        findings=[
            FindingBody(
                category=finding.category,
                probability=round(finding.probability, 4),
                region=finding.region,
                box=_rounded(finding.box.as_xywh()) if finding.box else None,
            )
            for finding in inspection.findings
        ],
        declaration=list(decision.declaration),
        rules=list(decision.rules),
        screened_for=list(inspection.screened_for),
        model_version=inspection.model_version,
        policy_version=decision.policy_version,
        prompt_version=inspection.prompt_version,
        audit_id=audit_id,
    )


def _rounded(box_xywh: Sequence[float]) -> tuple[float, float, float, float]:
    x, y, w, h = (round(value, 1) for value in box_xywh)
    return (x, y, w, h)


def scores_body(inspection: Inspection) -> dict[str, Any]:
    """Return the scores of an inspection as JSON values."""
    return {
        name: {
            "state": score.state.value,
            "probability": score.probability,
            "calibrated_threshold": inspection.thresholds.get(name),
        }
        for name, score in inspection.scores.items()
    }


def scan_id_of(name: str) -> str:
    """Return a valid scan_id that is as near to a file's name as can be."""
    return _NOT_IN_A_SCAN_ID.sub("-", name).lstrip("._-")[:64] or "scan"
