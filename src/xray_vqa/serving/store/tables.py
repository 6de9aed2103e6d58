"""The tables of the audit store. Alembic makes and changes them; what stands here is what the code reads and writes."""

from sqlalchemy import BigInteger, Column, Integer, MetaData, String, Table, Text

metadata = MetaData()

records = Table(
    "records",
    metadata,
    # Given out by chain.py without gaps, so that a row that is taken away is missed, and two writers can never fork.
    Column("sequence", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=False),
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
