"""Records for the tests of the audit store, and a look at its rows."""

import itertools
from datetime import UTC, datetime, timedelta

from sqlalchemy import select

from xray_vqa.serving.store.audit import AuditStore
from xray_vqa.serving.store.chain import Row
from xray_vqa.serving.store.database import connect, store_url
from xray_vqa.serving.store.records import InspectionRecord, Intent, Origin, QuestionRecord, Stored
from xray_vqa.serving.store.tables import records

_numbers = itertools.count()


def make_origin(scan_id: str = "S", **changes) -> Origin:
    values = {
        "audit_id": f"a{next(_numbers)}", "scan_id": scan_id, "request_id": "r", "fingerprint": "f",
        "received_at": datetime.now(UTC), "model_version": "m", "prompt_version": "2", "software_version": "0",
        "device": "cpu", **changes,
    }  # fmt: skip
    return Origin(**values)


def make_intent(scan_id: str = "S", *, owner: str, policy: str = "p@1", seconds: float = 30.0, **changes) -> Intent:
    return Intent(
        origin=make_origin(scan_id, **changes), policy_version=policy, declared_items=("clothing",),
        deadline=datetime.now(UTC) + timedelta(seconds=seconds), owner=owner,
    )  # fmt: skip


def make_record(origin: Origin, action: str = "manual_inspection", **changes) -> InspectionRecord:
    values = {
        "policy_version": "p@1", "risk_level": "high", "degraded": False, "answer": {"action": action, "n": [0.25]},
        "scores": {"Gun": {"state": "value", "probability": 0.125}}, **changes,
    }  # fmt: skip
    return InspectionRecord(origin=origin, action=action, **values)


def make_question(scan_id: str = "Q") -> QuestionRecord:
    return QuestionRecord(origin=make_origin(scan_id), question="What is it?", answer={"answer": "A bag."})


def give_to_a_person(intent: Intent) -> InspectionRecord:
    return make_record(intent.origin, closed="interrupted", degraded=True)


class OpenStore:
    """A store and the address that it is at."""

    def __init__(self, url: str, audit: AuditStore) -> None:
        self.url, self.audit = url, audit

    def claim(self, scan_id: str = "S", **changes) -> tuple[Intent, Stored | None]:
        """Begin to inspect a scan."""
        intent = make_intent(scan_id, **{"owner": self.audit.owner, **changes})
        return intent, self.audit.claim(intent).result(10)

    def answer(self, scan_id: str = "S", action: str = "manual_inspection", **changes) -> Stored:
        """Inspect a scan: intent and result."""
        intent, before = self.claim(scan_id, **changes)
        assert before is None
        stored = self.audit.conclude(make_record(intent.origin, action)).result(10)
        self.audit.release(intent.origin.audit_id)
        return stored


def records_in(url: str) -> list[Row]:
    """The rows of a store, by number."""
    engine = connect(store_url(url))
    with engine.connect() as connection:
        rows = [Row(*row) for row in connection.execute(select(records).order_by(records.c.sequence))]
    engine.dispose()
    return rows
