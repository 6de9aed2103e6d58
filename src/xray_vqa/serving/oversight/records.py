"""What oversight puts on record, as it stands in the bodies of the store's rows."""

from typing import Literal

from xray_vqa.core.inspection import Action
from xray_vqa.core.records import Strict
from xray_vqa.serving.oversight.schemas import FindingVerdict


class StopRecord(Strict):
    """A switch was thrown, or put back."""

    is_on: bool
    lane: str | None
    """None: the switch for all lanes."""
    reason: str
    by: str


class OverrideRecord(Strict):
    """A person decided otherwise than the machine. It stands under the audit_id of the answer, which is not changed."""

    scan_id: str
    given_action: str
    given_risk_level: str
    action: Action
    reason: str
    by: str


class FeedbackRecord(Strict):
    """What an officer found. It stands under the audit_id of the answer."""

    scan_id: str
    outcome: Literal["item_found", "nothing_found", "not_opened"]
    findings: tuple[FindingVerdict, ...]
    note: str | None
    by: str
