"""Inspections and questions, a table each, as the first version of the service made them without Alembic."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "inspections",
        *_origin(),
        sa.Column("policy_version", sa.String(255), nullable=False),
        sa.Column("risk_level", sa.String(16), nullable=False),
        sa.Column("action", sa.String(32), nullable=False),
        sa.Column("degraded", sa.Boolean, nullable=False),
        sa.Column("answer", sa.JSON, nullable=False),
        sa.Column("scores", sa.JSON, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "questions",
        *_origin(),
        sa.Column("question", sa.Text, nullable=False),
        sa.Column("answer", sa.JSON, nullable=False),
        sqlite_autoincrement=True,
    )


def _origin() -> list[sa.Column]:
    return [
        sa.Column("sequence", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("audit_id", sa.String(32), nullable=False, unique=True),
        sa.Column("scan_id", sa.String(64), nullable=False, index=True),
        sa.Column("request_id", sa.String(64), nullable=False),
        sa.Column("fingerprint", sa.String(64), nullable=False),
        sa.Column("received_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("recorded_at", sa.DateTime(timezone=True), nullable=False, index=True),
        sa.Column("model_version", sa.String(255), nullable=False),
        sa.Column("prompt_version", sa.String(32), nullable=False),
        sa.Column("software_version", sa.String(64), nullable=False),
        sa.Column("device", sa.String(64), nullable=False),
    ]
