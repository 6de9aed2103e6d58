"""The audit store: an answer is durable here before anyone gets it.

SQLite in WAL mode with synchronous=FULL: acknowledged rows outlive a power cut, which NORMAL does not promise.
"""

import logging
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple

from sqlalchemy import Engine, Table, delete, false, insert, select
from sqlalchemy.exc import SQLAlchemyError

from xray_vqa.core.records import Strict
from xray_vqa.errors import XrayVqaError
from xray_vqa.serving.store.database import connect, prepare, sqlite_path, store_url, writing
from xray_vqa.serving.store.tables import events, inspections, questions

logger = logging.getLogger(__name__)


class AuditUnavailable(XrayVqaError):
    """The store cannot be written or read now. Its cause is in the log and not in the message."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where an answer comes from: the request, and everything that could have made it another one."""

    audit_id: str
    scan_id: str
    request_id: str
    fingerprint: str
    received_at: datetime
    recorded_at: datetime
    model_version: str
    prompt_version: str
    software_version: str
    device: str


@dataclass(frozen=True, slots=True)
class InspectionRecord:
    """One inspection as it is written down."""

    origin: Origin
    policy_version: str
    risk_level: str
    action: str
    degraded: bool
    answer: Mapping[str, Any]
    """As it goes out."""
    scores: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class QuestionRecord:
    """One free question and its answer as they are written down."""

    origin: Origin
    question: str
    answer: Mapping[str, Any]


class Event(NamedTuple):
    """A record that is no inspection: what people did."""

    recorded_at: datetime
    audit_id: str | None
    """Of the inspection that it is about."""
    record: Mapping[str, Any]


class AuditStore:
    """Writes answers down. Blocking; the caller keeps it off the event loop.

    The store is opened with the first use and again after a failure, so a full disk or a missing folder needs no
    restart once it is mended.

    Raises:
        ConfigError: The address is none of SQLite or PostgreSQL, or names a store in memory, which is none.
    """

    def __init__(self, url: str) -> None:
        self._url = store_url(url)
        self._path = sqlite_path(self._url)
        self._lock = threading.Lock()
        self._engine: Engine | None = None
        self._inode: int | None = None
        self._closed = False

    def write(self, record: InspectionRecord | QuestionRecord) -> None:
        """Return when the record is on disk. Raises AuditUnavailable where it is not."""
        table, values = _row_of(record)
        with self._lock:
            try:
                with writing(self._opened()) as connection:
                    connection.execute(insert(table), values)
            except (SQLAlchemyError, OSError) as error:
                raise self._failed("write", error) from error

    def newest(self, scan_id: str) -> InspectionRecord | None:
        """Return the newest inspection of a scan. Raises AuditUnavailable."""
        query = (
            select(inspections).where(inspections.c.scan_id == scan_id).order_by(inspections.c.sequence.desc()).limit(1)
        )
        with self._lock:
            try:
                with self._opened().connect() as connection:
                    row = connection.execute(query).mappings().first()
            except (SQLAlchemyError, OSError) as error:
                raise self._failed("read", error) from error
        return _record_of({str(name): value for name, value in row.items()}) if row else None

    def add(self, kind: str, record: Strict, *, audit_id: str | None = None) -> Event:
        """Return a record of a kind when it is on disk. Raises AuditUnavailable where it is not."""
        event = Event(datetime.now(UTC), audit_id, record.model_dump(mode="json"))
        values = {"kind": kind, "audit_id": audit_id, "recorded_at": event.recorded_at, "body": event.record}
        with self._lock:
            try:
                with writing(self._opened()) as connection:
                    connection.execute(insert(events), values)
            except (SQLAlchemyError, OSError) as error:
                raise self._failed("write", error) from error
        return event

    def read(self, kind: str, *, audit_id: str | None = None) -> list[Event]:
        """Return the records of a kind, oldest first; those of one inspection. Raises AuditUnavailable."""
        c = events.c
        query = select(c.recorded_at, c.audit_id, c.body).where(c.kind == kind).order_by(c.sequence)
        if audit_id is not None:
            query = query.where(c.audit_id == audit_id)
        with self._lock:
            try:
                with self._opened().connect() as connection:
                    return [Event(*row) for row in connection.execute(query)]
            except (SQLAlchemyError, OSError) as error:
                raise self._failed("read", error) from error

    def check(self) -> None:
        """Raise AuditUnavailable where a record could not be written now."""
        with self._lock:
            try:
                with self._opened().connect() as connection:
                    # A write that changes nothing: a read-only file, folder or disk refuses it all the same.
                    connection.execute(delete(inspections).where(false()))
                    connection.rollback()
            except (SQLAlchemyError, OSError) as error:
                raise self._failed("check", error) from error

    def close(self) -> None:
        """Close the connections; later calls raise AuditUnavailable."""
        with self._lock:
            self._closed = True
            self._dispose()

    def _opened(self) -> Engine:
        if self._closed:
            raise OSError("the audit store is closed")
        if self._engine is not None and self._file_inode() != self._inode:
            # SQLite would go on writing into a file that no longer has a name.
            logger.error("%s was removed or replaced while in use; a new audit store is begun there", self._path)
            self._dispose()
        if self._engine is None:
            if self._path:
                self._path.parent.mkdir(parents=True, exist_ok=True)
            engine = connect(self._url)
            try:
                prepare(engine)
            except BaseException:
                engine.dispose()
                raise
            self._engine, self._inode = engine, self._file_inode()
        return self._engine

    def _file_inode(self) -> int | None:
        with suppress(OSError):
            return self._path.stat().st_ino if self._path else None
        return None

    def _dispose(self) -> None:
        if self._engine is not None:
            self._engine.dispose()
        self._engine = None

    def _failed(self, what: str, error: Exception) -> AuditUnavailable:
        # Without the statement and its parameters, which SQLAlchemy's own text would put into the log.
        logger.error(
            "audit store %s: cannot %s: %s", self._url.render_as_string(), what, getattr(error, "orig", None) or error
        )
        self._dispose()
        return AuditUnavailable("the audit store is not available")


def _row_of(record: InspectionRecord | QuestionRecord) -> tuple[Table, dict[str, Any]]:
    values = asdict(record)
    origin = values.pop("origin")
    return (inspections if isinstance(record, InspectionRecord) else questions), {**origin, **values}


def _record_of(row: Mapping[str, Any]) -> InspectionRecord:
    origin = Origin(**{name: row[name] for name in Origin.__slots__})
    names = (name for name in InspectionRecord.__slots__ if name != "origin")
    return InspectionRecord(origin=origin, **{name: row[name] for name in names})
