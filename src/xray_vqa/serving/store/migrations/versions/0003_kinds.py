"""Records are found by their kind: keys and stop switches are read every few seconds."""

from alembic import op

revision = "0003_kinds"
down_revision = "0002"


def upgrade() -> None:
    op.create_index("ix_records_kind", "records", ["kind"])
