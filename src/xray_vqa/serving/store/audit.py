"""The audit store: a scan is on record here before the engine gets it, and its answer before anyone else does.

One thread writes. What waits for it shares a transaction, so that a slow disk costs a wait and no throughput. In the
database a lock lets one writer at a time extend the chain, whichever process or host it is in.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, Select, false, insert, select
from sqlalchemy.exc import SQLAlchemyError

from xray_vqa.core.inspection import Action
from xray_vqa.core.manifest import package_version
from xray_vqa.core.records import Strict
from xray_vqa.errors import ConfigError, XrayVqaError
from xray_vqa.serving.store import owners
from xray_vqa.serving.store.anchors import Anchors
from xray_vqa.serving.store.chain import EMPTY, FoundBy, Head, Row, head_of, next_row
from xray_vqa.serving.store.database import beside, connect, prepare, sqlite_path, store_url, writing
from xray_vqa.serving.store.keys import Checkpoint, SigningKey
from xray_vqa.serving.store.listing import Standing, list_answer, set_standing
from xray_vqa.serving.store.records import InspectionRecord, Intent, Opened, QuestionRecord, Stored
from xray_vqa.serving.store.tables import records

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

CLEAR_HOLDS = timedelta(minutes=10)
"""How long a clear may be given again for the same scan."""
CHECKPOINT_S = 60.0
"""The head is signed this often, if anything was written."""
_LOOK_BACK = 100_000
"""Rows among which open intents are looked for at the start; every server closes them within seconds."""
_CLOSE_TIMEOUT_S = 10.0
_MAX_GROUP = 64
"""Records that share a transaction."""
_SLOW_FAILURE_S = 0.5
_REST_S = 1.0
"""After a failure that took longer than the former, the store is left alone for the latter: callers would queue up."""
_CLOCK_TOLERANCE = timedelta(seconds=2)
"""What the clocks of two servers may differ by."""


class AuditUnavailable(XrayVqaError):
    """The store cannot be written or read now. Its cause is in the log and not in the message."""


class ScanInFlight(XrayVqaError):
    """The same scan is being inspected."""


class OtherPayload(XrayVqaError):
    """The scan_id stands for another image or declaration."""


@dataclass(slots=True, eq=False)
class _Job:
    work: "Callable[[ChainWriter], Any]"
    future: "Future[Any]" = field(default_factory=Future)
    submitted_at: float = field(default_factory=time.monotonic)


class ChainWriter:
    """Reads and extends the chain within one transaction."""

    def __init__(self, connection: Connection, key: SigningKey) -> None:
        self._key = key
        self.connection = connection
        self.head = read_head(connection)

    def append(self, kind: str, record: Strict, *, audit_id: str | None = None, found_by: FoundBy | None = None) -> Row:
        """Return the row that a record got."""
        row = next_row(self.head, self._key.seal, kind, audit_id, record.model_dump(mode="json"), found_by)
        self.connection.execute(insert(records), row._asdict())
        self.head = head_of(row)
        return row

    def checkpoint(self) -> Checkpoint:
        """Sign the head, put the statement behind it and return it."""
        checkpoint = self._key.sign(self.head)
        self.append("checkpoint", checkpoint)
        return checkpoint

    def result_of(self, audit_id: str) -> Row | None:
        """Return the row that closes an intent."""
        query = select(records).where(records.c.audit_id == audit_id, records.c.kind == "result").limit(1)
        return row_or_none(self.connection.execute(query).first())

    def newest_intent(self, intent: Intent) -> Row | None:
        """Return the newest intent under the same scan_id, key and lane."""
        c, origin = records.c, intent.origin
        query = (
            select(records)
            .where(c.scan_id == origin.scan_id, c.principal == origin.principal, c.lane == origin.lane)
            .where(c.kind == "intent")
            .order_by(c.sequence.desc())
            .limit(1)
        )
        return row_or_none(self.connection.execute(query).first())

    def was_doubted(self, stored: Stored) -> bool:
        """Return whether a person has thrown a stop switch since an answer, or overruled it."""
        c = records.c
        overruled = (c.kind == "override") & (c.audit_id == stored.record.origin.audit_id)
        query = select(c.sequence).where(c.sequence > stored.sequence, (c.kind == "stop") | overruled).limit(1)
        return self.connection.execute(query).first() is not None

    def open_intents(self, after: int) -> list[Row]:
        """Return the intents behind a row that no result closes."""
        closing = records.alias()
        closed = select(closing.c.sequence).where(closing.c.audit_id == records.c.audit_id, closing.c.kind == "result")
        query = (
            select(records)
            .where(records.c.sequence > after, records.c.kind == "intent", records.c.body.is_not(None))
            .where(~closed.exists())
            .order_by(records.c.sequence)
        )
        return [Row(*row) for row in self.connection.execute(query)]


class AuditStore:
    """Writes down what happens. What is written returns a future, done when the record is on disk.

    The store is opened with the first use and again after a failure, so a full disk or a database that was away needs
    no restart once it is mended.

    Args:
        url: SQLite or PostgreSQL.
        interrupted: Makes the record of a scan that nobody answered, for `housekeep` and for whoever asks again. None
            in a process that inspects nothing, which leaves such scans to others.
        key_path: The key that seals the chain; made where there is none. By default beside the database.
        anchors: Where checkpoints are kept too. By default a file beside the database.

    Raises:
        ConfigError: The address is none of SQLite or PostgreSQL, or names a store in memory, which is none.
    """

    def __init__(
        self,
        url: str,
        interrupted: Callable[[Intent], InspectionRecord] | None = None,
        *,
        key_path: Path | None = None,
        anchors: str | None = None,
    ) -> None:
        self._url = store_url(url)
        self._path = sqlite_path(self._url)
        self._key_path = key_path or beside(self._url, ".key")
        self._interrupted = interrupted
        self.anchors = Anchors(anchors or str(beside(self._url, ".anchors.jsonl")))
        self.owner = owners.this_process()
        self._opening = threading.RLock()
        self._engine: Engine | None = None
        self._key: SigningKey | None = None
        self._inode: int | None = None
        self._proven = False
        self._rest_until = 0.0
        self._in_flight: set[str] = set()
        self._closed_up_to = 0
        self._signed_at = 0.0
        self.signed_at: float | None = None
        """When the whole chain was last known to be signed, in seconds since 1970; None where that was before us."""
        self.was_set_back = False
        """Whether an anchor names a row that the store lacks."""
        self.on_written: Callable[[Sequence[float]], None] = lambda _: None
        """Told of each transaction, on the writer's thread: the seconds that each of its records took to be on disk."""
        self._unanchored: Checkpoint | None = None
        self._jobs: deque[_Job] = deque()
        self._writing_since: float | None = None
        self._wake = threading.Condition()
        self._closing = self._closed = False
        self._writer = threading.Thread(target=self._run, name="audit", daemon=True)
        self._writer.start()

    def open(self) -> None:
        """Open the store now, and make or update its tables.

        Raises:
            ConfigError: It is of another version, or was begun with another key: nothing that waiting mends.
            AuditUnavailable: It cannot be reached or written now.
        """
        try:
            self._opened()
        except (SQLAlchemyError, OSError) as error:
            raise self._failed("open", error) from error

    def claim(self, intent: Intent) -> "Future[Stored | None]":
        """Write an intent down and return None, or the answer that this scan has already.

        Call `release` when nobody works on the scan any more, whatever came of it.

        Raises (through the future):
            ScanInFlight: The same scan is being inspected.
            OtherPayload: The scan_id stands for another image or declaration.
            AuditUnavailable: Nothing was written.
        """
        self._in_flight.add(intent.origin.audit_id)
        return self._submit(lambda chain: self._claim(chain, intent))

    def release(self, audit_id: str) -> None:
        """Say that this process does not work on a scan any more."""
        self._in_flight.discard(audit_id)

    def conclude(self, record: InspectionRecord) -> "Future[Stored]":
        """Write an answer down and return it, or the one that has closed the intent meanwhile."""
        return self._submit(lambda chain: self._conclude(chain, record))

    def add_late(self, record: InspectionRecord) -> "Future[Row]":
        """Write down what the engine said of a scan that had been answered without it."""
        return self._submit(lambda chain: _append(chain, "late", record))

    def add_question(self, record: QuestionRecord) -> "Future[Row]":
        """Write a question and its answer down."""
        return self._submit(lambda chain: _append(chain, "question", record))

    def add(
        self, kind: str, record: Strict, *, audit_id: str | None = None, found_by: FoundBy | None = None
    ) -> "Future[Row]":
        """Write down what people did: a record of a kind, under the audit_id of the inspection that it is about."""
        return self._submit(lambda chain: chain.append(kind, record, audit_id=audit_id, found_by=found_by))

    def add_judgement(
        self,
        kind: str,
        record: Strict,
        audit_id: str,
        found_by: FoundBy,
        standing: "Callable[[Sequence[Row]], Standing]",
    ) -> "Future[Row]":
        """Write down what a person says of an answer, and by all that was said what people still owe it."""

        def work(chain: ChainWriter) -> Row:
            row = chain.append(kind, record, audit_id=audit_id, found_by=found_by)
            query = select(records).where(records.c.audit_id == audit_id, records.c.body.is_not(None))
            said = [Row(*one) for one in chain.connection.execute(query.order_by(records.c.sequence))]
            set_standing(chain.connection, audit_id, standing(said))
            return row

        return self._submit(work)

    def check(self) -> "Future[None]":
        """Prove that a record could be written now: by one, at the start and after each failure."""
        return self._submit(self._check)

    def newest(
        self,
        scan_id: str,
        lanes: Collection[str] | None = None,
        audit_id: str | None = None,
        *,
        principal: str | None = None,
    ) -> Stored | None:
        """Return the newest inspection of a scan, on some lanes or any, or that of an id. Raises AuditUnavailable."""
        query = select(records).where(records.c.scan_id == scan_id, records.c.kind == "result")
        if audit_id is not None:
            query = query.where(records.c.audit_id == audit_id)
        if principal is not None:
            query = query.where(records.c.principal == principal)
        if lanes is not None:
            query = query.where(records.c.lane.in_(lanes))
        rows = self._select(query.order_by(records.c.sequence.desc()).limit(1))
        return Stored.of(rows[0]) if rows else None

    def read(self, kind: str, audit_id: str | None = None) -> list[Row]:
        """Return the records of a kind, oldest first; those of one inspection. Raises AuditUnavailable."""
        query = select(records).where(records.c.kind == kind, records.c.body.is_not(None))
        if audit_id is not None:
            query = query.where(records.c.audit_id == audit_id)
        return self._select(query.order_by(records.c.sequence))

    def read_all(self, audit_id: str) -> list[Row]:
        """Return the records of every kind under an audit_id, oldest first. Raises AuditUnavailable."""
        query = select(records).where(records.c.audit_id == audit_id, records.c.body.is_not(None))
        return self._select(query.order_by(records.c.sequence))

    def _select(self, query: "Select[Any]") -> list[Row]:
        return self.look(lambda connection: [Row(*row) for row in connection.execute(query)])

    def look(self, work: "Callable[[Connection], Result]") -> Result:
        """Return what some reading of the store gives, in one view of it. Blocking. Raises AuditUnavailable."""
        try:
            with self._opened().connect() as connection:
                return work(connection)
        except (SQLAlchemyError, OSError, ConfigError) as error:
            raise self._failed("read", error) from error

    def housekeep(self, *, sign: bool = False) -> list[Stored]:
        """Close what nobody works on any more, sign the head if that is due and keep the checkpoint elsewhere too.

        Blocking. Raises AuditUnavailable, and TimeoutError where the store does not answer.

        Args:
            sign: Whether the head is signed in any case.

        Returns:
            The inspections that were given to a person.
        """
        sign = sign or time.monotonic() - self._signed_at >= CHECKPOINT_S
        closed, checkpoint = self._submit(lambda chain: self._housekeep(chain, sign)).result(_CLOSE_TIMEOUT_S)
        if sign:
            self._signed_at, self.signed_at = time.monotonic(), time.time()
        self._unanchored = checkpoint or self._unanchored
        if self._unanchored is not None:
            try:
                self.anchors.append(self._unanchored)
                self._unanchored = None
            except (XrayVqaError, OSError) as error:
                logger.error("a checkpoint could not be kept in %s and is tried again: %s", self.anchors.shown, error)
        return closed

    @property
    def is_anchored(self) -> bool:
        """Whether the newest checkpoint is kept outside the database too."""
        return self._unanchored is None

    @property
    def num_waiting(self) -> int:
        """How many records wait to be written."""
        return len(self._jobs)

    @property
    def path(self) -> Path | None:
        """The file that it is in; None where a server keeps it."""
        return self._path

    @property
    def lag_s(self) -> float:
        """How long the oldest record that is not on disk has waited; 0 where none waits."""
        with self._wake:
            begun = [self._writing_since, *(job.submitted_at for job in self._jobs)]
        return max((time.monotonic() - moment for moment in begun if moment is not None), default=0.0)

    def close(self) -> None:
        """Write what waits, sign the head and close; later calls raise AuditUnavailable."""
        if not self._closing:
            with suppress(AuditUnavailable, TimeoutError):
                self.housekeep(sign=True)
        with self._wake:
            self._closing = True
            self._wake.notify_all()
        self._writer.join(_CLOSE_TIMEOUT_S)  # a server that hangs is left to itself
        with self._opening:
            self._closed = True
            self._dispose()

    def _submit(self, work: "Callable[[ChainWriter], Any]") -> "Future[Any]":
        job = _Job(work)
        with self._wake:
            if self._closing:
                job.future.set_exception(AuditUnavailable("the audit store is closed"))
            else:
                self._jobs.append(job)
                self._wake.notify_all()
        return job.future

    def _run(self) -> None:
        while group := self._take():
            self._writing_since = min(job.submitted_at for job in group)
            self._write(group)
            self._writing_since = None

    def _take(self) -> list[_Job]:
        with self._wake:
            while True:
                while not self._jobs and not self._closing:
                    self._wake.wait()
                if not self._jobs:
                    return []
                waiting = [self._jobs.popleft() for _ in range(min(_MAX_GROUP, len(self._jobs)))]
                group = [job for job in waiting if job.future.set_running_or_notify_cancel()]
                if group:
                    return group

    def _write(self, group: list[_Job]) -> None:
        started = time.monotonic()
        if started < self._rest_until:
            for job in group:
                job.future.set_exception(AuditUnavailable("the audit store is not available"))
            return
        try:
            engine = self._opened()
            assert self._key is not None
            with writing(engine) as connection:
                chain = ChainWriter(connection, self._key)
                before = chain.head
                outcomes = [_outcome_of(job, chain) for job in group]
        except Exception as error:  # noqa: BLE001 (whatever it is, the callers are told, and this thread has to live)
            failure = self._failed("write", error)
            if time.monotonic() - started > _SLOW_FAILURE_S:
                self._rest_until = time.monotonic() + _REST_S
            for job in group:
                job.future.set_exception(failure)
            return
        self._proven = self._proven or chain.head != before
        now = time.monotonic()
        self.on_written([now - job.submitted_at for job in group])
        for job, (result, refusal) in zip(group, outcomes, strict=True):
            if refusal is not None:
                job.future.set_exception(refusal)
            else:
                job.future.set_result(result)

    def _claim(self, chain: ChainWriter, intent: Intent) -> Stored | None:
        row = chain.newest_intent(intent)
        if row is not None:
            before = Intent.model_validate(row.record())
            if before.origin.fingerprint != intent.origin.fingerprint:
                raise OtherPayload("the scan_id stands for another image or declaration")
            stored = self._answer_to(chain, row, before)
            if self._may_repeat(chain, stored, intent):
                return stored
        chain.append("intent", intent, audit_id=intent.origin.audit_id, found_by=intent.origin.found_by)
        return None

    def _answer_to(self, chain: ChainWriter, row: Row, intent: Intent) -> Stored:
        """Return what an earlier intent came to, closing one that nobody works on. Raises ScanInFlight."""
        result = chain.result_of(row.audit_id)
        if result is None:
            if not self._is_abandoned(row, intent):
                raise ScanInFlight("the same scan is being inspected")
            assert self._interrupted is not None
            record = self._interrupted(intent)
            result = _append(chain, "result", record)
        return Stored.of(result)

    def _may_repeat(self, chain: ChainWriter, stored: Stored, intent: Intent) -> bool:
        """Whether an answer may be given again: a clear only while nothing has changed that it rests on."""
        record = stored.record
        if record.action != Action.CLEAR.value:
            return True
        now = datetime.now(UTC)
        behind = datetime.fromisoformat(chain.head.recorded_at) - now > _CLOCK_TOLERANCE  # the clock was set back
        same = (record.policy_version, record.origin.model_version) == (
            intent.policy_version, intent.origin.model_version,
        )  # fmt: skip
        return same and not behind and now - stored.recorded_at <= CLEAR_HOLDS and not chain.was_doubted(stored)

    def _conclude(self, chain: ChainWriter, record: InspectionRecord) -> Stored:
        row = chain.result_of(record.origin.audit_id)
        return Stored.of(row or _append(chain, "result", record))

    def _is_abandoned(self, row: Row, intent: Intent) -> bool:
        if intent.owner == self.owner:
            return row.audit_id not in self._in_flight
        now = datetime.now(UTC)
        begun = datetime.fromisoformat(row.recorded_at)
        # From the future: the clock was set back, and nobody can say how much of its time is left.
        return now > intent.deadline or begun - now > _CLOCK_TOLERANCE or owners.is_dead(intent.owner)

    def _housekeep(self, chain: ChainWriter, sign: bool) -> tuple[list[Stored], Checkpoint | None]:
        closed: list[Stored] = []
        closed_up_to = chain.head.sequence
        after = max(self._closed_up_to, chain.head.sequence - _LOOK_BACK)
        for row in chain.open_intents(after) if self._interrupted else ():
            intent = Intent.model_validate(row.record())
            if self._is_abandoned(row, intent):
                closed.append(self._answer_to(chain, row, intent))
            else:
                closed_up_to = min(closed_up_to, row.sequence - 1)
        self._closed_up_to = closed_up_to
        return closed, chain.checkpoint() if sign and not _ends_signed(chain) else None

    def _check(self, chain: ChainWriter) -> None:
        if self._proven:
            # A write that changes nothing: a read-only file, disk or server refuses it all the same.
            nothing = select(records).where(false())
            chain.connection.execute(insert(records).from_select(list(records.c.keys()), nothing))
            return
        newest = self._newest_anchor()
        set_back = newest is not None and _hash_at(chain.connection, newest.sequence) != newest.row_hash
        self.was_set_back = set_back
        if set_back and newest is not None:
            logger.error(
                "the audit store lacks row %d, of which %s has a checkpoint: an older copy stands here, or its end was "
                "cut off; `xray-vqa audit verify` says more", newest.sequence, self.anchors.shown,
            )  # fmt: skip
        opened = Opened(
            software_version=package_version(),
            owner=self.owner,
            newest_anchor=newest.sequence if newest else None,
            set_back=set_back,
        )
        chain.append("opened", opened)

    def _newest_anchor(self) -> Checkpoint | None:
        try:
            return self.anchors.newest()
        except (XrayVqaError, OSError) as error:
            logger.error("the checkpoints in %s cannot be compared with the store: %s", self.anchors.shown, error)
            return None

    def _opened(self) -> Engine:
        with self._opening:
            if self._closed:
                raise OSError("the audit store is closed")
            if self._engine is not None and self._file_inode() != self._inode:
                # SQLite would go on writing into a file that no longer has a name.
                logger.error("%s was removed or replaced while in use; a new audit store is begun there", self._path)
                self._dispose()
            if self._engine is None:
                if self._path:
                    self._path.parent.mkdir(parents=True, exist_ok=True)
                self._key = SigningKey.load_or_make(self._key_path)
                engine = connect(self._url)
                try:
                    prepare(engine, self._key)
                    check_key(engine, self._key)
                except BaseException:
                    engine.dispose()
                    raise
                self._engine, self._inode = engine, self._file_inode()
                self._proven, self._closed_up_to = False, 0
            return self._engine

    def _file_inode(self) -> int | None:
        with suppress(OSError):
            return self._path.stat().st_ino if self._path else None
        return None

    def _dispose(self) -> None:
        with self._opening:
            if self._engine is not None:
                self._engine.dispose()
            self._engine = None

    def _failed(self, what: str, error: Exception) -> AuditUnavailable:
        # Without the statement and its parameters, which SQLAlchemy's own text would put into the log.
        known = isinstance(error, SQLAlchemyError | OSError | XrayVqaError)
        cause = getattr(error, "orig", None) or error
        shown = self._url.render_as_string()
        logger.error("audit store %s: cannot %s: %s", shown, what, cause, exc_info=None if known else error)
        self._proven = False
        self._dispose()
        return AuditUnavailable("the audit store is not available")


