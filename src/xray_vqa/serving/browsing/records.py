"""What browsing puts on record, as it stands in the bodies of the store's rows."""

from xray_vqa.core.records import Strict


class ViewRecord(Strict):
    """The image of a scan was given out. It stands under the audit_id of the answer."""

    scan_id: str
    by: str
