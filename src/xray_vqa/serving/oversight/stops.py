"""The stop switch of the service: for all lanes or for one, on record, the same in every replica.

It works on decisions and not on requests: what is on when a bag is decided counts, also for one that has waited. What
cannot be read is taken for stopped.
"""

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from xray_vqa.serving.oversight.records import StopRecord
from xray_vqa.serving.store.audit import AuditStore

READ_AGAIN_AFTER_S = 2.0
"""A switch that another replica has thrown counts here after this at the latest."""


@dataclass(frozen=True, slots=True)
class Stop:
    """A switch that is on."""

    record: StopRecord
    since: datetime


def stops_after(records: Iterable[tuple[StopRecord, datetime]]) -> dict[str | None, Stop]:
    """Return the switches that are on after some records, by lane. Thrown again, one is on since the first time."""
    stops: dict[str | None, Stop] = {}
    for record, at in records:
        if record.is_on:
            stops[record.lane] = Stop(record, stops[record.lane].since if record.lane in stops else at)
        else:
            stops.pop(record.lane, None)
    return stops


def read_stops(store: AuditStore) -> dict[str | None, Stop]:
    """Return the switches that are on by the store's records. Blocking. Raises AuditUnavailable."""
    return stops_after(
        (StopRecord.model_validate(row.record()), datetime.fromisoformat(row.recorded_at)) for row in store.read("stop")
    )


class StopBook:
    """The switches as this process knows them. Any thread may ask."""

    def __init__(self, read: Callable[[], Mapping[str | None, Stop]]) -> None:
        self._read = read
        self._stops: Mapping[str | None, Stop] | None = None
        self._looked_at = float("-inf")
        self._looking = threading.Lock()

    def is_on(self, lane: str | None) -> bool:
        """Return whether bags of a lane may not be cleared now, as far as this process knows."""
        stops = self._stops
        return stops is None or None in stops or lane in stops

    @property
    def num_on(self) -> int:
        """How many are on, as far as this process knows."""
        return len(self._stops or {})

    @property
    def is_fresh(self) -> bool:
        """Whether `look` would read nothing."""
        return self._stops is not None and time.monotonic() - self._looked_at <= READ_AGAIN_AFTER_S

    def look(self, not_older_than_s: float = READ_AGAIN_AFTER_S) -> Mapping[str | None, Stop]:
        """Return the switches that are on, read again where that was too long ago.

        Blocking. Raises AuditUnavailable where they cannot be read now; then what this process knows holds.
        """
        asked_at = time.monotonic()
        if self._stops is None or asked_at - self._looked_at > not_older_than_s:
            with self._looking:
                if self._stops is None or self._looked_at < asked_at:  # else somebody has looked while we waited
                    try:
                        self._stops = self._read()
                    finally:
                        self._looked_at = time.monotonic()
        return self._stops
