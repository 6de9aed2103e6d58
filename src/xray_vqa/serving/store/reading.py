"""Reads a store without writing it: rows in order and in one view, however many they are."""

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from sqlalchemy import Connection, Engine, inspect, select, text
from sqlalchemy.exc import SQLAlchemyError

from xray_vqa.core.policy.replay import Recorded
from xray_vqa.errors import ConfigError, DatasetError
from xray_vqa.serving.store.chain import EMPTY, Head, Row
from xray_vqa.serving.store.database import connect, sqlite_path, store_url
from xray_vqa.serving.store.records import Tombstone
from xray_vqa.serving.store.tables import records
from xray_vqa.serving.store.verify import Erased

_AT_ONCE = 2000


@contextmanager
def reading(url: str) -> Generator[Connection]:
    """Give a connection that sees the store as it is now, whatever is written meanwhile.

    Raises:
        ConfigError: The address is none.
        DatasetError: There is no store, or it cannot be read.
    """
    with opened(url) as engine:
        if engine.dialect.name == "postgresql":
            engine = engine.execution_options(isolation_level="REPEATABLE READ")
        with engine.connect() as connection:
            if not inspect(connection).has_table("records"):
                shown = engine.url.render_as_string()
                raise DatasetError(f"{shown}: no audit store, or one of an older version")
            if engine.dialect.name == "postgresql":
                connection.execute(text("SET LOCAL statement_timeout = 0"))
            yield connection


@contextmanager
def opened(url: str) -> Generator[Engine]:
    """Give the engine of a store that exists; whatever the database refuses becomes an error of ours.

    Raises:
        ConfigError: The address is none.
        DatasetError: There is no store, or it cannot be read or written.
    """
    address = store_url(url)
    path = sqlite_path(address)
    if path and not path.is_file():
        raise DatasetError(f"{path}: no such audit store")
    engine = connect(address)
    try:
        yield engine
    except SQLAlchemyError as error:
        cause = getattr(error, "orig", None) or error
        raise DatasetError(f"{address.render_as_string()}: {cause}") from error
    finally:
        engine.dispose()


def rows_of(connection: Connection, first: int = 1, last: int | None = None) -> Iterator[Row]:
    """Return rows by number, both ends included."""
    query = select(records).where(records.c.sequence >= first).order_by(records.c.sequence)
    if last is not None:
        query = query.where(records.c.sequence <= last)
    for part in connection.execution_options(yield_per=_AT_ONCE).execute(query).partitions():
        yield from map(Row._make, part)


def head_before(connection: Connection, sequence: int) -> Head:
    """Return the row before one, as the head of what stands before it."""
    c = records.c
    query = select(c.sequence, c.row_hash, c.recorded_at).where(c.sequence < sequence)
    row = connection.execute(query.order_by(c.sequence.desc()).limit(1)).first()
    return Head(*row) if row else EMPTY


def erased_rows(connection: Connection) -> Erased:
    """Return the rows that tombstones name."""
    query = select(records).where(records.c.kind == "tombstone", records.c.body.is_not(None))
    stones = [Tombstone.model_validate(Row._make(row).record()) for row in connection.execute(query)]
    return Erased(part for stone in stones for part in stone.rows)


def span_of(connection: Connection, since: str | None, until: str | None) -> tuple[int, int]:
    """Return the first and the last row of some time, from `since` on and before `until` (ISO 8601, UTC)."""
    c = records.c
    first = select(c.sequence).order_by(c.sequence).limit(1)
    last = select(c.sequence).order_by(c.sequence.desc()).limit(1)
    if since:
        first = first.where(c.recorded_at >= since)
    if until:
        last = last.where(c.recorded_at < until)
    return connection.execute(first).scalar() or 1, connection.execute(last).scalar() or 0


def inspections_since(url: str, since: datetime) -> Generator[Recorded]:
    """Yield what was inspected from a moment on, in the order of the record.

    Raises:
        ConfigError: There is no such store, or it cannot be read.
    """
    moment = since.astimezone(UTC).isoformat(timespec="microseconds")
    query = select(records).where(records.c.kind == "result", records.c.recorded_at >= moment)
    query = query.where(records.c.body.is_not(None)).order_by(records.c.sequence)
    try:
        with reading(url) as connection:
            for part in connection.execution_options(yield_per=_AT_ONCE).execute(query).partitions():
                for record in (Row._make(row).record() for row in part):
                    yield Recorded(record["answer"], record["scores"])
    except DatasetError as error:
        raise ConfigError(f"{error}; --database-url names it") from error
