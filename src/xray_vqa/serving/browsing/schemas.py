"""The wire of browsing."""

from datetime import datetime

from xray_vqa.core.inspection import Action, RiskLevel
from xray_vqa.core.records import Strict
from xray_vqa.serving.store.listing import Standing


class ListedBody(Strict):
    """One answer in a list."""

    scan_id: str
    audit_id: str
    sequence: int
    """Number of its record in the audit chain."""
    recorded_at: datetime
    lane: str
    action: Action
    risk_level: RiskLevel
    degraded: bool
    detected_items: list[str]
    reasons: list[str]
    processing_time_ms: int
    standing: Standing
    """What people owe it: `none` (a clear), `open`, `second` (rejected once, and four eyes are asked for), `closed`."""
    has_image: bool
    """Whether images are kept here at all; a single one may have been deleted since."""


class PageBody(Strict):
    """Answers, the newest first."""

    inspections: list[ListedBody]
    next_cursor: str | None
    """Give it as `cursor` for those that follow; null: there are none."""


class HourBody(Strict):
    """The answers of one hour."""

    hour: datetime
    """Its beginning, UTC."""
    clear: int
    manual_inspection: int
    detain: int
    degraded: int
    """Of all of these together, those that were not fully assessed."""


class FiguresBody(Strict):
    """How things go now, for the lanes that the credentials are for."""

    as_of: datetime
    since: datetime
    inspections: int
    clear: int
    manual_inspection: int
    detain: int
    degraded: int
    clear_share: float | None
    """Null where there was no inspection."""
    p50_ms: int | None
    p95_ms: int | None
    """Processing time of the newest 1,000 answers."""
    queue_open: int
    """Alarms that nobody has decided about."""
    queue_second: int
    """Alarms that one officer has rejected and a second one has to look at."""
    engine: str
    engine_waiting: int
    """Scans in the line before the model, in the process that answers."""
    hours: list[HourBody]


class DeclarableBody(Strict):
    """One thing that can be declared."""

    name: str
    """As it can be written into `declared_items`; it is understood in every language."""
    concept: str
    """The category or good that it names, as it stands in answers."""
    prohibited: bool
    """The model looks for it: declared or not, it may not be carried where the policy says so."""
