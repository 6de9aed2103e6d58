"""The tables of the audit store. Rows are added and never changed.

`answer` holds an answer exactly as it was given; the columns beside it repeat what is searched for.
"""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import JSON, Boolean, Column, DateTime, Integer, MetaData, String, Table, Text
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator


class UtcDateTime(TypeDecorator[datetime]):
    """A moment in UTC; SQLite, which knows no zones, gets it without one and gives it back with one."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return value.astimezone(UTC) if value else None

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return value.replace(tzinfo=value.tzinfo or UTC) if value else None


metadata = MetaData()


def _origin() -> list[Column[Any]]:
    """The columns that say where a row comes from; `sequence` is its order, whatever the clock does."""
    return [
        Column("sequence", Integer, primary_key=True, autoincrement=True),
        Column("audit_id", String(32), nullable=False, unique=True),
        Column("scan_id", String(64), nullable=False, index=True),
        Column("request_id", String(64), nullable=False),
        Column("fingerprint", String(64), nullable=False),
        Column("received_at", UtcDateTime, nullable=False),
        Column("recorded_at", UtcDateTime, nullable=False, index=True),
        Column("model_version", String(255), nullable=False),
        Column("prompt_version", String(32), nullable=False),
        Column("software_version", String(64), nullable=False),
        Column("device", String(64), nullable=False),
    ]


inspections = Table(
    "inspections",
    metadata,
    *_origin(),
    Column("policy_version", String(255), nullable=False),
    Column("risk_level", String(16), nullable=False),
    Column("action", String(32), nullable=False),
    Column("degraded", Boolean, nullable=False),
    Column("answer", JSON, nullable=False),
    Column("scores", JSON, nullable=False),
    sqlite_autoincrement=True,
)

questions = Table(
    "questions",
    metadata,
    *_origin(),
    Column("question", Text, nullable=False),
    Column("answer", JSON, nullable=False),
    sqlite_autoincrement=True,
)

events = Table(
    "events",
    metadata,
    Column("sequence", Integer, primary_key=True, autoincrement=True),
    Column("kind", String(16), nullable=False, index=True),
    Column("audit_id", String(32), index=True),
    Column("recorded_at", UtcDateTime, nullable=False),
    Column("body", JSON, nullable=False),
    sqlite_autoincrement=True,
)
