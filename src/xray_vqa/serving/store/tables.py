"""The tables of the audit store. Alembic makes and changes them; what stands here is what the code reads and writes."""

from sqlalchemy import BigInteger, Boolean, Column, Index, Integer, MetaData, String, Table, Text

metadata = MetaData()

_SEQUENCE = BigInteger().with_variant(Integer, "sqlite")
_NAME = String(64).with_variant(String(64, collation="C"), "postgresql")
"""Compared byte by byte, so that a range of names with the same beginning can be read from an index."""

records = Table(
    "records",
    metadata,
    # Given out by chain.py without gaps, so that a row that is taken away is missed, and two writers can never fork.
    Column("sequence", _SEQUENCE, primary_key=True, autoincrement=False),
    Column("kind", String(16), nullable=False, index=True),
    Column("audit_id", String(32), nullable=False, index=True),
    Column("recorded_at", String(32), nullable=False),
    # What records are found by. They repeat what the body says, and go with it when a record is erased.
    Column("scan_id", String(64), index=True),
    Column("principal", String(128)),
    Column("lane", String(64)),
    Column("image_hash", String(64), index=True),
    Column("body", Text),
    Column("body_hash", String(64), nullable=False),
    Column("previous_hash", String(64), nullable=False),
    Column("row_hash", String(64), nullable=False),
    Column("seal", String(64), nullable=False),
)
"""One chain of all that happened. Rows are added; only erasing takes the body out of one (see retention.py)."""

summaries = Table(
    "summaries",
    metadata,
    Column("sequence", _SEQUENCE, primary_key=True, autoincrement=False),
    Column("audit_id", String(32), nullable=False, index=True),
    Column("recorded_at", String(32), nullable=False),
    Column("scan_id", _NAME, nullable=False, index=True),
    Column("lane", String(64), nullable=False),
    Column("action", String(32), nullable=False),
    Column("degraded", Boolean, nullable=False),
    Column("processing_time_ms", Integer, nullable=False),
    Column("standing", String(16), nullable=False),
    Index("ix_summaries_action", "action", "sequence"),
    Index("ix_summaries_lane", "lane", "sequence"),
    Index("ix_summaries_standing", "standing", "sequence"),
    Index("ix_summaries_recorded_at", "recorded_at", "action"),
)
"""What answers are listed by: one row for each record of kind `result`, made of it. It is no evidence and can be made
anew from the chain; whatever a list tells beyond it is read from the records themselves."""

sightings = Table(
    "sightings",
    metadata,
    Column("category", String(64), primary_key=True),
    Column("sequence", _SEQUENCE, primary_key=True, autoincrement=False, index=True),
)
"""Which answers have a finding of a category; made of the records like the summaries."""
