"""One chain of records in the place of the two tables; what stood in these is moved into it."""

import uuid
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from alembic import context, op

from xray_vqa.serving.store.chain import EMPTY, FORMAT, FoundBy, head_of, next_row

revision = "0002"
down_revision = "0001"

_ORIGIN = ("request_id", "fingerprint", "model_version", "prompt_version", "software_version", "device")


def upgrade() -> None:
    records = op.create_table(
        "records",
        sa.Column(
            "sequence", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=False
        ),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("audit_id", sa.String(32), nullable=False, index=True),
        sa.Column("recorded_at", sa.String(32), nullable=False),
        sa.Column("scan_id", sa.String(64), index=True),
        sa.Column("principal", sa.String(128)),
        sa.Column("lane", sa.String(64)),
        sa.Column("image_hash", sa.String(64), index=True),
        sa.Column("body", sa.Text),
        sa.Column("body_hash", sa.String(64), nullable=False),
        sa.Column("previous_hash", sa.String(64), nullable=False),
        sa.Column("row_hash", sa.String(64), nullable=False),
        sa.Column("seal", sa.String(64), nullable=False),
    )
    key = context.config.attributes["key"]
    begun = {"format": FORMAT, "key_id": key.key_id, "public_key": key.raw_hex}
    row = next_row(EMPTY, key.seal, "key", uuid.uuid4().hex, begun)
    op.bulk_insert(records, [row._asdict()])
    for kind, table in (("result", "inspections"), ("question", "questions")):
        old = sa.Table(table, sa.MetaData(), autoload_with=op.get_bind())
        for values in op.get_bind().execute(sa.select(old).order_by(old.c.sequence)).mappings():
            found_by = FoundBy(scan_id=values["scan_id"], principal="open", lane="default")
            row = next_row(head_of(row), key.seal, kind, values["audit_id"], _record(kind, dict(values)), found_by)
            op.bulk_insert(records, [row._asdict()])
        op.drop_table(table)


def _record(kind: str, values: dict[str, Any]) -> dict[str, Any]:
    origin = {
        "audit_id": values["audit_id"], "scan_id": values["scan_id"], "principal": "open", "lane": "default",
        "received_at": _utc(values["received_at"]), "image_hash": None, **{name: values[name] for name in _ORIGIN},
    }  # fmt: skip
    if kind == "question":
        return {"origin": origin, "question": values["question"], "answer": values["answer"]}
    names = ("policy_version", "risk_level", "action", "degraded", "answer", "scores")
    # When it was first written down: before the chain, which vouches for it from now on alone.
    return {
        "origin": origin, "closed": "answered", "first_recorded_at": _utc(values["recorded_at"]),
        **{name: values[name] for name in names},
    }  # fmt: skip


def _utc(value: datetime) -> str:
    return (value.replace(tzinfo=UTC) if value.tzinfo is None else value).astimezone(UTC).isoformat()
