"""Answers as lists: written down beside each record of one, and read by pages, the newest first.

The lists are found by two tables that are made of the records (`tables.summaries`, `tables.sightings`). What a page
tells is read from the records, so that a list that was tampered with can hide an answer and not change one.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Connection, Select, delete, func, insert, select, update

from xray_vqa.core.inspection import Action
from xray_vqa.serving.store.chain import Row
from xray_vqa.serving.store.records import InspectionRecord
from xray_vqa.serving.store.tables import records, sightings, summaries

Standing = Literal["none", "open", "second", "closed"]
"""What people owe an answer: nothing, a decision, a second officer's, or nothing any more."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which answers a page is to hold; None: no matter."""

    lanes: Collection[str] | None = None
    """Those that whoever asks may see."""
    lane: str | None = None
    begins_with: str | None = None
    """How the scan_id begins."""
    actions: Collection[str] | None = None
    standings: Collection[str] | None = None
    category: str | None = None
    degraded: bool | None = None
    since: str | None = None
    """From this time on, as rows hold it; `until` is the first moment that is left out."""
    until: str | None = None


@dataclass(frozen=True, slots=True)
class Listed:
    """One answer of a page."""

    row: Row
    """Its record. The body is None where it was erased meanwhile."""
    standing: str


@dataclass(frozen=True, slots=True)
class Counted:
    """How many answers of one action there were in one hour."""

    hour: str
    """UTC, `2026-11-30T21`."""
    action: str
    degraded: bool
    count: int


def list_answer(connection: Connection, row: Row, record: InspectionRecord) -> None:
    """Write down what an answer is listed by, in the transaction that puts it on record."""
    values = {
        "sequence": row.sequence,
        "audit_id": row.audit_id,
        "recorded_at": row.recorded_at,
        "scan_id": record.origin.scan_id,
        "lane": record.origin.lane,
        "action": record.action,
        "degraded": record.degraded,
        "processing_time_ms": record.answer.get("processing_time_ms", 0),
        "standing": "none" if record.action == Action.CLEAR.value else "open",
    }
    connection.execute(insert(summaries), values)
    found = dict.fromkeys(finding["category"] for finding in record.answer.get("findings", ()))
    if found:
        connection.execute(insert(sightings), [{"category": category, "sequence": row.sequence} for category in found])


def set_standing(connection: Connection, audit_id: str, standing: Standing) -> None:
    """Write down what people still owe an answer."""
    connection.execute(update(summaries).where(summaries.c.audit_id == audit_id).values(standing=standing))


def forget_answers(connection: Connection, ranges: Iterable[tuple[int, int]]) -> None:
    """Take answers whose records were erased out of the lists."""
    for first, last in ranges:
        connection.execute(delete(summaries).where(summaries.c.sequence.between(first, last)))
        connection.execute(delete(sightings).where(sightings.c.sequence.between(first, last)))


def page(connection: Connection, wanted: Wanted, before: int | None, limit: int) -> list[Listed]:
    """Return up to `limit` answers, the newest first; with `before`, those that stand before a record's number."""
    query = _narrowed(select(summaries.c.sequence, summaries.c.standing), wanted)
    if before is not None:
        query = query.where(summaries.c.sequence < before)
    found = connection.execute(query.order_by(summaries.c.sequence.desc()).limit(limit)).all()
    rows = {
        row.sequence: Row(*row)
        for row in connection.execute(select(records).where(records.c.sequence.in_([one.sequence for one in found])))
    }
    return [Listed(rows[one.sequence], one.standing) for one in found if one.sequence in rows]


def count_standings(connection: Connection, lanes: Collection[str] | None) -> dict[str, int]:
    """Return how many answers wait for a person, and for a second one."""
    c = summaries.c
    query = select(c.standing, func.count()).where(c.standing.in_(("open", "second"))).group_by(c.standing)
    if lanes is not None:
        query = query.where(c.lane.in_(lanes))
    return {row[0]: row[1] for row in connection.execute(query)}


def count_by_hour(connection: Connection, lanes: Collection[str] | None, since: str) -> list[Counted]:
    """Return how many answers there were since a time, by hour and action."""
    c = summaries.c
    hour = func.substr(c.recorded_at, 1, 13)
    query = select(hour, c.action, c.degraded, func.count()).where(c.recorded_at >= since)
    if lanes is not None:
        query = query.where(c.lane.in_(lanes))
    return [Counted(*row) for row in connection.execute(query.group_by(hour, c.action, c.degraded).order_by(hour))]


def newest_times_ms(connection: Connection, lanes: Collection[str] | None, limit: int) -> list[int]:
    """Return the processing times of the newest answers."""
    query = select(summaries.c.processing_time_ms)
    if lanes is not None:
        query = query.where(summaries.c.lane.in_(lanes))
    return list(connection.execute(query.order_by(summaries.c.sequence.desc()).limit(limit)).scalars())


def _narrowed(query: "Select[Any, Any]", wanted: Wanted) -> "Select[Any, Any]":
    c = summaries.c
    if wanted.lanes is not None:
        query = query.where(c.lane.in_(wanted.lanes))
    if wanted.lane is not None:
        query = query.where(c.lane == wanted.lane)
    if wanted.begins_with:
        # The character behind the last one ends the range: names hold ASCII alone.
        end = wanted.begins_with[:-1] + chr(ord(wanted.begins_with[-1]) + 1)
        query = query.where(c.scan_id >= wanted.begins_with, c.scan_id < end)
    if wanted.actions is not None:
        query = query.where(c.action.in_(wanted.actions))
    if wanted.standings is not None:
        query = query.where(c.standing.in_(wanted.standings))
    if wanted.category is not None:
        query = query.join(sightings, sightings.c.sequence == c.sequence).where(sightings.c.category == wanted.category)
    if wanted.degraded is not None:
        query = query.where(c.degraded == wanted.degraded)
    if wanted.since is not None:
        query = query.where(c.recorded_at >= wanted.since)
    if wanted.until is not None:
        query = query.where(c.recorded_at < wanted.until)
    return query
