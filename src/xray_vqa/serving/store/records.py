"""What the records of inspections say, as they stand in the bodies of rows."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from xray_vqa.core.records import Strict
from xray_vqa.serving.store.chain import FoundBy, Row

OPEN = "open"
"""Who asks where nobody is asked who they are."""
DEFAULT_LANE = "default"


class Origin(Strict):
    """Where an answer comes from: the request, and everything that could have made it another one."""

    audit_id: str
    scan_id: str
    principal: str = OPEN
    """Whose key asked. A `scan_id` is a name within a key and a lane."""
    lane: str = DEFAULT_LANE
    request_id: str
    fingerprint: str
    """SHA-256 of the image's bytes and of what was declared or asked."""
    image_hash: str | None = None
    """SHA-256 of the image's bytes; the image's name in an image store."""
    received_at: datetime
    model_version: str
    prompt_version: str
    software_version: str
    device: str

    @property
    def found_by(self) -> FoundBy:
        return FoundBy(self.scan_id, self.principal, self.lane, self.image_hash)


class Intent(Strict):
    """A scan that is about to be inspected: on record before the engine gets it."""

    origin: Origin
    policy_version: str
    declared_items: tuple[str, ...] | None
    deadline: datetime
    """After it nobody works on the scan any more, and whoever asks gets a manual inspection."""
    owner: str
    """The process that works on it; see owners.py."""


class InspectionRecord(Strict):
    """The answer to one scan."""

    origin: Origin
    policy_version: str
    risk_level: str
    action: str
    degraded: bool
    answer: dict[str, Any]
    """As it goes out."""
    scores: dict[str, Any]
    closed: Literal["answered", "interrupted"] = "answered"
    """`interrupted`: nobody came to an answer, and the scan was given to a person afterwards."""
    first_recorded_at: datetime | None = None
    """For a record that is older than the chain."""


class QuestionRecord(Strict):
    """A free question and its answer."""

    origin: Origin
    question: str
    answer: dict[str, Any]


class Opened(Strict):
    """A server found that it can write the store, at its start or after a failure."""

    software_version: str
    owner: str
    newest_anchor: int | None
    """The last row of which a checkpoint is kept elsewhere."""
    set_back: bool
    """That row is not in the store: it was set back to an older copy."""


class Tombstone(Strict):
    """Records whose bodies were erased, as ranges of rows with both ends."""

    rows: tuple[tuple[int, int], ...]
    reason: str


@dataclass(frozen=True, slots=True)
class Stored:
    """An inspection as it stands in the store."""

    record: InspectionRecord
    sequence: int
    row_hash: str
    recorded_at: datetime

    @classmethod
    def of(cls, row: Row) -> "Stored":
        """Return the inspection in a row of kind `result`."""
        record = InspectionRecord.model_validate(row.record())
        return cls(record, row.sequence, row.row_hash, datetime.fromisoformat(row.recorded_at))
