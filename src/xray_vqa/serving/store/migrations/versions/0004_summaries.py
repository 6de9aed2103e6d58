"""Answers can be listed: by time, lane, action and category, and those that a person still has to decide about."""

import json

import sqlalchemy as sa
from alembic import op

revision = "0004_summaries"
down_revision = "0003_kinds"

_AT_ONCE = 2000


def upgrade() -> None:
    sequence = sa.BigInteger().with_variant(sa.Integer, "sqlite")
    name = sa.String(64).with_variant(sa.String(64, collation="C"), "postgresql")
    summaries = op.create_table(
        "summaries",
        sa.Column("sequence", sequence, primary_key=True, autoincrement=False),
        sa.Column("audit_id", sa.String(32), nullable=False, index=True),
        sa.Column("recorded_at", sa.String(32), nullable=False),
        sa.Column("scan_id", name, nullable=False, index=True),
        sa.Column("lane", sa.String(64), nullable=False),
        sa.Column("action", sa.String(32), nullable=False),
        sa.Column("degraded", sa.Boolean, nullable=False),
        sa.Column("processing_time_ms", sa.Integer, nullable=False),
        sa.Column("standing", sa.String(16), nullable=False),
    )
    op.create_index("ix_summaries_action", "summaries", ["action", "sequence"])
    op.create_index("ix_summaries_lane", "summaries", ["lane", "sequence"])
    op.create_index("ix_summaries_standing", "summaries", ["standing", "sequence"])
    op.create_index("ix_summaries_recorded_at", "summaries", ["recorded_at", "action"])
    sightings = op.create_table(
        "sightings",
        sa.Column("category", sa.String(64), primary_key=True),
        sa.Column("sequence", sequence, primary_key=True, autoincrement=False, index=True),
    )
    connection = op.get_bind()
    records = sa.table(
        "records", *map(sa.column, ("sequence", "kind", "audit_id", "recorded_at", "scan_id", "lane", "body"))
    )
    c, last = records.c, 0
    said = sa.select(c.audit_id).where(c.kind.in_(("feedback", "override")))
    decided = set(connection.execute(said).scalars())
    while True:
        results = (
            sa.select(c.sequence, c.audit_id, c.recorded_at, c.scan_id, c.lane, c.body)
            .where(c.kind == "result", c.body.is_not(None), c.sequence > last)
            .order_by(c.sequence)
            .limit(_AT_ONCE)
        )
        rows = connection.execute(results).all()
        if not rows:
            return
        last = rows[-1].sequence
        listed: list[dict[str, object]] = []
        seen: list[dict[str, object]] = []
        for row in rows:
            record = json.loads(row.body)["record"]
            standing = "none" if record["action"] == "clear" else "open"
            listed.append(
                {
                    "sequence": row.sequence,
                    "audit_id": row.audit_id,
                    "recorded_at": row.recorded_at,
                    "scan_id": row.scan_id,
                    "lane": row.lane or "default",
                    "action": record["action"],
                    "degraded": record["degraded"],
                    "processing_time_ms": record["answer"].get("processing_time_ms", 0),
                    "standing": "closed" if row.audit_id in decided else standing,
                }
            )
            found = dict.fromkeys(finding["category"] for finding in record["answer"].get("findings", ()))
            seen.extend({"category": category, "sequence": row.sequence} for category in found)
        op.bulk_insert(summaries, listed)
        op.bulk_insert(sightings, seen)
