"""What people still owe an answer, by all that was said of it.

An alarm that an officer confirms is settled. One that is rejected may need a second officer (four eyes): the rejection
then counts when another key or person has said the same. A supervisor's override settles it in any case.
"""

from collections.abc import Sequence

from xray_vqa.core.inspection import Action
from xray_vqa.serving.oversight.records import FeedbackRecord
from xray_vqa.serving.store.chain import Row
from xray_vqa.serving.store.listing import Standing
from xray_vqa.serving.store.records import InspectionRecord


def standing_of(rows: Sequence[Row], *, four_eyes: bool) -> Standing:
    """Return what is owed to an answer, by the records under its audit_id, oldest first."""
    is_alarm = True
    rejected_by: set[str] = set()
    settled = False
    for row in rows:
        if row.kind == "result":
            is_alarm = InspectionRecord.model_validate(row.record()).action != Action.CLEAR.value
        elif row.kind == "override":
            settled = True
        elif row.kind == "feedback":
            said = FeedbackRecord.model_validate(row.record())
            if rejects(said):
                rejected_by.add(said.by)
            else:
                settled = True
    if settled or len(rejected_by) >= (2 if four_eyes else 1):
        return "closed"
    if rejected_by:
        return "second"
    return "open" if is_alarm else "none"


def rejects(said: FeedbackRecord) -> bool:
    """Return whether feedback says that nothing of what the answer named was there."""
    if said.outcome == "item_found":
        return False
    return all(finding.verdict == "rejected" for finding in said.findings)