def read_head(connection: Connection) -> Head:
    """Return the last row of the chain."""
    c = records.c
    row = connection.execute(select(c.sequence, c.row_hash, c.recorded_at).order_by(c.sequence.desc()).limit(1)).first()
    return Head(*row) if row else EMPTY


def row_or_none(row: Any) -> Row | None:
    """Return a row of the table `records` as one of the chain."""
    return Row(*row) if row is not None else None


def check_key(engine: Engine, key: SigningKey) -> None:
    """Raise ConfigError where the chain was begun with another key."""
    with engine.connect() as connection:
        first = row_or_none(connection.execute(select(records).where(records.c.sequence == 1)).first())
    begun_with = first.record()["key_id"] if first and first.body else "none"
    if begun_with != key.key_id:
        raise ConfigError(
            f"the audit store was begun with the key {begun_with} and this server has {key.key_id}; give it that key "
            "(XRAY_VQA_AUDIT_KEY), or begin a new store and keep the old one"
        )


def _outcome_of(job: _Job, chain: ChainWriter) -> tuple[Any, Exception | None]:
    """Return what a job gives, or its refusal, which has written nothing and spares the others of the group."""
    try:
        return job.work(chain), None
    except (SQLAlchemyError, OSError):
        raise
    except Exception as refusal:  # noqa: BLE001 (a scan in flight, or a record that is no JSON: its caller's to handle)
        return None, refusal


def _append(chain: ChainWriter, kind: str, record: InspectionRecord | QuestionRecord) -> Row:
    row = chain.append(kind, record, audit_id=record.origin.audit_id, found_by=record.origin.found_by)
    if kind == "result" and isinstance(record, InspectionRecord):
        list_answer(chain.connection, row, record)
    return row


def _ends_signed(chain: ChainWriter) -> bool:
    """Whether nothing has happened since the last checkpoint."""
    kind = chain.connection.execute(select(records.c.kind).where(records.c.sequence == chain.head.sequence)).scalar()
    return kind == "checkpoint"


def _hash_at(connection: Connection, sequence: int) -> str | None:
    return connection.execute(select(records.c.row_hash).where(records.c.sequence == sequence)).scalar()
