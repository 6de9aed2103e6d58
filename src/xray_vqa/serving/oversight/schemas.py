"""The wire of oversight: what people tell the service, and what it tells them of what it goes by."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field, JsonValue, model_validator

from xray_vqa.core.inspection import Action, RiskLevel
from xray_vqa.core.records import Strict
from xray_vqa.core.taxonomy import CATEGORIES
from xray_vqa.serving.schemas import Category, Reason
from xray_vqa.serving.store.listing import Standing

MAX_ITEMS = 64

LaneName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$", examples=["lane-3"])]
AuditId = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$", examples=["0b9f6c1e5a4d4e0f9a51d3f6a7c8e901"])]
_Pixel = Annotated[float, Field(ge=0, le=100_000, allow_inf_nan=False)]


class StopRequest(Strict):
    """The stop switch is thrown, or put back."""

    lane: LaneName | None = None
    """Null or absent: all lanes. A lane is stopped by its own switch and by that for all, each put back by itself."""
    reason: Reason


class StopBody(Strict):
    """One switch that is on."""

    lane: str | None
    reason: str
    by: str
    """Whose key or token threw it."""
    since: datetime


class StopsBody(Strict):
    """The switches that are on. While one is, no bag of its lanes is cleared."""

    stops: list[StopBody]


class OverrideRequest(Strict):
    """A person decides otherwise than the machine."""

    audit_id: AuditId
    """Of the answer that is overruled, so that it is that one and no other."""
    action: Action
    reason: Reason


class OverrideBody(Strict):
    """What a person decided beside the machine's answer, which stays as it was given."""

    scan_id: str
    audit_id: str
    given_action: Action
    given_risk_level: RiskLevel
    action: Action
    reason: str
    by: str
    recorded_at: datetime


class FindingVerdict(Strict):
    """What a person says of one item."""

    category: Category
    verdict: Literal["confirmed", "rejected", "added"]
    """`confirmed` and `rejected` are said of a finding of the answer; `added` of an item that it lacks."""
    box: tuple[_Pixel, _Pixel, _Pixel, _Pixel] | None = None
    """`[x, y, w, h]` in pixels of the image as it was sent, where it was drawn or drawn anew."""

    @model_validator(mode="after")
    def _check(self) -> "FindingVerdict":
        if self.category not in CATEGORIES:
            raise ValueError(f"category is none of {', '.join(CATEGORIES)}")
        if self.box is not None and not (self.box[2] > 0 and self.box[3] > 0):
            raise ValueError("box has no width or no height")
        return self


class FeedbackRequest(Strict):
    """What an officer found."""

    audit_id: AuditId
    """Of the answer that is meant."""
    outcome: Literal["item_found", "nothing_found", "not_opened"]
    """What came out when the bag was looked into, if it was."""
    findings: Annotated[list[FindingVerdict], Field(max_length=MAX_ITEMS)] = []
    note: Reason | None = None


class FeedbackBody(Strict):
    """Feedback as it is on record."""

    scan_id: str
    audit_id: str
    outcome: str
    findings: list[FindingVerdict]
    note: str | None
    by: str
    recorded_at: datetime


class OversightBody(Strict):
    """What people have said of an answer to a scan, oldest first."""

    audit_id: str
    standing: Standing
    """What people still owe it: `none`, `open`, `second` (rejected once, and four eyes are asked for) or `closed`."""
    overrides: list[OverrideBody]
    feedback: list[FeedbackBody]


class PolicyBody(Strict):
    """One policy by which bags are decided."""

    policy_version: str
    """As it stands in every answer."""
    clear_conditions: list[str]
    """Each has to hold before a bag is cleared."""
    rules: dict[str, JsonValue]


class CalibrationBody(Strict):
    """On what the thresholds were measured."""

    matches: bool
    """Whether that is exactly what runs. Otherwise it is not used."""
    simulated: bool
    measured_on: str
    num_scans: int
    num_positives: dict[str, int]
    thresholds: dict[str, float]
    notes: list[str]


class ModelBody(Strict):
    """The model that runs, and what it was made and measured for."""

    model_version: str
    engine: str
    device: str
    dtype: str
    model_digest: str
    adapter_digest: str
    processor_version: str
    prompt_version: str
    covered_categories: list[str]
    calibration: CalibrationBody | None
