"""Takes the bodies out of records that are older than they have to be kept, and says so in the chain.

What stays of a record is its number, kind, time and hashes: the chain can be verified as before. A tombstone names the
rows; a row without a body that none names is a fault.
"""

from datetime import UTC, datetime, timedelta

from sqlalchemy import Engine, Select, select, text, update

from xray_vqa.serving.store.audit import ChainWriter
from xray_vqa.serving.store.database import prepare, writing
from xray_vqa.serving.store.images import ImageStore
from xray_vqa.serving.store.keys import SigningKey
from xray_vqa.serving.store.listing import forget_answers
from xray_vqa.serving.store.reading import opened, reading
from xray_vqa.serving.store.records import Tombstone
from xray_vqa.serving.store.tables import records

_STRUCTURE = ("key", "checkpoint", "tombstone", "api_key", "stop")
"""Kinds that hold nothing of a scan. Without them a chain says less, a key opens nothing, and what was stopped runs."""
_ROWS_AT_ONCE = 50_000
"""Rows of one transaction: other writers wait for it."""


def erase_older_records(url: str, key: SigningKey, days: int) -> int:
    """Erase the bodies of records that are older than some days, and return how many. Raises as `reading.opened`."""
    c, erased = records.c, 0
    wanted = select(c.sequence).where(
        c.recorded_at < _days_ago(days), c.body.is_not(None), c.kind.not_in(_STRUCTURE)
    )  # fmt: skip
    with opened(url) as engine:
        prepare(engine, key)
        while rows := _erase_some(engine, key, wanted, f"older than {days} days"):
            erased += rows
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            # Until then the bodies still stand in the log, or in pages that nobody has swept.
            sweep = "PRAGMA wal_checkpoint(TRUNCATE)" if engine.dialect.name == "sqlite" else "VACUUM records"
            connection.exec_driver_sql(sweep)
    return erased


def _erase_some(engine: Engine, key: SigningKey, wanted: Select[int], reason: str) -> int:
    """Erase some rows in one transaction with their tombstone, and return how many."""
    with writing(engine) as connection:
        if engine.dialect.name == "sqlite":
            connection.exec_driver_sql("PRAGMA secure_delete=ON")
        else:
            connection.execute(text("SET LOCAL statement_timeout = 0"))
        rows = list(connection.execute(wanted.order_by(records.c.sequence).limit(_ROWS_AT_ONCE)).scalars())
        if not rows:
            return 0
        ranges = _ranges(rows)
        ChainWriter(connection, key).append("tombstone", Tombstone(rows=ranges, reason=reason))
        gone = dict.fromkeys(("body", "scan_id", "principal", "lane", "image_hash"))
        for first, last in ranges:
            connection.execute(update(records).where(records.c.sequence.between(first, last)).values(**gone))
        forget_answers(connection, ranges)
    return len(rows)


def erase_older_images(url: str, images: ImageStore, days: int) -> int:
    """Delete the images that no record of the last days names, and return how many. Raises as `reading.reading`."""
    before, deleted = _days_ago(days), 0
    with reading(url) as connection:
        for image_hash in images.hashes():
            named = select(records.c.sequence).where(
                records.c.image_hash == image_hash, records.c.recorded_at >= before
            )
            if connection.execute(named.limit(1)).first() is None:
                images.delete(image_hash)
                deleted += 1
    return deleted


def _days_ago(days: int) -> str:
    return (datetime.now(UTC) - timedelta(days=days)).isoformat(timespec="microseconds")


def _ranges(rows: list[int]) -> tuple[tuple[int, int], ...]:
    """Return ascending numbers as ranges with both ends."""
    ranges: list[list[int]] = []
    for row in rows:
        if ranges and ranges[-1][1] == row - 1:
            ranges[-1][1] = row
        else:
            ranges.append([row, row])
    return tuple((first, last) for first, last in ranges)
